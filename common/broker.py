"""How Redis is reached: every wait bounded, nothing tried twice behind the caller's back."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import parse_qs, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from common.settings import settings


def client(timeout_s: float) -> Redis:
    """A client that connects when it is first used. Raises ValueError for a URL that cannot be one."""
    url = settings().redis_url
    options: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    if url.startswith("rediss://"):
        rule = certificate_rule(url)
        options |= {"ssl_cert_reqs": rule, "ssl_check_hostname": rule is ssl.CERT_REQUIRED}
    made: Redis = Redis.from_url(without_ssl_query(url), retry=Retry(NoBackoff(), 0), **options)
    return made


def certificate_rule(url: str) -> ssl.VerifyMode:
    """Hosts such as Heroku give rediss:// URLs with self-signed certificates: checked only where the URL says so."""
    wanted = parse_qs(urlsplit(url).query).get("ssl_cert_reqs", ["none"])[0].lower()
    return {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL}.get(
        wanted.removeprefix("cert_"), ssl.CERT_NONE
    )


def without_ssl_query(url: str) -> str:
    """The URL without what only `certificate_rule` reads."""
    return url.split("?", 1)[0] if url.startswith("rediss://") else url
