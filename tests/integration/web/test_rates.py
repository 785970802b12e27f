"""How many submits there can be in a while, for a user, whichever process they reach."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from redis import Redis

from common import broker
from common.settings import settings
from tests.infrastructure.children import free_port
from tests.infrastructure.valkey import Valkey
from tests.integration.web.api import Api
from tests.integration.web.conftest import MakeUser
from tests.integration.web.jobs import BODY
from web import rates


@pytest.fixture(autouse=True)
def three_an_hour(monkeypatch: pytest.MonkeyPatch, valkey_server: Valkey) -> Iterator[None]:
    """RATE_LIMIT_SUBMITS=3/hour."""
    few = settings().model_copy(update={"rate_limit_submits": "3/hour"})
    monkeypatch.setattr(rates, "settings", lambda: few)
    rates._counters.cache_clear()
    yield
    rates._counters.cache_clear()


def test_one_too_many_is_refused_and_says_when_to_come_back(user: Api, other: Api) -> None:
    left = []
    for _ in range(3):
        taken = user.ask("POST", "/v1/jobs", BODY)
        assert (taken.status, taken.headers["x-ratelimit-limit-requests"]) == (202, "3")
        left.append(taken.headers["x-ratelimit-remaining-requests"])
    assert left == ["2", "1", "0"]
    refused = user.ask("POST", "/v1/jobs", BODY)
    assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 3600
    assert refused.headers["x-ratelimit-reset-requests"] == f"{refused.headers['retry-after']}s"
    assert len(user.get("/v1/jobs")["data"]) == 3
    assert other.ask("POST", "/v1/jobs", BODY).status == 202


def test_reading_is_not_counted(user: Api) -> None:
    answers = [user.ask("GET", "/v1/jobs") for _ in range(5)]
    assert {answer.status for answer in answers} == {200}
    assert "x-ratelimit-limit-requests" not in answers[0].headers


def test_all_ways_to_submit_and_all_processes_count_together(user: Api) -> None:
    tool = user.post("/v1/tools", {"name": "T", **BODY})["id"]
    for path, body in (
        ("/v1/jobs", BODY),
        (f"/v1/tools/{tool}/run", {}),
        ("/v1/jobs", {"model": "nobody/knows"}),
    ):
        user.ask("POST", path, body)
        rates._counters.cache_clear()  # as another process would begin
    assert user.ask("POST", f"/v1/tools/{tool}/run", {}).status == 429


def test_without_redis_a_process_counts_for_itself(user: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Redis.from_url(f"redis://127.0.0.1:{free_port()}/0", socket_connect_timeout=1)
    monkeypatch.setattr(broker, "client", lambda timeout_s: nowhere)
    answers = [user.ask("POST", "/v1/jobs", BODY).status for _ in range(4)]
    assert answers == [202, 202, 202, 429]


def test_a_token_may_have_a_limit_of_its_own(app: Flask, user: Api) -> None:
    made = user.post("/v1/tokens", {"name": "lent", "rate_limit": "1/hour"})
    assert made["rate_limit"] == "1/hour"
    lent = Api(made["token"], app=app)
    assert lent.ask("POST", "/v1/jobs", BODY).headers["x-ratelimit-limit-requests"] == "1"
    assert lent.ask("POST", "/v1/jobs", BODY).status == 429
    assert user.ask("POST", "/v1/jobs", BODY).headers["x-ratelimit-remaining-requests"] == "0"
    assert user.ask("POST", "/v1/tokens", {"name": "x", "rate_limit": "often"}).status == 422


def test_a_token_with_a_limit_makes_nothing_that_would_go_round_it(
    app: Flask, user: Api, admin: Api, make_user: MakeUser
) -> None:
    lent = Api(user.post("/v1/tokens", {"name": "lent", "rate_limit": "1/hour"})["token"], app=app)
    hourly = {"job": BODY, "interval_s": 3600}
    own = user.post("/v1/schedules", {**hourly, "enabled": False})["id"]
    for method, path, body in (
        ("POST", "/v1/tokens", {"name": "free"}),
        ("POST", "/v1/tokens", {"name": "slow", "rate_limit": "1/day"}),
        ("POST", "/v1/schedules", hourly),
        ("PATCH", f"/v1/schedules/{own}", {"enabled": True}),
    ):
        refused = lent.ask(method, path, body)
        assert (refused.status, refused.json["error"]["code"]) == (403, "permission_denied")
    chief = Api(admin.post("/v1/tokens", {"name": "lent", "rate_limit": "1/hour"})["token"], app=app)
    path = f"/v1/admin/users/{make_user().user_id}/tokens"
    assert chief.ask("POST", path, {"name": "free"}).status == 403
    assert user.ask("PATCH", f"/v1/schedules/{own}", {"name": "mine"}).status == 200
    assert user.ask("DELETE", f"/v1/schedules/{own}").status == 204


def test_samples_for_webhooks_are_counted(user: Api) -> None:
    path = "/v1/webhook_endpoints/nobodys/test"
    answers = [user.ask("POST", path, {"event_type": "job.failed"}).status for _ in range(4)]
    assert answers == [404, 404, 404, 429]
