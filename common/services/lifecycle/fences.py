"""Whether a worker still holds the step that it reports on, and how it puts it down.

A report counts only under its lease: `fence` and `release` raise LeaseLost where the step is somebody else's by now.
Whatever is held stays locked until the transaction ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import case, select, update
from sqlalchemy.orm import Session

from common import clock
from common.errors import LeaseLost
from common.models import JobStep
from common.services.claims import Claim
from common.words import Step

C = TypeVar("C", bound=Claim)

_HELD = (
    "held"  # in a session's info: the steps its transaction has locked, and whether they are to be canceled
)


def still_held(session: Session, claims: Sequence[C]) -> list[C]:
    """Those of the claims whose lease is still theirs, by user; their rows stay locked until the transaction ends."""
    return [claim for claim, _ in held_claims(session, claims)]


def held_claims(session: Session, claims: Sequence[C]) -> list[tuple[C, bool]]:
    """The claims still held, and whether their users have asked to cancel.

    Two transactions must not wait for each other: everywhere steps are locked by id, and then balances by user.
    """
    by_job = {claim.job_id: claim for claim in claims}
    rows = session.execute(
        select(JobStep.job_id, JobStep.lease_token, JobStep.cancel_at, JobStep.user_id)
        .where(JobStep.job_id.in_(by_job))
        .order_by(JobStep.job_id)
        .with_for_update()
    ).all()
    held = [
        (by_job[row.job_id], row.cancel_at is not None)
        for row in sorted(rows, key=lambda row: (str(row.user_id), str(row.job_id)))
        if row.lease_token == by_job[row.job_id].token
    ]
    session.info.setdefault(_HELD, {}).update(
        {(claim.job_id, claim.token): canceled for claim, canceled in held}
    )
    return held


def fence(session: Session, claim: Claim) -> bool:
    """Raise LeaseLost unless the worker still holds this step. Returns whether the user has asked to cancel."""
    known: bool | None = session.info.get(_HELD, {}).pop((claim.job_id, claim.token), None)
    if known is not None:  # read in this transaction, and locked since
        return known
    held = held_claims(session, [claim])
    if not held:
        raise LeaseLost(claim.job_id)
    return held[0][1]


def release(session: Session, claim: Claim, *, step: Step, due_in_s: float, **values: Any) -> bool:
    """Put the lease down and say what comes next and when: at once where the provider is still to be asked to stop.

    Returns whether the user has asked to cancel. Raises LeaseLost if the step was somebody else's already.
    """
    session.info.get(_HELD, {}).pop((claim.job_id, claim.token), None)
    now = clock.epoch()
    was_asked = claim.step is Step.POLL and claim.cancel_requested
    put_down = session.execute(
        update(JobStep)
        .where(JobStep.job_id == claim.job_id, JobStep.lease_token == claim.token)
        .values(
            step=step,
            due_at=case((JobStep.cancel_at.is_not(None), now), else_=now + due_in_s)
            if step is Step.POLL and not was_asked
            else now + due_in_s,
            lease_token=None,
            **values,
        )
        .returning(JobStep.cancel_at)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if put_down is None:
        raise LeaseLost(claim.job_id)
    return put_down.cancel_at is not None
