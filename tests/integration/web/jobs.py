"""What workers and providers would do to a job, through the services that they use; and looks into the tables."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from common import clock
from common.db import reading, transaction
from common.ids import new_id
from common.models import Artifact, IdempotencyKey, Job, JobAttempt, JobStep, LedgerEntry
from common.services import lifecycle
from common.words import ErrorCode, Outcome, Status, Step
from tests.integration.web.api import Api

MODEL, PRICE = "flux/pro-1.1", 20
BODY: dict[str, Any] = {"model": MODEL, "input": {"prompt": "a red fox in snow"}}


def succeed(job_id: str) -> None:
    """A picture is in the storage, and the job is over."""
    with transaction() as session:
        session.add(
            Artifact(
                id=new_id("art"),
                job_id=job_id,
                number=1,
                kind="image",
                key=f"artifacts/{job_id}/1.png",
                url=None,
                thumbnail_key=f"artifacts/{job_id}/1.thumbnail.jpg",
                content_type="image/png",
                bytes=12345,
                sha256="0" * 64,
                width=1024,
                height=768,
                duration_s=None,
                created_at=clock.now(),
            )
        )
        assert lifecycle.finish(session, job_id, Status.SUCCEEDED, spent=None)


def fail(job_id: str) -> None:
    """The provider's final no."""
    with transaction() as session:
        assert lifecycle.finish(
            session, job_id, Status.FAILED, spent=0, code=ErrorCode.CONTENT_MODERATED, message="Not this."
        )


def attempt(
    job_id: str,
    outcome: Outcome = Outcome.ACCEPTED,
    *,
    due_in_s: float = 3600.0,
    account_id: str = "acc_none",
) -> str:
    """The job is at a provider and looked at in an hour; the attempt's callback token."""
    token = new_id("cbt")
    with transaction() as session:
        made = JobAttempt(
            id=new_id("att"),
            job_id=job_id,
            number=1,
            account_id=account_id,
            outcome=outcome,
            callback_token=token,
            created_at=clock.now(),
        )
        step = session.get_one(JobStep, job_id)
        step.step = Step.POLL if outcome is Outcome.ACCEPTED else Step.RECONCILE
        step.due_at, step.attempt_id = clock.epoch() + due_in_s, made.id
        session.get_one(Job, job_id).status = Status.RUNNING
        session.add(made)
    return token


# ---------------------------------------------------------------- the tables


def jobs_of(user: Api) -> list[Job]:
    """The user's rows, the oldest first."""
    with reading() as session:
        return list(session.scalars(select(Job).where(Job.user_id == user.user_id).order_by(Job.id)))


def step_of(job_id: str) -> JobStep | None:
    """What the job waits for."""
    with reading() as session:
        return session.get(JobStep, job_id)


def attempt_of(job_id: str) -> JobAttempt:
    """Its only attempt."""
    with reading() as session:
        return session.scalars(select(JobAttempt).where(JobAttempt.job_id == job_id)).one()


def entries_of(job_id: str) -> list[tuple[str, int, int]]:
    """The ledger's lines about the job: kind, and how available and held changed."""
    with reading() as session:
        lines = session.scalars(
            select(LedgerEntry).where(LedgerEntry.job_id == job_id).order_by(LedgerEntry.id)
        ).all()
        return [(line.kind, line.available_delta, line.held_delta) for line in lines]


def totals() -> tuple[int, int, int]:
    """How many jobs, ledger entries and idempotency keys there are."""
    with reading() as session:
        job, entry, key = (
            session.scalar(select(func.count()).select_from(table)) or 0
            for table in (Job, LedgerEntry, IdempotencyKey)
        )
    return job, entry, key
