"""Size and length of an MP4 or QuickTime film, read from its boxes without touching the pictures.

Every read is small and every loop is bounded by the file and by `_MAX_BOXES`, whatever a hostile file claims.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_MAX_BOXES = 4096  # per level
_MAX_TRACKS = 64
_MAX_S = 86_400.0 * 7
_SOUND = b"soun"


class Broken(Exception):
    """The boxes do not add up to the file: it was cut or is no film at all."""


@dataclass(frozen=True, slots=True)
class Film:
    """What the header says; None where it does not."""

    width: int | None
    height: int | None
    duration_s: float | None
    sound_only: bool


@dataclass(frozen=True, slots=True)
class _Box:
    name: bytes
    start: int  # of the content
    end: int


def read_film(file: BinaryIO, size: int) -> Film:
    """Raises Broken where the file is cut or has no film header."""
    moov = _top_level(file, size)
    duration_s: float | None = None
    sizes: list[tuple[int, int]] = []
    handlers: set[bytes] = set()
    for box in _children(file, moov):
        if box.name == b"mvhd":
            duration_s = _header_duration(file, box)
        elif box.name == b"mvex" and not duration_s:
            duration_s = _fragments_duration(file, moov, box)
        elif box.name == b"trak" and len(sizes) < _MAX_TRACKS:
            handler, size_shown = _track(file, box)
            handlers.add(handler)
            sizes.append((0, 0) if handler == _SOUND else size_shown)
    width, height = max(sizes, key=lambda pair: pair[0] * pair[1], default=(0, 0))
    return Film(width or None, height or None, _sane(duration_s), handlers == {_SOUND})


def _top_level(file: BinaryIO, size: int) -> _Box:
    moov: _Box | None = None
    for box in _boxes(file, 0, size):
        if box.end > size and box.name in (b"mdat", b"moov", b"moof"):  # any other is rubbish after the end
            raise Broken("the film is cut off")
        if box.name == b"moov":
            moov = moov or box
    if moov is None:
        raise Broken("the film has no header")
    return moov


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    """The boxes between two places. One that claims too much is given as it is: `_top_level` judges it."""
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        length, name = struct.unpack(">I4s", head[:8])
        content = start + 8
        if length == 1 and len(head) == 16:
            length, content = int.from_bytes(head[8:], "big"), start + 16
        elif length == 0:  # up to the end
            length = end - start
        if start + length < content:
            raise Broken("a box is smaller than its own head")
        yield _Box(name, content, start + length)
        start += length


def _children(file: BinaryIO, parent: _Box) -> Iterator[_Box]:
    """The boxes inside another that really fit into it."""
    return (box for box in _boxes(file, parent.start, parent.end) if box.end <= parent.end)


def _header_duration(file: BinaryIO, box: _Box) -> float | None:
    data = _content(file, box, 32)
    if len(data) >= 32 and data[0] == 1:
        scale, ticks = struct.unpack(">IQ", data[20:32])
    elif len(data) >= 20:
        scale, ticks = struct.unpack(">II", data[12:20])
    else:
        return None
    return ticks / scale if scale else None


def _fragments_duration(file: BinaryIO, moov: _Box, mvex: _Box) -> float | None:
    """A film in fragments says its length in `mehd`, in the ticks of `mvhd`."""
    scale = next((_scale(file, box) for box in _children(file, moov) if box.name == b"mvhd"), 0)
    for box in _children(file, mvex):
        if box.name == b"mehd" and scale:
            data = _content(file, box, 12)
            return int.from_bytes(data[4:12] if data[:1] == b"\x01" else data[4:8], "big") / scale
    return None


def _scale(file: BinaryIO, box: _Box) -> int:
    data = _content(file, box, 24)
    return int.from_bytes(data[20:24] if data[:1] == b"\x01" else data[12:16], "big")


def _track(file: BinaryIO, trak: _Box) -> tuple[bytes, tuple[int, int]]:
    """What a track holds (`vide`, `soun` …, empty if it does not say), and its size as shown."""
    handler, size = b"", (0, 0)
    for box in _children(file, trak):
        if box.name == b"tkhd":
            size = _track_size(_content(file, box, 96))
        elif box.name == b"mdia":
            inner = (inner for inner in _children(file, box) if inner.name == b"hdlr")
            handler = next((_content(file, found, 12)[8:12] for found in inner), b"")
    return handler, size


def _track_size(data: bytes) -> tuple[int, int]:
    matrix = 52 if data[:1] == b"\x01" else 40  # after times and layout, which are longer in version 1
    if len(data) < matrix + 44:
        return 0, 0
    a, b = struct.unpack(">ii", data[matrix : matrix + 8])
    width, height = struct.unpack(">II", data[matrix + 36 : matrix + 44])
    pair = (width >> 16, height >> 16)
    return pair if a or not b else (pair[1], pair[0])  # turned by a quarter


def _content(file: BinaryIO, box: _Box, limit: int) -> bytes:
    file.seek(box.start)
    return file.read(max(0, min(limit, box.end - box.start)))


def _sane(duration_s: float | None) -> float | None:
    return round(duration_s, 3) if duration_s and 0 < duration_s < _MAX_S else None
