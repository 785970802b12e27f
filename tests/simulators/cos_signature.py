"""Whether a request to COS is signed by a key that the bucket knows. Source: fact sheet tencent_cos.md, section 3."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

SECURITY_TOKEN = "x-cos-security-token"
_PARTS = frozenset(
    f"q-{name}"
    for name in (
        "sign-algorithm",
        "ak",
        "sign-time",
        "key-time",
        "header-list",
        "url-param-list",
        "signature",
    )
)


class Refused(Exception):
    """COS says no: an HTTP status, a code, and words."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message or code


@dataclass(frozen=True, slots=True)
class Keys:
    """Who may use the bucket. With a `token` they are temporary, and the token must come along."""

    secret_id: str = "AKIDEXAMPLE"
    secret_key: str = field(default="secretexample", repr=False)
    token: str = field(default="", repr=False)


EXAMPLE_KEYS = Keys()


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as the signature sees it: the decoded path; parameters and headers with lower-case names."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


def is_signed(asked: Asked) -> bool:
    """Whether it carries a signature at all, in its header or, presigned, in its query."""
    return "q-signature" in asked.query or bool(asked.headers.get("authorization"))


def verify(asked: Asked, keys: Keys) -> None:
    """Raises Refused where the signature is missing, wrong, early, late or by an unknown key."""
    given = _given(asked)
    if _PARTS - given.keys():
        raise Refused(403, "AccessDenied", "Access Denied.")
    if given["q-ak"] != keys.secret_id:
        raise Refused(
            403, "InvalidAccessKeyId", "The Access Key Id you provided does not exist in our records."
        )
    _verify_token(asked, keys)
    _verify_window(given["q-sign-time"])
    if not hmac.compare_digest(signature(asked, given, keys.secret_key), given["q-signature"]):
        raise Refused(403, "SignatureDoesNotMatch", "The Signature you specified is invalid.")


def signature(asked: Asked, given: Mapping[str, str], secret_key: str) -> str:
    """What `q-signature` should be, strictly by what the two lists say was signed."""
    # The SDK signs the host's name without the port that it then asks for.
    headers = {**asked.headers, "host": asked.headers.get("host", "").partition(":")[0]}
    text = "\n".join(
        (
            asked.method.lower(),
            asked.path,
            _listed(given["q-url-param-list"], asked.query),
            _listed(given["q-header-list"], headers),
            "",
        )
    )
    digest = hashlib.sha1(text.encode()).hexdigest()
    key = sign_key(secret_key, given["q-key-time"])
    return _hmac(key, f"{given['q-sign-algorithm']}\n{given['q-sign-time']}\n{digest}\n")


def sign_key(secret_key: str, key_time: str) -> str:
    """Step 2 of section 3: the key of a period, as hexadecimal text."""
    return _hmac(secret_key, key_time)


def _given(asked: Asked) -> Mapping[str, str]:
    if "q-signature" in asked.query:
        return asked.query
    parts = (part.partition("=") for part in asked.headers.get("authorization", "").split("&"))
    return {name: value for name, _, value in parts}


def _verify_token(asked: Asked, keys: Keys) -> None:
    token = asked.headers.get(SECURITY_TOKEN) or asked.query.get(SECURITY_TOKEN) or ""
    if keys.token and not token:  # a temporary id is unknown without its token
        raise Refused(
            403, "InvalidAccessKeyId", "The Access Key Id you provided does not exist in our records."
        )
    if token != keys.token:
        raise Refused(403, "ExpiredToken", "The provided token has expired.")


def _verify_window(sign_time: str) -> None:
    begin, _, end = sign_time.partition(";")
    if not (begin.isdigit() and end.isdigit()):
        raise Refused(403, "AccessDenied", "The sign time is invalid.")
    if time.time() < int(begin):
        raise Refused(403, "RequestTimeTooSkewed", "The request time is too far from the server's.")
    if time.time() > int(end):
        raise Refused(403, "AccessDenied", "Request has expired")


def _listed(names: str, values: Mapping[str, str]) -> str:
    parts = [name for name in names.split(";") if name]
    return "&".join(f"{name}={quote(values.get(unquote(name), ''), safe='-_.~')}" for name in parts)


def _hmac(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha1).hexdigest()
