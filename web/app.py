"""The application: blueprints, errors, and what happens around every request."""

from __future__ import annotations

import logging
import random
import re
import time

from flask import Flask, Response, abort, g, request
from flask_cors import CORS

from common.settings import settings
from web import commands, errors, metrics
from web.answers import JsonResponse
from web.api import (
    account,
    admin,
    callbacks,
    docs,
    events,
    health,
    jobs,
    media,
    midjourney,
    models,
    openai_images,
    openai_videos,
    schedules,
    tools,
    uploads,
    webhooks,
)

_SANE_ID = re.compile(r"[\x21-\x7e]{1,128}")
_EXPOSED = ["Location", "Idempotent-Replayed", "Retry-After", "X-Request-Id", "x-ratelimit-limit-requests",
            "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "openai-poll-after-ms"]  # fmt: skip
_PREFLIGHT_S = 600  # how long a browser may remember what it may do
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
access_log = logging.getLogger("web.access")


def create_app() -> Flask:
    """A new application, for gunicorn (`web.wsgi`), for `flask --app web.app` and for tests."""
    app = Flask("web", static_folder=None)
    app.response_class = JsonResponse
    app.config["MAX_CONTENT_LENGTH"] = settings().max_body_bytes
    app.url_map.merge_slashes = False  # its redirects would be HTML
    for room in (
        jobs,
        events,
        schedules,
        models,
        account,
        tools,
        admin,
        callbacks,
        webhooks,
        openai_images,
        openai_videos,
        uploads,
        media,
        health,
        docs,
    ):
        app.register_blueprint(room.blueprint)
    if settings().cors_origins:
        CORS(app, origins=_origins(), expose_headers=_EXPOSED, max_age=_PREFLIGHT_S)
    app.register_blueprint(midjourney.submits)
    app.register_blueprint(midjourney.tasks)
    errors.register(app)
    app.before_request(_begin)
    app.after_request(_end)
    commands.register(app)
    return app


def _origins() -> list[re.Pattern[str]] | str:
    """Each matches itself alone: of a text with brackets in it, as in [::1], the library would make a pattern."""
    named = settings().cors_origins
    return "*" if named == ("*",) else [re.compile(rf"{re.escape(each)}\Z", re.IGNORECASE) for each in named]


def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if _SANE_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
    g.began_at = time.perf_counter()
    if "\0" in request.path:
        abort(404)


def _end(made: Response) -> Response:
    """Name the request, count it, write it down: never with its query, and never with a callback's token."""
    made.headers["X-Request-Id"] = g.request_id
    made.headers.update(g.get("rate_headers", {}))
    took_s = time.perf_counter() - g.began_at
    rule = request.url_rule.rule if request.url_rule else "unmatched"
    method = request.method if request.method in _METHODS else "OTHER"
    metrics.answered(method, rule, made.status_code, took_s)
    if access_log.isEnabledFor(logging.INFO) and rule not in _QUIET:
        path = _CALLBACK if _is_callback(request.path) else request.path[:500]
        access_log.info(
            "%s %s %d", method, path, made.status_code,
            extra={"request_id": g.request_id, "status": made.status_code, "took_ms": round(took_s * 1000, 1)},
        )  # fmt: skip
    return made


_CALLBACK = "/callbacks/<token>"


def _is_callback(path: str) -> bool:
    """Also where it leads nowhere: a provider that got an address wrong still sends the token."""
    return "/callbacks" in path.lower()


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
