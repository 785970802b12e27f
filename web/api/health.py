"""Is this process alive, can the platform take jobs, and the figures behind that."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response
from sqlalchemy.exc import SQLAlchemyError

from common import queue
from common.db import engine
from common.db.schema import SchemaState, schema_state
from common.db.types import Base
from web import metrics, shapes
from web.answers import JsonResponse, answer
from web.endpoints import Access, endpoint

PING_S = 0.5
blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@endpoint(access=Access.ANYONE, returns=shapes.Alive)
def alive() -> dict[str, Any]:
    """Say that this process is alive."""
    return {"status": "ok"}


@blueprint.get("/readyz")
@endpoint(access=Access.ANYONE, returns=shapes.Readiness, also=(503,))
def ready() -> Response:
    """Say whether jobs can be accepted: `unavailable` (503) only when they cannot, else `ok` or `degraded`."""
    schema = _schema()
    broker = queue.is_reachable(PING_S)
    status = _status(schema, broker=broker)
    return answer(
        {
            "status": status,
            "database": "ok" if schema else "unavailable",
            "redis": "ok" if broker else "unavailable",
            "schema": _schema_object(schema),
        },
        503 if status == "unavailable" else 200,
    )


def _schema() -> SchemaState | None:
    """How the schema stands, or None where the database cannot be asked."""
    try:
        return schema_state(engine(), Base.metadata)
    except SQLAlchemyError:
        return None


def _status(schema: SchemaState | None, *, broker: bool) -> str:
    if schema is None or not schema.usable:
        return "unavailable"
    whole = schema.state in ("current", "ahead") and not schema.missing
    return "ok" if whole and broker else "degraded"


def _schema_object(schema: SchemaState | None) -> dict[str, Any]:
    if schema is None:
        return {"state": "unknown", "db": [], "code": None, "missing": {}, "holder": None}
    return {"state": schema.state, "db": schema.db, "code": schema.code, "missing": schema.missing,
            "holder": schema.holder}  # fmt: skip


@blueprint.get("/metrics")
@endpoint(access=Access.ANYONE)
def prometheus() -> Response:
    """Figures for Prometheus."""
    return JsonResponse(metrics.exposition(), content_type=metrics.CONTENT_TYPE)
