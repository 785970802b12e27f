"""Providers calling back: a nudge to look at a job now, never a fact."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from common.db import transaction
from common.errors import AppError, NotFound
from common.services import jobs
from web import shapes
from web.endpoints import SMALL_BODY, Access, endpoint
from web.parsing import check_values, parse_json, raw_body

blueprint = Blueprint("callbacks", __name__)


@blueprint.post("/callbacks/<token>")
@endpoint(access=Access.ANYONE, returns=shapes.Ok, errors=(400, 404, 413), max_bytes=SMALL_BODY)
def called(token: str) -> dict[str, Any]:
    """Tell that a generation has news. The body may be anything; it is not believed."""
    body = _hint(raw_body())
    with transaction() as session:
        if jobs.called_back(session, token, body) is None:
            raise NotFound
    return {"object": "ok"}


def _hint(raw: bytes) -> dict[str, Any] | None:
    """The body if it is a JSON object that can be stored."""
    try:
        value = parse_json(raw)
        check_values(value)
    except AppError:
        return None
    return value if isinstance(value, dict) else None
