"""Providers calling back: heard, never believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from redis import Redis

from common import clock
from common.words import Outcome
from tests.infrastructure.children import wait_until
from tests.infrastructure.valkey import Valkey
from tests.integration.web.api import Api
from tests.integration.web.jobs import BODY, attempt, attempt_of, entries_of, step_of, succeed

LIE = {"id": "x", "status": "succeeded", "progress": 100, "result": {"sample": "https://evil.example/x.png"}}


@pytest.fixture
def job(user: Api) -> Any:
    return user.post("/v1/jobs", BODY)


def test_an_unknown_token(nobody: Api) -> None:
    for token in ("unknown", "%00", "..", "x" * 2000, "%ff"):
        answer = nobody.ask("POST", f"/callbacks/{token}", LIE)
        assert answer.status in (404, 405)


def test_a_call_makes_the_job_due_and_nothing_else(
    user: Api, nobody: Api, job: Any, valkey_server: Valkey
) -> None:
    token = attempt(job["id"])
    before = user.job(job["id"])
    valkey_server.flush()
    answer = nobody.ask("POST", f"/callbacks/{token}", LIE)
    assert (answer.status, answer.json) == (200, {"object": "ok"})
    assert user.job(job["id"]) == before
    step = step_of(job["id"])
    assert step is not None
    assert step.due_at <= clock.epoch()
    assert attempt_of(job["id"]).memo is None
    assert entries_of(job["id"]) == [("hold", -20, 20)]
    with valkey_server.client() as client:
        wait_until(lambda: "workers.poll" in _nudges(client), 5, what="a nudge to poll")


def _nudges(client: Redis) -> set[str]:
    """The tasks that are waiting; the submit's own nudge may come late and be among them."""
    waiting = client.lrange("ticks", 0, -1)
    assert isinstance(waiting, list)
    return {json.loads(message)["headers"]["task"] for message in waiting}


def test_where_the_submits_answer_is_missing_the_call_is_kept_as_a_hint(
    user: Api, nobody: Api, job: Any
) -> None:
    token = attempt(job["id"], Outcome.UNKNOWN)
    assert nobody.ask("POST", f"/callbacks/{token}", LIE).status == 200
    assert attempt_of(job["id"]).memo == {"callback": LIE}
    assert user.job(job["id"])["status"] == "running"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[1]",
        b'{"a": NaN}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\u0000"}',
        b"[" * 60_000,
        b"a=b",
    ],
)
def test_any_body_is_heard_and_none_is_kept_that_cannot_be(nobody: Api, job: Any, body: bytes) -> None:
    token = attempt(job["id"], Outcome.UNKNOWN)
    assert nobody.ask("POST", f"/callbacks/{token}", body, {"Content-Type": "text/html"}).status == 200
    assert attempt_of(job["id"]).memo is None
    step = step_of(job["id"])
    assert step is not None
    assert step.due_at <= clock.epoch()


def test_a_long_hint_is_not_kept(nobody: Api, job: Any) -> None:
    token = attempt(job["id"], Outcome.UNKNOWN)
    assert nobody.ask("POST", f"/callbacks/{token}", {"a": "x" * 20_000}).status == 200
    assert attempt_of(job["id"]).memo is None


def test_an_oversized_body_is_refused(nobody: Api, job: Any) -> None:
    token = attempt(job["id"])
    answer = nobody.ask("POST", f"/callbacks/{token}", b"x" * 65_537)
    assert (answer.status, answer.json["error"]["code"]) == (413, "request_too_large")
    step = step_of(job["id"])
    assert step is not None
    assert step.due_at > clock.epoch() + 60


def test_a_call_after_the_end_changes_nothing(user: Api, nobody: Api, job: Any) -> None:
    token = attempt(job["id"])
    succeed(job["id"])
    before = user.job(job["id"])
    assert nobody.ask("POST", f"/callbacks/{token}", {"status": "failed"}).status == 200
    assert user.job(job["id"]) == before


def test_only_post(nobody: Api) -> None:
    assert nobody.ask("GET", "/callbacks/unknown").status == 405
