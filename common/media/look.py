"""Looking at a whole file: what it is, and whether it is all there. Plain functions: run them in a thread."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from common.media.boxes import Broken, read_film
from common.media.pictures import Cut, read_size
from common.media.sniff import HEAD_BYTES, M4A, MOV, MP4, NOT_MEDIA, WAV, Format, sniff

MAX_PIXELS = 200_000_000  # larger than any model makes; more is a decompression bomb


class Unusable(Exception):
    """The file is not media, or absurdly large: it will not do, however often it is brought."""


class Damaged(Exception):
    """The file is empty or cut off: a whole copy may do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """One file as its bytes describe it; None for what they do not tell."""

    kind: str  # image | video | audio
    content_type: str
    extension: str
    width: int | None
    height: int | None
    duration_s: float | None


def inspect(path: Path) -> MediaInfo:
    """Look at a whole file. Raises Unusable (not media, absurd size) or Damaged (empty, cut)."""
    size = path.stat().st_size
    if not size:
        raise Damaged("the file is empty")
    with path.open("rb") as file:
        form = sniff(file.read(HEAD_BYTES))
        if form is None:
            raise Unusable(NOT_MEDIA)
        try:
            return _measured(file, size, form)
        except (Broken, Cut) as error:
            raise Damaged(str(error)) from None


def _measured(file: BinaryIO, size: int, form: Format) -> MediaInfo:
    if form.kind == "image":
        width, height = read_size(file, size, form)
        if width * height > MAX_PIXELS:
            raise Unusable(f"the picture has more than {MAX_PIXELS} pixels")
        return _info(form, width=width, height=height)
    if form in (MP4, MOV, M4A):
        film = read_film(file, size)
        if film.sound_only:
            return _info(M4A, duration_s=film.duration_s)
        return _info(form, width=film.width, height=film.height, duration_s=film.duration_s)
    if form == WAV:
        return _info(form, duration_s=_wav_duration(file, size))
    return _info(form)


def _info(
    form: Format, *, width: int | None = None, height: int | None = None, duration_s: float | None = None
) -> MediaInfo:
    return MediaInfo(
        kind=form.kind,
        content_type=form.content_type,
        extension=form.extension,
        width=width,
        height=height,
        duration_s=duration_s,
    )


def _wav_duration(file: BinaryIO, size: int) -> float | None:
    """Seconds of sound, from the `fmt ` chunk's bytes per second and the length of `data`."""
    rate = 0
    place = 12
    for _ in range(64):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return None
        name, length = struct.unpack("<4sI", head)
        if name == b"fmt ":
            rate = int.from_bytes(file.read(12)[8:12], "little")
        elif name == b"data":
            return round(min(length, size - place - 8) / rate, 3) if rate else None
        place += 8 + length + (length & 1)
    return None
