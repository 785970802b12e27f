"""Encryption of stored credentials, and the hashing of tokens that we only ever compare."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache

from cryptography.fernet import Fernet, InvalidToken

from common.settings import secret_key


class CannotDecrypt(Exception):
    """The stored credentials were encrypted with another SECRET_KEY."""


@cache
def _cipher() -> Fernet:
    digest = hashlib.sha256(b"wxiai stored credentials\0" + secret_key().encode()).digest()
    return Fernet(base64.urlsafe_b64encode(digest))


def seal(secrets: dict[str, str]) -> str:
    """Encrypt a set of secrets into text for a column."""
    return _cipher().encrypt(json.dumps(secrets).encode()).decode()


def unseal(text: str) -> dict[str, str]:
    """The inverse of `seal`. Raises CannotDecrypt where SECRET_KEY has changed since."""
    try:
        opened = json.loads(_cipher().decrypt(text.encode()))
    except InvalidToken:
        raise CannotDecrypt from None
    return {str(name): str(value) for name, value in opened.items()}


def fingerprint(token: str) -> str:
    """What is stored of a random token: it has enough entropy that a plain hash cannot be reversed."""
    return hashlib.sha256(token.encode()).hexdigest()
