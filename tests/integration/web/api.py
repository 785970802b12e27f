"""Clients that hold every answer against the API's own contract, and users to be them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from flask import Flask
from jsonschema import Draft202012Validator, FormatChecker

from tests.infrastructure.client import TIMEOUT_S, Answer, Client
from web import openapi
from web.app import create_app

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_CODE = re.compile(r"[a-z][a-z_]*")
_SECRETS_OF_OURS = ("Traceback", 'File "', "sqlalchemy", "psycopg", "sqlite3")
_OUTSIDE_ROUTES = (404, 405)  # no operation declares that it does not exist
formats = FormatChecker(formats=())


@formats.checks("date-time")
def _is_moment(value: object) -> bool:
    return not isinstance(value, str) or _MOMENT.fullmatch(value) is not None


class Api(Client):
    """A user of the API. With an `app` requests go straight to it, else to `url`; every answer is checked."""

    def __init__(
        self, token: str = "", *, app: Flask | None = None, url: str = "", user_id: str = "", email: str = ""
    ) -> None:
        super().__init__(url, token)
        self.app, self.user_id, self.email = app, user_id, email

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Answer:
        send = super().ask if self.app is None else self._inside
        answer = send(method, path, body, headers, timeout_s)
        check(method, path, answer)
        return answer

    def _inside(
        self, method: str, path: str, body: Any, headers: Mapping[str, str] | None, timeout_s: float
    ) -> Answer:
        assert self.app is not None
        sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None:
            sent["Content-Type"] = "application/json"
        began = time.perf_counter()
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent |= headers or {}
        with self.app.test_client().open(path, method=method, data=data, headers=sent) as reply:
            names = {name.lower(): value for name, value in reply.headers.items()}
            return Answer(reply.status_code, names, reply.get_data(), time.perf_counter() - began)


# ---------------------------------------------------------------- the contract


def check(method: str, path: str, answer: Answer) -> None:
    """Hold an answer against what the OpenAPI document declares for it."""
    assert answer.headers.get("x-request-id"), "an answer without X-Request-Id"
    declared = _declared(method, path.partition("?")[0], answer.status)
    if declared is None or declared is document()["components"]["responses"]["error"]:
        assert declared is None or answer.status >= 400
        if answer.status >= 400:
            check_error(answer, with_body=method != "HEAD")
        return
    if method == "HEAD":
        return
    content = declared.get("content", {})
    if "application/json" not in content:
        assert answer.status != 204 or not answer.body
        return
    assert answer.headers["content-type"] == "application/json"
    validator(content["application/json"]["schema"]).validate(answer.json)


def check_error(answer: Answer, *, with_body: bool = True) -> None:
    """The one shape of errors, and nothing of our insides in it."""
    assert answer.headers["content-type"] == "application/json", answer.headers
    if not with_body:
        return
    validator({"$ref": "#/components/schemas/Error"}).validate(answer.json)
    error = answer.json["error"]
    assert _CODE.fullmatch(error["code"]), error
    assert _CODE.fullmatch(error["type"]), error
    assert error["message"]
    assert not [word for word in _SECRETS_OF_OURS if word in error["message"]]
    assert (answer.status == 401) == ("www-authenticate" in answer.headers)
    assert (answer.status in (429, 503)) == ("retry-after" in answer.headers)


def _declared(method: str, path: str, status: int) -> dict[str, Any] | None:
    """The declared answer; None outside the routes. AssertionError where a route answers what it does not declare."""
    for pattern, operations in _routes():
        operation = operations.get("get" if method == "HEAD" else method.lower())
        if operation is None or not pattern.fullmatch(path):
            continue
        if str(status) not in operation["responses"] and status in _OUTSIDE_ROUTES:
            return None
        assert str(status) in operation["responses"], f"{method} {path} does not declare {status}"
        found: dict[str, Any] = operation["responses"][str(status)]
        return document()["components"]["responses"]["error"] if "$ref" in found else found
    return None


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document of the code under test."""
    return openapi.document(create_app())


@cache
def _routes() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    paths = document()["paths"].items()
    return [(re.compile(_pattern(path)), operations) for path, operations in paths]


def _pattern(path: str) -> str:
    plain = re.sub(r"\\{(\w+)\\}", "{}", re.escape(path))
    return plain.replace("{}", ".+" if path.startswith("/media/") else "[^/]+")


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    """A validator of a schema that may refer to the document's components."""
    whole = {**schema, "components": document()["components"]}
    return Draft202012Validator(whole, format_checker=formats)
