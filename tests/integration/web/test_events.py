"""Watching a job: every change is told within a second, whatever is missed is caught up with, and streams end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from sqlalchemy import update

from common import broker
from common.db import transaction
from common.models import Job
from common.providers.base import Running
from common.services import lifecycle
from common.services.claims import Claim
from common.services.lifecycle import records
from common.words import Status, Step
from tests.infrastructure.children import free_port, wait_until
from tests.integration.web.api import Api
from tests.integration.web.jobs import BODY, MODEL, attempt, fail, jobs_of, succeed
from web import live
from web.api import events
from web.waiting import stopping

QUICKLY_S = 5.0


class Viewer:
    """Somebody who watches a job from a thread: the events so far, each with its kind and id."""

    def __init__(self, api: Api, job_id: str, seen: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {api.token}"} | ({"Last-Event-ID": seen} if seen else {})
        assert api.app is not None
        self.reply = api.app.test_client().get(f"/v1/jobs/{job_id}/events", headers=headers, buffered=False)
        self.events: list[dict[str, Any]] = []
        self.beats = 0
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        for part in self.reply.response:
            text = part.decode() if isinstance(part, bytes) else part
            self.beats += text.startswith(":")
            fields = dict(
                line.split(": ", 1) for line in text.strip().splitlines() if not line.startswith(":")
            )
            if "data" in fields:
                self.events.append(
                    {"kind": fields["event"], "seen": fields["id"], **json.loads(fields["data"])}
                )

    def await_events(self, count: int) -> list[tuple[str, str, int]]:
        """Kind, status and progress of so many events."""
        wait_until(lambda: len(self.events) >= count, QUICKLY_S, what=f"{count} events of {self.events}")
        return [(event["kind"], event["status"], event["progress"]) for event in self.events]

    def await_end(self) -> list[tuple[str, str, int]]:
        """The same of all, once the stream has ended."""
        self.thread.join(QUICKLY_S)
        assert not self.thread.is_alive(), self.events
        self.reply.close()
        return self.await_events(0)


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub of this test's own, which is left alone at its end."""
    monkeypatch.setattr(live, "_hub", None)
    yield
    stopping.set()
    if (hub := live._hub) is not None:
        wait_until(lambda: not hub._viewers, QUICKLY_S, what="all viewers have gone")
    stopping.clear()


@pytest.fixture
def job_id(user: Api) -> str:
    """A queued job of the user."""
    return str(user.post("/v1/jobs", BODY)["id"])


@pytest.fixture
def watch(user: Api, job_id: str) -> Callable[..., Viewer]:
    """Watch the user's job."""
    return lambda seen=None: Viewer(user, job_id, seen)


def progress(job_id: str, percent: int | None = None, preview_url: str | None = None) -> None:
    """A worker has looked at the running job."""
    claim = Claim(job_id=job_id, token="none", step=Step.POLL, model=MODEL, account_id="none", attempt_id="none",
                  failures=0, refusals=0, cancel_requested=False, finished=False)  # fmt: skip
    with transaction() as session:
        lifecycle.still_running(session, [(claim, Running(progress=percent, preview_url=preview_url))])


def silently(job_id: str, status: Status) -> None:
    """The row changes, and nobody is told: the worker died before it could."""
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(status=status))


# ---------------------------------------------------------------- what is told


def test_every_change_until_the_end(watch: Callable[..., Viewer], job_id: str) -> None:
    viewer = watch()
    assert viewer.reply.headers["Content-Type"].startswith("text/event-stream")
    assert viewer.reply.headers["Cache-Control"] == "no-store"
    assert viewer.await_events(1) == [("status", "queued", 0)]
    attempt(job_id)
    with transaction() as session:
        records.advance(session, job_id, Status.RUNNING)
    viewer.await_events(2)
    progress(job_id, 40)
    progress(job_id, 40)
    progress(job_id, 30)
    progress(job_id, preview_url="https://example.com/p.webp")
    viewer.await_events(4)
    succeed(job_id)
    assert viewer.await_end() == [
        ("status", "queued", 0),
        ("status", "running", 0),
        ("progress", "running", 40),
        ("preview", "running", 40),
        ("status", "succeeded", 100),
    ]
    assert viewer.events[3]["preview_url"] == "https://example.com/p.webp"
    assert {event["id"] for event in viewer.events} == {job_id}


def test_nothing_is_told_of_what_is_rolled_back(watch: Callable[..., Viewer], job_id: str) -> None:
    viewer = watch()
    viewer.await_events(1)
    with pytest.raises(ZeroDivisionError), transaction() as session:
        records.advance(session, job_id, Status.RUNNING)
        raise ZeroDivisionError
    fail(job_id)
    assert viewer.await_end() == [("status", "queued", 0), ("status", "failed", 0)]


def test_a_finished_job_is_told_at_once(watch: Callable[..., Viewer], job_id: str) -> None:
    succeed(job_id)
    assert watch().await_end() == [("status", "succeeded", 100)]


def test_it_goes_on_from_what_was_seen(watch: Callable[..., Viewer], job_id: str) -> None:
    first = watch()
    first.await_events(1)
    again = watch(first.events[0]["seen"])
    with transaction() as session:
        records.advance(session, job_id, Status.RUNNING)
    assert again.await_events(1) == [("status", "running", 0)]
    succeed(job_id)
    assert again.await_end()[-1] == ("status", "succeeded", 100)
    behind = watch(first.events[0]["seen"])
    assert behind.await_end() == [("status", "succeeded", 100)]


def test_after_the_end_a_client_is_told_to_stop(watch: Callable[..., Viewer], job_id: str) -> None:
    fail(job_id)
    viewer = watch()
    viewer.await_end()
    assert watch(viewer.events[0]["seen"]).reply.status_code == 204


def test_other_peoples_jobs_are_not_there(other: Api, admin: Api, job_id: str) -> None:
    assert other.ask("GET", f"/v1/jobs/{job_id}/events").status == 404
    assert other.ask("GET", f"/v1/jobs/{job_id}/timeline").status == 404
    succeed(job_id)
    assert Viewer(admin, job_id).await_end() == [("status", "succeeded", 100)]


# ---------------------------------------------------------------- what is missed


def test_what_nobody_told_is_found_in_the_row(
    watch: Callable[..., Viewer], job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_DOUBT_S", 0.1)
    monkeypatch.setattr(live, "_LOOK_S", 0.05)
    viewer = watch()
    viewer.await_events(1)
    silently(job_id, Status.CANCELED)
    assert viewer.await_end()[-1] == ("status", "canceled", 0)


def test_without_redis_rows_are_read(
    watch: Callable[..., Viewer], job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_BLIND_S", 0.1)
    nowhere = Redis.from_url(f"redis://127.0.0.1:{free_port()}/0")
    monkeypatch.setattr(broker, "client", lambda timeout_s: nowhere)
    viewer = watch()
    viewer.await_events(1)
    silently(job_id, Status.FAILED)
    assert viewer.await_end()[-1] == ("status", "failed", 0)


def test_a_silent_stream_shows_that_it_lives(
    watch: Callable[..., Viewer], job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.05)
    viewer = watch()
    wait_until(lambda: viewer.beats >= 2, QUICKLY_S, what="it shows that it lives")
    assert len(viewer.events) == 1


# ---------------------------------------------------------------- limits


def test_a_stop_ends_streams(watch: Callable[..., Viewer]) -> None:
    viewer = watch()
    viewer.await_events(1)
    stopping.set()
    viewer.await_end()


def test_there_is_room_for_so_many_viewers(
    app: Flask, user: Api, watch: Callable[..., Viewer], job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST_VIEWERS", 1)
    viewer = watch()
    viewer.await_events(1)
    refused = user.ask("GET", f"/v1/jobs/{job_id}/events")
    assert (refused.status, refused.json["error"]["code"]) == (503, "unavailable")
    succeed(job_id)
    viewer.await_end()
    assert watch().await_end()


# ---------------------------------------------------------------- afterwards


def test_the_timeline_tells_what_the_rows_prove(user: Api, job_id: str) -> None:
    attempt(job_id)
    with transaction() as session:
        lifecycle.note(session, job_id, lifecycle.SUBMIT_UNKNOWN, "no reply")
    succeed(job_id)
    told = user.get(f"/v1/jobs/{job_id}/timeline")["data"]
    kinds = [moment["kind"] for moment in told]
    assert sorted(kinds) == sorted(
        ["accepted", "attempt_started", "submit_unknown", "result_stored", "succeeded", "credits_hold",
         "credits_capture"]
    )  # fmt: skip
    assert kinds[0] in ("accepted", "credits_hold")
    assert [moment["at"] for moment in told] == sorted(moment["at"] for moment in told)
    amounts = {moment["kind"]: moment["data"].get("amount") for moment in told}
    assert amounts["credits_capture"] == jobs_of(user)[0].charged
