"""Which addresses our workers may call when somebody else names them: the public internet only.

A name is checked after it was resolved, and the connection goes to exactly the addresses that were checked,
so a name that changes its meaning between two look-ups gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import AddrInfoType, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

_DNS_CACHE_S = 30
# Shorter than the idle limit of any server we know (Node's 5 s is the lowest), so that we let go first: a
# request that crosses the server's good-bye on the wire would count as unanswered.
_KEEP_ALIVE_S = 4.0
_names = ThreadPoolExecutor(4, "names")

# IANA's special-purpose registry, and one address that only looks public.
_NOT_PUBLIC_4 = tuple(
    ip_network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata is 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's wire server
        "169.254.0.0/16",  # link-local; most clouds' metadata, Tencent's among them
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata is 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # multicast relays
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_PUBLIC_6 = IPv6Network(
    "2000::/3"
)  # all that IANA has given out; private, link-local, multicast lie elsewhere
_NOT_PUBLIC_6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_NAT64 = IPv6Network(
    "64:ff9b::/96"
)  # how a network without IPv4 reaches it; the last 32 bits are the address


class AddressRefused(Exception):
    """This address may not be called: only public ones, unless ALLOW_PRIVATE_ADDRESSES is set."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.__doc__)


def is_public(address: str) -> bool:
    """Whether an IP address, written as a literal, lies on the public internet."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return _is_public_4(parsed) if isinstance(parsed, IPv4Address) else _is_public_6(parsed)


def _is_public_4(address: IPv4Address) -> bool:
    return not any(address in block for block in _NOT_PUBLIC_4)


def _is_public_6(address: IPv6Address) -> bool:
    if address in _NAT64:
        return _is_public_4(IPv4Address(int(address) & 0xFFFF_FFFF))
    # IPv4-mapped addresses (::ffff:10.0.0.1) are refused whole: no honest URL or name server uses them.
    return address in _PUBLIC_6 and not any(address in block for block in _NOT_PUBLIC_6)


def check_url(url: str | URL, *, allow_private: bool) -> URL:
    """The URL ready to be requested as it stands. Names are checked when resolved. AddressRefused."""
    parsed = url if isinstance(url, URL) else parse_url(url)
    if parsed.scheme not in ("http", "https"):
        raise AddressRefused("only http and https addresses are called")
    if not parsed.raw_host:
        raise AddressRefused("the address has no host")
    if parsed.raw_user is not None or parsed.raw_password is not None:
        raise AddressRefused("an address must not contain a user name or password")
    if not allow_private:
        _check_literal(parsed.raw_host)
    return parsed


def parse_url(url: str) -> URL:
    """The URL, absolute or relative, byte for byte as far as possible. Raises AddressRefused for nonsense."""
    if len(url) > 8192 or not url.isprintable() or "\\" in url:
        raise AddressRefused("the address is not a valid URL")
    try:
        # What is encoded already stays as it is: a signature may cover it.
        parsed = URL(url, encoded=url.isascii() and " " not in url)
        _ = parsed.raw_host, parsed.port  # parsed on first use
        return parsed
    except ValueError:
        raise AddressRefused("the address is not a valid URL") from None


def _check_literal(host: str) -> None:
    """Names pass; an address must be public and written in the usual way."""
    try:
        ip_address(host)
    except ValueError:
        if _is_unusual_literal(host):
            raise AddressRefused("an IP address must be written in the usual way") from None
    else:
        if not is_public(host):
            raise AddressRefused


def _is_unusual_literal(host: str) -> bool:
    """Whether the system would take it for an IPv4 address: 2130706433, 0x7f.1, 0177.0.0.1 …"""
    try:
        socket.inet_aton(host.rstrip("."))
    except OSError:
        return False
    return True


class SystemResolver(AbstractResolver):
    """The system's look-up in threads of its own: uploads that fill the loop's threads must not delay us."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError where the name does not resolve."""
        look_up = partial(
            socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        found = await asyncio.get_running_loop().run_in_executor(_names, look_up)
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
