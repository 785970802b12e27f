"""Idempotency-Key: a repeat is safe, however it comes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, update

from common import clock
from common.db import transaction
from common.ids import new_id
from common.models import IdempotencyKey
from common.services.jobs import KEY_LIVES
from tests.infrastructure.client import Answer
from tests.integration.web.api import Api
from tests.integration.web.conftest import MakeUser
from tests.integration.web.jobs import BODY, PRICE, jobs_of, succeed

OTHER_BODY = {**BODY, "input": {"prompt": "a blue fox"}}


@pytest.fixture
def key() -> dict[str, str]:
    """A header with a new key."""
    return {"Idempotency-Key": new_id("key")}


def submit(user: Api, key: dict[str, str], body: Any = BODY) -> Answer:
    return user.ask("POST", "/v1/jobs", body, key)


def test_the_same_again_is_the_same_job(user: Api, key: dict[str, str]) -> None:
    first, second = submit(user, key), submit(user, key)
    assert (first.status, second.status) == (202, 202)
    assert second.json == first.json
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]
    assert user.credits() == (1000 - PRICE, PRICE)


def test_a_repeat_shows_how_the_job_stands_now(user: Api, key: dict[str, str]) -> None:
    job = submit(user, key).json
    succeed(job["id"])
    again = submit(user, key)
    assert (again.json["id"], again.json["status"]) == (job["id"], "succeeded")
    assert len(again.json["artifacts"]) == 1


def test_spelling_does_not_matter(user: Api, key: dict[str, str]) -> None:
    first = submit(user, key).json
    spelt = b' {"input" : {"prompt": "\\u0061 red fox in snow"},\n"model":"flux/pro-1.1"} '
    assert submit(user, key, spelt).json["id"] == first["id"]


def test_another_body_is_refused(user: Api, key: dict[str, str]) -> None:
    first = submit(user, key).json
    for body in (OTHER_BODY, {**BODY, "priority": 1}, {**BODY, "metadata": {}}):
        answer = submit(user, key, body)
        assert answer.status == 422
        assert (answer.json["error"]["code"], answer.json["error"]["param"]) == (
            "idempotency_key_reused",
            "Idempotency-Key",
        )
    assert [row.id for row in jobs_of(user)] == [first["id"]]
    assert user.credits() == (1000 - PRICE, PRICE)


def test_keys_are_the_users_own(user: Api, other: Api, key: dict[str, str]) -> None:
    assert submit(user, key).json["id"] != submit(other, key, OTHER_BODY).json["id"]


def test_no_key_no_protection(user: Api) -> None:
    assert submit(user, {}).json["id"] != submit(user, {}).json["id"]


def test_a_refused_request_does_not_use_up_its_key(
    make_user: MakeUser, admin: Api, key: dict[str, str]
) -> None:
    poor = make_user(0)
    assert submit(poor, key).status == 402
    assert submit(poor, key, {"model": "no/such", "input": {}}).status == 422
    admin.post(f"/v1/admin/users/{poor.user_id}/credits", {"amount": PRICE})
    answer = submit(poor, key)
    assert answer.status == 202
    assert "idempotent-replayed" not in answer.headers


def test_ten_at_once_make_one_job_and_one_hold(user: Api, key: dict[str, str]) -> None:
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: submit(user, key), range(10)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 9
    assert len(jobs_of(user)) == 1
    assert user.credits() == (1000 - PRICE, PRICE)


def test_of_two_bodies_at_once_one_wins(user: Api, key: dict[str, str]) -> None:
    with ThreadPoolExecutor(10) as pool:
        bodies = [BODY, OTHER_BODY] * 5
        answers = list(pool.map(lambda body: submit(user, key, body), bodies))
    assert sorted(answer.status for answer in answers) == [202] * 5 + [422] * 5
    assert len(jobs_of(user)) == 1


def age(user: Api) -> None:
    """Let the user's keys be as old as they may get, and older."""
    with transaction() as session:
        session.execute(
            update(IdempotencyKey)
            .where(IdempotencyKey.user_id == user.user_id)
            .values(created_at=clock.now() - KEY_LIVES - timedelta(seconds=1))
        )


def test_a_key_lives_a_day(user: Api, key: dict[str, str]) -> None:
    first = submit(user, key).json
    age(user)
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: submit(user, key, OTHER_BODY), range(5)))
    assert {answer.status for answer in answers} == {202}
    (second,) = {answer.json["id"] for answer in answers}
    assert second != first["id"]
    assert len(jobs_of(user)) == 2


def test_a_forgotten_key_is_a_new_one(user: Api, key: dict[str, str]) -> None:
    first = submit(user, key).json
    with transaction() as session:
        session.execute(delete(IdempotencyKey).where(IdempotencyKey.user_id == user.user_id))
    assert submit(user, key).json["id"] != first["id"]


def test_tool_runs_have_keys_too(user: Api, key: dict[str, str]) -> None:
    tools = [user.post("/v1/tools", {"name": "T", **BODY})["id"] for _ in range(2)]
    first, second = (user.ask("POST", f"/v1/tools/{tools[0]}/run", {}, key) for _ in range(2))
    assert second.json["id"] == first.json["id"]
    assert second.headers["idempotent-replayed"] == "true"
    assert user.ask("POST", f"/v1/tools/{tools[0]}/run", {"priority": 3}, key).status == 422
    assert user.ask("POST", f"/v1/tools/{tools[1]}/run", {}, key).status == 422
    assert submit(user, key).json["id"] != first.json["id"]  # another call, another scope
