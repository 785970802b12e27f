"""What a fetched file really is, and a small picture of it. Plain functions: run them in a thread."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from common.providers.base import Output
from workers.media.boxes import Broken, read_film
from workers.media.errors import SourceRefused, SourceTrouble
from workers.media.pictures import Cut, read_size
from workers.media.sniff import HEAD_BYTES, M4A, MOV, MP4, NOT_MEDIA, WAV, Format, sniff

MAX_PIXELS = 200_000_000  # larger than any model makes; more is a decompression bomb
THUMBNAIL_SIDE = 512
THUMBNAIL_TYPE = "image/jpeg"
THUMBNAIL_EXTENSION = "jpg"
_DECODE_PIXELS = 36_000_000  # decoding takes up to 4 bytes a pixel
_DECODE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """One stored file as its bytes describe it; what they do not tell is as promised, or None."""

    kind: str  # image | video | audio
    content_type: str
    extension: str
    width: int | None
    height: int | None
    duration_s: float | None


def inspect(path: Path, promised: Output) -> MediaInfo:
    """Look at a whole file. Raises SourceRefused (not media, absurd size), SourceTrouble (empty, cut)."""
    size = path.stat().st_size
    if not size:
        raise SourceTrouble("the file is empty")
    with path.open("rb") as file:
        form = sniff(file.read(HEAD_BYTES))
        if form is None:
            raise SourceRefused(NOT_MEDIA)
        try:
            return _measured(file, size, form, promised)
        except (Broken, Cut) as error:
            raise SourceTrouble(str(error)) from None


def _measured(file: BinaryIO, size: int, form: Format, promised: Output) -> MediaInfo:
    if form.kind == "image":
        width, height = read_size(file, size, form)
        if width * height > MAX_PIXELS:
            raise SourceRefused(f"the picture has more than {MAX_PIXELS} pixels")
        return _info(form, width, height, None)
    if form in (MP4, MOV, M4A):
        film = read_film(file, size)
        if film.sound_only:
            return _info(M4A, None, None, film.duration_s or promised.duration_s)
        return _info(
            form,
            film.width or promised.width,
            film.height or promised.height,
            film.duration_s or promised.duration_s,
        )
    if form == WAV:
        return _info(form, None, None, _wav_duration(file, size) or promised.duration_s)
    return _info(form, promised.width, promised.height, promised.duration_s)


def _info(form: Format, width: int | None, height: int | None, duration_s: float | None) -> MediaInfo:
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


def thumbnail(path: Path, info: MediaInfo) -> bytes | None:
    """A JPEG of at most 512 pixels a side, or None: not a picture, too big to decode, or damaged."""
    pixels = (info.width or 0) * (info.height or 0)
    if info.kind != "image" or pixels > _DECODE_PIXELS or path.stat().st_size > _DECODE_BYTES:
        return None
    try:
        return _shrunk(path)
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError):
        return None  # a picture without thumbnail is still a result


def _shrunk(path: Path) -> bytes | None:
    with Image.open(path, formats=("PNG", "JPEG", "GIF", "WEBP")) as image:
        if image.width * image.height > _DECODE_PIXELS:
            return None
        # Without a gap a JPEG is decoded at no more than the size that is wanted: a fourth of the work.
        image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC, reducing_gap=1.0)
        out = io.BytesIO()
        _opaque(image).save(out, "JPEG", quality=82)
        return out.getvalue()


def _opaque(image: Image.Image) -> Image.Image:
    """On white where it was transparent: JPEG has no transparency."""
    if image.mode in ("RGB", "L"):
        return image
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    ground = Image.new("RGBA", layered.size, "white")
    ground.alpha_composite(layered)
    return ground.convert("RGB")
