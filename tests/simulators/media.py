"""What simulated providers make, and the host that they hand out: real PNG and MP4 bytes, different for every job."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import ClassVar

from aiohttp import web
from PIL import Image, ImageDraw

from tests.simulators.frame import Simulator

_SECRET_HEADERS = ("authorization", "x-key", "mj-api-secret")


@dataclass(slots=True)
class File:
    """One file on the host; `make` is called when it is first fetched."""

    name: str
    content_type: str
    make: Callable[[], bytes]
    dies_at: float
    truncated: bool = False


class MediaHost(Simulator):
    """Delivers results at unguessable URLs that die. Notices keys that leak to it in `leaks`."""

    name: ClassVar[str] = "media"

    def __init__(self) -> None:
        super().__init__()
        self.leaks: list[str] = []
        self._files: dict[str, File] = {}

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [web.get("/files/{token}/{name}", self._fetch)]

    def publish(
        self,
        name: str,
        content_type: str,
        make: Callable[[], bytes],
        *,
        lives_s: float = 3600.0,
        truncated: bool = False,
    ) -> str:
        """A URL where the file can be fetched for so long."""
        token = secrets.token_urlsafe(12)
        self._files[token] = File(name, content_type, make, time.time() + lives_s, truncated)
        return f"{self.url}/files/{token}/{name}"

    def content(self, url: str) -> bytes:
        """The very bytes that this URL delivers."""
        return self._files[url.split("/")[-2]].make()

    def expire(self, url: str) -> None:
        """Let a URL be dead from now on."""
        self._files[url.split("/")[-2]].dies_at = 0.0

    async def _fetch(self, request: web.Request) -> web.StreamResponse:
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
        if not file.truncated:
            return web.Response(body=content, content_type=file.content_type)
        response = web.StreamResponse(
            headers={"Content-Type": file.content_type, "Content-Length": str(len(content))}
        )
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        assert request.transport is not None
        request.transport.abort()
        return response


@lru_cache(64)
def png(seed: str, width: int = 256, height: int = 256) -> bytes:
    """A PNG that differs with its seed."""
    return _picture(seed, width, height, "PNG")


@lru_cache(64)
def jpeg(seed: str, width: int = 256, height: int = 256) -> bytes:
    """A JPEG that differs with its seed."""
    return _picture(seed, width, height, "JPEG")


def _picture(seed: str, width: int, height: int, kind: str) -> bytes:
    digest = hashlib.sha256(seed.encode()).digest()
    image = Image.new("RGB", (width, height), tuple(digest[:3]))
    draw = ImageDraw.Draw(image)
    for index in range(6):
        left, top = digest[3 + index] * width // 256, digest[9 + index] * height // 256
        draw.ellipse((left, top, left + width // 3, top + height // 3), fill=tuple(digest[index : index + 3]))
    draw.text((8, 8), seed[:60], fill="white")
    buffer = BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()
