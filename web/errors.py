"""Errors as answers: the only place that knows which error has which HTTP status."""

from __future__ import annotations

import logging
from http import HTTPStatus

from flask import Flask, Response, g, request
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from common.errors import AppError, Kind
from web.answers import answer, error_object

log = logging.getLogger(__name__)

STATUS = {
    Kind.MALFORMED: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.UNPAID: 402,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.TOO_LARGE: 413,
    Kind.INVALID: 422,
    Kind.LIMITED: 429,
    Kind.UNAVAILABLE: 503,
}
_KINDS = {status: kind for kind, status in STATUS.items()}
_RETRY_AFTER_S = 5
_OUTAGES = (OperationalError, InterfaceError, PoolTimeout)


def register(app: Flask) -> None:
    """Answer every error of this application in the one shape."""
    app.register_error_handler(AppError, app_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(PoolTimeout, _outage)
    app.register_error_handler(DBAPIError, _database_error)
    app.register_error_handler(Exception, _unexpected)


def app_error(error: AppError) -> Response:
    """Our own errors, in the one shape."""
    status = STATUS[error.kind]
    return answer(
        error_object(error.code, error.kind, str(error), error.param),
        status,
        _headers(status, error.retry_after_s),
    )


def _headers(status: int, retry_after_s: int | None) -> dict[str, str]:
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": "Bearer"}
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return {"Retry-After": str(retry_after_s or _RETRY_AFTER_S)}
    return {}


def _http_error(error: HTTPException) -> Response:
    """What Flask itself refuses: unknown paths, wrong methods, bodies that are too large."""
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    kind = _KINDS.get(status, Kind.INVALID if status < HTTPStatus.INTERNAL_SERVER_ERROR else Kind.UNAVAILABLE)
    code = (
        str(kind)
        if status in _KINDS
        else HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")
    )
    made = answer(error_object(code, kind, _sentence(error)), status, _headers(status, None))
    for name, value in error.get_headers(request.environ):
        if name.lower() in ("allow", "content-range", "retry-after"):
            made.headers[name] = value
    return made


def _sentence(error: HTTPException) -> str:
    match error.code:
        case HTTPStatus.NOT_FOUND:
            return "There is nothing at this path."
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return "This path does not take this method; see the Allow header."
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return "The request body is too large."
        case _:
            return str(error.description or error.name)


def _database_error(error: DBAPIError) -> Response:
    """The database is gone or busy (503), or it refuses a value that no check has caught (422)."""
    if isinstance(error, _OUTAGES) or error.connection_invalidated:
        return _outage(error)
    if isinstance(error, DataError):
        log.warning("the database refused a value: %s", type(error.orig).__name__, extra=_whence())
        return answer(error_object("invalid_input", Kind.INVALID, "A field has an unusable value."), 422)
    return _unexpected(error)


def _outage(error: Exception) -> Response:
    cause = getattr(error, "orig", None) or error
    log.error("the database cannot be used: %s: %.200s", type(cause).__name__, cause, extra=_whence())
    message = "The service cannot do this right now; try again later."
    return answer(error_object("unavailable", Kind.UNAVAILABLE, message), 503, _headers(503, None))


def _unexpected(error: Exception) -> Response:
    log.error("unexpected error", exc_info=error, extra=_whence())
    message = f"Something went wrong on our side; tell the operator the request id {g.get('request_id', '')}."
    return answer(error_object("internal", "internal", message), 500)


def _whence() -> dict[str, str]:
    return {"request_id": g.get("request_id", ""), "route": f"{request.method} {request.url_rule or '?'}"}
