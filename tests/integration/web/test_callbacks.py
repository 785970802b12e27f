"""Providers calling back: heard, never believed."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
from typing import Any

import pytest
from redis import Redis

from common import clock
from common.crypto import seal
from common.db import transaction
from common.ids import new_id
from common.models import ProviderAccount
from common.providers.callbacks import fal_key_set
from common.services import callbacks
from common.words import Outcome
from tests.infrastructure.children import wait_until
from tests.infrastructure.valkey import Valkey
from tests.integration.web.api import Api
from tests.integration.web.jobs import BODY, attempt, attempt_of, entries_of, step_of, succeed
from tests.simulators.world import World
from web.app import access_log
from workers.steps import keys

LIE = {"id": "x", "status": "succeeded", "progress": 100, "result": {"sample": "https://evil.example/x.png"}}


@pytest.fixture
def job(user: Api) -> Any:
    return user.post("/v1/jobs", BODY)


def test_an_unknown_token(nobody: Api) -> None:
    for token in ("unknown", "%00", "..", "x" * 2000, "%ff"):
        answer = nobody.ask("POST", f"/callbacks/{token}", LIE)
        assert answer.status in (404, 405)


def test_no_token_is_written_down(
    nobody: Api, job: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = attempt(job["id"])
    monkeypatch.setattr(access_log, "disabled", False)
    caplog.set_level(logging.INFO)
    paths = [f"/{path}" for path in ("callbacks/{}", "callbacks/{}/", "callbacks//{}", "prefix/callbacks/{}",
                                     "Callbacks/{}", "callbacks{}", "%63allbacks/{}", "callbacks/x/{}")]  # fmt: skip
    for path in paths:
        nobody.ask("POST", path.format(token), LIE)
        nobody.ask("GET", path.format(token))
    assert token not in caplog.text
    assert caplog.text.count("/callbacks/<token>") == 2 * len(paths)


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


# ---------------------------------------------------------------- signatures

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="


def account(adapter: str, base_url: str, **secrets: str) -> str:
    """A provider account; its id."""
    account_id = new_id("acc")
    with transaction() as session:
        session.add(
            ProviderAccount(
                id=account_id, provider="kling", adapter=adapter, name=account_id, base_url=base_url,
                credentials=seal(secrets), enabled=True, weight=1, max_concurrency=5, failures=0, open_until=0.0,
                created_at=clock.now(), updated_at=clock.now(),
            )
        )  # fmt: skip
    return account_id


def call(nobody: Api, token: str, body: bytes, headers: dict[str, str]) -> int:
    """The status that a call with these very bytes gets."""
    return nobody.ask(
        "POST", f"/callbacks/{token}", body, headers={"Content-Type": "application/json", **headers}
    ).status


def signed_by_kling(body: bytes, *, at: float | None = None) -> dict[str, str]:
    timestamp = str(int(clock.epoch() if at is None else at))
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    digest = hmac.digest(key, f"msg_1.{timestamp}.".encode() + body, "sha256")
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": timestamp,
        "Webhook-Signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def test_a_secret_makes_unsigned_calls_strangers(user: Api, nobody: Api, job: Any) -> None:
    token = attempt(
        job["id"], account_id=account("kling", "http://kling.example", api_key="k", webhook_secret=SECRET)
    )
    body = json.dumps(LIE).encode()
    for headers in (
        {},
        signed_by_kling(body + b" "),
        signed_by_kling(body, at=clock.epoch() - 301),
        {**signed_by_kling(body), "Webhook-Id": "msg_2"},
    ):
        assert call(nobody, token, body, headers) == 401
    step = step_of(job["id"])
    assert step is not None
    assert step.due_at > clock.epoch() + 60  # nobody was nudged
    assert call(nobody, token, body, signed_by_kling(body)) == 200
    step = step_of(job["id"])
    assert step is not None
    assert step.due_at <= clock.epoch()


def test_fals_keys_are_fetched_by_a_worker_and_checked_at_the_door(
    user: Api, nobody: Api, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({"request_id": "80e7", "status": "OK"}).encode()
    with World() as world:
        token = attempt(job["id"], account_id=account("fal", world.fal.url, key="k"))
        assert call(nobody, token, body, {}) == 200  # no keys yet: an unsigned nudge
        key_set = fal_key_set(world.fal.url)
        monkeypatch.setenv("ALLOW_PRIVATE_ADDRESSES", "true")
        asyncio.run(keys.renew([key_set]))
        assert len(callbacks.known_keys(key_set)) == 1
        assert call(nobody, token, body, {}) == 401
        assert call(nobody, token, body, world.fal._signed("80e7", body)) == 200
        assert call(nobody, token, body + b" ", world.fal._signed("80e7", body)) == 401
