"""Providers calling back: a nudge to look at a job now, never a fact."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, request

from common.db import reading, transaction
from common.errors import AppError, BadSignature, NotFound
from common.services import callbacks, jobs
from web import shapes
from web.endpoints import Access, endpoint
from web.parsing import SMALL_BODY, check_values, parse_json, raw_body

blueprint = Blueprint("callbacks", __name__)


@blueprint.post("/callbacks/<token>")
@endpoint(access=Access.ANYONE, returns=shapes.Ok, errors=(400, 401, 404, 413), max_bytes=SMALL_BODY)
def called(token: str) -> dict[str, Any]:
    """Tell that a generation has news. The body may be anything; it is not believed.

    Where the account's provider signs its calls and we can check it, a call without a right signature is refused.
    """
    raw = raw_body()
    _check_signature(token, raw)
    body = _hint(raw)
    with transaction() as session:
        if jobs.called_back(session, token, body) is None:
            raise NotFound
    return {"object": "ok"}


def _check_signature(token: str, raw: bytes) -> None:
    """Raises NotFound for an unknown token and BadSignature for a call that somebody else has made."""
    with reading() as session:
        caller = callbacks.caller(session, token)
    if caller is None:
        raise NotFound
    headers = {name.lower(): value for name, value in request.headers.items()}
    if callbacks.is_forged(caller, headers, raw):
        raise BadSignature


def _hint(raw: bytes) -> dict[str, Any] | None:
    """The body if it is a JSON object that can be stored."""
    try:
        value = parse_json(raw)
        check_values(value)
    except AppError:
        return None
    return value if isinstance(value, dict) else None
