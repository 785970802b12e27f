"""What several parts of a job's life write down: its status, its timeline, its results, and its hooks' news."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from common import clock, live, queue
from common.db import after_commit
from common.ids import new_id
from common.models import Job, JobEvent
from common.providers.base import Output
from common.services import midjourney_tasks, webhooks
from common.services.claims import Claim
from common.words import TERMINAL, Status, Step

# What the timeline tells that no other row shows.
SUBMIT_UNKNOWN, ADOPTED, LATE_SUCCESS, REFUNDED = "submit_unknown", "adopted", "late_success", "refunded"
SOURCE_GONE, ASKED_ANEW, STORAGE_REFUSED = "source_gone", "asked_anew", "storage_refused"
SHARE = "share"  # in an attempt's memo: how much of what the price is for was made


def may_have_hook(claim: Claim) -> bool:
    """Whether its model is one whose jobs may come with a notifyHook."""
    return claim.model.startswith(f"{midjourney_tasks.DIALECT}/")


def tell_hooks(session: Session, job_ids: Collection[str]) -> None:
    """Have the notifyHooks of these jobs told how far they are."""
    if job_ids and webhooks.owe_progress(session, job_ids):
        after_commit(session, lambda: queue.nudge(Step.DELIVER))


def with_end(output: Output) -> dict[str, Any]:
    """An output as its attempt keeps it: with the time at which its address dies."""
    return {**asdict(output), "expires_at": clock.epoch() + output.lives_s}


def note(session: Session, job_id: str, kind: str, detail: str) -> None:
    """Remember something for the job's timeline."""
    session.add(
        JobEvent(id=new_id("evt"), job_id=job_id, kind=kind, detail=detail[:2000], created_at=clock.now())
    )


def advance(session: Session, job_id: str, status: Status, **values: Any) -> None:
    """Move a job that has not ended; one that has keeps its end."""
    session.execute(
        update(Job)
        .where(Job.id == job_id, Job.status.not_in(TERMINAL))
        .values(status=status, **values)
        .execution_options(synchronize_session=False)
    )
    live.tell(session, job_id, status=status)
