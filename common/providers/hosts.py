"""Which URLs that a provider hands out may be called with the account's key."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from common.providers.reading import web_url

_FORBIDDEN = re.compile(r"[\\\s<>\"^`{|}]")  # parsers disagree about these, so nobody honest sends them
_PORTS = {"http": 80, "https": 443}


def trusted(value: object, base_url: str, domains: Iterable[str], *, any_port: bool = False) -> str | None:
    """The URL if the account's key may be sent there, else None.

    That is https at one of the provider's `domains`, or the very place that the operator configured. With
    `any_port` the configured host may answer at another port, and one loopback address stands for all of them.
    """
    url = web_url(value)
    there, home = _split(url), _split(base_url)
    if url is None or there is None or home is None:
        return None
    if there.scheme == "https" and _belongs(there.hostname, domains):
        return url
    if there.scheme != home.scheme:
        return None
    if any_port:
        same_host = there.hostname == home.hostname
        return url if same_host or (_is_loopback(home.hostname) and _is_loopback(there.hostname)) else None
    return url if (there.hostname, _port(there)) == (home.hostname, _port(home)) else None


def host_of(url: str) -> str:
    """The host name in lower case, or an empty string."""
    parts = _split(url)
    return (parts.hostname or "") if parts else ""


def _split(url: str | None) -> SplitResult | None:
    if url is None or _FORBIDDEN.search(url):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed on first use
    except ValueError:
        return None
    return parts if parts.hostname and "@" not in parts.netloc else None


def _port(parts: SplitResult) -> int | None:
    return parts.port or _PORTS.get(parts.scheme)


def _belongs(host: str | None, domains: Iterable[str]) -> bool:
    return any(host == domain or (host or "").endswith(f".{domain}") for domain in domains)


def _is_loopback(host: str | None) -> bool:
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
