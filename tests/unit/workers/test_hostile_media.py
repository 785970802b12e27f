"""Sixty ways in which what a provider's URL leads to is no result: each is refused clearly, quickly, leaving nothing.

Whatever happens is one of three errors, and with it says whether trying again can help. A worker that got one of them
goes on with the next job.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from common.providers.base import Output
from tests.unit.workers.test_media_look import SOUND, box, film, mvhd, picture, png_of, tkhd, track
from workers.http import AioHttp
from workers.media import Limits, SourceExpired, SourceGone, SourceRefused, SourceTrouble, fetch, inspect

LIMITS = Limits(max_bytes=2_000_000, total_s=2.0, idle_s=0.2, pause_s=0.001, resumes=2)
PNG, JPEG = picture("PNG", (64, 48)), picture("JPEG", (64, 48))
FILM = film(mvhd(), track(tkhd(64, 48)))
Behaviour = Callable[[asyncio.StreamWriter], Any]


@dataclass(frozen=True)
class Hostile:
    """What is served, what had been promised, and what has to be said of it."""

    name: str
    serve: bytes | Behaviour
    error: type[Exception]
    says: str = ""
    kind: str = "image"


def body(content: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content) if length is None else length}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + content


def redirect(target: str) -> bytes:
    """An answer that leads elsewhere."""
    return body(b"", f"Location: {target}", status="302 Found")


async def _endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n" + PNG[:33])
    while True:
        writer.write(b"\0" * 65_536)
        await writer.drain()


async def _drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    for letter in PNG:
        writer.write(bytes([letter]))
        await writer.drain()
        await asyncio.sleep(0.05)


async def _silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(5)


async def _stops(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + PNG[:40])
    await writer.drain()
    await asyncio.sleep(5)


async def _hangs_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


REFUSED, TROUBLE, GONE, EXPIRED = SourceRefused, SourceTrouble, SourceGone, SourceExpired
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BOMB = zlib.compress(b"\0" * 1_000_000)
TABLE = [
    # --- not media, whatever is said of it
    Hostile("a page", body(b"<!DOCTYPE html><html>blocked</html>", "Content-Type: image/png"), REFUSED, "neither"),
    Hostile("a page behind a mark", body(b"\xef\xbb\xbf<html>"), REFUSED),
    Hostile("an error in JSON", body(b'{"error":"expired"}', "Content-Type: image/png"), REFUSED),
    Hostile("an error of a bucket", body(b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"), REFUSED),
    Hostile("text", body(b"not found"), REFUSED),
    Hostile("a drawing with scripts", body(b"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>"), REFUSED),
    Hostile("a drawing behind a prolog", body(b"<?xml version='1.0'?>\n<svg/>"), REFUSED),
    Hostile("a document", body(b"%PDF-1.7\n"), REFUSED),
    Hostile("an archive", body(b"PK\x03\x04" + b"\0" * 60), REFUSED),
    Hostile("a packed file", body(gzip.compress(PNG)), REFUSED),
    Hostile("a program for Linux", body(b"\x7fELF" + b"\0" * 60), REFUSED),
    Hostile("a program for Windows", body(b"MZ\x90\0" + b"\0" * 60), REFUSED),
    Hostile("a script", body(b"#!/bin/sh\nrm -rf /\n"), REFUSED),
    Hostile("zeros", body(b"\0" * 500), REFUSED),
    Hostile("a font", body(b"\0\1\0\0\0\x0c\0\x80"), REFUSED),
    Hostile("an old bitmap", body(b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + b"\0" * 60), REFUSED),
    Hostile("nothing", body(b""), TROUBLE, "empty"),
    Hostile("a packed page", body(gzip.compress(b"<html>"), "Content-Encoding: gzip"), REFUSED),
    Hostile("a packed picture", body(gzip.compress(PNG), "Content-Encoding: gzip"), REFUSED),
    Hostile("a packed bomb", body(gzip.compress(b"\0" * 5_000_000), "Content-Encoding: gzip"), REFUSED),
    # --- media that lie
    Hostile("a page behind a picture's mark", body(PNG[:8] + b"<html><script>"), TROUBLE),
    Hostile("a script behind a picture's mark", body(b"GIF89a=1;alert(1);//"), TROUBLE),
    Hostile("only a mark", body(PNG[:8]), TROUBLE),
    Hostile("no width", body(png_of(0, 10, b"")), TROUBLE),
    Hostile("sixty thousand pixels square", body(png_of(60_000, 60_000, BOMB)), REFUSED, "pixels"),
    Hostile("the largest numbers there are", body(png_of(2**31 - 1, 2**31 - 1, b"")), REFUSED, "pixels"),
    Hostile("half a picture", body(PNG[: len(PNG) // 2]), TROUBLE),
    Hostile("a picture without its end", body(PNG[:-12]), TROUBLE),
    Hostile("only a JPEG's mark", body(b"\xff\xd8\xff"), TROUBLE),
    Hostile("half a JPEG", body(JPEG[: len(JPEG) // 2]), TROUBLE),
    Hostile("a JPEG that leads nowhere", body(b"\xff\xd8\xff\xe0" + b"\xff" * 300_000 + b"\xff\xd9"), TROUBLE),
    Hostile("a GIF's mark", body(b"GIF89a"), TROUBLE),
    Hostile("half a GIF", body(picture("GIF", (64, 48))[:200]), TROUBLE),
    Hostile("a WebP of another size than it says", body(b"RIFF\xff\xff\xff\x7fWEBPVP8 " + b"\0" * 40), TROUBLE),
    Hostile("a film of nothing", body(box(b"ftyp", b"isom\0\0\0\0")), TROUBLE, kind="video"),
    Hostile("boxes smaller than their head",
            body(box(b"ftyp", b"isom\0\0\0\0") + struct.pack(">I4s", 4, b"moov")), TROUBLE, kind="video"),
    Hostile("boxes larger than the world",
            body(box(b"ftyp", b"isom\0\0\0\0") + struct.pack(">I4sQ", 1, b"moov", 1 << 62)), TROUBLE, kind="video"),
    Hostile("ten thousand boxes", body(box(b"ftyp", b"isom\0\0\0\0") + box(b"free") * 10_000), TROUBLE, kind="video"),
    Hostile("half a film", body(FILM[: len(FILM) // 2]), TROUBLE, kind="video"),
    Hostile("a film for a picture", body(FILM), REFUSED, "promised a picture, and this is a film"),
    Hostile("a picture for a film", body(PNG), REFUSED, "promised a film, and this is a picture", kind="video"),
    Hostile("a sound for a film", body(film(mvhd(), SOUND)), REFUSED, "this is a sound", kind="video"),
    # --- transfers that break
    Hostile("fewer bytes than announced", body(PNG[:500], length=5000), TROUBLE),
    Hostile("fewer announced than there are", body(PNG, length=len(PNG) - 20), TROUBLE),
    Hostile("chunks that end early", CHUNKED + b"40\r\n" + PNG[:64], TROUBLE),
    Hostile("chunks of no number", CHUNKED + b"xyz\r\n" + PNG, TROUBLE),
    Hostile("no end", _endless, REFUSED, "larger than"),
    Hostile("more announced than allowed", body(PNG, length=3_000_000), REFUSED, "larger than"),
    Hostile("a byte now and then", _drip, TROUBLE),
    Hostile("silence in the middle", _stops, TROUBLE),
    Hostile("silence", _silent, TROUBLE),
    Hostile("a line that is cut", _hangs_up, TROUBLE),
    Hostile("no HTTP at all", b"SSH-2.0-OpenSSH_9.6\r\n", TROUBLE),
    Hostile("a negative length", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + PNG, TROUBLE),
    Hostile("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\n" + PNG, TROUBLE),
    Hostile("headers without end", b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"a" * 300_000 + b"\r\n\r\n", TROUBLE),
    Hostile("a part that nobody asked for", body(PNG, "Content-Range: bytes 5-9/100", status="206 Part"), TROUBLE),
    Hostile("no content", body(b"", status="204 No Content"), TROUBLE),
    Hostile("gone", body(b"", status="410 Gone"), EXPIRED, "410"),
    Hostile("forbidden", body(b"<Error/>", status="403 Forbidden"), GONE, "403"),
    Hostile("in trouble", body(PNG, status="500 Oops"), TROUBLE, "500"),
    # --- ways that lead elsewhere
    Hostile("to a file of ours", redirect("file:///etc/passwd"), REFUSED),
    Hostile("to another protocol", redirect("ftp://example.com/1.png"), REFUSED),
    Hostile("to an old protocol", redirect("gopher://127.0.0.1:6379/_FLUSHALL"), REFUSED),
    Hostile("to data", redirect("data:image/png;base64," + base64.b64encode(PNG).decode()), REFUSED),
    Hostile("with a password", redirect("http://user:secret@example.com/1.png"), REFUSED),
    Hostile("to no address", redirect("http://[::"), REFUSED),
    Hostile("round and round", redirect("/again"), REFUSED, "redirects"),
    Hostile("to nowhere", body(b"", status="302 Found"), TROUBLE, "302"),
]  # fmt: skip


@pytest.mark.parametrize("hostile", TABLE, ids=lambda hostile: hostile.name)
def test_it_is_refused_and_the_worker_goes_on(raw_server: Any, tmp_path: Path, hostile: Hostile) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if isinstance(hostile.serve, bytes):
            writer.write(hostile.serve)
            await writer.drain()
        else:
            await hostile.serve(writer)

    async def main() -> None:
        http = AioHttp(allow_private=True)
        try:
            async with raw_server(serve) as url:
                output = Output(kind=hostile.kind, url=f"{url}/1.png")
                stored = await fetch(
                    http.downloads, output, allow_private=True, limits=LIMITS, folder=tmp_path
                )
                try:
                    inspect(stored.path, output)
                finally:
                    stored.discard()
        finally:
            await http.close()

    with pytest.raises((SourceRefused, SourceTrouble, SourceGone)) as refused:
        asyncio.run(main())
    assert type(refused.value) is hostile.error, refused.value
    assert hostile.says in str(refused.value)
    assert 0 < len(str(refused.value)) < 200
    assert "secret" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_the_table_is_long() -> None:
    assert len({hostile.name for hostile in TABLE}) == len(TABLE) >= 60
