"""The OpenAPI document says what the application does, and `/docs` shows it without the internet."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from flask import Flask
from jsonschema import Draft202012Validator, ValidationError

from common.providers.registry import MODELS
from tests.integration.web.api import Api, check, document
from tests.integration.web.jobs import BODY
from web import openapi


def refs(value: Any) -> set[str]:
    """Every `$ref` in a document."""
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(refs(item) for item in value.values()))
    return set().union(*(refs(item) for item in value)) if isinstance(value, list) else set()


def test_every_route_is_declared(app: Flask, nobody: Api) -> None:
    declared = {
        (path, method.upper()) for path, operations in document()["paths"].items() for method in operations
    }
    routes = {
        (re.sub(r"<(?:[^<>]+:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert declared == routes
    assert nobody.get("/openapi.json") == document()


def test_the_contracts_calls_are_there() -> None:
    wanted = """
        POST /v1/jobs, GET /v1/jobs, GET /v1/jobs/{job_id}, POST /v1/jobs/{job_id}/cancel, POST /v1/quotes,
        GET /v1/models, GET /v1/models/{provider}/{name}, GET /v1/me, GET /v1/credits, GET /v1/credits/ledger,
        POST /v1/auth/signin, POST /v1/tokens, GET /v1/tokens, DELETE /v1/tokens/{token_id},
        POST /v1/admin/users, GET /v1/admin/users, GET /v1/admin/users/{user_id}, PATCH /v1/admin/users/{user_id},
        POST /v1/admin/users/{user_id}/tokens, POST /v1/admin/users/{user_id}/credits,
        POST /v1/tools, GET /v1/tools, GET /v1/tools/{tool_id}, PATCH /v1/tools/{tool_id},
        DELETE /v1/tools/{tool_id}, POST /v1/tools/{tool_id}/run, POST /callbacks/{token},
        GET /healthz, GET /readyz, GET /metrics, GET /openapi.json, GET /docs
    """
    for call in wanted.split(","):
        method, path = call.split()
        assert method.lower() in document()["paths"].get(path, {}), call


def test_the_document_holds_together() -> None:
    components = document()["components"]
    for ref in refs(document()):
        _, _, kind, name = ref.split("/", 3)
        assert name in components[kind], ref
    for schema in components["schemas"].values():
        Draft202012Validator.check_schema(schema)
    operations = [operation for path in document()["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["summary"].endswith(".") for operation in operations)
    assert {f"input.{model.replace('/', '.')}" for model in MODELS} <= set(components["schemas"])


def test_answers_of_every_kind_are_declared() -> None:
    paths = document()["paths"]
    stream = paths["/v1/jobs/{job_id}/events"]["get"]["responses"]
    assert (list(stream["200"]["content"]), "content" in stream["204"]) == (["text/event-stream"], False)
    for path, operations in paths.items():
        for operation in operations.values():
            if path.startswith("/mj"):
                assert "application/json" in operation["responses"]["200"]["content"], path
                assert operation["security"] == [{"token": []}, {"secret": []}]
    assert document()["components"]["securitySchemes"]["secret"]["name"] == "mj-api-secret"


def test_a_midjourney_task_that_is_none_is_noticed(user: Api) -> None:
    path = "/mj/task/list"
    user.post("/mj/submit/imagine", {"prompt": "x"})
    answer = user.ask("GET", path)
    for wrong in ([{**answer.json[0], "status": "DONE"}], {}, [{}], None):
        with pytest.raises(ValidationError):
            check("GET", path, replace(answer, body=json.dumps(wrong).encode()))


def test_the_copy_in_the_repository_is_up_to_date(app: Flask, capsys: pytest.CaptureFixture[str]) -> None:
    assert openapi.main(["--check"]) == 0
    assert openapi.main(["--chek"]) == 2
    assert "usage" in capsys.readouterr().err


def test_a_route_without_a_declaration_is_noticed(released_url: str) -> None:
    stray = Flask("stray")
    stray.add_url_rule("/stray", view_func=lambda: "")
    with pytest.raises(LookupError):
        openapi.document(stray)


def test_the_check_of_answers_bites(user: Api) -> None:
    answer = user.ask("POST", "/v1/jobs", BODY)
    for wrong in (
        {"status": "done"},
        {"cost": {"held": "20", "charged": None}},
        {"created_at": "2026-11-24 20:00:00"},
        {"secret": "x"},
    ):
        body = json.dumps({**answer.json, **wrong}).encode()
        with pytest.raises(ValidationError):
            check("POST", "/v1/jobs", replace(answer, body=body))
    for broken in (
        replace(answer, status=204),
        replace(answer, headers={**answer.headers, "x-request-id": ""}),
        replace(answer, headers={**answer.headers, "content-type": "text/html"}),
    ):
        with pytest.raises(AssertionError):
            check("POST", "/v1/jobs", broken)


# ---------------------------------------------------------------- around every answer


def test_a_request_id_is_given_back_if_it_is_one(user: Api) -> None:
    assert user.ask("GET", "/v1/me", headers={"X-Request-Id": "abc-123"}).headers["x-request-id"] == "abc-123"
    for strange in ("", "a b", "x" * 129, "ü"):
        made = user.ask("GET", "/v1/me", headers={"X-Request-Id": strange}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", made)
    first, second = (user.ask("GET", "/nowhere").headers["x-request-id"] for _ in range(2))
    assert first != second


def test_head_and_options(user: Api, nobody: Api) -> None:
    assert user.ask("HEAD", "/v1/me").body == b""
    assert nobody.ask("HEAD", "/v1/me").status == 401
    answer = nobody.ask("OPTIONS", "/v1/jobs")
    assert (answer.status, set(answer.headers["allow"].split(", "))) == (
        200,
        {"GET", "HEAD", "OPTIONS", "POST"},
    )
    refused = user.ask("DELETE", "/v1/jobs")
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}


# ---------------------------------------------------------------- the page


class Page(HTMLParser):
    """What a browser would load, follow and show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if tag == "a" and "href" in given else []
        self.loads += [given[name] for name in ("src", "srcset", "data") if name in given]
        self.loads += [given["href"]] if tag != "a" and "href" in given else []

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page(nobody: Api) -> Page:
    answer = nobody.ask("GET", "/docs")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    return Page(answer.body.decode())


def test_the_page_loads_nothing(page: Page) -> None:
    assert page.loads == []
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert not re.search(r"@import|url\(", page.text)


def test_its_links_lead_somewhere(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert link in ("/openapi.json",) or link.removeprefix("#") in page.ids, link


def test_it_shows_every_call_and_shape(page: Page) -> None:
    shown = " ".join(page.text.split())
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            assert f"{method.upper()} {path} {operation['summary'].replace('`', '')}" in shown
    for name in document()["components"]["schemas"]:
        assert name in page.ids
    assert "text/event-stream" in shown
    assert "`" not in shown  # names are set as code
