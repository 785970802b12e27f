"""How answers look: compact JSON, lists with a cursor, and the one error shape."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response

REPLAYED = {"Idempotent-Replayed": "true"}  # of an answer that repeats what an earlier request has made


class JsonResponse(Response):
    """JSON unless a view says otherwise, so that no answer is HTML by accident."""

    default_mimetype = "application/json"


def answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The value as JSON."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return JsonResponse(text, status, dict(headers or {}))


def listing(data: Sequence[dict[str, Any]], *, has_more: bool = False) -> dict[str, Any]:
    """A page of a list; `next` is what `after` continues with."""
    return {
        "object": "list",
        "data": list(data),
        "has_more": has_more,
        "next": data[-1]["id"] if has_more and data else None,
    }


def error_object(code: str, kind: str, message: str, param: str | None = None) -> dict[str, Any]:
    """What every answer that is an error looks like."""
    return {"error": {"code": code, "type": kind, "message": message, "param": param}}
