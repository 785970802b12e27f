"""Jobs by the clock: when they are due, and submitting each of them exactly once.

The due time moves on in the transaction that accepts the job: two beats, a replayed message or a worker that is killed
make neither two jobs nor none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from common import clock
from common.errors import AppError, Conflict, InvalidInput, NotFound
from common.ids import new_id
from common.models import Schedule
from common.services import catalog, jobs, users
from common.services.jobs import NewJob
from common.services.users import Actor
from common.settings import settings

MOST_SCHEDULES = 100  # of one user
SHOWN_RUNS = 5
LATE_S = 60.0  # what was due longer ago has been missed, and is caught up with or not
_LATER_S = 60.0  # when a due time turns out not to lie ahead
_FIELDS = 5  # of a cron expression
_MOST_PASSED = (
    3000  # due times in a row that are over: more than any zone's clock was ever set back by, in minutes
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When something is due: by cron in a time zone, or every so many seconds."""

    cron: str | None
    interval_s: int | None
    timezone: str

    def check(self) -> None:
        """Raise InvalidInput for what is never due, or not one of the two."""
        if (self.cron is None) == (self.interval_s is None):
            raise InvalidInput("Give either `cron` or `interval_s`.", param="cron")
        try:
            ZoneInfo(self.timezone)
        except (ValueError, OSError, LookupError):
            raise InvalidInput(
                "There is no such time zone; say e.g. Europe/Berlin.", param="timezone"
            ) from None
        try:
            first = next(self.after(clock.epoch()), None)
        except CronSimError as error:
            raise InvalidInput(f"This is no cron expression: {error}.", param="cron") from None
        if first is None:
            raise InvalidInput("This is never due.", param="cron")

    def runs_a_minute(self, moment: float) -> float:
        """How often it is due, by its next few times."""
        found = list(islice(self.after(moment), SHOWN_RUNS))
        return 60.0 * (len(found) - 1) / (found[-1] - found[0]) if len(found) > 1 else 0.0

    def after(self, moment: float, begun: float | None = None) -> Iterator[float]:
        """Its due times after a moment, rising, in epoch seconds; intervals count from `begun`."""
        found = self._by_cron(moment) if self.interval_s is None else self._by_interval(moment, begun)
        return _rising(found, moment)

    def _by_interval(self, moment: float, begun: float | None) -> Iterator[float]:
        assert self.interval_s is not None
        begun = moment if begun is None else begun
        number = max(1, math.floor((moment - begun) / self.interval_s) + 1)
        while True:
            yield begun + number * self.interval_s
            number += 1

    def _by_cron(self, moment: float) -> Iterator[float]:
        if self.cron is None or len(self.cron.split()) != _FIELDS:
            raise CronSimError("it has five fields: minute, hour, day of month, month, day of week")
        start = datetime.fromtimestamp(moment, ZoneInfo(self.timezone))
        return (due.astimezone(UTC).timestamp() for due in CronSim(self.cron, start))


def _rising(found: Iterator[float], moment: float) -> Iterator[float]:
    """What lies behind the moment, each later than the one before.

    Within an hour that the clocks repeat, CronSim begins again at the hour's first time; and what falls into an hour
    that is left out it moves to that hour's end, all of it.
    """
    passed = 0
    for due in found:
        if due > moment:
            moment, passed = due, 0
            yield due
        elif (passed := passed + 1) > _MOST_PASSED:
            return


def timing(schedule: Schedule) -> Timing:
    """When it is due."""
    return Timing(cron=schedule.cron, interval_s=schedule.interval_s, timezone=schedule.timezone)


def next_runs(schedule: Schedule) -> list[float]:
    """Its next due times, in epoch seconds."""
    if schedule.next_at is None:
        return []
    following = timing(schedule).after(schedule.next_at, schedule.next_at)
    return [schedule.next_at, *islice(following, SHOWN_RUNS - 1)]


# ---------------------------------------------------------------- create, show, change


def create(
    session: Session, actor: Actor, *, name: str, when: Timing, job: dict[str, Any], enabled: bool, catch_up: bool
) -> Schedule:  # fmt: skip
    """A new schedule. Raises InvalidInput, UnknownModel, and Conflict for one too many."""
    when.check()
    _check_job(session, job)
    count = session.scalar(
        select(func.count()).select_from(Schedule).where(Schedule.user_id == actor.user_id)
    )
    if (count or 0) >= MOST_SCHEDULES:
        raise Conflict(f"There can be {MOST_SCHEDULES} schedules; delete one first.")
    now = clock.now()
    schedule = Schedule(
        id=new_id("sch"), user_id=actor.user_id, name=name, cron=when.cron, interval_s=when.interval_s,
        timezone=when.timezone, job=job, enabled=enabled, catch_up=catch_up, runs=0, created_at=now, updated_at=now,
        next_at=next(when.after(now.timestamp())) if enabled else None,
    )  # fmt: skip
    session.add(schedule)
    session.flush()
    _check_pace(session, actor.user_id)
    return schedule


def _check_pace(session: Session, user_id: str) -> None:
    """What runs by the clock is not counted where submits are, so all of a user's schedules together keep below it."""
    most = settings().submits_a_minute
    enabled = session.scalars(select(Schedule).where(Schedule.user_id == user_id, Schedule.enabled))
    if sum(timing(schedule).runs_a_minute(clock.epoch()) for schedule in enabled) > most:
        raise InvalidInput(f"All your schedules together would run more than {most:g} times a minute.",
                           param="interval_s")  # fmt: skip


def _check_job(session: Session, job: dict[str, Any]) -> None:
    try:
        catalog.check_input(catalog.offer(session, job["model"]).spec, job["input"])
    except AppError as error:
        error.param = f"job.{error.param}" if error.param else "job.model"
        raise


def get(session: Session, actor: Actor, schedule_id: str) -> Schedule:
    """One of the actor's own schedules. Raises NotFound."""
    schedule = session.get(Schedule, schedule_id)
    if schedule is None or schedule.user_id != actor.user_id:
        raise NotFound("There is no such schedule.")
    return schedule


def page(session: Session, actor: Actor, *, limit: int, after: str | None) -> tuple[list[Schedule], bool]:
    """The actor's schedules, newest first, from behind the schedule `after`; and whether there are more."""
    query = select(Schedule).where(Schedule.user_id == actor.user_id)
    if after is not None:
        query = query.where(Schedule.id < after)
    rows = list(session.scalars(query.order_by(Schedule.id.desc()).limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def change(session: Session, actor: Actor, schedule_id: str, changes: dict[str, Any]) -> Schedule:
    """Change what is given; a new time counts from now. Raises NotFound, InvalidInput, UnknownModel."""
    get(session, actor, schedule_id)
    schedule = session.get_one(Schedule, schedule_id, with_for_update=True, populate_existing=True)
    if changes.get("cron") is not None:
        changes = {"interval_s": None, **changes}
    elif changes.get("interval_s") is not None:
        changes = {"cron": None, **changes}
    if "job" in changes:
        _check_job(session, changes["job"])
    before = timing(schedule), schedule.enabled
    for name, value in changes.items():
        setattr(schedule, name, value)
    timing(schedule).check()
    if (timing(schedule), schedule.enabled) != before:
        schedule.next_at = next(timing(schedule).after(clock.epoch())) if schedule.enabled else None
    schedule.updated_at = clock.now()
    session.flush()
    if (timing(schedule), schedule.enabled) != before:
        _check_pace(session, actor.user_id)
    return schedule


def delete(session: Session, actor: Actor, schedule_id: str) -> None:
    """Forget a schedule; jobs that it has submitted go on. Raises NotFound."""
    session.delete(get(session, actor, schedule_id))
    session.flush()


# ---------------------------------------------------------------- running


def any_due(session: Session) -> bool:
    """Whether there is anything to run."""
    return session.scalar(select(Schedule.id).where(Schedule.next_at <= clock.epoch()).limit(1)) is not None


def run_one(session: Session) -> bool:
    """Submit the job of the schedule that is due longest, and move its due time on. Returns whether there was one.

    What was missed is caught up with by one run, or by none. A job that cannot be accepted is told in `last_error`.
    """
    now = clock.epoch()
    schedule = session.scalars(
        select(Schedule)
        .where(Schedule.next_at <= now)
        .order_by(Schedule.next_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if schedule is None or schedule.next_at is None:
        return False
    due_at = schedule.next_at
    schedule.next_at = _following(schedule, now)
    if now - due_at <= LATE_S or schedule.catch_up:
        schedule.last_at = now
        _submit(session, schedule)
    session.flush()
    return True


def _following(schedule: Schedule, now: float) -> float | None:
    """Its next time, which lies ahead whatever the clocks do: one due at once would run again and again."""
    found = next(timing(schedule).after(now, schedule.next_at), None)
    return found if found is None or found > now else now + _LATER_S


def _submit(session: Session, schedule: Schedule) -> None:
    try:
        with session.begin_nested():
            owner = users.actor_of(users.get_user(session, schedule.user_id))
            job, _ = jobs.accept(session, owner, NewJob(**schedule.job))
    except AppError as error:
        schedule.last_error = str(error)[:2000]
        return
    schedule.last_job_id, schedule.last_error = job.id, None
    schedule.runs += 1
