"""Whether a callback comes from the provider that it says: checks of a signature over the raw bytes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common.providers.base import JsonObject

SKEW_S = 300.0  # how far the sender's clock may be off, either way
MOST_KEYS = 16  # of one key set
_MOST_SIGNATURES = 16
_SECRET_PREFIX = "whsec_"
_FAL_HOSTS = ("queue.fal.run", "queue.falrun.com")
_FAL_KEY_SET = "https://rest.fal.ai/.well-known/jwks.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """A call as it came in. `headers` has lower-case names; `at` is our own time in epoch seconds."""

    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    at: float

    def header(self, name: str) -> str:
        """A header's value, or nothing."""
        return self.headers.get(name, "")

    def is_recent(self, timestamp: str) -> bool:
        """Whether the sender's timestamp (epoch seconds) is near enough to our own time."""
        try:
            sent_at = float(timestamp)
        except ValueError:
            return False
        return math.isfinite(sent_at) and abs(self.at - sent_at) <= SKEW_S


# ---------------------------------------------------------------- a shared secret (Kling)


def shared_key(secret: str) -> bytes | None:
    """The key in a secret as the console shows it, with or without `whsec_`; None where it is none."""
    try:
        return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True) or None
    except (binascii.Error, ValueError):
        return None


def signed_with_secret(secret: str, call: Callback) -> bool:
    """Whether one of the listed signatures is right (Standard Webhooks; fact sheet kling.md section 7)."""
    key, timestamp = shared_key(secret), call.header("webhook-timestamp")
    if key is None or not call.is_recent(timestamp):
        return False
    content = f"{call.header('webhook-id')}.{timestamp}.".encode() + call.body
    right = b"v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256))
    listed = call.header("webhook-signature").split(maxsplit=_MOST_SIGNATURES)[:_MOST_SIGNATURES]
    return any(hmac.compare_digest(right, signature.encode()) for signature in listed)


# ---------------------------------------------------------------- published keys (fal)


def fal_key_set(base_url: str) -> str:
    """Where the keys are published that callbacks of an account at this address are signed with.

    fal has them at a host of its own (fact sheet flux_fal.md section 9); any other server has to have them itself.
    """
    at = urlsplit(base_url)
    return _FAL_KEY_SET if at.hostname in _FAL_HOSTS else f"{at.scheme}://{at.netloc}/.well-known/jwks.json"


def public_keys(key_set: JsonObject) -> tuple[str, ...]:
    """The Ed25519 keys of a JSON Web Key Set, each as its `x`; what is no such key is left out."""
    listed = key_set.get("keys")
    found = [key.get("x") for key in listed if isinstance(key, dict)] if isinstance(listed, list) else []
    return tuple(x for x in found if isinstance(x, str) and _public_key(x) is not None)[:MOST_KEYS]


def signed_with_key(keys: Iterable[str], call: Callback) -> bool:
    """Whether one of these keys has signed the call (Ed25519; fact sheet flux_fal.md section 9)."""
    timestamp = call.header("x-fal-webhook-timestamp")
    try:
        signature = bytes.fromhex(call.header("x-fal-webhook-signature"))
    except ValueError:
        return False
    if not call.is_recent(timestamp):
        return False
    request_id, user_id = call.header("x-fal-webhook-request-id"), call.header("x-fal-webhook-user-id")
    message = "\n".join((request_id, user_id, timestamp, hashlib.sha256(call.body).hexdigest())).encode()
    return any(_has_signed(key, signature, message) for key in keys)


def _has_signed(x: str, signature: bytes, message: bytes) -> bool:
    key = _public_key(x)
    if key is None:
        return False
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _public_key(x: str) -> Ed25519PublicKey | None:
    """The key behind a base64url `x` without padding."""
    try:
        return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(x + "=" * (-len(x) % 4)))
    except (binascii.Error, ValueError):
        return None
