"""Which job a call of an SDK gets that repeats by itself, sends no key and counts its tries: 0, then 1, 2 …

Nothing tells equal calls apart but that number, so every try that a job was given to is written down, and each call
gets a job of its own as far as its tries say: there are as many jobs as calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from common import clock
from common.models import IdempotencyKey

REPEATED_WITHIN = timedelta(minutes=11)  # these SDKs wait ten for an answer
OVERTAKEN_BY = timedelta(seconds=60)  # so long a first try may hang somewhere while the next one is answered
_MOST_TRIES = 200  # that are looked at; equal calls beyond them are as good as forgotten
_LOCK = ""  # the key of the row that equal calls queue up at; the others' are a job and a try


@dataclass(frozen=True, slots=True)
class Try:
    """A try of a call: what is asked for, and the how manieth it is.

    `refused`: its first try is known to have got no job.
    """

    asked_sha256: str
    number: int
    refused: bool = False


@dataclass(slots=True)
class _Given:
    """The tries that a job was given to, and when it was first."""

    since: datetime
    tries: set[int] = field(default_factory=set)


def claim(session: Session, user_id: str, this: Try, job_id: str) -> str | None:
    """The job that this call has made already, or None: then it shall be this new one."""
    _write(session, user_id, this, _LOCK, job_id)  # locks the row, so that of equal tries one makes the job
    earlier = None if this.refused else _earlier(_given(session, user_id, this), this.number)
    numbers = {0, this.number} if this.refused else {this.number}
    for number in sorted(numbers):
        _write(session, user_id, this, f"{earlier or job_id} {number}", earlier or job_id)
    return earlier


def _route(this: Try) -> str:
    return f"sdk {this.asked_sha256}"


def _write(session: Session, user_id: str, this: Try, key: str, job_id: str) -> None:
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    now = clock.now()
    session.execute(
        dialect.insert(IdempotencyKey)
        .values(user_id=user_id, route=_route(this), key=key, body_sha256=this.asked_sha256, result_id=job_id,
                created_at=now)
        .on_conflict_do_update(
            index_elements=[IdempotencyKey.user_id, IdempotencyKey.route, IdempotencyKey.key],
            set_={"created_at": now},
        )
    )  # fmt: skip


def _given(session: Session, user_id: str, this: Try) -> dict[str, _Given]:
    """The jobs of equal calls, and which tries they were given to."""
    rows = session.execute(
        select(IdempotencyKey.key, IdempotencyKey.result_id, IdempotencyKey.created_at)
        .where(
            IdempotencyKey.user_id == user_id,
            IdempotencyKey.route == _route(this),
            IdempotencyKey.key != _LOCK,
            IdempotencyKey.created_at > clock.now() - REPEATED_WITHIN,
        )
        .order_by(IdempotencyKey.created_at.desc())
        .limit(_MOST_TRIES)
    )
    found: dict[str, _Given] = {}
    for key, job_id, created_at in rows:
        given = found.setdefault(job_id, _Given(created_at))
        given.since = min(given.since, created_at)
        given.tries.add(int(key.rpartition(" ")[2]))
    return found


def _earlier(given: Mapping[str, _Given], number: int) -> str | None:
    """A first try's job was made by a further try that overtook it, or there is none.

    A further try's is the newest that no try as far as this one was given; of several the one that came as far as the
    try before. Where there is none, what equal tries got: it may be this one that arrives twice.
    """
    if number == 0:
        since = clock.now() - OVERTAKEN_BY
        return max((each for each, g in given.items() if 0 not in g.tries and g.since > since), default=None)
    behind = [each for each, g in given.items() if max(g.tries) < number]
    return max(behind or given, key=lambda each: (max(given[each].tries), each), default=None)
