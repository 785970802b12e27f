"""The HTTP client of the workers: cheap, bounded, and exact about what may have reached the other side.

One session per process and event loop. It never repeats a request, follows no redirect, keeps no cookie and
ignores the proxies of the environment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import cache, lru_cache
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from common.addresses import AddressRefused
from common.providers.base import Http, NotSent, Reply, Unanswered
from common.settings import settings
from workers.addresses import check_url, connector
from workers.bodies import bytes_body, json_body
from workers.room import INLINE

MAX_REPLY_BYTES = 8 * 1024 * 1024
CONNECT_S = 5.0  # includes waiting for a free connection, the look-up of the name and the TLS handshake
CREATING_S = (
    60.0  # to answer a call that starts a generation: giving up loses the job (flux_bfl.md, section 9)
)
SLOWEST_BYTES = 64 * 1024  # a second, of a line that is still waited for
MOVING_S = 180.0  # for one body at most, there or back
_SMALL_BYTES = 64 * 1024  # moves within the time of the answer
CONNECTIONS = 500
DOWNLOADS = 64
_JSON = {"Content-Type": "application/json"}
_HEADERS = {
    "User-Agent": "wxiai",
    "Accept-Encoding": "identity",
}  # unpacking costs more than small answers weigh

_NEVER_SENT = (
    AddressRefused,
    aiohttp.ClientConnectorError,  # unresolved, refused, TLS handshake failed
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    UnicodeError,  # a host that cannot be written as a name
)


class AioHttp:
    """`Http` for addresses that the operator chose. `at()` gives the one for what providers name, too."""

    def __init__(
        self,
        *,
        connections: int = CONNECTIONS,
        downloads: int = DOWNLOADS,
        allow_private: bool | None = None,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`allow_private` defaults to ALLOW_PRIVATE_ADDRESSES; `resolver` replaces the system's (tests)."""
        self.allow_private = settings().allow_private_addresses if allow_private is None else allow_private
        self._max_reply_bytes = max_reply_bytes
        self._own = _LazySession(lambda: _session(connections, True, resolver))
        self._foreign = _LazySession(lambda: _session(connections, self.allow_private, resolver))
        self._downloads = _LazySession(
            lambda: _session(downloads, self.allow_private, resolver, unpack=False)
        )
        self._own_downloads = _LazySession(lambda: _session(downloads, True, resolver, unpack=False))

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
        most_bytes: int | None = None,
    ) -> Reply:
        """One request to an address that may be private. Raises NotSent or Unanswered."""
        return await self._exchange(self._own, True, method, url, headers, json, body, timeout_s, most_bytes)

    async def send_guarded(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
        most_bytes: int | None = None,
    ) -> Reply:
        """As `send`, to an address that a stranger chose: a private one is NotSent."""
        return await self._exchange(
            self._foreign, self.allow_private, method, url, headers, json, body, timeout_s, most_bytes
        )

    def at(self, base_url: str) -> Http:
        """The `Http` of one account: its own server may be private, anything else it names must be public."""
        return _AccountHttp(self, base_url)

    def home(self, base_url: str) -> Home:
        """Where the results of one account may be fetched although its server is private."""
        return Home(base_url, self._own_downloads.get)

    @property
    def downloads(self) -> aiohttp.ClientSession:
        """The guarded session for `workers.media.fetch`. Needs the running event loop."""
        return self._downloads.get()

    async def close(self) -> None:
        """Close all connections. Using it again afterwards opens new ones."""
        for session in (self._own, self._foreign, self._downloads, self._own_downloads):
            await session.close()

    async def _exchange(
        self,
        session: _LazySession,
        allow_private: bool,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        json: Any,
        body: bytes | None,
        timeout_s: float,
        most_bytes: int | None,
    ) -> Reply:
        try:
            target = check_url(url, allow_private=allow_private)
        except AddressRefused as error:
            raise NotSent(str(error)) from None
        if json is not None:
            headers = {**_JSON, **headers} if headers else _JSON
        sent = bytes_body(body) if json is None else await json_body(json)
        if sent.size > _SMALL_BYTES:  # said, or aiohttp would send it in chunks, which not every server takes
            headers = {**(headers or {}), "Content-Length": str(sent.size)}
        usual = self._max_reply_bytes
        most = most_bytes or usual
        timeout = _timeout(timeout_s, _moving_s(sent.size) + _moving_s(most - usual))
        try:
            async with session.get().request(
                method, target, headers=headers, data=sent.data, allow_redirects=False, timeout=timeout
            ) as response:
                content = await (
                    _large(response, usual, most, timeout_s) if most > usual else _bounded(response, usual)
                )
                return Reply(response.status, _lower(response.headers), content)
        except _NEVER_SENT as error:
            raise NotSent(f"{target.host}: {_reason(error)}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # Also a reset on a kept-alive connection: the request may have been read before it.
            raise Unanswered(f"{target.host}: {_reason(error)}") from error


class _AccountHttp:
    """Chooses the guarded way for whatever is not at the account's own server."""

    def __init__(self, http: AioHttp, base_url: str) -> None:
        self._http = http
        self._origin = _origin(base_url)

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
        most_bytes: int | None = None,
    ) -> Reply:
        """Raises NotSent or Unanswered; any HTTP status is a Reply."""
        send = self._http.send if _origin(url) == self._origin else self._http.send_guarded
        return await send(
            method, url, headers=headers, json=json, body=body, timeout_s=timeout_s, most_bytes=most_bytes
        )


class Patient:
    """An account's `Http` for the call that starts a generation, whose answer is worth a longer wait."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes | None = None,
        timeout_s: float = CREATING_S,
        most_bytes: int | None = None,
    ) -> Reply:
        """Raises NotSent or Unanswered; any HTTP status is a Reply."""
        return await self._http.send(
            method, url, headers=headers, json=json, body=body, timeout_s=timeout_s, most_bytes=most_bytes
        )


class Home:
    """An account's own server: exactly its scheme, host and port. The operator chose it, so it may be private."""

    def __init__(self, base_url: str, session: Callable[[], aiohttp.ClientSession]) -> None:
        self._origin = _origin(base_url)
        self._session = session

    def has(self, url: URL) -> bool:
        """Whether an address is at this server."""
        return self._origin is not None and _origin(str(url)) == self._origin

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session for downloads from there, and from nowhere else. Needs the running event loop."""
        return self._session()


class _LazySession:
    """A session built on first use in the running loop, and again where that loop is gone."""

    def __init__(self, build: Callable[[], aiohttp.ClientSession]) -> None:
        self._build = build
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            self._session, self._loop = self._build(), loop
        return self._session

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None and self._loop is asyncio.get_running_loop():
            await session.close()


@cache
def shared() -> AioHttp:
    """The client of this process."""
    return AioHttp()


def _session(
    connections: int, allow_private: bool, resolver: AbstractResolver | None, *, unpack: bool = True
) -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(
        connector=connector(connections=connections, allow_private=allow_private, resolver=resolver),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        trust_env=False,
        auto_decompress=unpack,
    )
    # By default aiohttp sends GET, PUT and DELETE a second time when a kept-alive connection is found dead.
    # There is no public switch; tests/unit/workers/test_http_client.py notices if this one stops working.
    session._retry_connection = False
    return session


@lru_cache(64)
def _timeout(answer_s: float, moving_s: int) -> aiohttp.ClientTimeout:
    """`answer_s` bounds connecting and then, once the body is out, every silence; what is large may take longer.

    Connecting always gets less than the whole, so that a time-out before sending is known as such.
    """
    return aiohttp.ClientTimeout(
        total=answer_s + moving_s, connect=min(CONNECT_S, 0.8 * answer_s), sock_read=answer_s
    )


def _moving_s(size: int) -> int:
    """How long a slow line may take for so many bytes."""
    return 0 if size <= _SMALL_BYTES else round(min(MOVING_S, size / SLOWEST_BYTES))


async def _bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body. Raises ClientPayloadError where it is cut or larger than `limit`."""
    chunks: list[bytes] = []
    if not await _read(response, chunks, limit):
        raise _too_large(response, limit)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _large(response: aiohttp.ClientResponse, usual: int, most: int, wait_s: float) -> bytes:
    """As `_bounded`; what is larger than usual waits until there is memory for it. Raises TimeoutError, too."""
    chunks: list[bytes] = []
    if await _read(response, chunks, usual):
        return b"".join(chunks)
    async with AsyncExitStack() as memory:
        async with asyncio.timeout(wait_s):  # in parts, and put together
            await memory.enter_async_context(INLINE.held(2 * min(response.content_length or most, most)))
        if not await _read(response, chunks, most):
            raise _too_large(response, most)
        return b"".join(chunks)


async def _read(response: aiohttp.ClientResponse, chunks: list[bytes], limit: int) -> bool:
    """Read on: to the end, or until there is more than `limit` and then False."""
    size = sum(map(len, chunks))
    while size <= limit:
        chunk = await response.content.readany()
        if not chunk:
            return True
        size += len(chunk)
        chunks.append(chunk)
    return False


def _too_large(response: aiohttp.ClientResponse, limit: int) -> aiohttp.ClientPayloadError:
    response.close()
    return aiohttp.ClientPayloadError(f"the answer is larger than {limit} bytes")


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    try:
        parsed = URL(url, encoded=True)
    except ValueError:
        return None
    return parsed.scheme, parsed.raw_host, parsed.port


def _reason(error: Exception) -> str:
    """What went wrong, without the address: its query may be secret."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or type(error.os_error).__name__
    if isinstance(error, TimeoutError):
        return (
            "connecting took too long"
            if isinstance(error, aiohttp.ConnectionTimeoutError)
            else "no answer in time"
        )
    if isinstance(error, (AddressRefused, aiohttp.ClientPayloadError)):
        return str(error)[:200]
    return type(error).__name__
