"""The documentation of the API, for machines and for people."""

from __future__ import annotations

from functools import cache
from typing import Any

from flask import Blueprint, Response, current_app, render_template

from web import openapi
from web.answers import JsonResponse
from web.endpoints import Access, endpoint

blueprint = Blueprint("docs", __name__)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@blueprint.get("/openapi.json")
@endpoint(access=Access.ANYONE)
def machine() -> Response:
    """The OpenAPI document of this API."""
    return JsonResponse(_text())


@blueprint.get("/docs")
@endpoint(access=Access.ANYONE)
def human() -> Response:
    """This API as a page to read; it loads nothing from elsewhere."""
    made = JsonResponse(_page(), mimetype="text/html")
    made.headers["Content-Security-Policy"] = _POLICY
    return made


@cache
def _text() -> str:
    return openapi.text(_app())


@cache
def _page() -> str:
    document = openapi.document(_app())
    return render_template("docs.html", document=document, groups=_groups(document))


def _groups(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Operations by tag, each with its path and method."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            shown = {**operation, "path": path, "method": method.upper()}
            groups.setdefault(operation["tags"][0], []).append(shown)
    return groups


def _app() -> Any:
    return current_app._get_current_object()  # type: ignore[attr-defined]
