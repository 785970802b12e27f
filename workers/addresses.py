"""Which addresses our workers may call when somebody else names them: the public internet only.

A name is checked after it was resolved, and the connection goes to exactly the addresses that were checked,
so a name that changes its meaning between two look-ups gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from aiohttp import AddrInfoType, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from common.addresses import AddressRefused, check_host, is_public

_DNS_CACHE_S = 30
# Shorter than the idle limit of any server we know (Node's 5 s is the lowest), so that we let go first: a
# request that crosses the server's good-bye on the wire would count as unanswered.
_KEEP_ALIVE_S = 4.0
_names = ThreadPoolExecutor(4, "names")


def check_url(url: str | URL, *, allow_private: bool) -> URL:
    """The URL ready to be requested as it stands. Names are checked when resolved. AddressRefused."""
    parsed = url if isinstance(url, URL) else parse_url(url)
    if parsed.scheme not in ("http", "https"):
        raise AddressRefused("only http and https addresses are called")
    if not parsed.raw_host:
        raise AddressRefused("the address has no host")
    if parsed.raw_user is not None or parsed.raw_password is not None:
        raise AddressRefused("an address must not contain a user name or password")
    check_host(parsed.raw_host, allow_private=allow_private)
    return parsed


def parse_url(url: str) -> URL:
    """The URL, absolute or relative, byte for byte as far as possible. Raises AddressRefused for nonsense."""
    if len(url) > 8192 or not url.isprintable() or "\\" in url:
        raise AddressRefused("the address is not a valid URL")
    try:
        # What is encoded already stays as it is: a signature may cover it.
        parsed = URL(url, encoded=url.isascii() and " " not in url)
        _ = parsed.host, parsed.port  # parsed on first use
        return parsed
    except ValueError:
        raise AddressRefused("the address is not a valid URL") from None


class SystemResolver(AbstractResolver):
    """The system's look-up in threads of its own: uploads that fill the loop's threads must not delay us."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError where the name does not resolve."""
        look_up = partial(
            socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        try:
            found = await asyncio.get_running_loop().run_in_executor(_names, look_up)
        except UnicodeError:  # what only looks like a name is a name that leads nowhere
            raise OSError(socket.EAI_NONAME, "the host is not a valid name") from None
        return [
            ResolveResult(
                hostname=host,
                host=str(target[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, target in found
        ]

    async def close(self) -> None:
        """There is nothing to close: the threads serve the whole process."""


class GuardedResolver(AbstractResolver):
    """Resolves names and refuses those that lead, even with one of several addresses, to a private place."""

    def __init__(self, inner: AbstractResolver | None = None) -> None:
        self._inner = inner or SystemResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises AddressRefused, or OSError where the name does not resolve."""
        results = await self._inner.resolve(host, port, family)
        if not all(is_public(result["host"]) for result in results):
            raise AddressRefused
        return results

    async def close(self) -> None:
        await self._inner.close()


def connector(
    *, connections: int, allow_private: bool, resolver: AbstractResolver | None = None
) -> TCPConnector:
    """A connection pool that refuses private addresses, written as literals too, unless they are allowed.

    `connections` is the most there are at a time; more callers wait. Needs a running event loop.
    """
    return TCPConnector(
        limit=connections,
        ttl_dns_cache=_DNS_CACHE_S,
        keepalive_timeout=_KEEP_ALIVE_S,
        resolver=(resolver or SystemResolver()) if allow_private else GuardedResolver(resolver),
        socket_factory=None if allow_private else _guarded_socket,
    )


def _guarded_socket(address: AddrInfoType) -> socket.socket:
    """The last gate: whatever way an address came, it is looked at when its socket is made."""
    family, kind, protocol, _, target = address
    if not is_public(str(target[0])):
        raise AddressRefused
    return socket.socket(family, kind, protocol)
