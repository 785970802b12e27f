"""What a fetched file really is, and a small picture of it. Plain functions: run them in a thread."""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import replace
from pathlib import Path

from PIL import Image

from common import media
from common.media import Damaged, MediaInfo, Unusable
from common.providers.base import Output
from workers.media import first_frame
from workers.media.download import StoredFile
from workers.media.errors import SourceRefused, SourceTrouble

THUMBNAIL_SIDE = 512
THUMBNAIL_TYPE = "image/jpeg"
THUMBNAIL_EXTENSION = "jpg"
_A = {"image": "a picture", "video": "a film", "audio": "a sound"}
_SMALLEST_GRID = 4  # pixels a side
_DECODE_PIXELS = 36_000_000  # decoding takes up to 4 bytes a pixel
_DECODE_BYTES = 64 * 1024 * 1024


def inspect(path: Path, promised: Output) -> MediaInfo:
    """Look at a whole file; what its bytes do not tell is as promised.

    Raises SourceRefused (not media, absurd size, something else than was promised), SourceTrouble (empty, cut).
    """
    try:
        found = media.inspect(path)
    except Unusable as error:
        raise SourceRefused(str(error)) from None
    except Damaged as error:
        raise SourceTrouble(str(error)) from None
    if found.kind != promised.kind:
        raise SourceRefused(f"the provider promised {_A[promised.kind]}, and this is {_A[found.kind]}")
    if found.kind == "image":
        return found
    found = replace(found, duration_s=found.duration_s or promised.duration_s)
    if found.kind == "audio":
        return found
    return replace(found, width=found.width or promised.width, height=found.height or promised.height)


def cut(file: StoredFile, tile: int) -> StoredFile:
    """Make the file one quarter of the picture in it: 1 to 4, counted like reading.

    Raises SourceRefused for what cannot be cut.
    """
    try:
        with Image.open(file.path, formats=("PNG", "JPEG", "WEBP")) as image:
            if image.width * image.height > _DECODE_PIXELS or min(image.size) < _SMALLEST_GRID:
                raise SourceRefused("the grid has too many pixels, or too few, to be cut")
            form, (width, height) = image.format, (image.width // 2, image.height // 2)
            left, top = (tile - 1) % 2 * width, (tile - 1) // 2 * height
            part = image.crop((left, top, left + width, top + height))
            part.save(file.path, form, **({"quality": 95} if form == "JPEG" else {"lossless": True}))
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise SourceRefused(f"the grid cannot be cut: {type(error).__name__}") from None
    content = file.path.read_bytes()
    return replace(file, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def thumbnail(path: Path, info: MediaInfo) -> bytes | None:
    """A JPEG of at most 512 pixels a side, of a film its first frame; None: a sound, too big to decode, or damaged."""
    if info.kind == "video":
        return first_frame.of_film(path, info.content_type, THUMBNAIL_SIDE)
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
