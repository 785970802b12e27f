"""Accept, show, list and cancel jobs; hold the answer; say what a job would cost."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, update

from common.db import engine, transaction
from common.models import CatalogModel
from common.services import catalog, jobs
from common.words import Status, Step
from tests.infrastructure.children import wait_until
from tests.infrastructure.valkey import Valkey
from tests.integration.web.api import Api
from tests.integration.web.conftest import MakeUser
from tests.integration.web.jobs import (
    BODY,
    MODEL,
    PRICE,
    attempt,
    entries_of,
    fail,
    jobs_of,
    step_of,
    succeed,
)

TERMINAL_CHANGES = {"succeeded": succeed, "failed": fail}


@contextmanager
def statements_about(words: str) -> Iterator[list[str]]:
    """What the database is asked about that."""
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if words in " ".join(statement.split()):
            asked.append(statement)

    event.listen(engine(), "before_cursor_execute", note)
    yield asked
    event.remove(engine(), "before_cursor_execute", note)


@pytest.fixture
def job(user: Api) -> Any:
    """A queued job of the user."""
    return user.post("/v1/jobs", BODY)


# ---------------------------------------------------------------- accept


def test_a_job_is_accepted(user: Api) -> None:
    answer = user.ask("POST", "/v1/jobs", BODY)
    assert answer.status == 202
    job = answer.json
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job == {
        "id": job["id"], "object": "job", "status": "queued", "provider": "flux", "model": MODEL,
        "action": "generate", "input": BODY["input"], "progress": 0, "preview_url": None, "parent_id": None,
        "artifacts": [], "actions": [], "output": None, "error": None, "cost": {"held": PRICE, "charged": None},
        "metadata": {}, "attempts": 0, "late": False, "created_at": job["created_at"], "submitted_at": None,
        "finished_at": None,
        "urls": {
            "self": f"http://127.0.0.1:8000/v1/jobs/{job['id']}",
            "events": f"http://127.0.0.1:8000/v1/jobs/{job['id']}/events",
            "cancel": f"http://127.0.0.1:8000/v1/jobs/{job['id']}/cancel",
        },
    }  # fmt: skip


def test_row_step_and_hold_are_there_when_the_answer_is(user: Api) -> None:
    job = user.post(
        "/v1/jobs",
        {
            **BODY,
            "webhook_url": "https://example.com/hook?a=b",
            "metadata": {"order": [1, {"2": None}]},
            "priority": 7,
            "deadline_s": 90,
        },
    )
    (row,) = jobs_of(user)
    assert (row.id, row.status, row.price, row.charged) == (job["id"], "queued", PRICE, None)
    assert (row.webhook_url, row.metadata_) == ("https://example.com/hook?a=b", {"order": [1, {"2": None}]})
    assert (row.deadline_at - row.created_at).total_seconds() == 90
    step = step_of(job["id"])
    assert step is not None
    assert (step.step, step.priority, step.attempt_id) == (Step.SUBMIT, 7, None)
    assert entries_of(job["id"]) == [("hold", -PRICE, PRICE)]
    assert user.credits() == (1000 - PRICE, PRICE)
    assert job["metadata"] == {"order": [1, {"2": None}]}


def test_the_workers_are_nudged(user: Api, valkey_server: Valkey) -> None:
    valkey_server.flush()
    user.post("/v1/jobs", BODY)
    with valkey_server.client() as client:
        wait_until(lambda: client.llen("ticks"), 5, what="a nudge")
        message = json.loads(client.lindex("ticks", 0))
    assert message["headers"]["task"] == "workers.submit"


def test_many_jobs_need_few_nudges(make_user: MakeUser, valkey_server: Valkey) -> None:
    valkey_server.flush()
    user = make_user(10_000)
    for _ in range(20):
        user.post("/v1/jobs", BODY)
    with valkey_server.client() as client:
        wait_until(lambda: client.llen("ticks"), 5, what="a nudge")
        assert client.llen("ticks") < 20


def test_the_price_is_frozen(user: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    before = user.post("/v1/jobs", BODY)
    with transaction() as session:
        session.execute(update(CatalogModel).where(CatalogModel.id == MODEL).values(price={"credits": 33}))
    monkeypatch.setattr(catalog, "_known", (float("-inf"), {}))
    try:
        assert user.post("/v1/jobs", BODY)["cost"]["held"] == 33
        assert user.get(f"/v1/models/{MODEL}")["price"] == {"credits": 33}
        succeed(before["id"])
        assert user.job(before["id"])["cost"] == {"held": PRICE, "charged": PRICE}
    finally:
        with transaction() as session:
            session.execute(update(CatalogModel).where(CatalogModel.id == MODEL).values(price=None))


def test_a_model_that_is_off_sale_is_unknown(user: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    with transaction() as session:
        session.execute(update(CatalogModel).where(CatalogModel.id == MODEL).values(enabled=False))
    monkeypatch.setattr(catalog, "_known", (float("-inf"), {}))
    try:
        answer = user.ask("POST", "/v1/jobs", BODY)
        assert (answer.status, answer.json["error"]["code"]) == (422, "unknown_model")
        assert user.ask("GET", f"/v1/models/{MODEL}").status == 404
        assert MODEL not in [model["id"] for model in user.get("/v1/models")["data"]]
    finally:
        with transaction() as session:
            session.execute(update(CatalogModel).where(CatalogModel.id == MODEL).values(enabled=True))


def test_credits_that_reach_for_two_buy_two(make_user: MakeUser) -> None:
    poor = make_user(2 * PRICE + 1)
    statuses = [poor.ask("POST", "/v1/jobs", BODY).status for _ in range(3)]
    assert statuses == [202, 202, 402]
    assert poor.credits() == (1, 2 * PRICE)
    assert len(jobs_of(poor)) == 2


@pytest.mark.parametrize(
    "text", ["红狐 🦊 in snow", "\u202e\u200b\ufffe", "a\tb\nc", '"; DROP TABLE job; --']
)
def test_text_comes_back_as_it_was(user: Api, text: str) -> None:
    body = {**BODY, "input": {"prompt": text}, "metadata": {text: text}}
    job = user.post("/v1/jobs", body)
    assert (job["input"]["prompt"], job["metadata"]) == (text, {text: text})
    assert user.job(job["id"]) == job


# ---------------------------------------------------------------- show


def test_only_the_owner_and_admins_see_a_job(user: Api, other: Api, admin: Api, job: Any) -> None:
    assert user.job(job["id"]) == job
    assert admin.job(job["id"]) == job
    for method, path in (("GET", ""), ("POST", "/cancel")):
        answer = other.ask(method, f"/v1/jobs/{job['id']}{path}")
        assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")
    assert user.job(job["id"])["status"] == "queued"


def test_a_succeeded_job_shows_its_artifacts(user: Api, job: Any) -> None:
    succeed(job["id"])
    done = user.job(job["id"])
    assert (done["status"], done["progress"], done["error"]) == ("succeeded", 100, None)
    (artifact,) = done["artifacts"]
    assert artifact["url"] == f"http://127.0.0.1:8000/media/artifacts/{job['id']}/1.png"
    assert artifact["thumbnail_url"].endswith("/1.thumbnail.jpg")
    assert (artifact["kind"], artifact["width"], artifact["duration_s"]) == ("image", 1024, None)
    assert done["cost"] == {"held": PRICE, "charged": PRICE}
    assert done["finished_at"] >= done["created_at"]
    assert user.credits() == (1000 - PRICE, 0)


def test_a_failed_job_says_why_and_costs_nothing(user: Api, job: Any) -> None:
    fail(job["id"])
    done = user.job(job["id"])
    assert done["error"] == {"code": "content_moderated", "message": "Not this.", "retryable": False}
    assert done["cost"] == {"held": PRICE, "charged": 0}
    assert user.credits() == (1000, 0)


# ---------------------------------------------------------------- list


def test_the_list_is_the_users_own_newest_first(user: Api, other: Api) -> None:
    other.post("/v1/jobs", BODY)
    made = [user.post("/v1/jobs", BODY)["id"] for _ in range(3)]
    page = user.get("/v1/jobs")
    assert [job["id"] for job in page["data"]] == made[::-1]
    assert (page["object"], page["has_more"], page["next"]) == ("list", False, None)


def test_the_cursor_leads_through_the_whole_list(user: Api) -> None:
    made = [user.post("/v1/jobs", BODY)["id"] for _ in range(5)]
    seen: list[str] = []
    page = user.get("/v1/jobs?limit=2")
    sizes = [len(page["data"])]
    seen += [job["id"] for job in page["data"]]
    while page["has_more"]:
        assert page["next"] == page["data"][-1]["id"]
        user.post("/v1/jobs", BODY)  # what comes meanwhile moves nothing
        page = user.get(f"/v1/jobs?limit=2&after={page['next']}")
        sizes.append(len(page["data"]))
        seen += [job["id"] for job in page["data"]]
    assert (seen, sizes, page["next"]) == (made[::-1], [2, 2, 1], None)


def test_a_full_last_page_has_nothing_behind_it(user: Api) -> None:
    for _ in range(2):
        user.post("/v1/jobs", BODY)
    page = user.get("/v1/jobs?limit=2")
    assert (len(page["data"]), page["has_more"], page["next"]) == (2, False, None)


def test_a_page_ends_early_where_inputs_are_large(user: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_PAGE_CHARACTERS", 2000)
    ids = [user.submit(MODEL, "x" * length)["id"] for length in (10, 10, 3000, 1500, 10)]
    pages, query = [], "/v1/jobs?limit=3"
    while query:
        page = user.get(query)
        pages.append([job["id"] for job in page["data"]])
        query = f"/v1/jobs?limit=3&after={page['next']}" if page["has_more"] else ""
    assert pages == [[ids[4], ids[3]], [ids[2]], [ids[1], ids[0]]]


def test_filters_narrow_the_list(user: Api) -> None:
    flux = user.post("/v1/jobs", BODY)["id"]
    kling = user.submit("kling/text-to-video")["id"]
    user.post(f"/v1/jobs/{flux}/cancel", None)
    found = {
        query: [job["id"] for job in user.get(f"/v1/jobs?{query}")["data"]]
        for query in ("status=canceled", "status=queued", "status=failed", f"model={MODEL}",
                      "model=kling/text-to-video&status=queued", "model=kling%2Ftext-to-video")
    }  # fmt: skip
    assert found == {
        "status=canceled": [flux],
        "status=queued": [kling],
        "status=failed": [],
        f"model={MODEL}": [flux],
        "model=kling/text-to-video&status=queued": [kling],
        "model=kling%2Ftext-to-video": [kling],
    }


def test_an_empty_list(make_user: MakeUser) -> None:
    assert make_user().get("/v1/jobs") == {"object": "list", "data": [], "has_more": False, "next": None}


# ---------------------------------------------------------------- cancel


def test_a_queued_job_is_canceled_at_once_and_free(user: Api, job: Any) -> None:
    answer = user.ask("POST", f"/v1/jobs/{job['id']}/cancel")
    assert answer.status == 200
    assert (answer.json["status"], answer.json["error"]["code"]) == ("canceled", "canceled")
    assert answer.json["cost"] == {"held": PRICE, "charged": 0}
    assert entries_of(job["id"]) == [("hold", -PRICE, PRICE), ("release", PRICE, -PRICE)]
    assert step_of(job["id"]) is None
    assert user.credits() == (1000, 0)


@pytest.mark.parametrize("end", ["succeeded", "failed", "canceled"])
def test_a_finished_job_cannot_be_canceled(user: Api, job: Any, end: str) -> None:
    TERMINAL_CHANGES.get(end, lambda job_id: user.post(f"/v1/jobs/{job_id}/cancel", None))(job["id"])
    before = user.job(job["id"])
    answer = user.ask("POST", f"/v1/jobs/{job['id']}/cancel")
    assert (answer.status, answer.json["error"]["code"]) == (409, "conflict")
    assert user.job(job["id"]) == before


def test_a_running_job_is_marked_for_the_worker(user: Api, job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.api.jobs.CANCEL_WAIT_S", 0.2)
    attempt(job["id"])
    answer = user.ask("POST", f"/v1/jobs/{job['id']}/cancel")
    assert (answer.status, answer.json["status"]) == (200, "running")
    step = step_of(job["id"])
    assert step is not None
    assert step.cancel_at is not None
    assert step.due_at <= step.cancel_at
    assert user.credits() == (1000 - PRICE, PRICE)


# ---------------------------------------------------------------- hold the answer


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_answer_waits_for_the_end(user: Api, method: str) -> None:
    known = user.post("/v1/jobs", BODY)["id"] if method == "GET" else None

    def end() -> None:
        rows = wait_until(lambda: jobs_of(user), 5)
        succeed(rows[0].id)

    finisher = threading.Timer(0.2, end)
    finisher.start()
    path = f"/v1/jobs/{known}" if known else "/v1/jobs"
    answer = user.ask(method, path, None if known else BODY, {"Prefer": "wait=20"})
    finisher.join(10)
    assert (answer.status, answer.json["status"]) == (200, "succeeded")
    assert answer.headers["preference-applied"] == "wait=20"
    assert 0.1 < answer.took_s < 5
    assert len(answer.json["artifacts"]) == 1


def test_the_database_is_not_asked_again_and_again_meanwhile(user: Api, job: Any) -> None:
    with statements_about("FROM job ") as asked:
        answer = user.ask("GET", f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=2"})
    assert answer.took_s >= 2
    assert len(asked) <= 3, asked  # the job, its state, and once more when Redis tells from here on


def test_the_wait_has_an_end(user: Api) -> None:
    answer = user.ask("POST", "/v1/jobs", BODY, {"Prefer": "respond-async, wait=1"})
    assert (answer.status, answer.json["status"]) == (202, "queued")
    assert 0.9 < answer.took_s < 3


@pytest.mark.parametrize(
    "prefer", ["wait=soon", "wait=-1", "wait", "wait=0", "return=minimal", ";;;", "wait=1.5"]
)
def test_a_preference_that_means_nothing_is_ignored(user: Api, prefer: str) -> None:
    answer = user.ask("POST", "/v1/jobs", BODY, {"Prefer": prefer})
    assert answer.status == 202
    assert "preference-applied" not in answer.headers
    assert answer.took_s < 0.8


# ---------------------------------------------------------------- what it would cost


@pytest.mark.parametrize(
    ("model", "given", "credits_"),
    [
        (MODEL, {}, 20),
        ("flux/schnell", {"n": 3}, 15),
        ("kling/text-to-video", {"mode": "pro", "duration_s": 10}, 200),
        ("kling/text-to-video", {}, 50),
        ("jimeng/text-to-image", {}, 10),
    ],
)
def test_a_quote_is_what_the_job_then_holds(user: Api, model: str, given: Any, credits_: int) -> None:
    body = {"model": model, "input": {"prompt": "a fox", **given}}
    quote = user.post("/v1/quotes", body)
    assert (quote["object"], quote["model"], quote["credits"]) == ("quote", model, credits_)
    assert sum(line["credits"] for line in quote["breakdown"]) == credits_
    assert jobs_of(user) == []
    assert user.post("/v1/jobs", body)["cost"]["held"] == credits_


def test_a_quote_checks_the_input(user: Api) -> None:
    answer = user.ask("POST", "/v1/quotes", {"model": MODEL, "input": {}})
    assert (answer.status, answer.json["error"]["param"]) == (422, "input.prompt")


def test_an_action_needs_a_parent_that_offers_it(user: Api, job: Any) -> None:
    body = {"model": "midjourney/action", "input": {"action": "upsample_1"}}
    for parent in ({}, {"parent_id": job["id"]}, {"parent_id": "job_unknown"}):
        answer = user.ask("POST", "/v1/jobs", {**body, **parent})
        assert (answer.status, answer.json["error"]["param"]) == (422, "parent_id")
    assert [row.status for row in jobs_of(user)] == [Status.QUEUED]
