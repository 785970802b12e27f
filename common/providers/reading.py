"""Reading what strangers sent: every function takes any value and gives a safe one, none of them raises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from common import clock
from common.providers.base import JsonObject, Reply

ID_LIMIT = 200
URL_LIMIT = 8192
TEXT_LIMIT = 4000  # before secrets are taken out; messages end up shorter
LONGEST_PAUSE_S = 300.0


def obj(value: object) -> JsonObject:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def text(value: object, limit: int = TEXT_LIMIT) -> str:
    """A string or number as text that any database takes: no NUL, no lone surrogate, trimmed. Else empty."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    clean = str(value).replace("\0", " ").encode("utf-8", "replace").decode()
    return clean.strip()[:limit]


def ref(value: object) -> str | None:
    """A provider's identifier: a string or an integer, printable and of sane length. Else None."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    found = str(value).strip()
    return found if found and len(found) <= ID_LIMIT and found.isprintable() else None


def web_url(value: object) -> str | None:
    """An absolute http(s) URL, else None. Whether it may be called is for the caller to decide."""
    if not isinstance(value, str) or len(value) > URL_LIMIT:
        return None
    found = value.strip()
    return found if found.isprintable() and found.lower().startswith(("https://", "http://")) else None


def number(value: object) -> float | None:
    """A finite number, also one written as a string. Else None."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def integer(value: object) -> int | None:
    """A whole number, also one written as a string. Else None."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def size(value: object) -> int | None:
    """A number of pixels: whole and positive. Else None."""
    found = integer(value)
    return found if found is not None and 0 < found < 1_000_000 else None


def seconds(value: object) -> float | None:
    """A duration: positive and less than a day. Else None."""
    found = number(value)
    return found if found is not None and 0 < found < 86_400 else None


def given(values: Mapping[str, Any]) -> JsonObject:
    """The values without those that are None: what is not given is not sent."""
    return {name: value for name, value in values.items() if value is not None}


def retry_after_s(
    reply: Reply, at_least: float | None = None, longest_s: float = LONGEST_PAUSE_S
) -> float | None:
    """How long the server asks us to wait (Retry-After: seconds or a date), or `at_least` where it says less."""
    asked = _asked_pause_s(reply.headers.get("retry-after", ""))
    if asked is None:
        return at_least
    return min(max(asked, at_least or 0.0), longest_s)


def _asked_pause_s(header: str) -> float | None:
    plain = number(header)
    if plain is not None:
        return max(0.0, plain)
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - clock.epoch())
