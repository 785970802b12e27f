"""Jobs by the clock: each due time makes one job, whoever looks, and whatever happens meanwhile."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from common import clock
from common.db import reading, transaction
from common.models import Schedule
from common.services import schedules, users
from common.services.schedules import Timing
from tests.integration.web.api import Api
from tests.integration.web.conftest import MakeUser
from tests.integration.web.jobs import BODY, PRICE, jobs_of
from workers import tasks

HOURLY = {"job": BODY, "interval_s": 3600}


@pytest.fixture(autouse=True)
def _nothing_due(app: Any) -> Any:
    """What a test leaves behind is not due in the next one."""
    yield
    with transaction() as session:
        session.execute(update(Schedule).values(next_at=None))


def schedule(user: Api, **more: Any) -> Any:
    """A new one of the user's."""
    return user.post("/v1/schedules", {**HOURLY, **more})


def let_it_be(schedule_id: str, seconds_ago: float) -> None:
    """Its time has come so many seconds ago."""
    with transaction() as session:
        session.execute(
            update(Schedule).where(Schedule.id == schedule_id).values(next_at=clock.epoch() - seconds_ago)
        )


def moments(timing: Timing, since: datetime, count: int) -> list[str]:
    """Its first due times after a moment, on its own clock."""
    found = timing.after(since.timestamp())
    return [
        f"{datetime.fromtimestamp(next(found), ZoneInfo(timing.timezone)):%d %H:%M}" for _ in range(count)
    ]


# ---------------------------------------------------------------- when


@pytest.mark.parametrize(
    ("cron", "timezone", "since", "expected"),
    [
        ("30 9 * * MON-FRI", "UTC", datetime(2026, 11, 27, 10, tzinfo=UTC), ["30 09:30", "01 09:30"]),
        ("*/20 * * * *", "Asia/Kolkata", datetime(2026, 1, 1, 0, 0, tzinfo=UTC), ["01 05:40", "01 06:00"]),
        # In Berlin there is no 02:30 on the 29th of March, and two of them on the 25th of October.
        ("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC), ["29 03:00", "30 02:30"]),
        ("30 2 * * *", "Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC), ["25 02:30", "26 02:30"]),
    ],
)
def test_cron_is_told_by_the_clock_of_its_zone(
    cron: str, timezone: str, since: datetime, expected: list[str]
) -> None:
    timing = Timing(cron=cron, interval_s=None, timezone=timezone)
    assert moments(timing, since, len(expected)) == expected


HOURS_OF_CHANGE = [  # clocks are set back or forward at these, by an hour, half an hour or two
    ("Europe/Berlin", datetime(2027, 10, 31, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2027, 3, 28, 1, tzinfo=UTC)),
    ("America/New_York", datetime(2027, 11, 7, 6, tzinfo=UTC)),
    ("America/New_York", datetime(2027, 3, 14, 7, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2027, 4, 3, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2027, 10, 2, 15, 30, tzinfo=UTC)),
    ("America/Havana", datetime(2027, 11, 7, 5, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2027, 10, 31, 1, tzinfo=UTC)),
]


@pytest.mark.parametrize(("timezone", "changes"), HOURS_OF_CHANGE)
@pytest.mark.parametrize("cron", ["30 2 * * *", "0-59 1-3 * * *", "15,45 0,1,2 * * *", "*/7 * * * *"])
def test_a_due_time_lies_ahead_while_the_clocks_are_changed(
    timezone: str, changes: datetime, cron: str
) -> None:
    timing = Timing(cron=cron, interval_s=None, timezone=timezone)
    for minutes in range(-180, 181, 7):
        moment = changes.timestamp() + minutes * 60
        found = [moment, *islice(timing.after(moment), 5)]
        assert len(found) == 6
        assert all(before < after for before, after in pairwise(found)), (minutes, found)


def _field(least: int, most: int) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    return st.one_of(
        st.just("*"), number.map(str), st.integers(1, most).map("*/{}".format),
        st.tuples(number, number).map(lambda ends: "{}-{}".format(*sorted(ends))),
    )  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    cron=st.tuples(_field(0, 59), _field(0, 23), _field(1, 28), st.just("*"), _field(0, 6)).map(" ".join),
    change=st.sampled_from(HOURS_OF_CHANGE),
    away_s=st.integers(-14_400, 14_400) | st.integers(0, 3 * 365 * 86_400),
)
def test_a_due_time_lies_ahead_of_any_moment(cron: str, change: tuple[str, datetime], away_s: float) -> None:
    moment = change[1].timestamp() + away_s
    found = [moment, *islice(Timing(cron=cron, interval_s=None, timezone=change[0]).after(moment), 3)]
    assert len(found) == 4
    assert all(before < after for before, after in pairwise(found))


def test_intervals_keep_their_beat() -> None:
    timing = Timing(cron=None, interval_s=60, timezone="UTC")
    found = timing.after(1000.0, begun=910.0)
    assert [next(found), next(found)] == [1030.0, 1090.0]
    assert next(timing.after(970.0, begun=910.0)) == 1030.0


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"cron": "* * * * *"}, "cron"),  # and an interval
        ({"interval_s": None}, "cron"),
        ({"interval_s": None, "cron": "61 * * * *"}, "cron"),
        ({"interval_s": None, "cron": "* * * * * *"}, "cron"),
        ({"interval_s": None, "cron": "0 0 31 2 *"}, "cron"),
        ({"interval_s": 0}, "interval_s"),
        ({"timezone": "Mars/Base"}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
        ({"job": {"model": "nobody/knows", "input": {}}}, "job.model"),
        ({"job": {"model": BODY["model"], "input": {}}}, "job.input"),
        ({"job": {**BODY, "metadata": 5}}, "job.metadata"),
        ({"rhythm": "daily"}, "rhythm"),
    ],
)
def test_bad_schedules_are_refused(user: Api, change: dict[str, Any], param: str) -> None:
    refused = user.ask("POST", "/v1/schedules", {**HOURLY, **change})
    assert refused.status == 422
    assert refused.json["error"]["param"].startswith(param), refused.json
    assert user.get("/v1/schedules")["data"] == []


# ---------------------------------------------------------------- managing


def test_made_shown_changed_and_deleted(user: Api, other: Api) -> None:
    answer = user.ask(
        "POST", "/v1/schedules", {"cron": "0 9 * * *", "timezone": "Asia/Shanghai", "job": BODY}
    )
    made = answer.json
    assert answer.status == 201
    assert (made["job"], made["enabled"], made["catch_up"], made["runs"]) == (BODY, True, True, 0)
    assert len(made["next_runs"]) == 5
    assert all(moment.endswith("T01:00:00.000Z") for moment in made["next_runs"])
    path = f"/v1/schedules/{made['id']}"
    assert user.get(path) == made
    assert [each["id"] for each in user.get("/v1/schedules")["data"]] == [made["id"]]
    for method, body in (("GET", None), ("PATCH", {"name": "x"}), ("DELETE", None)):
        assert other.ask(method, path, body).status == 404
    changed = user.ask("PATCH", path, {"interval_s": 60, "name": "often"}).json
    assert (changed["cron"], changed["interval_s"], changed["name"]) == (None, 60, "often")
    paused = user.ask("PATCH", path, {"enabled": False}).json
    assert (paused["enabled"], paused["next_runs"]) == (False, [])
    assert user.ask("DELETE", path).status == 204
    assert user.ask("GET", path).status == 404


def test_there_is_a_limit(user: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "MOST_SCHEDULES", 1)
    schedule(user)
    assert user.ask("POST", "/v1/schedules", HOURLY).status == 409


def test_all_of_a_user_keep_below_the_limit_of_submits(user: Api) -> None:
    often = {"job": BODY, "interval_s": 1}
    made = [schedule(user, **often) for _ in range(10)]  # 600 a minute
    refused = user.ask("POST", "/v1/schedules", HOURLY)
    assert (refused.status, refused.json["error"]["param"]) == (422, "interval_s")
    assert user.ask("PATCH", f"/v1/schedules/{made[0]['id']}", {"enabled": False}).status == 200
    schedule(user)
    assert user.ask("PATCH", f"/v1/schedules/{made[0]['id']}", {"enabled": True}).status == 422
    assert len(user.get("/v1/schedules")["data"]) == 11


@pytest.mark.parametrize(
    ("cron", "pace"),
    [("* * * * *", 1.0), ("0 * * * *", 1 / 60), ("30 9 * * *", 1 / 1440), ("0 0 29 2 *", 0.0)],
)
def test_how_often_a_cron_is_due(cron: str, pace: float) -> None:
    timing = Timing(cron=cron, interval_s=None, timezone="UTC")
    assert timing.runs_a_minute(1_790_000_000.0) == pytest.approx(pace, abs=1e-5)


# ---------------------------------------------------------------- running


def test_each_due_time_makes_one_job(user: Api) -> None:
    made = schedule(user, job={**BODY, "metadata": {"a": 1}, "priority": 3})
    tasks.run_schedules()
    assert jobs_of(user) == []
    let_it_be(made["id"], 1)
    beats = [threading.Thread(target=tasks.run_schedules) for _ in range(4)]
    for beat in beats:
        beat.start()
    for beat in beats:
        beat.join()
    (job,) = jobs_of(user)
    assert (job.metadata_, job.priority, job.price) == ({"a": 1}, 3, PRICE)
    shown = user.get(f"/v1/schedules/{made['id']}")
    assert (shown["runs"], shown["last_job_id"], shown["last_error"]) == (1, job.id, None)
    assert shown["next_runs"][0] > shown["last_run_at"]


def test_nothing_is_due_twice_in_the_hour_that_clocks_repeat(
    user: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2027, 10, 31, 1, 10, tzinfo=UTC)  # 02:10 in Berlin, for the second time
    made = schedule(user, interval_s=None, cron="30 2 * * *", timezone="Europe/Berlin")
    monkeypatch.setattr(clock, "epoch", now.timestamp)
    monkeypatch.setattr(clock, "now", lambda: now)
    let_it_be(made["id"], 2400)
    with transaction() as session:
        assert [schedules.run_one(session) for _ in range(3)] == [True, False, False]
    assert len(jobs_of(user)) == 1


def test_a_time_that_is_no_later_is_not_believed(user: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    made = schedule(user)
    let_it_be(made["id"], 1)
    monkeypatch.setattr(Timing, "after", lambda *_: iter([clock.epoch() - 5]))
    with transaction() as session:
        assert [schedules.run_one(session) for _ in range(3)] == [True, False, False]
    assert len(jobs_of(user)) == 1


@pytest.mark.parametrize(("catch_up", "expected"), [(True, 1), (False, 0)])
def test_what_was_missed_is_caught_up_with_once_or_not(user: Api, catch_up: bool, expected: int) -> None:
    made = schedule(user, interval_s=60, catch_up=catch_up)
    let_it_be(made["id"], 86_400)
    for _ in range(3):
        tasks.run_schedules()
    assert len(jobs_of(user)) == expected
    (next_run, *_) = user.get(f"/v1/schedules/{made['id']}")["next_runs"]
    assert 0 < datetime.fromisoformat(next_run).timestamp() - clock.epoch() <= 60


def test_a_job_that_cannot_be_accepted_is_told_and_stops_nobody(make_user: MakeUser, other: Api) -> None:
    poor = make_user(PRICE - 1)
    made, well = schedule(poor), schedule(other)
    let_it_be(made["id"], 2)
    let_it_be(well["id"], 1)
    tasks.run_schedules()
    shown = poor.get(f"/v1/schedules/{made['id']}")
    assert (shown["runs"], "credits" in shown["last_error"], len(shown["next_runs"])) == (0, True, 5)
    assert (jobs_of(poor), len(jobs_of(other))) == ([], 1)
    with transaction() as session:
        users.change_user(session, other.user_id, role=users.Role.PENDING)
    let_it_be(well["id"], 1)
    tasks.run_schedules()
    with reading() as session:
        assert "approval" in str(session.get_one(Schedule, well["id"]).last_error)
    assert len(jobs_of(other)) == 1


def test_a_worker_that_dies_before_the_commit_has_submitted_nothing(user: Api) -> None:
    made = schedule(user)
    let_it_be(made["id"], 1)
    with pytest.raises(ZeroDivisionError), transaction() as session:
        assert schedules.run_one(session)
        raise ZeroDivisionError
    assert jobs_of(user) == []
    tasks.run_schedules()
    assert len(jobs_of(user)) == 1
