"""Size of a picture, read from its header without decoding it, and whether the file is whole.

Own readers rather than an imaging library: they look at some hundred bytes of whatever size of file, while
Pillow reads a WebP or the segments of a JPEG into memory before it tells.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from common.media.sniff import GIF, JPEG, PNG, WEBP, Format

_MAX_PARTS = 100_000  # chunks of a PNG, segments of a JPEG
_TAIL = 65_536  # where the end mark of a file is looked for: some programs append their own data


class Cut(Exception):
    """The picture's file is not whole."""


def read_size(file: BinaryIO, size: int, form: Format) -> tuple[int, int]:
    """Width and height in pixels. Raises Cut where the file has no readable head or no end."""
    try:
        width, height = _READERS[form](file, size)
    except (struct.error, IndexError):
        raise Cut("the picture's head cannot be read") from None
    if width < 1 or height < 1:
        raise Cut("the picture has no size")
    return width, height


def _png(file: BinaryIO, size: int) -> tuple[int, int]:
    head = _at(file, 0, 24)
    if head[12:16] != b"IHDR":
        raise Cut("the picture's head cannot be read")
    place = 8
    for _ in range(_MAX_PARTS):
        length, name = struct.unpack(">I4s", _at(file, place, 8))
        place += length + 12
        if place > size:
            break
        if name == b"IEND":
            width, height = struct.unpack(">II", head[16:24])
            return width, height
    raise Cut("the picture is cut off")


def _jpeg(file: BinaryIO, size: int) -> tuple[int, int]:
    if b"\xff\xd9" not in _at(file, max(0, size - _TAIL), _TAIL):
        raise Cut("the picture is cut off")
    place = 2
    for _ in range(_MAX_PARTS):
        mark, kind, length = struct.unpack(">BBH", _at(file, place, 4))
        if mark != 0xFF:
            break
        if kind == 0xFF:  # filling
            place += 1
        elif kind in _FRAMES:
            height, width = struct.unpack(">HH", _at(file, place + 5, 4))
            return width, height
        else:
            place += 2 + length
    raise Cut("the picture's head cannot be read")


_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame, of any compression


def _gif(file: BinaryIO, size: int) -> tuple[int, int]:
    if not _at(file, max(0, size - 1024), 1024).rstrip(b"\0").endswith(b";"):
        raise Cut("the picture is cut off")
    width, height = struct.unpack("<HH", _at(file, 6, 4))
    return width, height


def _webp(file: BinaryIO, size: int) -> tuple[int, int]:
    head = _at(file, 0, 30)
    if int.from_bytes(head[4:8], "little") + 8 > size:
        raise Cut("the picture is cut off")
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    raise Cut("the picture's head cannot be read")


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


_READERS = {PNG: _png, JPEG: _jpeg, GIF: _gif, WEBP: _webp}
