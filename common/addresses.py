"""Which addresses may be named by somebody else: well-formed ones, on the public internet.

This looks at an address as it is written. Where names lead is checked by workers, when they connect.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

_NO_HOST = "the host is not a valid name"
_LONGEST_NAME = 253  # RFC 1035, section 2.3.4, as text
_LABEL = re.compile(
    r"[a-z0-9_-]{1,63}"
)  # the underscore is no host's by the book, but Docker's and many another's
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # as a last label (WHATWG URL, "ends in a number")

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


def check_url(url: str, *, allow_private: bool) -> None:
    """Raise AddressRefused for a URL that could never be called, as far as that can be seen without a look-up."""
    if not url.isprintable() or re.search(r"[\s\\]", url):
        raise AddressRefused("the address is not a valid URL")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise AddressRefused("the address is not a valid URL") from None
    if parts.scheme not in ("http", "https"):
        raise AddressRefused("only http and https addresses are called")
    if "@" in parts.netloc:
        raise AddressRefused("an address must not contain a user name or password")
    if not host or port == 0:
        raise AddressRefused("the address has no host" if not host else "the address is not a valid URL")
    if "[" in parts.netloc and ":" not in host:
        raise AddressRefused(_NO_HOST)
    check_host(host, allow_private=allow_private)


def check_host(host: str, *, allow_private: bool) -> None:
    """Raise AddressRefused for a host that is neither an IP address, in the usual form, nor a possible name.

    `host` is as in a URL, an IPv6 address without its brackets. Unless `allow_private`, an address must be public.
    """
    try:
        ip_address(host)
    except ValueError:
        _check_name(host, allow_private)
    else:
        if not (allow_private or is_public(host)):
            raise AddressRefused


def _check_name(host: str, allow_private: bool) -> None:
    try:
        name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        raise AddressRefused(_NO_HOST) from None
    name = name.removesuffix(".").lower()
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):  # systems take it for an IPv4 address: 2130706433, 0x7f.1, 0177.0.0.1 …
        raise AddressRefused("an IP address must be written in the usual way")
    if len(name) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise AddressRefused(_NO_HOST)
    if not allow_private and labels[-1] == "localhost":
        raise AddressRefused
