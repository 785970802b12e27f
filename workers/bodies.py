"""A request's body on its way out: what is long is never copied as a whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Body:
    """What aiohttp is given, and how many bytes that will be."""

    data: bytes | AsyncIterator[bytes | memoryview] | None
    size: int


async def json_body(value: Any) -> Body:
    """The JSON of a value. Its length is counted first, in a thread: not every server takes a body without one."""
    if not _is_long(value):
        content = _dumped(value)
        return Body(content, len(content))
    size = await asyncio.to_thread(lambda: sum(map(len, json_pieces(value))))
    return Body(_one_by_one(json_pieces(value)), size)


def bytes_body(content: bytes | None) -> Body:
    """These bytes; a long body is handed over as the line takes it."""
    if content is None or len(content) <= PIECE_BYTES:
        return Body(content, len(content or b""))
    view = memoryview(content)
    slices = (view[start : start + PIECE_BYTES] for start in range(0, len(view), PIECE_BYTES))
    return Body(_one_by_one(slices), len(content))


def json_pieces(value: Any) -> Iterator[bytes]:
    """The JSON of a value, bit by bit."""
    if isinstance(value, str) and len(value) > PIECE_BYTES:
        yield b'"'
        for start in range(0, len(value), PIECE_BYTES):
            yield _dumped(value[start : start + PIECE_BYTES])[1:-1]
        yield b'"'
    elif isinstance(value, dict) and _is_long(value):
        for number, (name, item) in enumerate(value.items()):
            yield (b"," if number else b"{") + _dumped(name) + b":"
            yield from json_pieces(item)
        yield b"}"
    elif isinstance(value, (list, tuple)) and _is_long(value):
        for number, item in enumerate(value):
            yield b"," if number else b"["
            yield from json_pieces(item)
        yield b"]"
    else:
        yield _dumped(value)


def _is_long(value: Any) -> bool:
    """Whether there is a long text in it."""
    if isinstance(value, str):
        return len(value) > PIECE_BYTES
    if isinstance(value, dict):
        return any(map(_is_long, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_is_long, value))


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


async def _one_by_one(pieces: Iterable[bytes | memoryview]) -> AsyncIterator[bytes | memoryview]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)  # a quick line must not keep everybody else waiting
