"""How a job ends, once: `finish` is the only way out. Canceled, too late, refunded, or forgotten when nothing is left.

Who ends a job says what it is to cost; the status, the settlement and the webhooks are written together. What comes
after the end is kept, and changes neither.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import case, delete, select, update
from sqlalchemy.orm import Session

from common import clock, live, queue
from common.db import after_commit
from common.errors import LedgerBroken
from common.models import Job, JobStep
from common.services import credits, webhooks
from common.services.lifecycle.records import LATE_SUCCESS, REFUNDED, note
from common.services.webhooks import Ended
from common.settings import settings
from common.words import TERMINAL, ErrorCode, Status, Step

log = logging.getLogger(__name__)

LATE_WINDOW_S = 6 * 3600.0  # how long a timed-out or canceled generation is still watched for its result
CANCELED = "Canceled by the user."


def finish(
    session: Session, job_id: str, status: Status, *, spent: int | None, code: str | None = None,
    message: str | None = None, retryable: bool = False, watch: bool = False, share: Sequence[int] | None = None,
) -> bool:  # fmt: skip
    """End a job: status, settlement and webhooks together. `spent` None takes the whole price, or its `share`.

    Returns False, changing nothing, if the job has ended before. With `watch` its step stays, so that a result
    which comes after all is kept.
    """
    error = {"code": code, "message": (message or "")[:2000], "retryable": retryable} if code else None
    charge = _shared(share) if spent is None else case((Job.price < spent, Job.price), else_=spent)
    values: dict[str, Any] = {
        "status": status, "finished_at": clock.now(), "error": error, "charged": charge,
    }  # fmt: skip
    if status is Status.SUCCEEDED:
        values["progress"] = 100
    job = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.status.not_in(TERMINAL))
        .values(values)
        .returning(Job.user_id, Job.model, Job.charged, Job.webhook_url, Job.dialect)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if job is None:
        return False
    live.tell(session, job_id, status=status)
    credits.settle(session, job_id, spent=job.charged)
    ended = Ended(id=job_id, user_id=job.user_id, model=job.model, status=status, webhook_url=job.webhook_url,
                  dialect=job.dialect)  # fmt: skip
    if webhooks.owe(session, ended):
        after_commit(session, lambda: queue.nudge(Step.DELIVER))
    if watch:
        session.execute(
            update(JobStep)
            .where(JobStep.job_id == job_id)
            .values(cancel_at=None, deadline_at=clock.epoch() + LATE_WINDOW_S)
        )
    else:
        forget(session, job_id)
    return True


def _shared(share: Sequence[int] | None) -> Any:
    """The price, or so many parts of so many of it, rounded up."""
    if share is None:
        return Job.price
    made, most = share
    return Job.price if made >= most else (Job.price * made + (most - 1)) // most


def succeed(session: Session, job_id: str, share: Sequence[int] | None = None) -> None:
    """All is there. Where the job had ended before, its end and its price stay as they are.

    `share`: so many of so many parts of what it is to cost were made.
    """
    if finish(session, job_id, Status.SUCCEEDED, spent=None, share=share):
        return
    mark_late(session, job_id, anything=True)
    note(session, job_id, LATE_SUCCESS, "the result came after the job had ended; it is kept, not charged")
    forget(session, job_id)


def mark_late(session: Session, job_id: str, *, anything: bool) -> None:
    """Say of a job that had ended that results came afterwards; one that lives still may succeed in time."""
    if anything:
        session.execute(update(Job).where(Job.id == job_id, Job.status.in_(TERMINAL)).values(late=True))


def end_free(
    session: Session, job_id: str, *, canceled: bool, code: str = ErrorCode.CANCELED, message: str = CANCELED,
    retryable: bool = False, watch: bool = False,
) -> bool:  # fmt: skip
    """The job ends without a result and costs nothing: as canceled if its user has asked for that, else as failed.

    Returns False if it has ended before.
    """
    if canceled:
        return finish(session, job_id, Status.CANCELED, spent=0, code=ErrorCode.CANCELED, message=CANCELED,
                      watch=watch)  # fmt: skip
    return finish(session, job_id, Status.FAILED, spent=0, code=code, message=message, retryable=retryable,
                  watch=watch)  # fmt: skip


def end_canceled(session: Session, job_id: str) -> None:
    """The user has canceled what the provider goes on with or has finished: CANCEL_CHARGE; the result is kept."""
    spent = None if settings().cancel_charge == "full" else 0
    finish(
        session, job_id, Status.CANCELED, spent=spent, code=ErrorCode.CANCELED, message=CANCELED, watch=True
    )


def came_to_nothing(session: Session, job_id: str) -> None:
    """A generation that was watched after its job had ended has failed: who paid for canceling it gets that back."""
    refund(session, job_id, reason="the canceled generation failed at the provider")
    forget(session, job_id)


def refund(session: Session, job_id: str, *, reason: str) -> bool:
    """Give back what a finished job was charged. Returns False where that was nothing, or was given back already."""
    if credits.refund(session, job_id, note=reason) is None:
        return False
    session.execute(update(Job).where(Job.id == job_id).values(charged=0))
    note(session, job_id, REFUNDED, reason)
    return True


# ---------------------------------------------------------------- cancel and deadline


def cancel(session: Session, job_id: str) -> bool:
    """The user wants the job to end. Returns False if it has ended already.

    It ends at once where no provider has it, or where the provider has done its part; otherwise a worker asks the
    provider first, as soon as it has said whether it took the job.
    """
    waits = session.execute(
        select(JobStep.step, JobStep.attempt_id)
        .where(JobStep.job_id == job_id)
        .with_for_update()  # whoever ends a job has this row first
    ).one_or_none()
    if waits is None:
        return False
    status = session.scalars(select(Job.status).where(Job.id == job_id)).one()
    if status in TERMINAL:
        return False
    if waits.step == Step.SUBMIT and waits.attempt_id is None:
        end_free(session, job_id, canceled=True)
    elif waits.step == Step.STORE or status == Status.STORING:  # it is made, wherever it is fetched from
        end_canceled(session, job_id)
    else:
        _ask_to_stop(session, job_id)
    return True


def _ask_to_stop(session: Session, job_id: str) -> None:
    now = clock.epoch()
    can_be_asked = (JobStep.step == Step.POLL) & JobStep.lease_token.is_(None)
    session.execute(
        update(JobStep)
        .where(JobStep.job_id == job_id, JobStep.cancel_at.is_(None))
        .values(cancel_at=now, due_at=case((can_be_asked, now), else_=JobStep.due_at))
        .execution_options(synchronize_session=False)
    )
    after_commit(session, lambda: queue.nudge(Step.POLL))


def past_deadline(session: Session, limit: int = 200) -> int:
    """End what has waited too long. Returns how many rows there were.

    Queued: failed, free. Running: failed, free, and still watched, also by a worker that is just looking at it. A
    watched one whose window is over is forgotten. A submit in flight and a lost one are decided by their own rules,
    soon; and what is being stored has no deadline: its source's life is the limit. Who is asked for its addresses
    once more has a while for that: then it fails as what cannot be stored.
    """
    rows = session.execute(
        select(JobStep.job_id, JobStep.step, JobStep.cancel_at, JobStep.user_id, Job.status)
        .join(Job, Job.id == JobStep.job_id)
        .where(
            JobStep.deadline_at <= clock.epoch(),
            (JobStep.step == Step.POLL) | ((JobStep.step == Step.SUBMIT) & JobStep.attempt_id.is_(None)),
        )
        .order_by(JobStep.deadline_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=JobStep)
    ).all()
    for row in sorted(rows, key=lambda row: str(row.user_id)):
        if row.status in TERMINAL:
            forget(session, row.job_id)
        elif row.status == Status.STORING:
            with alone(session, row.job_id):
                end_free(session, row.job_id, canceled=row.cancel_at is not None, code=ErrorCode.STORAGE_FAILED,
                         message=_NO_ADDRESS, retryable=True)  # fmt: skip
        else:
            with alone(session, row.job_id):
                end_free(session, row.job_id, canceled=row.cancel_at is not None, code=ErrorCode.TIMEOUT,
                         message=_TOO_LATE[Step(row.step)], retryable=True, watch=row.step == Step.POLL)  # fmt: skip
    return len(rows)


_TOO_LATE = {
    Step.SUBMIT: "No provider account could take this job before its deadline.",
    Step.POLL: "The provider did not finish before this job's deadline.",
}
_NO_ADDRESS = "The provider's result is gone: it did not say in time where it is now."


@contextmanager
def alone(session: Session, job_id: str) -> Iterator[None]:
    """One job of many: if its ledger is broken, what it needed is undone and the others go on."""
    try:
        with session.begin_nested():
            yield
    except LedgerBroken as error:
        log.error("job %s cannot end: %s", job_id, error)


def forget(session: Session, job_id: str) -> None:
    """Nothing is to come of this job any more: no step of it is left."""
    session.execute(
        delete(JobStep).where(JobStep.job_id == job_id).execution_options(synchronize_session=False)
    )
    after_commit(session, lambda: queue.nudge(Step.SUBMIT))  # it may have had a slot
