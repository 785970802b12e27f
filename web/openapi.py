"""The OpenAPI document, made from the routes, their declarations and the catalogue.

`python -m web.openapi --write` keeps a copy in `web/openapi.json`; `--check` fails when that copy is out of date.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from common.providers.registry import MODELS
from web import samples, schemas, shapes
from web.endpoints import Access, Endpoint, declaration

COPY = Path(__file__).with_name("openapi.json")
_REF = "#/components/schemas/{model}"
_DESCRIPTION = (
    "Self-hosted AI media jobs: Midjourney, Kling, Jimeng and Flux behind one API. Every answer carries "
    "`X-Request-Id`; every error has the same shape. Lists are read by cursor: pass `next` as `after`."
)
_REQUEST_HEADERS = {
    "Idempotency-Key": "Makes a repeat safe: the same key and body answer what the first one answered.",
    "Prefer": "`wait=N`: hold the answer until the job is finished, at most N (≤ 60) seconds.",
    "Last-Event-ID": "The `id` of the last event that was seen; the stream goes on from there.",
}
_BINARY = {"type": "string", "format": "binary"}
_FILE = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["file"],
            "properties": {"file": _BINARY},
            "additionalProperties": False,
        }
    },
    **{kind: {"schema": _BINARY} for kind in ("image/*", "video/*", "audio/*", "application/octet-stream")},
}
_STREAMS = ("/v1/jobs/<job_id>/events",)  # what they answer is said of each of their events
_ERRORS_OF_ALL = (400, 401, 403, 422, 503)


def document(app: Flask, base: str = samples.BASE) -> dict[str, Any]:
    """The whole document, with samples that call the application at `base`."""
    routes = list(_routes(app))
    return {
        "openapi": "3.1.0",
        "info": {"title": "wxiai", "version": "1", "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": _paths(routes, base),
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "secret": {"type": "apiKey", "in": "header", "name": "mj-api-secret"},
            },
            "schemas": _schemas(routes) | _inputs(),
            "responses": {"error": _json_content("What went wrong.", {"$ref": _REF.format(model="Error")})},
        },
    }


# ---------------------------------------------------------------- routes

_Route = tuple[str, str, str, Callable[..., Any], Endpoint]
_PARAMETER = re.compile(r"<(?:(?P<converter>\w+)(?:\((?P<options>[^)]*)\))?:)?(?P<name>\w+)>")


def _routes(app: Flask) -> Iterator[_Route]:
    """Rule, method, name, view and declaration of every route, in a stable order."""
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        view = app.view_functions[rule.endpoint]
        declared = declaration(view)
        if declared is None:
            raise LookupError(f"{rule.rule} declares nothing")
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield rule.rule, method.lower(), rule.endpoint, view, declared


def _paths(routes: list[_Route], base: str) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for rule, method, name, view, declared in routes:
        path = _PARAMETER.sub(r"{\g<name>}", rule)
        operation = _operation(rule, method, name, view, declared)
        operation["x-codeSamples"] = samples.of(method.upper(), path, declared, base)
        paths.setdefault(path, {})[method] = operation
    return paths


def _operation(
    rule: str, method: str, name: str, view: Callable[..., Any], declared: Endpoint
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{name.replace('.', '_')}" + ("_replace" if method == "put" else ""),
        "summary": declared.summary,
        "tags": [name.partition(".")[0]],
        "parameters": _of_path(rule) + _parameters(declared),
        "responses": _responses(rule, declared),
    }
    details = "\n".join(line.strip() for line in (view.__doc__ or "").strip().splitlines()[1:]).strip()
    if details:
        operation["description"] = details
    if declared.body is not None:
        reference = {"$ref": _REF.format(model=_title(declared.body))}
        kinds = ("application/json", "multipart/form-data") if declared.as_form else ("application/json",)
        content = {kind: {"schema": reference} for kind in kinds}
        operation["requestBody"] = {"required": not declared.body_may_be_absent, "content": content}
    if declared.takes_file:
        operation["requestBody"] = {"required": True, "content": _FILE}
    if declared.access is Access.ANYONE:
        operation["security"] = []
    elif rule.startswith("/mj"):
        operation["security"] = [{"token": []}, {"secret": []}]  # either
    return operation


def _of_path(rule: str) -> list[dict[str, Any]]:
    return [
        {
            "name": each["name"],
            "in": "path",
            "required": True,
            "schema": {"type": "string", **_options(each)},
            "example": samples.PATH_VALUES[each["name"]],
        }
        for each in _PARAMETER.finditer(rule)
    ]


def _options(parameter: re.Match[str]) -> dict[str, Any]:
    return {"enum": parameter["options"].split(", ")} if parameter["converter"] == "any" else {}


def _parameters(declared: Endpoint) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    if declared.query is not None:
        properties = declared.query.model_json_schema(ref_template=_REF)["properties"]
        made += [{"name": name, "in": "query", "schema": field} for name, field in properties.items()]
    made += [
        {"name": name, "in": "header", "description": _REQUEST_HEADERS[name], "schema": {"type": "string"}}
        for name in declared.headers
    ]
    return made


def _responses(rule: str, declared: Endpoint) -> dict[str, Any]:
    good: dict[str, Any] = {}
    if declared.returns is not None:
        reference = {"$ref": _REF.format(model=_title(declared.returns))}
        kind = "text/event-stream" if rule in _STREAMS else "application/json"
        good = {"content": {kind: {"schema": _list_of(reference) if declared.many else reference}}}
    made = {
        str(status): (good if status != 204 else {}) | {"description": HTTPStatus(status).phrase}
        for status in (declared.status, *declared.also)
    }
    always = _ERRORS_OF_ALL if declared.access is not Access.ANYONE else (503,)
    of_body = (400, 413, 415, 422) if declared.body or declared.takes_file else ()
    counted = (429,) if declared.access is Access.SUBMITTER else ()
    of_path = (404,) if any(_options(each) for each in _PARAMETER.finditer(rule)) else ()
    refusals = {*always, *declared.errors, *counted, *of_body, *of_path} - {*declared.also}
    return made | {str(status): {"$ref": "#/components/responses/error"} for status in sorted(refusals)}


def _json_content(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _list_of(reference: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["object", "data", "has_more", "next"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": reference},
            "has_more": {"type": "boolean"},
            "next": {"type": ["string", "null"], "description": "Pass it as `after`"},
        },
    }


# ---------------------------------------------------------------- schemas


def _title(model: type[BaseModel]) -> str:
    """Requests and answers may share a name (`NewToken`): what is sent gets a suffix."""
    return f"{model.__name__}Request" if issubclass(model, (schemas.Body, schemas.Query)) else model.__name__


def _schemas(routes: list[_Route]) -> dict[str, Any]:
    """Every model that a route takes or answers, and what those hold."""
    declared = [route[4] for route in routes]
    taken = {model for each in declared for model in (each.body, each.query) if model is not None}
    answered = {each.returns for each in declared if each.returns is not None} | {shapes.Error}
    made: dict[str, Any] = {}
    for models in (answered, taken):
        made |= _definitions(sorted(models, key=lambda model: model.__name__))
    job = made["NewJobRequest"]["properties"]
    job["model"]["enum"] = list(MODELS)
    job["input"]["anyOf"] = [{"$ref": _REF.format(model=_input_name(model))} for model in MODELS]
    return dict(sorted(made.items()))


def _definitions(models: list[type[BaseModel]]) -> dict[str, Any]:
    _, top = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    found: dict[str, Any] = top.get("$defs", {})
    names = {model.__name__: _title(model) for model in models if model.__name__ != _title(model)}
    return {names.get(name, name): _renamed(schema, names) for name, schema in found.items()}


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """The schema with its references to the models of these names led to their titles."""
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    to = str(value.get("$ref", "")).rpartition("/")[2]
    own = {**value, "$ref": _REF.format(model=names[to])} if to in names else value
    return {name: _renamed(item, names) for name, item in own.items()}


def _inputs() -> dict[str, Any]:
    """The input of every model of the catalogue."""
    return {_input_name(model_id): spec.input_schema for model_id, spec in MODELS.items()}


def _input_name(model_id: str) -> str:
    return "input." + model_id.replace("/", ".")


# ---------------------------------------------------------------- the copy in the repository


def text(app: Flask, base: str = samples.BASE) -> str:
    """The document as it is written down."""
    return json.dumps(document(app, base), indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """`--write` renews the copy, `--check` compares it."""
    from web.app import create_app

    fresh = text(create_app())
    if arguments == ["--write"]:
        COPY.write_text(fresh)
        return 0
    if arguments != ["--check"]:
        print("usage: python -m web.openapi --check | --write", file=sys.stderr)
        return 2
    if COPY.exists() and COPY.read_text() == fresh:
        return 0
    print("web/openapi.json is out of date: run `python -m web.openapi --write`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
