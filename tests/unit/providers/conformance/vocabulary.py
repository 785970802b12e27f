"""The words that the tables of documented answers are written in."""

from __future__ import annotations

from typing import Any

from common.providers.base import (
    Accepted,
    Failed,
    NotAccepted,
    NoVerdict,
    Rejected,
    Reply,
    Running,
    Trouble,
    Unknown,
)

Target = tuple[str, str]  # an adapter and a model
Expected = tuple[type, dict[str, Any]]  # a kind of verdict and what it must say
Row = tuple[Target, Reply, Expected]

BUSY, DOWN, CREDENTIALS, BALANCE = Trouble.BUSY, Trouble.DOWN, Trouble.CREDENTIALS, Trouble.BALANCE
MODEL = Trouble.MODEL
INVALID = (Rejected, {"code": "invalid_input"})
MODERATED = (Rejected, {"code": "content_moderated", "tries": 0})
MODERATED_AGAIN = (Rejected, {"code": "content_moderated", "tries": 2})
BROKEN_AGAIN = (Rejected, {"code": "provider_failed", "tries": 1})
REFUSED = (Rejected, {"code": "provider_rejected"})
UNKNOWN: tuple[type, dict[str, Any]] = (Unknown, {})
NOTHING: tuple[type, dict[str, Any]] = (NoVerdict, {"gone": False, "final_after": None})
GONE: tuple[type, dict[str, Any]] = (NoVerdict, {"gone": True})
BROKEN_PICTURE: tuple[type, dict[str, Any]] = (NoVerdict, {"gone": False, "final_after": 3})
BROKEN_FILM: tuple[type, dict[str, Any]] = (NoVerdict, {"gone": False, "final_after": 5})
RUNNING: tuple[type, dict[str, Any]] = (Running, {})
FAILED_MODERATED = (Failed, {"code": "content_moderated", "retryable": False, "try_again": False})
FAILED_MODERATED_AGAIN = (Failed, {"code": "content_moderated", "retryable": True, "try_again": True})
FAILED_INVALID = (Failed, {"code": "invalid_input", "retryable": False})
FAILED_AGAIN = (Failed, {"code": "provider_failed", "retryable": True})
FAILED_BUSY = (Failed, {"code": "provider_unavailable", "retryable": True, "trouble": BUSY})
FAILED_BROKE = (Failed, {"code": "account_exhausted", "retryable": True, "trouble": BALANCE})
FAILED_UNSERVED = (Failed, {"code": "provider_unavailable", "retryable": True, "trouble": DOWN})
FAILED_FOR_GOOD = (Failed, {"code": "provider_failed", "retryable": False})


def trouble(kind: Trouble, **fields: Any) -> tuple[type, dict[str, Any]]:
    return NotAccepted, {"trouble": kind, **fields}


def accepted(ref: str, **fields: Any) -> tuple[type, dict[str, Any]]:
    return Accepted, {"provider_ref": ref, **fields}
