"""A job at its provider: still running, made, failed, denied, or asked to stop.

In: a claim and what a look at the provider has told. What was made goes on to `storing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Integer, Text, bindparam, case, func, select, update
from sqlalchemy.orm import Session

from common import clock, live, queue
from common.db import after_commit
from common.models import Job, JobAttempt, JobStep
from common.providers.base import Failed, NoVerdict, Running, Succeeded
from common.services import accounts, webhooks
from common.services.claims import Claim
from common.services.lifecycle.chances import is_worth_another_try
from common.services.lifecycle.ending import came_to_nothing, end_canceled, end_free, succeed
from common.services.lifecycle.fences import fence, release
from common.services.lifecycle.pauses import (
    GONE_LIMIT,
    LATE_POLL_S,
    backoff_s,
    interval_s,
    pause_after_denial_s,
)
from common.services.lifecycle.records import SHARE, advance, may_have_hook, tell_hooks, with_end
from common.words import TERMINAL, ErrorCode, Status, Step

CANCEL_TRIES = 4  # in a row to ask a provider to stop that does not answer
_CANCEL_AGAIN_S = 1.0


def still_running(session: Session, looked: Sequence[tuple[Claim, Running]]) -> None:
    """The common case, for a whole batch at once: look again later; write progress only where it changed."""
    now = clock.epoch()
    session.connection().execute(
        update(JobStep.__table__)  # type: ignore[arg-type]
        .where(
            JobStep.__table__.c.job_id == bindparam("of_job"),
            JobStep.__table__.c.lease_token == bindparam("held"),
        )
        .values(
            due_at=case((JobStep.__table__.c.cancel_at.is_not(None), now), else_=bindparam("again_at")),
            lease_token=None,
            failures=0,
            refusals=0,
        ),
        [
            {"of_job": claim.job_id, "held": claim.token, "again_at": now + interval_s(claim)}
            for claim, _ in sorted(looked, key=lambda pair: pair[0].job_id)  # as everywhere: see `fences`
        ],
    )
    told: list[dict[str, Any]] = [
        {"of_job": claim.job_id, "progress_seen": _percent(seen), "preview_seen": seen.preview_url}
        for claim, seen in sorted(looked, key=lambda pair: pair[0].job_id)
        if seen.progress is not None or seen.preview_url is not None
    ]
    of_hooks = {claim.job_id for claim, _ in looked if may_have_hook(claim)}
    news = {
        seen["of_job"]: (seen["progress_seen"], seen["preview_seen"])
        for seen in told
        if seen["of_job"] in of_hooks
    }
    tell_hooks(session, webhooks.not_known_yet(session, news) if news else ())
    if told:
        session.connection().execute(_PROGRESSED, told)
    for seen in told:
        live.tell(session, seen["of_job"], progress=seen["progress_seen"], preview_url=seen["preview_seen"])


def _percent(seen: Running) -> int | None:
    return None if seen.progress is None else max(0, min(99, seen.progress))


_JOB = Job.metadata.tables[Job.__tablename__].c
_FURTHER = _JOB.progress < bindparam("progress_seen", type_=Integer)
_PREVIEW = bindparam("preview_seen", type_=Text)
# Rows in which nothing would change are left alone: most looks tell nothing new.
_PROGRESSED = (
    update(Job.metadata.tables[Job.__tablename__])
    .where(_JOB.id == bindparam("of_job"), _JOB.status == Status.RUNNING)
    .where(_FURTHER | (_JOB.preview_url.is_distinct_from(_PREVIEW) & _PREVIEW.is_not(None)))
    .values(
        progress=case((_FURTHER, bindparam("progress_seen", type_=Integer)), else_=_JOB.progress),
        preview_url=func.coalesce(_PREVIEW, _JOB.preview_url),
    )
)


def produced(session: Session, claim: Claim, verdict: Succeeded) -> None:
    """The provider is done: keep what it made, then store it; or finish at once where there is no media.

    It came too late for a cancel that the provider has not been asked yet: the result is kept all the same.
    """
    if verdict.outputs:
        first_dies = clock.epoch() + min(output.lives_s for output in verdict.outputs)
        canceled = release(session, claim, step=Step.STORE, due_in_s=0, failures=0, refusals=0,
                           expires_at=first_dies)  # fmt: skip
    else:
        canceled = fence(session, claim)
    _keep_made(session, claim, verdict)
    if canceled:
        end_canceled(session, claim.job_id)
    if not verdict.outputs:
        succeed(session, claim.job_id)
        return
    after_commit(session, lambda: queue.nudge(Step.STORE))
    after_commit(session, lambda: queue.nudge(Step.SUBMIT))  # its slot is free


def _keep_made(session: Session, claim: Claim, verdict: Succeeded) -> None:
    values: dict[str, Any] = {
        "outputs": [with_end(output) for output in verdict.outputs],
        "ended_at": clock.now(),
        "error_code": None,  # whatever was believed of it before
    }
    added = dict(verdict.memo)
    if verdict.share is not None:
        added[SHARE] = list(verdict.share)
    if verdict.actions:
        added["actions"] = {action.id: action.token for action in verdict.actions}
    if added:
        memo = session.scalars(select(JobAttempt.memo).where(JobAttempt.id == claim.attempt_id)).one()
        values["memo"] = {**(memo or {}), **added}
    if verdict.cost is not None:
        values["cost"] = verdict.cost
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.id == claim.attempt_id)
        .values(values)
        .execution_options(synchronize_session=False)
    )
    told: dict[str, Any] = {
        "actions": [{"id": action.id, "label": action.label} for action in verdict.actions],
        "output": verdict.output,
    }
    if verdict.outputs:  # a job that has ended keeps its end
        has_ended = Job.status.in_(TERMINAL)
        told["status"] = case((has_ended, Job.status), else_=Status.STORING)
        told["progress"] = case((has_ended, Job.progress), else_=99)
        live.tell(session, claim.job_id, status=Status.STORING, progress=99)
    session.execute(
        update(Job).where(Job.id == claim.job_id).values(told).execution_options(synchronize_session=False)
    )


def failed(session: Session, claim: Claim, verdict: Failed) -> None:
    """The provider's final no: the job fails and costs nothing. What was mere chance, or its account's fault, is tried
    again a few times."""
    canceled = fence(session, claim)
    _answer_error(session, claim, verdict.code, verdict.message)
    if verdict.trouble is not None:
        accounts.troubled(session, claim.account_id, verdict.trouble, None)
    if not canceled and not claim.finished and is_worth_another_try(session, claim, verdict):
        release(
            session,
            claim,
            step=Step.SUBMIT,
            due_in_s=backoff_s(0),
            failures=1,
            account_id=None,
            attempt_id=None,
        )
        advance(session, claim.job_id, Status.QUEUED)
        after_commit(session, lambda: queue.nudge(Step.SUBMIT))
        return
    if not end_free(session, claim.job_id, canceled=canceled, code=verdict.code, message=verdict.message,
                    retryable=verdict.retryable):  # fmt: skip
        came_to_nothing(session, claim.job_id)


def no_verdict(session: Session, claim: Claim, seen: NoVerdict) -> None:
    """A look that told nothing: keep the state and look again, less often; repeated denial is a failure.

    Where it was asked to stop and did not answer, it is asked again, but a user who cancels need not wait for ever.
    """
    failures = claim.failures + 1
    if claim.cancel_requested and not claim.finished:
        if failures < CANCEL_TRIES:
            release(session, claim, step=Step.POLL, due_in_s=_CANCEL_AGAIN_S, failures=failures)
        else:
            cancel_answered(session, claim, confirmed=False)
        return
    limit = GONE_LIMIT if seen.gone else seen.final_after
    if limit is not None:
        _denied(session, claim, seen, limit)
        return
    delay = (
        seen.retry_after_s
        if seen.retry_after_s is not None
        else max(interval_s(claim), backoff_s(failures - 1))
    )
    release(session, claim, step=Step.POLL, due_in_s=delay, failures=failures)


def _denied(session: Session, claim: Claim, seen: NoVerdict, limit: int) -> None:
    """A definite failure of a look: `limit` of them in a row are the job's.

    The pauses grow, since a provider may be confused for a while. An ended job that is only watched gives up its slot:
    if it runs after all, the worst is that the provider is busy once.
    """
    refusals = claim.refusals + 1
    if refusals >= limit:
        said = "lost this job" if seen.gone else "failed to make it"
        _given_up(session, claim, f"The provider {said}: {seen.message}")
        return
    slots = {"slots": 0} if claim.finished else {}
    release(session, claim, step=Step.POLL, due_in_s=pause_after_denial_s(claim, seen),
            failures=claim.failures + 1, refusals=refusals, **slots)  # fmt: skip


def _given_up(session: Session, claim: Claim, message: str) -> None:
    """The provider has said so often that nothing comes of it that the job fails, free. It holds no slot any more, but
    a result is still waited for."""
    _answer_error(session, claim, ErrorCode.PROVIDER_FAILED, message)
    if claim.finished:
        fence(session, claim)
        came_to_nothing(session, claim.job_id)
        return
    canceled = release(session, claim, step=Step.POLL, due_in_s=LATE_POLL_S, failures=0, refusals=0, slots=0)
    end_free(session, claim.job_id, canceled=canceled, code=ErrorCode.PROVIDER_FAILED, message=message,
             retryable=True, watch=True)  # fmt: skip
    after_commit(session, lambda: queue.nudge(Step.SUBMIT))  # its slot is free


def cancel_answered(session: Session, claim: Claim, *, confirmed: bool) -> None:
    """The provider was asked to stop. Confirmed: free; otherwise CANCEL_CHARGE, and the result is kept if it comes."""
    if not confirmed:
        release(session, claim, step=claim.step, due_in_s=0, failures=0)
        end_canceled(session, claim.job_id)
        return
    fence(session, claim)
    if not end_free(session, claim.job_id, canceled=True):
        came_to_nothing(session, claim.job_id)


def _answer_error(session: Session, claim: Claim, code: str, message: str) -> None:
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.id == claim.attempt_id)
        .values(error_code=code, error_message=message[:2000], ended_at=clock.now())
        .execution_options(synchronize_session=False)
    )
