"""What simulated providers make, and the host that they hand out: real PNG and MP4 bytes, different for every job."""

from __future__ import annotations

import hashlib
import secrets
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import ClassVar

from aiohttp import web
from PIL import Image, ImageDraw

from tests.simulators.clip import CLIP, FRAMES, TICKS
from tests.simulators.frame import Simulator, wanted_part

_DROPS = 10
_SECRET_HEADERS = ("authorization", "x-key", "mj-api-secret")
_QUICK: dict[str, dict[str, int]] = {"PNG": {"compress_level": 1}, "WEBP": {"method": 0}}


@dataclass(slots=True)
class File:
    """One file on the host; `make` is called when it is first fetched."""

    name: str
    content_type: str
    make: Callable[[], bytes]
    dies_at: float
    truncated: bool = False
    lasts_s: float = 0.0  # to deliver it, drop by drop


class MediaHost(Simulator):
    """Delivers results at unguessable URLs that die. Notices keys that leak to it in `leaks`."""

    name: ClassVar[str] = "media"

    def __init__(self) -> None:
        super().__init__()
        self.leaks: list[str] = []
        self._files: dict[str, File] = {}

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [web.get("/files/{token}/{name}", self.fetch)]

    def publish(
        self,
        name: str,
        content_type: str,
        make: Callable[[], bytes],
        *,
        lives_s: float = 3600.0,
        truncated: bool = False,
        lasts_s: float = 0.0,
    ) -> str:
        """A URL where the file can be fetched for so long; delivering it takes `lasts_s`."""
        token = secrets.token_urlsafe(12)
        self._files[token] = File(name, content_type, make, time.time() + lives_s, truncated, lasts_s)
        return f"{self.url}/files/{token}/{name}"

    def content(self, url: str) -> bytes:
        """The very bytes that this URL delivers."""
        return self._files[url.split("/")[-2]].make()

    def expire(self, url: str) -> None:
        """Let a URL be dead from now on."""
        self._files[url.split("/")[-2]].dies_at = 0.0

    async def fetch(self, request: web.Request) -> web.StreamResponse:
        """Answer for one file; other servers may keep files of this host, too."""
        leaked = [name for name in _SECRET_HEADERS if name in request.headers]
        if leaked:
            self.leaks.append(f"{leaked[0]} sent to {request.path}")
            return web.Response(status=400, text="credentials sent to a media host")
        file = self._files.get(request.match_info["token"])
        if file is None or file.name != request.match_info["name"]:
            return web.Response(status=404)
        if time.time() > file.dies_at:
            return web.Response(status=403, text="Signature not valid in the specified time frame")
        content = file.make()
        if file.truncated:
            return await _cut(request, file.content_type, content)
        if file.lasts_s:
            return await self._drip(request, file, content)
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{hashlib.md5(content).hexdigest()}"'}
        part = wanted_part(request, len(content)) if _unchanged(request, headers["ETag"]) else None
        if part is None:
            return web.Response(body=content, content_type=file.content_type, headers=headers)
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{len(content)}"
        some = content[part.start : part.stop]
        return web.Response(status=206, body=some, content_type=file.content_type, headers=headers)

    async def _drip(self, request: web.Request, file: File, content: bytes) -> web.StreamResponse:
        """All of it in the end, with a sign of life again and again."""
        response = web.StreamResponse(
            headers={"Content-Type": file.content_type, "Content-Length": str(len(content))}
        )
        await response.prepare(request)
        size = -(-len(content) // _DROPS)
        with suppress(ConnectionError):  # the client may not want to wait
            for start in range(0, len(content), size):
                await response.write(content[start : start + size])
                await self.pause(file.lasts_s / _DROPS)
        return response


def _unchanged(request: web.Request, etag: str) -> bool:
    """Whether a part still belongs to what the client has."""
    return request.headers.get("If-Range", etag) == etag


async def _cut(request: web.Request, content_type: str, content: bytes) -> web.StreamResponse:
    """Half of it, whichever part was asked for."""
    response = web.StreamResponse(headers={"Content-Type": content_type, "Content-Length": str(len(content))})
    await response.prepare(request)
    await response.write(content[: len(content) // 2])
    if request.transport is not None:  # the client may have gone already
        request.transport.abort()
    return response


# ---------------------------------------------------------------- what is made


@lru_cache(64)
def png(seed: str, width: int = 256, height: int = 256) -> bytes:
    """A PNG that differs with its seed."""
    return _picture(seed, width, height, "PNG")


@lru_cache(64)
def jpeg(seed: str, width: int = 256, height: int = 256) -> bytes:
    """A JPEG that differs with its seed."""
    return _picture(seed, width, height, "JPEG")


@lru_cache(64)
def webp(seed: str, width: int = 256, height: int = 256) -> bytes:
    """A WebP that differs with its seed."""
    return _picture(seed, width, height, "WEBP")


@lru_cache(8)
def black(kind: str, width: int, height: int) -> bytes:
    """What a safety checker leaves of a picture; `kind` is jpeg or png."""
    buffer = BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind.upper())
    return buffer.getvalue()


@lru_cache(64)
def mp4(seed: str, duration_s: float = 5.0) -> bytes:
    """A film of that length, 320 x 180, that differs with its seed (in a `free` box, which no player looks at)."""
    frame_ticks = round(duration_s * TICKS / FRAMES)
    film = bytearray(CLIP)
    for box, place, value in (
        (b"stts", 12, frame_ticks),
        (b"mdhd", 16, frame_ticks * FRAMES),
        (b"elst", 8, frame_ticks * FRAMES),
        (b"tkhd", 20, frame_ticks * FRAMES),
        (b"mvhd", 16, frame_ticks * FRAMES),
    ):
        struct.pack_into(">I", film, film.index(box) + 4 + place, value)
    name = seed.encode()
    return bytes(film) + struct.pack(">I4s", len(name) + 8, b"free") + name


def _picture(seed: str, width: int, height: int, kind: str) -> bytes:
    digest = hashlib.sha256(seed.encode()).digest()
    image = Image.new("P", (width, height))  # a byte a pixel: quickly packed
    image.putpalette([*digest[:21], 255, 255, 255])
    draw = ImageDraw.Draw(image)
    for index in range(6):
        left, top = digest[3 + index] * width // 256, digest[9 + index] * height // 256
        draw.ellipse((left, top, left + width // 3, top + height // 3), fill=index + 1)
    draw.text((8, 8), seed[:60], fill=7)
    buffer = BytesIO()
    (image if kind == "PNG" else image.convert("RGB")).save(buffer, kind, **_QUICK.get(kind, {}))
    return buffer.getvalue()
