"""A job's way to a provider: sent, and then taken, turned down, or lost and looked for.

In: a claim and what the provider said of the submit. Nothing that may have been accepted is ever sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import String, func, literal, select, update
from sqlalchemy.orm import Session

from common import clock, queue
from common.db import after_commit
from common.models import JobAttempt, JobStep
from common.providers.base import Accepted, NotAccepted, Rejected, Trouble, Unknown
from common.providers.registry import MODELS
from common.services import accounts
from common.services.claims import LATE_ANSWER, TROUBLE, Claim, SubmitClaim
from common.services.lifecycle.chances import ELSEWHERE_ONLY, failures, may_go_elsewhere
from common.services.lifecycle.ending import alone, end_free
from common.services.lifecycle.fences import C, fence, held_claims, release
from common.services.lifecycle.pauses import backoff_s, first_poll_s
from common.services.lifecycle.records import (
    ADOPTED,
    SUBMIT_UNKNOWN,
    advance,
    may_have_hook,
    note,
    tell_hooks,
)
from common.settings import settings
from common.words import ErrorCode, Outcome, Status, Step

log = logging.getLogger(__name__)


def sending(session: Session, claims: Sequence[C]) -> list[C]:
    """Write down, before anything is sent, that it may have been. Returns the claims that are to be sent.

    What was canceled since it was claimed ends here, unsent.
    """
    held = held_claims(session, claims)
    wanted = [claim for claim, canceled in held if not canceled]
    for claim in (claim for claim, canceled in held if canceled):
        _close_attempt(
            session, claim.attempt_id, Outcome.REJECTED, "It was canceled before anything was sent."
        )
        end_free(session, claim.job_id, canceled=True)
    if wanted:
        session.execute(
            update(JobAttempt)
            .where(JobAttempt.id.in_([claim.attempt_id for claim in wanted]))
            .values(outcome=Outcome.SENT, sent_at=clock.now())
        )
    return wanted


def accepted(session: Session, claim: Claim, verdict: Accepted, *, adopted: bool = False) -> None:
    """The provider has the job: poll it from now on."""
    spec = MODELS[claim.model]
    outcome = Outcome.ADOPTED if adopted else Outcome.ACCEPTED
    release(session, claim, step=Step.POLL, due_in_s=first_poll_s(spec.first_poll_s), failures=0, refusals=0)
    _answer(
        session, claim, outcome, provider_ref=verdict.provider_ref, memo=dict(verdict.memo), cost=verdict.cost
    )
    advance(session, claim.job_id, Status.RUNNING, submitted_at=clock.now())
    if may_have_hook(claim):
        tell_hooks(session, [claim.job_id])
    if adopted:
        note(session, claim.job_id, ADOPTED, f"found again as {verdict.provider_ref}")
    accounts.succeeded(session, claim.account_id)


def rejected(session: Session, claim: Claim, verdict: Rejected) -> None:
    """A definite no: the job fails and costs nothing. What was mere chance is tried again a few times, with pauses."""
    _answer(session, claim, Outcome.REJECTED, error_code=verdict.code, error_message=verdict.message)
    if verdict.asked:
        accounts.succeeded(session, claim.account_id)
    if verdict.tries and failures(session, claim, verdict.code) <= verdict.tries:
        back_to_queue(session, claim, at_least_s=_CHANCE_PAUSE_S)
        return
    canceled = fence(session, claim)
    end_free(session, claim.job_id, canceled=canceled, code=verdict.code, message=verdict.message,
             retryable=verdict.tries > 0)  # fmt: skip


_CHANCE_PAUSE_S = 3.0


def not_accepted(session: Session, claim: SubmitClaim, verdict: NotAccepted) -> None:
    """Provably nothing was started: back to the queue, unless no account could ever take it."""
    code = _TROUBLE_CODES[verdict.trouble]
    is_doubted = verdict.doubted and not _had_this_trouble(session, claim, verdict.trouble)
    if verdict.trouble is Trouble.MODEL:
        log.warning("account %s cannot serve %s: %s", claim.account_id, claim.model, verdict.message)
    elif verdict.trouble is not Trouble.INPUT and not is_doubted:
        accounts.troubled(session, claim.account_id, verdict.trouble, verdict.retry_after_s)
    _answer(session, claim, Outcome.REJECTED, error_code=code, error_message=verdict.message,
            memo={TROUBLE: verdict.trouble})  # fmt: skip
    if verdict.trouble in ELSEWHERE_ONLY and not is_doubted and not may_go_elsewhere(session, claim):
        canceled = fence(session, claim)
        end_free(session, claim.job_id, canceled=canceled, code=code, message=verdict.message, retryable=True)
        return
    back_to_queue(session, claim)


def _had_this_trouble(session: Session, claim: Claim, trouble: Trouble) -> bool:
    """Whether it is what this account has said of this job the last time, too."""
    last = session.scalars(
        select(JobAttempt.memo)
        .where(
            JobAttempt.job_id == claim.job_id,
            JobAttempt.account_id == claim.account_id,
            JobAttempt.id != claim.attempt_id,
        )
        .order_by(JobAttempt.number.desc())
        .limit(1)
    ).one_or_none()
    return (last or {}).get(TROUBLE) == trouble


_TROUBLE_CODES = {
    Trouble.BUSY: ErrorCode.PROVIDER_UNAVAILABLE,
    Trouble.DOWN: ErrorCode.PROVIDER_UNAVAILABLE,
    Trouble.CREDENTIALS: ErrorCode.PROVIDER_UNAVAILABLE,
    Trouble.BALANCE: ErrorCode.ACCOUNT_EXHAUSTED,
    Trouble.MODEL: ErrorCode.PROVIDER_UNAVAILABLE,
    Trouble.INPUT: ErrorCode.INVALID_INPUT,
}


def back_to_queue(session: Session, claim: Claim, *, at_least_s: float = 0.0) -> None:
    """Give up this attempt's account and wait for another turn; or end, if the user has canceled meanwhile.

    It is the account that pauses for as long as the provider says; another one may take the job sooner.
    """
    canceled = release(
        session,
        claim,
        step=Step.SUBMIT,
        due_in_s=max(at_least_s, backoff_s(claim.failures)),
        failures=claim.failures + 1,
        account_id=None,
        attempt_id=None,
    )
    _queue_or_cancel(session, claim.job_id, canceled=canceled)


def _queue_or_cancel(session: Session, job_id: str, *, canceled: bool) -> None:
    if canceled:
        end_free(session, job_id, canceled=True)
    else:
        advance(session, job_id, Status.QUEUED)


def unknown(session: Session, claim: Claim, verdict: Unknown) -> None:
    """It may have been accepted: never send it again, look for it instead."""
    release(session, claim, step=Step.RECONCILE, due_in_s=1.0, failures=0)
    accounts.troubled(session, claim.account_id, Trouble.DOWN, None)
    _answer(session, claim, Outcome.UNKNOWN, error_message=verdict.message)
    note(session, claim.job_id, SUBMIT_UNKNOWN, verdict.message)
    after_commit(session, lambda: queue.nudge(Step.RECONCILE))


def answered_late(session: Session, claim: Claim, verdict: Accepted) -> None:
    """The lease was lost before this answer came: whoever looks for the lost submit now finds it here."""
    memo = session.scalars(
        select(JobAttempt.memo)
        .where(JobAttempt.id == claim.attempt_id, JobAttempt.outcome.in_((Outcome.SENT, Outcome.UNKNOWN)))
        .with_for_update()
    ).one_or_none()
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.id == claim.attempt_id, JobAttempt.outcome.in_((Outcome.SENT, Outcome.UNKNOWN)))
        .values(memo={**(memo or {}), LATE_ANSWER: asdict(verdict)})
        .execution_options(synchronize_session=False)
    )


def not_found_yet(session: Session, claim: Claim) -> None:
    """A lost submit was looked for in vain: look again, until the window has closed.

    The window opens when its answer was given up: sending alone may take longer than that.
    """
    lost = func.coalesce(JobAttempt.answered_at, JobAttempt.sent_at)
    lost_at = session.scalars(select(lost).where(JobAttempt.id == claim.attempt_id)).one()
    age_s = clock.epoch() - lost_at.timestamp() if lost_at else settings().reconcile_window_s
    if age_s < settings().reconcile_window_s:
        release(session, claim, step=Step.RECONCILE, due_in_s=min(5.0, 1.0 + claim.failures),
                failures=claim.failures + 1)  # fmt: skip
        return
    canceled = fence(session, claim)
    _answer(session, claim, Outcome.ABANDONED, error_code=ErrorCode.SUBMIT_UNKNOWN)
    end_free(session, claim.job_id, canceled=canceled, code=ErrorCode.SUBMIT_UNKNOWN, retryable=True,
             message="The provider never said whether it took this job, and it could not be found there.")  # fmt: skip


# ---------------------------------------------------------------- submits that a worker left behind


def recover(session: Session, limit: int = 100) -> int:
    """Decide about submits whose worker died: one not yet `sent` goes back to the queue, the others are lost.

    Returns how many there were.
    """
    rows = session.execute(
        select(JobStep.job_id, JobStep.attempt_id, JobStep.cancel_at, JobStep.user_id, JobAttempt.outcome)
        .join(JobAttempt, JobAttempt.id == JobStep.attempt_id)
        .where(
            JobStep.step
            == literal(Step.SUBMIT, String, literal_execute=True),  # as the index of these rows has it
            JobStep.attempt_id.is_not(None),
            JobStep.due_at <= clock.epoch(),
        )
        .order_by(JobStep.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=JobStep)
    ).all()
    for row in sorted(rows, key=lambda row: str(row.user_id)):
        with alone(session, row.job_id):
            if row.outcome == Outcome.INTENT:
                _left_unsent(session, row.job_id, row.attempt_id, canceled=row.cancel_at is not None)
            else:
                _left_sent(session, row.job_id, row.attempt_id)
    return len(rows)


def _left_unsent(session: Session, job_id: str, attempt_id: str, *, canceled: bool) -> None:
    _close_attempt(session, attempt_id, Outcome.REJECTED, "The worker stopped before anything was sent.")
    _reset_step(session, job_id, account_id=None, attempt_id=None)
    _queue_or_cancel(session, job_id, canceled=canceled)


def _left_sent(session: Session, job_id: str, attempt_id: str) -> None:
    message = "The worker stopped before it could write down the provider's answer."
    _close_attempt(session, attempt_id, Outcome.UNKNOWN, message)
    _reset_step(session, job_id, step=Step.RECONCILE, failures=0)
    note(session, job_id, SUBMIT_UNKNOWN, message)


def _close_attempt(session: Session, attempt_id: str, outcome: Outcome, message: str) -> None:
    session.execute(
        update(JobAttempt).where(JobAttempt.id == attempt_id).values(outcome=outcome, error_message=message)
    )


def _reset_step(session: Session, job_id: str, **values: Any) -> None:
    session.execute(
        update(JobStep)
        .where(JobStep.job_id == job_id)
        .values(lease_token=None, due_at=clock.epoch(), **values)
    )


def _answer(session: Session, claim: Claim, outcome: Outcome, **values: Any) -> None:
    if "error_message" in values:
        values["error_message"] = values["error_message"][:2000]
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.id == claim.attempt_id)
        .values(outcome=outcome, answered_at=clock.now(), **values)
        .execution_options(synchronize_session=False)
    )
