"""Whatever a client sends: the fitting refusal in the one shape, never a 5xx, and nothing held, made or written."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from common.ids import new_id
from common.words import Role
from tests.infrastructure.client import Answer
from tests.integration.web.api import Api
from tests.integration.web.conftest import new_user
from tests.integration.web.jobs import BODY, totals

MEBIBYTE = 2**20
MOST = 4 * MEBIBYTE  # MAX_BODY_BYTES here, so that too much is quickly made
PROMPT = {"prompt": "a fox"}


@dataclass(frozen=True)
class Bad:
    """One request that must be refused."""

    name: str
    status: int
    code: str
    param: str | None = None
    method: str = "POST"
    path: str = "/v1/jobs"
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    who: str = "user"


def job(name: str, param: str | None, status: int = 422, code: str = "invalid_input", **fields: Any) -> Bad:
    """A job with wrong fields."""
    return Bad(name, status, code, param, body={**BODY, **fields})


def given(name: str, param: str, model: str = "flux/pro-1.1", **fields: Any) -> Bad:
    """A job with a wrong input."""
    return Bad(
        name, 422, "invalid_input", f"input.{param}", body={"model": model, "input": {**PROMPT, **fields}}
    )


def raw(name: str, body: bytes | str, status: int = 400, code: str = "malformed_request", param: str | None = None,
        **headers: str) -> Bad:  # fmt: skip
    """A body, byte for byte."""
    sent = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    return Bad(
        name, status, code, param, body=sent, headers={key.replace("_", "-"): headers[key] for key in headers}
    )


def get(
    name: str, path: str, param: str | None = None, status: int = 422, code: str = "invalid_input"
) -> Bad:
    """A wrong GET."""
    return Bad(name, status, code, param, method="GET", path=path)


def post(name: str, path: str, body: Any, param: str | None, **others: Any) -> Bad:
    """A wrong body elsewhere."""
    return Bad(
        name, **{"status": 422, "code": "invalid_input", "param": param, "path": path, "body": body, **others}
    )


def nested(depth: int) -> str:
    return (
        '{"model": "flux/pro-1.1", "input": {"prompt": "a"}, "metadata": {"a": '
        + "[" * depth
        + "]" * depth
        + "}}"
    )


TEXT = json.dumps(BODY)
WITH = '{{"model": "flux/pro-1.1", "input": {{"prompt": "a fox"}}, "metadata": {{"a": {}}}}}'
UNKNOWN_ID = "job_01k00000000000000000000000"
URL = "https://example.com/"

TABLE = [
    # ---- not JSON
    raw("no body", b""),
    raw("half a body", TEXT[:-1]),
    raw("two bodies", TEXT + TEXT),
    raw("trailing comma", TEXT[:-1] + ",}"),
    raw("single quotes", TEXT.replace('"', "'")),
    raw("a comment", "/* hello */" + TEXT),
    raw("a form", b"model=flux&input=fox"),
    raw("a list", f"[{TEXT}]"),
    raw("a string", '"flux/pro-1.1"'),
    raw("null", "null"),
    raw("a number", "7"),
    raw("UTF-16", TEXT.encode("utf-16")),
    raw("UTF-8 with a mark", b"\xef\xbb\xbf" + TEXT.encode()),
    raw("broken UTF-8", TEXT.encode().replace(b"fox", b"f\xffx")),
    raw("a raw NUL", TEXT.encode().replace(b"fox", b"f\x00x")),
    raw("raw surrogates", TEXT.replace("fox", "\ud83e")),
    raw("NaN", WITH.format("NaN")),
    raw("Infinity", WITH.format("-Infinity")),
    raw("a number of 5000 digits", WITH.format("9" * 5000)),
    raw("a repeated name", TEXT[:-1] + ', "model": "flux/dev"}'),
    raw("a repeated name deep inside", WITH.format('{"b": 1, "b": 1}')),
    raw("nesting of 65", nested(65)),
    raw("nesting of 100,000", nested(100_000)),
    raw("nesting of objects", '{"a":' * 5000 + "1" + "}" * 5000),
    raw("a million values", WITH.format("[" + "0," * 1_000_000 + "0]")),
    raw("not even bytes of text", bytes(range(256)) * 100),
    # ---- JSON that says it is something else
    raw("form type", TEXT, 415, "unsupported_media_type", Content_Type="application/x-www-form-urlencoded"),
    raw("text type", TEXT, 415, "unsupported_media_type", Content_Type="text/plain"),
    raw("multipart type", TEXT, 415, "unsupported_media_type", Content_Type="multipart/form-data; boundary=x"),
    raw("compressed", b"\x1f\x8b\x08", 415, "unsupported_media_type", Content_Encoding="gzip"),
    # ---- too much
    raw("too large", b" " * (MOST + 1), 413, "request_too_large"),
    raw("too large to parse", b'{"a": "' + b"x" * MOST, 413, "request_too_large"),
    # ---- what no database keeps
    raw("an escaped NUL", TEXT.replace("fox", "f\\u0000x"), 422, "invalid_input", "input.prompt"),
    raw("an escaped lone surrogate", TEXT.replace("fox", "\\ud83e"), 422, "invalid_input", "input.prompt"),
    raw("a lone surrogate in a name", WITH.format('{"\\udc00": 1}'), 422, "invalid_input", "metadata.a"),
    raw("a NUL in an unknown name", '{"\\u0000": 1}', 422, "invalid_input"),
    raw("an integer beyond 64 bits", WITH.format("9223372036854775808"), 422, "invalid_input", "metadata.a"),
    raw("a number beyond doubles", WITH.format("1e999"), 422, "invalid_input", "metadata.a"),
    # ---- the job's own fields
    raw("an empty object", "{}", 422, "invalid_input", "model"),
    raw("no input", '{"model": "flux/pro-1.1"}', 422, "invalid_input", "input"),
    job("an unknown field", "callback", callback=URL),
    job("a field that the platform sets", "charged", charged=0),
    job("model null", "model", model=None),
    job("model a list", "model", model=["flux/pro-1.1"]),
    job("model too long", "model", model="x" * 129),
    job("model unknown", "model", code="unknown_model", model="flux/pro-9"),
    job("model empty", "model", code="unknown_model", model=""),
    job("model in another case", "model", code="unknown_model", model="FLUX/PRO-1.1"),
    job("model with a path trick", "model", code="unknown_model", model="flux/../flux/pro-1.1"),
    job("input a string", "input", input="a fox"),
    job("input null", "input", input=None),
    job("input a list", "input", input=[PROMPT]),
    job("webhook_url a number", "webhook_url", webhook_url=7),
    job("webhook_url empty", "webhook_url", webhook_url=""),
    job("webhook_url without a scheme", "webhook_url", webhook_url="example.com/hook"),
    job("webhook_url of another scheme", "webhook_url", webhook_url="file:///etc/passwd"),
    job("webhook_url without a host", "webhook_url", webhook_url="https:///hook"),
    job("webhook_url with a bad port", "webhook_url", webhook_url="https://example.com:99999/"),
    job("webhook_url with a bad address", "webhook_url", webhook_url="https://[::1/"),
    job("webhook_url with a line break", "webhook_url", webhook_url=URL + "\r\nHost: evil"),
    job("webhook_url too long", "webhook_url", webhook_url=URL + "x" * 2000),
    job("metadata a string", "metadata", metadata="a=b"),
    job("metadata a list", "metadata", metadata=[1]),
    job("metadata too large", "metadata", metadata={"a": "x" * 16_384}),
    job("priority in quotes", "priority", priority="1"),
    job("priority a fraction", "priority", priority=1.5),
    job("priority true", "priority", priority=True),
    job("priority too high", "priority", priority=101),
    job("priority null", "priority", priority=None),
    job("deadline_s zero", "deadline_s", deadline_s=0),
    job("deadline_s negative", "deadline_s", deadline_s=-1),
    job("deadline_s too far", "deadline_s", deadline_s=86_401),
    job("deadline_s in quotes", "deadline_s", deadline_s="60"),
    job("deadline_s true", "deadline_s", deadline_s=True),
    job("parent_id unknown", "parent_id", parent_id=UNKNOWN_ID),
    job("parent_id not an id", "parent_id", parent_id="../../etc"),
    job("parent_id a number", "parent_id", parent_id=1),
    job("parent_id too long", "parent_id", parent_id="j" * 65),
    # ---- the model's input
    Bad("prompt missing", 422, "invalid_input", "input.prompt", body={**BODY, "input": {}}),
    given("prompt empty", "prompt", prompt=""),
    given("prompt blank", "prompt", prompt=" \t\n"),
    given("prompt null", "prompt", prompt=None),
    given("prompt a number", "prompt", prompt=7),
    given("prompt a list", "prompt", prompt=["a fox"]),
    given("prompt too long", "prompt", prompt="x" * 10_001),
    given("prompt far too long", "prompt", prompt="x" * MEBIBYTE),
    given("an unknown input", "style", style="oil"),
    given("an image that this model does not take", "image", image="https://example.com/a.png"),
    given("an image that is a file", "image", image="file:///etc/passwd"),
    given("images that are no list", "images", model="midjourney/imagine", images="x"),
    given("an unknown input with a strange name", "a.b[0]", **{"a.b[0]": 1}),
    given("an unknown input with a long name", ("n" * 300)[:194], **{"n" * 300: 1}),
    given("enum", "output_format", output_format="webp"),
    given("enum of another type", "output_format", output_format=1),
    given("aspect ratio of nonsense", "aspect_ratio", model="midjourney/imagine", aspect_ratio="wide"),
    given("a size beside an aspect ratio", "width", aspect_ratio="1:1", width=512, height=512),
    given("width without height", "height", width=512),
    given("width in quotes", "width", width="512", height=512),
    given("width too large", "width", width=100_000, height=512),
    given("width off the grid", "width", width=513, height=512),
    given("width negative", "width", width=-512, height=512),
    given("seed too large", "seed", seed=2**32),
    given("seed a fraction", "seed", seed=0.5),
    given("seed true", "seed", seed=True),
    given("n too many", "n", model="flux/schnell", n=5),
    given("n none", "n", model="flux/schnell", n=0),
    given("duration that is not offered", "duration_s", model="kling/text-to-video", duration_s=1000),
    Bad("an action without a parent", 422, "invalid_input", "parent_id",
        body={"model": "midjourney/action", "input": {"action": "upsample_1"}}),
    # ---- headers
    raw("an empty key", TEXT, 422, "invalid_input", "Idempotency-Key", Idempotency_Key=""),
    raw("a key with a space", TEXT, 422, "invalid_input", "Idempotency-Key", Idempotency_Key="a b"),
    raw("a long key", TEXT, 422, "invalid_input", "Idempotency-Key", Idempotency_Key="k" * 256),
    raw("a key beyond ASCII", TEXT, 422, "invalid_input", "Idempotency-Key", Idempotency_Key="schlüssel"),
    Bad("no token", 401, "unauthenticated", body=BODY, who="nobody"),
    Bad("a wrong token", 401, "unauthenticated", body=BODY, who="stranger"),
    Bad("a bad body without a token", 401, "unauthenticated", body=b"{", who="nobody"),
    Bad("a pending user", 403, "awaiting_approval", body=BODY, who="pending"),
    Bad("too few credits", 402, "insufficient_credits", body=BODY, who="poor"),
    Bad("too few credits for a tool", 402, "insufficient_credits", path="/v1/tools/{tool}/run", body={}, who="poor"),
    # ---- paths and methods
    Bad("unknown path", 404, "not_found", path="/v1/nothing", body=BODY),
    get("the root", "/", status=404, code="not_found"),
    get("a slash behind", "/v1/jobs/", status=404, code="not_found"),
    get("a slash too many", "/v1//jobs", status=404, code="not_found"),
    get("dots", "/v1/jobs/../me", status=404, code="not_found"),
    get("encoded dots", "/v1/jobs/%2e%2e/%2e%2e/etc/passwd", status=404, code="not_found"),
    get("an encoded NUL", "/v1/jobs/%00", status=404, code="not_found"),
    get("broken encoding", "/v1/jobs/%ff%fe", status=404, code="not_found"),
    get("a quote", "/v1/jobs/'%20OR%201=1--", status=404, code="not_found"),
    get("a long path", f"/v1/jobs/{'x' * 4000}", status=404, code="not_found"),
    get("an unknown job", f"/v1/jobs/{UNKNOWN_ID}", status=404, code="not_found"),
    get("someone else's job", "/v1/jobs/{job}", status=404, code="not_found"),
    get("someone else's tool", "/v1/tools/{private}", status=404, code="not_found"),
    Bad("cancel someone else's job", 404, "not_found", path="/v1/jobs/{job}/cancel"),
    Bad("cancel an unknown job", 404, "not_found", path=f"/v1/jobs/{UNKNOWN_ID}/cancel"),
    Bad("run someone else's tool", 404, "not_found", path="/v1/tools/{private}/run", body={}),
    Bad("change someone else's tool", 404, "not_found", method="PATCH", path="/v1/tools/{private}", body={}),
    Bad("delete an unknown job", 404, "not_found", method="DELETE", path=f"/v1/jobs/{UNKNOWN_ID}"),
    Bad("delete someone else's job", 404, "not_found", method="DELETE", path="/v1/jobs/{job}"),
    Bad("PUT jobs", 405, "method_not_allowed", method="PUT", body=BODY),
    Bad("POST me", 405, "method_not_allowed", path="/v1/me", body={}),
    Bad("GET cancel", 405, "method_not_allowed", method="GET", path="/v1/jobs/{job}/cancel"),
    Bad("a method of one's own", 405, "method_not_allowed", method="BREW"),
    get("media outside", "/media/../../etc/passwd", status=404, code="not_found"),
    get("media outside, encoded", "/media/%2e%2e/%2e%2e/etc/passwd", status=404, code="not_found"),
    get("media absolute", "/media//etc/passwd", status=404, code="not_found"),
    get("media hidden", "/media/.incoming/x", status=404, code="not_found"),
    get("media with a backslash", "/media/..%5c..%5cetc", status=404, code="not_found"),
    get("media with a long name", f"/media/{'x' * 800}", status=404, code="not_found"),
    get("media that is a folder", "/media/artifacts", status=404, code="not_found"),
    # ---- lists
    get("status unknown", "/v1/jobs?status=done", "status"),
    get("status empty", "/v1/jobs?status=", "status"),
    get("status twice", "/v1/jobs?status=queued&status=failed", "status"),
    get("model unknown in a filter", "/v1/jobs?model=flux/pro-9", "model"),
    get("unknown filter", "/v1/jobs?user=me", "user"),
    get("limit zero", "/v1/jobs?limit=0", "limit"),
    get("limit too large", "/v1/jobs?limit=101", "limit"),
    get("limit negative", "/v1/jobs?limit=-1", "limit"),
    get("limit a fraction", "/v1/jobs?limit=1.5", "limit"),
    get("limit a word", "/v1/jobs?limit=all", "limit"),
    get("limit huge", "/v1/jobs?limit=99999999999999999999", "limit"),
    get("limit in other digits", "/v1/jobs?limit=%D9%A1", "limit"),
    get("cursor not an id", "/v1/jobs?after=abc", "after"),
    get("cursor with a NUL", "/v1/jobs?after=%00", "after"),
    get("cursor of another kind", "/v1/jobs?after=led_01k00000000000000000000000", "after"),
    get("cursor with a quote", "/v1/jobs?after='", "after"),
    get("cursor of broken encoding", "/v1/jobs?after=%ff", "after"),
    get("ledger cursor", "/v1/credits/ledger?after=x", "after"),
    get("ledger filter", "/v1/credits/ledger?kind=hold", "kind"),
    get("tools limit", "/v1/tools?limit=x", "limit"),
    # ---- the other calls
    post("quote without a model", "/v1/quotes", {"input": PROMPT}, "model"),
    post("quote with a bad input", "/v1/quotes", {"model": "flux/dev", "input": {"steps": 0}}, "input.prompt"),
    post("token without a name", "/v1/tokens", {}, "name"),
    post("token with an empty name", "/v1/tokens", {"name": ""}, "name"),
    post("token with a long name", "/v1/tokens", {"name": "x" * 256}, "name"),
    post("token of one's own choice", "/v1/tokens", {"name": "x", "token": "sk-mine"}, "token"),
    post("token with no body", "/v1/tokens", b"", None, status=400, code="malformed_request"),
    post("sign-in without a password", "/v1/auth/signin", {"email": "a@b.c"}, "password"),
    post("sign-in with a number", "/v1/auth/signin", {"email": "a@b.c", "password": 7}, "password"),
    post("sign-in with a list", "/v1/auth/signin", {"email": ["a@b.c"], "password": "x"}, "email"),
    post("sign-in with a long password", "/v1/auth/signin", {"email": "a@b.c", "password": "x" * 1025}, "password"),
    post("sign-in with too much", "/v1/auth/signin", b" " * 70_000, None, status=413, code="request_too_large"),
    post("tool without a name", "/v1/tools", BODY, "name"),
    post("tool with input a list", "/v1/tools", {"name": "T", "model": "flux/dev", "input": []}, "input"),
    post("tool with unknown access", "/v1/tools", {"name": "T", **BODY, "access_control": {"all": {}}},
         "access_control.all"),
    post("tool with access a string", "/v1/tools", {"name": "T", **BODY, "access_control": "all"}, "access_control"),
    post("tool with users a string", "/v1/tools", {"name": "T", **BODY, "access_control": {"read": {"user_ids": "a"}}},
         "access_control.read.user_ids"),
    post("tool with an id of one's own", "/v1/tools", {"name": "T", **BODY, "id": "tool_mine"}, "id"),
    post("tool with a NUL", "/v1/tools", {"name": "T\0", **BODY}, "name"),
    post("run with an unknown field", "/v1/tools/{tool}/run", {"model": "flux/dev"}, "model"),
    post("run with an unknown input", "/v1/tools/{tool}/run", {"input": {"x": 1}}, "input.x"),
    post("run with input null", "/v1/tools/{tool}/run", {"input": None}, "input"),
    post("user without an e-mail", "/v1/admin/users", {"name": "x"}, "email", who="admin"),
    post("user with no e-mail address", "/v1/admin/users", {"email": "nobody"}, "email", who="admin"),
    post("user with two signs", "/v1/admin/users", {"email": "a@b@c"}, "email", who="admin"),
    post("user with an unknown role", "/v1/admin/users", {"email": "a@b.c", "role": "root"}, "role", who="admin"),
    post("user with a short password", "/v1/admin/users", {"email": "a@b.c", "password": "short"}, "password",
         who="admin"),
    post("user with a password too long for bcrypt", "/v1/admin/users", {"email": "a@b.c", "password": "狐" * 25},
         "password", who="admin"),
    get("users behind nobody", "/v1/admin/users?after=nobody", "after"),
    post("grant of nothing", "/v1/admin/users/{user}/credits", {"amount": 0}, "amount", who="admin"),
    post("grant below nothing", "/v1/admin/users/{user}/credits", {"amount": -5}, "amount", who="admin"),
    post("grant of too much", "/v1/admin/users/{user}/credits", {"amount": 10**12 + 1}, "amount", who="admin"),
    post("grant of a fraction", "/v1/admin/users/{user}/credits", {"amount": 1.5}, "amount", who="admin"),
    post("grant in quotes", "/v1/admin/users/{user}/credits", {"amount": "5"}, "amount", who="admin"),
    post("grant of true", "/v1/admin/users/{user}/credits", {"amount": True}, "amount", who="admin"),
    post("grant without an amount", "/v1/admin/users/{user}/credits", {}, "amount", who="admin"),
    post("not an admin", "/v1/admin/users/{user}/credits", {"amount": 5}, None, status=403, code="permission_denied"),
    Bad("unknown callback", 404, "not_found", path="/callbacks/nothing", body=BODY, who="nobody"),
]  # fmt: skip


@pytest.fixture(scope="module")
def people(app: Any, released: Any) -> dict[str, Any]:
    """Who sends the requests, and whose things they name."""
    app.config["MAX_CONTENT_LENGTH"] = MOST
    user, other = new_user(app=app), new_user(app=app)
    return {
        "user": user,
        "poor": new_user(0, app=app),
        "pending": new_user(role=Role.PENDING, app=app),
        "admin": Api(released.admin_token, app=app),
        "nobody": Api(app=app),
        "stranger": Api("sk-stranger", app=app),
        "names": {
            "user": user.user_id,
            "job": other.post("/v1/jobs", BODY)["id"],
            "private": other.post("/v1/tools", {"name": "T", **BODY})["id"],
            "tool": other.post("/v1/tools", {"name": "T", **BODY, "access_control": None})["id"],
        },
    }


@pytest.fixture
def no_errors_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A refusal is no trouble of ours."""
    with caplog.at_level(logging.WARNING):
        yield
    assert [record.getMessage() for record in caplog.records] == []


def send(people: dict[str, Any], bad: Bad) -> Answer:
    who = people["admin" if bad.path.startswith("/v1/admin/users?") else bad.who]
    path = bad.path
    for name, value in people["names"].items():
        path = path.replace(f"{{{name}}}", value)
    answer: Answer = who.ask(bad.method, path, bad.body, bad.headers)
    return answer


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_it_is_refused_and_nothing_happens(people: dict[str, Any], bad: Bad, no_errors_logged: None) -> None:
    before = totals(), people["user"].credits()
    answer = send(people, bad)
    error = answer.json["error"]
    assert (answer.status, error["code"], error["param"]) == (bad.status, bad.code, bad.param), error
    assert len(answer.body) < 1000
    assert (totals(), people["user"].credits()) == before


def test_the_table_is_long_and_names_are_its_own() -> None:
    assert len({bad.name for bad in TABLE}) == len(TABLE) > 150


def test_the_same_requests_without_the_fault_are_taken(people: dict[str, Any]) -> None:
    user = people["user"]
    for body in (
        TEXT.encode(),
        nested(62).encode(),
        WITH.format("9223372036854775807").encode(),
        WITH.format("1e308").encode(),
        json.dumps({**BODY, "metadata": {"a": "x" * 16_000}, "priority": 100, "deadline_s": 86_400}).encode(),
        json.dumps(
            {**BODY, "webhook_url": "http://[2606:4700:4700::1111]:8080/h?q=1#f", "parent_id": None}
        ).encode(),
        json.dumps({**BODY, "input": {"prompt": "x" * 10_000, "width": 512, "height": 512}}).encode(),
    ):
        answer = user.ask("POST", "/v1/jobs", body, {"Content-Type": "application/json; charset=utf-8"})
        assert answer.status == 202, answer.body
    assert user.ask("POST", "/v1/jobs", TEXT.encode(), {"Idempotency-Key": new_id("k") * 5}).status == 202
    for said in ("", "application/vnd.api+json"):
        assert user.ask("POST", "/v1/jobs", TEXT.encode(), {"Content-Type": said}).status == 202
