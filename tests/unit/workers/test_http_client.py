"""What may have reached the other side, and what certainly did not."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from common.providers.base import NotSent, Reply, Unanswered
from workers.http import AioHttp, Patient
from workers.room import INLINE

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Thing: Yes\r\n\r\n{}"


class Names(AbstractResolver):
    """A resolver that knows what the test tells it."""

    def __init__(self, answer: Callable[[str], Awaitable[list[str]]]) -> None:
        self._answer = answer

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family or 2, proto=0, flags=0)
            for address in await self._answer(host)
        ]

    async def close(self) -> None:
        pass


def run(scenario: Callable[[AioHttp], Awaitable[Any]], **options: Any) -> Any:
    async def main() -> Any:
        http = AioHttp(**{"allow_private": True, **options})
        try:
            return await scenario(http)
        finally:
            await http.close()

    return asyncio.run(main())


# ---------------------------------------------------------------- provably not sent


def test_refused_connection_is_not_sent(free_port: int) -> None:
    with pytest.raises(NotSent, match=r"127\.0\.0\.1"):
        run(lambda http: http.send("POST", f"http://127.0.0.1:{free_port}/?key=secret", json={}))


def test_unresolved_name_is_not_sent() -> None:
    async def unknown(host: str) -> list[str]:
        raise OSError(None, "no such host")

    with pytest.raises(NotSent, match="no such host") as caught:
        run(
            lambda http: http.send("POST", "http://api.example/?key=secret", json={}), resolver=Names(unknown)
        )
    assert "secret" not in str(caught.value)


def test_slow_look_up_is_not_sent_even_with_a_short_total() -> None:
    async def slow(host: str) -> list[str]:
        await asyncio.sleep(5)
        return []

    with pytest.raises(NotSent, match="connecting took too long"):
        run(lambda http: http.send("POST", "http://api.example/", timeout_s=0.2), resolver=Names(slow))


def test_failed_handshake_is_not_sent(raw_server: Any) -> None:
    async def no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async def scenario(http: AioHttp) -> None:
        async with raw_server(no_tls) as url:
            await http.send("POST", url.replace("http:", "https:"), json={})

    with pytest.raises(NotSent):
        run(scenario)


def test_handshake_hung_up_is_not_sent(raw_server: Any) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)

    async def scenario(http: AioHttp) -> None:
        async with raw_server(hang_up) as url:
            await http.send("POST", url.replace("http:", "https:"), json={})

    with pytest.raises(NotSent):
        run(scenario)


def test_waiting_for_a_free_connection_is_not_sent(raw_server: Any, read_request: Any) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.sleep(5)

    async def scenario(http: AioHttp) -> list[Any]:
        async with raw_server(silent) as url:
            sends = [http.send("POST", url, timeout_s=0.5), http.send("POST", url, timeout_s=0.3)]
            return await asyncio.gather(*sends, return_exceptions=True)

    first, second = run(scenario, connections=1)
    assert isinstance(first, Unanswered)
    assert isinstance(second, NotSent)


@pytest.mark.parametrize(
    "url", ["ftp://host/", "http://", "nonsense", "http://u:p@host/", "http://host:99999/"]
)
def test_unusable_address_is_not_sent(url: str) -> None:
    with pytest.raises(NotSent):
        run(lambda http: http.send("POST", url, json={}))


# ---------------------------------------------------------------- perhaps arrived


async def _close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    return


async def _close_after_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def _cut_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()


async def _cut_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await writer.drain()


async def _no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"220 mail ready\r\n\r\n")
    await writer.drain()


async def _silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(5)


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
@pytest.mark.parametrize(
    "behaviour", [_close_at_once, _close_after_reading, _cut_body, _cut_chunks, _no_http, _silence, _endless]
)
def test_no_complete_answer_is_unanswered(raw_server: Any, behaviour: Any, method: str) -> None:
    async def scenario(http: AioHttp) -> None:
        async with raw_server(behaviour) as url:
            await http.send(method, f"{url}/?key=secret", timeout_s=0.3)

    started = time.monotonic()
    with pytest.raises(Unanswered) as caught:
        run(scenario, max_reply_bytes=300_000)
    assert time.monotonic() - started < 2
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("method", ["POST", "PUT", "GET", "DELETE"])
@pytest.mark.parametrize("how", ["reset", "close"])
def test_dead_kept_alive_connection_is_unanswered_and_never_retried(
    raw_server: Any, read_request: Any, reset: Any, method: str, how: str
) -> None:
    seen: list[str] = []
    connections: list[object] = []

    async def one_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        seen.append((await read_request(reader)).decode().split(" ")[0])
        writer.write(OK)
        seen.append((await read_request(reader)).decode().split(" ")[0])
        if how == "reset":
            reset(writer)

    async def scenario(http: AioHttp, retry: bool = False) -> None:
        async with raw_server(one_answer) as url:
            await http.send("GET", url)
            http._own.get()._retry_connection = retry
            await http.send(method, url, body=b"{}" if method in ("POST", "PUT") else None)

    with pytest.raises(Unanswered):
        run(scenario)
    assert seen == ["GET", method]
    assert len(connections) == 1


def test_aiohttp_would_have_retried(raw_server: Any, read_request: Any, reset: Any) -> None:
    """The switch that we set is the one that matters: with it on, a PUT is sent twice."""
    puts = 0

    async def one_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal puts
        while (await read_request(reader)).startswith(b"GET"):
            writer.write(OK)
        puts += 1
        reset(writer)

    async def scenario(http: AioHttp) -> None:
        async with raw_server(one_answer) as url:
            await http.send("GET", url)
            http._own.get()._retry_connection = True
            await http.send("PUT", url, body=b"{}")

    with pytest.raises(Unanswered):
        run(scenario)
    assert puts == 2


def test_connection_closed_while_idle_is_not_used_again(raw_server: Any, read_request: Any) -> None:
    async def one_answer_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()

    async def scenario(http: AioHttp) -> int:
        async with raw_server(one_answer_each) as url:
            await http.send("POST", url)
            await asyncio.sleep(0.05)
            return (await http.send("POST", url)).status

    assert run(scenario) == 200


# ---------------------------------------------------------------- answers


def test_reply(web_server: Any) -> None:
    async def handler(request: web.Request) -> web.Response:
        body = {"path": request.raw_path, "body": await request.json(), "type": request.content_type}
        return web.json_response(body, status=418, headers={"X-Thing": "Yes"})

    async def scenario(http: AioHttp) -> Reply:
        async with web_server(handler) as url:
            return await http.send("POST", f"{url}/a%2Fb?sig=x%2By%20z", json={"prompt": "猫"})

    reply = run(scenario)
    assert reply.status == 418
    assert reply.headers["x-thing"] == "Yes"
    assert reply.json() == {
        "path": "/a%2Fb?sig=x%2By%20z",
        "body": {"prompt": "猫"},
        "type": "application/json",
    }


def test_follows_no_redirect_keeps_no_cookie_uses_no_proxy(
    web_server: Any, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port}")
    cookies: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        cookies.append(request.headers.get("Cookie"))
        return web.Response(status=302, headers={"Location": "/elsewhere", "Set-Cookie": "a=b; Path=/"})

    async def scenario(http: AioHttp) -> list[int]:
        async with web_server(handler) as url:
            return [(await http.send("GET", url)).status for _ in range(2)]

    assert run(scenario) == [302, 302]
    assert cookies == [None, None]


def test_packed_bomb_is_bounded(web_server: Any) -> None:
    bomb = gzip.compress(b"0" * 100_000_000)

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async def scenario(http: AioHttp) -> None:
        async with web_server(handler) as url:
            await http.send("GET", url)

    with pytest.raises(Unanswered, match="larger than"):
        run(scenario)


def test_account_reaches_its_own_private_server_but_no_other(web_server: Any) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def scenario(http: AioHttp) -> None:
        async with web_server(handler) as own, web_server(handler) as other:
            account = http.at(f"{own}/mj")
            assert (await account.send("GET", f"{own}/mj/task/1/fetch")).status == 200
            for foreign in (other, own.replace("127.0.0.1", "localhost"), own.replace("http:", "https:")):
                with pytest.raises(NotSent):
                    await account.send("GET", foreign)

    run(scenario, allow_private=False)


def test_serves_one_loop_after_another(web_server: Any) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    http = AioHttp(allow_private=True)

    async def once() -> int:
        async with web_server(handler) as url:
            status = (await http.send("GET", url)).status
            await http.close()
            return status

    assert [asyncio.run(once()), asyncio.run(once())] == [200, 200]


# ---------------------------------------------------------------- large bodies, there and back

MIB = 1024 * 1024


def reading(seconds: float, size: int, then: bytes = OK, silence_s: float = 0.0) -> Any:
    """A server that takes so long to read so many bytes, and so long to answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        read = 0
        while read < size:
            some = len(await reader.read(MIB))
            read += some
            await asyncio.sleep(seconds * some / size)
        await asyncio.sleep(silence_s)
        writer.write(then)
        await writer.drain()

    return serve


def test_a_large_body_may_take_longer_than_the_answer(raw_server: Any) -> None:
    content = bytes(48 * MIB)

    async def scenario(http: AioHttp) -> int:
        async with raw_server(reading(3.0, len(content))) as url:
            return (await http.send("POST", url, body=content, timeout_s=1.5)).status

    started = time.monotonic()
    assert run(scenario) == 200
    assert time.monotonic() - started > 2, "the server was no slower than the time for an answer"


def test_after_a_large_body_the_answer_has_its_own_time(raw_server: Any) -> None:
    content = bytes(24 * MIB)

    async def scenario(http: AioHttp) -> None:
        async with raw_server(reading(0.0, len(content), silence_s=8.0)) as url:
            await http.send("POST", url, body=content, timeout_s=0.4)

    started = time.monotonic()
    with pytest.raises(Unanswered):
        run(scenario)
    assert time.monotonic() - started < 4


def test_who_never_takes_a_large_body_is_left(raw_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.http.MOVING_S", 1.0)

    async def scenario(http: AioHttp) -> None:
        async with raw_server(_silence) as url:
            await http.send("POST", url, json={"picture": "a" * (24 * MIB)}, timeout_s=0.3)

    started = time.monotonic()
    with pytest.raises(Unanswered):
        run(scenario)
    assert 1 < time.monotonic() - started < 4


@pytest.mark.parametrize(
    "value",
    [
        {"picture": "QUJD" * 70_000, "more": [{"prompt": 'a "猫"\n', "n": 1.5}, None, True], "empty": {}},
        {"猫": ['\\\n"😀\x01' * 40_000, "😀" * 65_536, "", []], "prompt": "x"},
        ["a" * 70_000],
    ],
)
def test_a_large_json_arrives_whole_and_with_its_length(value: Any) -> None:
    async def handler(request: web.Request) -> web.Response:
        content = await request.read()
        lengths = [request.headers.get(name) for name in ("Content-Length", "Transfer-Encoding")]
        assert content == json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        return web.json_response([len(content), *lengths, request.content_type])

    async def scenario(http: AioHttp) -> Reply:
        async with large_server(handler) as url:
            return await http.send("POST", url, json=value)

    reply = run(scenario)
    size, length, encoding, content_type = reply.json()
    assert (length, encoding, content_type) == (str(size), None, "application/json")


def test_sending_a_large_json_takes_no_memory_worth_mentioning(raw_server: Any) -> None:
    value = {"prompt": "a fox", "pictures": ["QUJD" * 2 * MIB] * 4}

    async def scenario(http: AioHttp) -> int:
        async with raw_server(reading(0.2, 32 * MIB)) as url:
            tracemalloc.start()
            try:
                await http.send("POST", url, json=value, timeout_s=5)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    assert run(scenario) < 4 * MIB


def test_the_call_that_starts_a_generation_is_waited_for_longer() -> None:
    waits: list[float] = []

    class Recording:
        async def send(self, *_: Any, timeout_s: float = 30.0, **__: Any) -> Reply:
            waits.append(timeout_s)
            return Reply(200, {}, b"")

    async def scenario(_: AioHttp) -> None:
        await Patient(Recording()).send("POST", "http://provider.example")
        await Patient(Recording()).send("POST", "http://provider.example", timeout_s=1.0)

    run(scenario)
    assert waits == [60.0, 1.0]


def test_a_large_answer_is_read_where_it_may_come_and_when_there_is_memory(web_server: Any) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/whole":
            return web.Response(body=bytes(300_000))
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1 if request.path == "/small" else 3):
            await response.write(bytes(100_000))
        return response

    async def scenario(http: AioHttp) -> None:
        async with web_server(handler) as url:
            whole = INLINE.free
            for path in ("/whole", "/streamed"):
                with pytest.raises(Unanswered, match="larger than 200000"):
                    await http.send("GET", url + path)
                with pytest.raises(Unanswered, match="larger than 250000"):
                    await http.send("GET", url + path, most_bytes=250_000)
                assert len((await http.send("GET", url + path, most_bytes=400_000)).body) == 300_000
                assert len((await http.at(url).send("GET", url + path, most_bytes=400_000)).body) == 300_000
                async with INLINE.held(whole):
                    with pytest.raises(Unanswered, match="no answer in time"):
                        await http.send("GET", url + path, most_bytes=400_000, timeout_s=0.2)
                assert INLINE.free == whole
            async with INLINE.held(whole):  # what is not large needs none
                assert (await http.send("GET", f"{url}/small", most_bytes=400_000)).status == 200

    run(scenario, max_reply_bytes=200_000)


@asynccontextmanager
async def large_server(handler: Any) -> AsyncIterator[str]:
    """As `web_server`, for large requests."""
    app = web.Application(client_max_size=64 * MIB)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
