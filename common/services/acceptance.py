"""How an accepted job is written down: the hold, its ledger entry, the job and its first step, all or nothing.

PostgreSQL does it in one statement, SQLite in four. All of them are built once, and of tables: building them for each
job, or having the ORM track its row, would take longer than running them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import CTE, Select, Table, bindparam, insert, select
from sqlalchemy.orm import Session

from common.models import Job, JobStep
from common.services import credits
from common.words import Status, Step


@dataclass(slots=True, kw_only=True)
class AcceptedJob:
    """A job as its row has it at the beginning."""

    id: str
    user_id: str
    provider: str
    model: str
    action: str
    input: dict[str, Any]
    metadata_: dict[str, Any]
    priority: int
    parent_id: str | None
    tool_id: str | None
    webhook_url: str | None
    dialect: str | None
    price: int
    created_at: datetime
    deadline_at: datetime
    status: Status = Status.QUEUED
    actions: list[dict[str, Any]] = field(default_factory=list)
    progress: int = 0
    attempts: int = 0
    late: bool = False
    # Left out of what is written: NULL.
    charged: int | None = None
    preview_url: str | None = None
    output: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    submitted_at: datetime | None = None
    finished_at: datetime | None = None


_JOB = Job.metadata.tables[Job.__tablename__]
_STEP = Job.metadata.tables[JobStep.__tablename__]
_OF_JOB = (
    "id", "user_id", "status", "provider", "model", "action", "input", "metadata", "priority", "parent_id", "tool_id",
    "webhook_url", "dialect", "price", "progress", "actions", "attempts", "late", "deadline_at", "created_at",
)  # fmt: skip
_OF_STEP = (
    "job_id", "step", "due_at", "user_id", "model", "priority", "created_at", "deadline_at", "slots",
    "pinned_account_id", "failures",
)  # fmt: skip


def write(session: Session, job: AcceptedJob, *, slots: int, pinned_account_id: str | None) -> None:
    """Hold what the job costs and queue it. Raises InsufficientCredits, and then nothing is written."""
    row = {name: getattr(job, "metadata_" if name == "metadata" else name) for name in _OF_JOB}
    step = {
        "job_id": job.id,
        "step": Step.SUBMIT,
        "due_at": job.created_at.timestamp(),
        "user_id": job.user_id,
        "model": job.model,
        "priority": job.priority,
        "created_at": job.created_at.timestamp(),
        "deadline_at": job.deadline_at.timestamp(),
        "slots": slots,
        "pinned_account_id": pinned_account_id,
        "failures": 0,
    }
    if session.get_bind().dialect.name == "postgresql":
        _write_at_once(session, job, row, step)
    else:
        credits.hold(session, job.user_id, job.id, job.price)
        session.execute(_INSERT_JOB, [row])
        session.execute(_INSERT_STEP, [step])


def _write_at_once(session: Session, job: AcceptedJob, row: dict[str, Any], step: dict[str, Any]) -> None:
    if job.price == 0:
        credits.open_account(session, job.user_id)
    given = credits.hold_parameters(job.user_id, job.id, job.price, job.created_at)
    for table, values in (("job", row), ("job_step", step)):
        given.update({f"{table}_{name}": value for name, value in values.items()})
    if session.execute(_ACCEPT, given).one_or_none() is None:
        raise credits.too_few(session, job.user_id, job.price)


def _where_held(table: Table, names: Iterable[str]) -> CTE:
    """A row of this table, if the credits for it could be held."""
    values = (bindparam(f"{table.name}_{name}", type_=table.c[name].type) for name in names)
    return (
        insert(table)
        .from_select(list(names), select(*values).select_from(credits.HELD))
        .cte(f"{table.name}_written")
    )


def _accepting() -> Select[Any]:
    parts = (credits.HOLD_WRITTEN, _where_held(_JOB, _OF_JOB), _where_held(_STEP, _OF_STEP))
    return select(credits.HELD.c.available).add_cte(*parts)


_INSERT_JOB, _INSERT_STEP = insert(_JOB), insert(_STEP)
_ACCEPT = _accepting()
