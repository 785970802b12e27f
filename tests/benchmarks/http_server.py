"""An HTTP server that costs next to nothing, so that a benchmark measures what it talks to and not the other side.

HTTP/1.1 with kept-alive connections and bodies by Content-Length; nothing else of the standard.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEAD_END = b"\r\n\r\n"
_LARGEST_REQUEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `target` is the path with its query."""

    method: str
    target: str
    body: bytes

    def json(self) -> Any:
        """The parsed body."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class File:
    """An answer that is sent from the disk."""

    path: Path
    content_type: str


Answer = bytes | File
Handler = Callable[[Request], Answer]


def json_answer(value: Any) -> bytes:
    """A whole answer: head and body."""
    body = json.dumps(value).encode()
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )


def not_found() -> bytes:
    """A whole answer."""
    return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


async def serve(handler: Handler, *, latency_s: float = 0.0) -> asyncio.Server:
    """Answer on a port of the loopback that the system chooses; every answer leaves `latency_s` later."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: _Connection(handler, latency_s), "127.0.0.1", 0, backlog=4096)


class _Connection(asyncio.Protocol):
    def __init__(self, handler: Handler, latency_s: float) -> None:
        self._handler, self._latency_s = handler, latency_s
        self._buffer = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (request := self._next()) is not None:
            answer = self._handler(request)
            if self._latency_s:
                self._loop.call_later(self._latency_s, self._send, answer)
            else:
                self._send(answer)
        if len(self._buffer) > _LARGEST_REQUEST:
            self._transport.abort()

    def _next(self) -> Request | None:
        """The next whole request, taken out of the buffer."""
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return None
        head, whole = self._buffer[:end], end + len(_HEAD_END) + _content_length(self._buffer[:end])
        if len(self._buffer) < whole:
            return None
        body = self._buffer[end + len(_HEAD_END) : whole]
        self._buffer = self._buffer[whole:]
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        return Request(method, target, body)

    def _send(self, answer: Answer) -> None:
        if self._transport.is_closing():
            return
        if isinstance(answer, bytes):
            self._transport.write(answer)
        else:
            self._sending = self._loop.create_task(self._send_file(answer))

    async def _send_file(self, answer: File) -> None:
        size = answer.path.stat().st_size
        self._transport.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: {answer.content_type}\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        with answer.path.open("rb") as file:
            await self._loop.sendfile(self._transport, file)


def _content_length(head: bytes) -> int:
    place = head.lower().find(b"\r\ncontent-length:")
    if place < 0:
        return 0
    return int(head[place + 17 :].split(b"\r\n", 1)[0])
