"""Downloads from servers that are slow, broken, lying or hostile."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import os
import resource
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from common.providers.base import Output
from workers.http import AioHttp
from workers.media import Limits, SourceExpired, SourceGone, SourceRefused, SourceTrouble, StoredFile, fetch

HEAD = b"\x89PNG\r\n\x1a\n"
FILE = HEAD + os.urandom(3_000_000)
QUICK = Limits(idle_s=0.3, total_s=5, pause_s=0.01)


def download(
    url_or_output: str | Output, folder: Path, limits: Limits = QUICK, allow_private: bool = True
) -> Awaitable[StoredFile]:
    async def once() -> StoredFile:
        output = url_or_output
        if isinstance(output, str):
            output = Output(kind="image", url=output)
        http = AioHttp(allow_private=allow_private)
        try:
            return await fetch(
                http.downloads, output, allow_private=allow_private, limits=limits, folder=folder
            )
        finally:
            await http.close()

    return once()


def serve_and_fetch(
    server: Any, handler: Any, folder: Path, limits: Limits = QUICK, path: str = "/x.png"
) -> StoredFile:
    async def main() -> StoredFile:
        async with server(handler) as url:
            return await download(url + path, folder, limits)

    return asyncio.run(main())


def ranged(etag: str | None, cut_after: int, log: list[str | None], lie: str = "") -> Callable[..., Any]:
    """A server of FILE that hangs up after `cut_after` bytes of every answer but the one that fits."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        wanted = fields.get("Range")
        log.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        tag = etag if not (lie == "changed" and wanted) else '"other"'
        if wanted and lie == "ignores range":
            start, wanted = 0, None
        if wanted and lie == "416":
            writer.write(b"HTTP/1.1 416 Nope\r\nContent-Length: 0\r\n\r\n")
            return await writer.drain()
        said = start + 7 if lie == "wrong range" and wanted else start
        status = (
            f"206 Partial\r\nContent-Range: bytes {said}-{len(FILE) - 1}/{len(FILE)}" if wanted else "200 OK"
        )
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(FILE) - start}", "Connection: close"]
        lines += [f"ETag: {tag}"] if tag else []
        writer.write("\r\n".join([*lines, "", ""]).encode() + FILE[start : start + cut_after])
        await writer.drain()
        return None

    return handler


# ---------------------------------------------------------------- good sources


def test_plain(web_server: Any, tmp_path: Path) -> None:
    headers: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        headers.append(request.headers)
        return web.Response(body=FILE)

    stored = serve_and_fetch(web_server, handler, tmp_path, path="/a%2Fb.png?sign=x%2By")
    assert stored.path.read_bytes() == FILE
    assert (stored.bytes, stored.sha256) == (len(FILE), hashlib.sha256(FILE).hexdigest())
    assert not {"Authorization", "Cookie", "Referer", "X-Key"} & set(headers[0])
    stored.discard()
    stored.discard()
    assert list(tmp_path.iterdir()) == []


def test_without_length(web_server: Any, tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(FILE)
        return response

    assert serve_and_fetch(web_server, handler, tmp_path).bytes == len(FILE)


@pytest.mark.parametrize("form", ["{}", "data:image/png;base64,{}"])
def test_base64(tmp_path: Path, form: str) -> None:
    text = form.format(base64.encodebytes(FILE).decode())
    stored = asyncio.run(download(Output(kind="image", base64=text), tmp_path))
    assert stored.path.read_bytes() == FILE


def test_redirects_are_followed(web_server: Any, tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.Response:
        hop = int(request.query.get("hop", 0))
        if hop < 3:
            return web.Response(status=(301, 302, 307)[hop], headers={"Location": f"?hop={hop + 1}"})
        return web.Response(body=FILE)

    assert serve_and_fetch(web_server, handler, tmp_path).bytes == len(FILE)


# ---------------------------------------------------------------- broken transfers


@pytest.mark.parametrize("etag", ['"v1"', None, 'W/"weak"'])
def test_broken_transfer_goes_on(raw_server: Any, tmp_path: Path, etag: str | None) -> None:
    log: list[str | None] = []
    cut = 1_200_000 if etag == '"v1"' else 10_000_000

    async def main() -> StoredFile:
        handlers = [ranged(etag, 1_200_000, log), ranged(etag, cut, log)]

        async def once_bad(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await handlers[0 if not log else 1](reader, writer)

        async with raw_server(once_bad) as url:
            return await download(url, tmp_path)

    stored = asyncio.run(main())
    assert stored.sha256 == hashlib.sha256(FILE).hexdigest()
    if etag == '"v1"':
        assert log[0] is None
        assert all(wanted and wanted != "bytes=0-" for wanted in log[1:])
    else:
        assert log == [None, None]  # nothing proves that both halves are of one file


@pytest.mark.parametrize("lie", ["changed", "ignores range", "416", "wrong range"])
def test_resuming_never_joins_what_does_not_belong(raw_server: Any, tmp_path: Path, lie: str) -> None:
    log: list[str | None] = []

    async def main() -> StoredFile:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            cut = 1_000_000 if not log else len(FILE)
            await ranged('"v1"', cut, log, lie)(reader, writer)

        async with raw_server(handler) as url:
            return await download(url, tmp_path)

    assert asyncio.run(main()).sha256 == hashlib.sha256(FILE).hexdigest()
    assert log[1] not in (None, "bytes=0-")


def test_always_cut_is_trouble_after_bounded_tries(raw_server: Any, tmp_path: Path) -> None:
    log: list[str | None] = []

    async def main() -> None:
        async with raw_server(ranged(None, 1000, log)) as url:
            await download(url, tmp_path)

    with pytest.raises(SourceTrouble):
        asyncio.run(main())
    assert len(log) == QUICK.resumes + 1
    assert list(tmp_path.iterdir()) == []


def test_chunks_that_end_early_are_trouble(raw_server: Any, tmp_path: Path) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n" + HEAD + b"\r\n")
        await writer.drain()

    async def main() -> None:
        async with raw_server(cut) as url:
            await download(url, tmp_path)

    with pytest.raises(SourceTrouble):
        asyncio.run(main())


def test_first_contact_is_tried_once(free_port: int, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(SourceTrouble, match="transfer broke"):
        asyncio.run(download(f"http://127.0.0.1:{free_port}/?sign=secret", tmp_path, Limits(pause_s=5)))
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("pause", [0.05, 10.0])
def test_slow_body_is_trouble(raw_server: Any, tmp_path: Path, pause: float) -> None:
    """A drip outlives the idle limit and meets the total one; silence meets the idle limit."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + HEAD)
        while True:
            writer.write(b"x")
            await asyncio.sleep(pause)

    async def main() -> None:
        async with raw_server(drip) as url:
            await download(url, tmp_path, Limits(idle_s=0.2, total_s=0.6, pause_s=0.01, resumes=1))

    started = time.monotonic()
    with pytest.raises(SourceTrouble):
        asyncio.run(main())
    assert time.monotonic() - started < 2
    assert list(tmp_path.iterdir()) == []


def test_cancelled_leaves_nothing(raw_server: Any, tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + HEAD)
        await asyncio.sleep(5)

    async def main() -> None:
        async with raw_server(silent) as url:
            task = asyncio.ensure_future(download(url, tmp_path))
            await asyncio.sleep(0.1)
            assert list(tmp_path.iterdir())
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- the account's own server


def fetch_at_home(server: Any, handler: Any, folder: Path, base: str, path: str = "/x.png") -> StoredFile:
    """With private addresses refused; `base` is the account's address, `{url}` in it the server's."""

    async def main() -> StoredFile:
        async with server(handler) as url:
            http = AioHttp(allow_private=False)
            try:
                output = Output(kind="image", url=url + path)
                home = http.home(base.format(url=url))
                return await fetch(
                    http.downloads, output, allow_private=False, limits=QUICK, folder=folder, home=home
                )
            finally:
                await http.close()

    return asyncio.run(main())


async def show(request: web.Request) -> web.Response:
    return web.Response(body=FILE)


@pytest.mark.parametrize("base", ["{url}", "{url}/mj", "{url}/some/where/"])
def test_the_accounts_own_server_may_be_private(web_server: Any, tmp_path: Path, base: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/x.png":
            return web.Response(status=302, headers={"Location": "/elsewhere.png"})
        return web.Response(body=FILE)

    assert fetch_at_home(web_server, handler, tmp_path, base).bytes == len(FILE)


@pytest.mark.parametrize(
    "base", ["http://127.0.0.1", "https{url}", "http://localhost:1", "", "nonsense", "http://["]
)
def test_other_private_servers_may_not(web_server: Any, tmp_path: Path, base: str) -> None:
    """Another port, scheme or host is another server."""
    base = base.replace("https{url}", "https://127.0.0.1:1")
    with pytest.raises(SourceRefused):
        fetch_at_home(web_server, show, tmp_path, base)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "to", ["http://127.0.0.1:9/x.png", "http://10.0.0.1/", "http://169.254.169.254/x", "//[::1]/"]
)
def test_what_leads_away_from_there_is_guarded(web_server: Any, tmp_path: Path, to: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": to})

    with pytest.raises(SourceRefused):
        fetch_at_home(web_server, handler, tmp_path, "{url}")


@pytest.mark.usefixtures("loopback_is_public")
def test_a_stranger_cannot_lead_there(web_server: Any, tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://127.0.0.2:9/x.png"})

    with pytest.raises(SourceRefused):
        fetch_at_home(web_server, handler, tmp_path, "http://127.0.0.2:9")


# ---------------------------------------------------------------- answers that are no file


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, SourceGone),
        (404, SourceGone),
        (410, SourceExpired),
        (400, SourceGone),
        (408, SourceTrouble),
        (429, SourceTrouble),
        (500, SourceTrouble),
        (503, SourceTrouble),
        (204, SourceTrouble),
        (304, SourceTrouble),
        (206, SourceTrouble),
        (416, SourceTrouble),
    ],
)
def test_statuses(web_server: Any, tmp_path: Path, status: int, error: type[Exception]) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status)

    with pytest.raises(error):
        serve_and_fetch(web_server, handler, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "body", [b"<html>blocked</html>", b'{"error": "expired"}', b"plain text", b"\x00" * 100]
)
def test_other_than_media_is_refused(web_server: Any, tmp_path: Path, body: bytes) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="image/png")

    with pytest.raises(SourceRefused, match="neither"):
        serve_and_fetch(web_server, handler, tmp_path)


def test_empty_is_trouble(web_server: Any, tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=b"")

    with pytest.raises(SourceTrouble, match="empty"):
        serve_and_fetch(web_server, handler, tmp_path)


@pytest.mark.parametrize("announced", [True, False])
def test_too_large_is_refused(raw_server: Any, tmp_path: Path, announced: bool) -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        length = b"Content-Length: 99999999\r\n" if announced else b""
        writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + HEAD)
        while True:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    async def main() -> None:
        async with raw_server(endless) as url:
            await download(url, tmp_path, Limits(max_bytes=1_000_000))

    with pytest.raises(SourceRefused, match="larger than"):
        asyncio.run(main())
    assert sent < 20_000_000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "!!!!", "aGVsbG8", base64.b64encode(b"<html>").decode()])
def test_bad_base64(tmp_path: Path, text: str) -> None:
    with pytest.raises((SourceRefused, SourceTrouble)):
        asyncio.run(download(Output(kind="image", base64=text), tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_large_base64_is_refused(tmp_path: Path) -> None:
    text = base64.b64encode(FILE).decode()
    with pytest.raises(SourceRefused, match="larger"):
        asyncio.run(download(Output(kind="image", base64=text), tmp_path, Limits(max_bytes=1000)))


def test_full_disk_is_trouble(web_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=FILE)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("workers.media.download._write_all", full)
    with pytest.raises(SourceTrouble, match="cannot write: No space left"):
        serve_and_fetch(web_server, handler, tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- where it leads


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.2/",
        "http://localhost/",
        "http://[::1]/",
        "//169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "http://user:password@127.0.0.1/",
        "http://2130706433/",
        "http://[::",
        "ftp://127.0.0.1/x",
        "https://a..b/x.png",
        "https://xn--a/x.png",
        f"https://{'a' * 64}.com/x.png",
    ],
)
def test_redirect_inside_is_refused(
    web_server: Any, tmp_path: Path, target: str, loopback_is_public: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hits = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal hits
        hits += 1
        return web.Response(status=302, headers={"Location": target})

    async def main() -> None:
        async with web_server(handler) as url:
            await download(f"{url}/x", tmp_path, allow_private=False)

    if "localhost" in target:
        from workers import addresses

        monkeypatch.setattr(addresses.GuardedResolver, "resolve", _refuse)
    with pytest.raises(SourceRefused):
        asyncio.run(main())
    assert hits == 1


async def _refuse(*_: object, **__: object) -> None:
    from common.addresses import AddressRefused

    raise AddressRefused


def test_redirect_loop_is_refused(web_server: Any, tmp_path: Path) -> None:
    hits = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal hits
        hits += 1
        return web.Response(status=302, headers={"Location": str(request.url)})

    with pytest.raises(SourceRefused, match="3 redirects"):
        serve_and_fetch(web_server, handler, tmp_path)
    assert hits == 4


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/x", "http://localhost/x", "ftp://example.com/", "http://10.0.0.1/"]
)
def test_private_source_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(SourceRefused):
        asyncio.run(download(url, tmp_path, allow_private=False))


# ---------------------------------------------------------------- memory


def test_200_mb_need_little_memory(raw_server: Any, tmp_path: Path) -> None:
    total = 200_000_000
    block = b"x" * 1_000_000

    async def big(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {total + len(HEAD)}\r\n\r\n".encode() + HEAD)
        for _ in range(total // len(block)):
            writer.write(block)
            await writer.drain()

    async def main() -> StoredFile:
        async with raw_server(big) as url:
            return await download(url, tmp_path, Limits())

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        stored = asyncio.run(main())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert stored.bytes == total + len(HEAD)
    assert peak < 16_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64_000  # kilobytes
    stored.discard()
