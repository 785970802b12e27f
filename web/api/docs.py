"""The documentation of the API, for machines and for people."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from flask import Blueprint, Flask, Response, current_app, render_template
from markupsafe import Markup, escape

from common.settings import settings
from web import openapi
from web.answers import JsonResponse
from web.endpoints import Access, endpoint

blueprint = Blueprint("docs", __name__)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@blueprint.get("/openapi.json")
@endpoint(access=Access.ANYONE)
def machine() -> Response:
    """The OpenAPI document of this API."""
    return JsonResponse(_text(settings().public_url))


@blueprint.get("/docs")
@endpoint(access=Access.ANYONE)
def human() -> Response:
    """This API as a page to read; it loads nothing from elsewhere."""
    made = JsonResponse(_page(settings().public_url), mimetype="text/html")
    made.headers["Content-Security-Policy"] = _POLICY
    return made


@cache
def _text(base: str) -> str:
    return openapi.text(_app(), base)


@cache
def _page(base: str) -> str:
    app = _app()
    document = openapi.document(app, base)
    return render_template(
        "docs.html",
        document=document,
        groups=_groups(app, document),
        base=base,
        code=_code,
        kind=_kind,
        name_of=_name_of,
    )


def _groups(app: Flask, document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Operations by tag, as the application lists its topics, each with its path and method."""
    groups: dict[str, list[dict[str, Any]]] = {tag: [] for tag in app.blueprints}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            shown = {**operation, "path": path, "method": method.upper()}
            groups[operation["tags"][0]].append(shown)
    return groups


# ---------------------------------------------------------------- how things are written


def _code(text: str) -> Markup:
    """Prose with its `names` set as code, its line breaks kept as paragraphs."""
    paragraphs = (re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(part))) for part in text.split("\n\n"))
    return Markup("<br>").join(Markup(part) for part in paragraphs)  # noqa: S704 - escaped above


def _kind(schema: dict[str, Any]) -> Markup:
    """A field's type in a few words, with links to shapes."""
    if "$ref" in schema:
        name = _name_of(schema["$ref"])
        return Markup('<a href="#{0}">{0}</a>').format(name)
    if "const" in schema:
        return Markup("<code>{}</code>").format(json.dumps(schema["const"]))
    if "enum" in schema:
        options = Markup(" ").join(Markup("<code>{}</code>").format(item) for item in schema["enum"])
        return Markup("{}{}").format(options, _limits(schema))
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return Markup(" or ").join(_kind(option) for option in schema[choice])
    kinds = schema.get("type", "anything")
    if kinds == "array":
        return Markup("list of {}").format(_kind(schema.get("items", {})))
    written = " or ".join(kinds) if isinstance(kinds, list) else kinds
    return Markup("{}{}").format(written, _limits(schema))


_LIMITS = {
    "minimum": "≥ {}", "maximum": "≤ {}", "multipleOf": "multiple of {}", "minLength": "≥ {} characters",
    "maxLength": "≤ {} characters", "minItems": "≥ {}", "maxItems": "≤ {}", "format": "{}", "default": "default {}",
}  # fmt: skip


def _limits(schema: dict[str, Any]) -> str:
    written = [
        text.format(json.dumps(schema[name]).strip('"')) for name, text in _LIMITS.items() if name in schema
    ]
    return f", {', '.join(written)}" if written else ""


def _name_of(ref: str) -> str:
    return ref.rpartition("/")[2]


def _app() -> Flask:
    return current_app._get_current_object()  # type: ignore[attr-defined,no-any-return]
