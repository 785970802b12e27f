"""Volcengine's V4 signatures. Facts: fact sheet jimeng.md, section A2."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import parse_qsl, quote, urlsplit

_REGION, _SERVICE = "cn-north-1", "cv"
_UNRESERVED = "-_.~"


def sign(
    method: str, url: str, body: bytes, *, access_key: str, secret_key: str, at: datetime
) -> dict[str, str]:
    """The headers of a request signed with Volcengine's V4 scheme. `at` is in UTC."""
    moment = at.strftime("%Y%m%dT%H%M%SZ")
    headers = {
        "Content-Type": "application/json",
        "Host": _host(url),
        "X-Content-Sha256": hashlib.sha256(body).hexdigest(),
        "X-Date": moment,
    }
    scope = f"{moment[:8]}/{_REGION}/{_SERVICE}/request"
    digest = hashlib.sha256(canonical_request(method, url, headers).encode()).hexdigest()
    to_sign = f"HMAC-SHA256\n{moment}\n{scope}\n{digest}"
    signature = _hmac(signing_key(secret_key, moment[:8]), to_sign).hex()
    names = ";".join(sorted(name.lower() for name in headers))
    return {
        **headers,
        "Authorization": f"HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, "
        f"Signature={signature}",
    }


def canonical_request(method: str, url: str, headers: Mapping[str, str]) -> str:
    """Steps 3 to 5: the request as both sides write it. All given headers are signed."""
    parts = urlsplit(url)
    pairs = [
        (quote(name, safe=_UNRESERVED), quote(value, safe=_UNRESERVED))
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    query = "&".join(f"{name}={value}" for name, value in sorted(pairs))  # sorted as they are written
    lines = sorted((name.lower(), value.strip()) for name, value in headers.items())
    block = "".join(f"{name}:{value}\n" for name, value in lines)
    signed = ";".join(name for name, _ in lines)
    body_hash = headers["X-Content-Sha256"]
    return "\n".join((method, parts.path or "/", query, block, signed, body_hash))


def signing_key(secret_key: str, date: str) -> bytes:
    """Step 7. The secret is taken as it is, although it looks like base64."""
    key = secret_key.encode()
    for part in (date, _REGION, _SERVICE, "request"):
        key = _hmac(key, part)
    return key


def _hmac(key: bytes, message: str) -> bytes:
    return hmac.new(key, message.encode(), hashlib.sha256).digest()


def _host(url: str) -> str:
    """The Host header as clients send it: without user name and without the default ports."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    return host.removesuffix(":80").removesuffix(":443")
