"""Pictures that clients send: whether they are any, and how large."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, UnidentifiedImageError

_DATA_URL = re.compile(r"data:image/[a-z.+-]+;base64,(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Picture:
    """What its bytes say."""

    kind: str  # png, jpeg, webp …
    width: int
    height: int
    weight: int  # bytes


def from_base64(value: str) -> Picture | None:
    """The picture in bare base64; None where it holds none."""
    try:
        content = base64.b64decode(value, validate=True)
        with Image.open(BytesIO(content)) as image:
            image.verify()
            return Picture((image.format or "").lower(), image.width, image.height, len(content))
    except (binascii.Error, ValueError, UnidentifiedImageError, OSError, SyntaxError):
        return None


def from_data_url(value: str) -> Picture | None:
    """The picture in a data URL; None where it holds none."""
    found = _DATA_URL.fullmatch(value)
    return from_base64(found[1]) if found else None


def is_address(value: str) -> bool:
    """Whether it is a URL that a service would fetch; simulators believe it."""
    return value.startswith(("https://", "http://"))
