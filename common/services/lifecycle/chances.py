"""Whether a job that a provider has turned down or failed is worth another try, here or at another account."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from common.models import JobAttempt, JobStep
from common.providers.base import Failed, Trouble
from common.providers.registry import adapters_for
from common.services import accounts
from common.services.claims import REFUSED, Claim
from common.words import Outcome

CHANCE_TRIES = 2  # more, where moderation stopped by chance what was made, or an account could not make it
ELSEWHERE_ONLY = (Trouble.CREDENTIALS, Trouble.BALANCE, Trouble.MODEL)  # no wait helps at this account


def may_go_elsewhere(session: Session, claim: Claim) -> bool:
    """Whether some account may still serve the job: none that has said that it cannot, nor the present one."""
    pinned = session.scalars(select(JobStep.pinned_account_id).where(JobStep.job_id == claim.job_id)).one()
    if pinned is not None:
        return False
    refused_by = session.scalars(
        select(JobAttempt.account_id).where(JobAttempt.job_id == claim.job_id, REFUSED)
    )
    return accounts.other_account_may_serve(
        session, adapters_for(claim.model), but={claim.account_id, *refused_by}
    )


def is_worth_another_try(session: Session, claim: Claim, verdict: Failed) -> bool:
    """Whether a generation that failed so is to be submitted once more."""
    if not verdict.try_again and verdict.trouble is None:
        return False
    code = verdict.code if verdict.try_again else None
    if failures(session, claim, code) > CHANCE_TRIES:
        return False
    return verdict.trouble not in ELSEWHERE_ONLY or may_go_elsewhere(session, claim)


def failures(session: Session, claim: Claim, code: str | None) -> int:
    """How many generations of this job have failed by now, and how many of its submits were refused with this code."""
    failed_ = JobAttempt.ended_at.is_not(None) & JobAttempt.error_code.is_not(None)
    refused = (JobAttempt.outcome == Outcome.REJECTED) & (JobAttempt.error_code == code)
    both = select(func.count()).select_from(JobAttempt).where(
        JobAttempt.job_id == claim.job_id, failed_ | refused
    )  # fmt: skip
    return session.scalar(both) or 0
