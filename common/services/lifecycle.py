"""Every change of a job's status after it was accepted, and nowhere else.

Workers claim (`claims`), call the outside world with no transaction open, and report what they saw here.
Each report is fenced: it counts only while the worker still holds its lease. `finish` is the only way out.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Integer, String, Text, bindparam, case, delete, func, insert, literal, select, update
from sqlalchemy.orm import Session

from common import clock, live, queue
from common.db import after_commit
from common.errors import LeaseLost, LedgerBroken
from common.ids import new_id
from common.models import Artifact, Job, JobAttempt, JobEvent, JobStep
from common.providers.base import (
    Accepted,
    Failed,
    NotAccepted,
    NoVerdict,
    Output,
    PollVerdict,
    Rejected,
    Running,
    Succeeded,
    Trouble,
    Unknown,
)
from common.providers.registry import MODELS, adapters_for
from common.services import accounts, credits, midjourney_tasks, webhooks
from common.services.claims import LATE_ANSWER, REFUSED, TROUBLE, Claim, StoreClaim, SubmitClaim
from common.services.webhooks import Ended
from common.settings import settings
from common.words import TERMINAL, ErrorCode, Outcome, Status, Step

log = logging.getLogger(__name__)

C = TypeVar("C", bound=Claim)

CANCEL_TRIES = 4  # in a row to ask a provider to stop that does not answer
_CANCEL_AGAIN_S = 1.0
CHANCE_TRIES = 2  # more, where moderation stopped by chance what was made, or an account could not make it
GONE_LIMIT = 5  # times in a row that a provider denies a job before that is a verdict
_DENIED_PAUSE_S = 2.0  # before the second look; each pause is three times the last: 80 s together
LATE_WINDOW_S = 6 * 3600.0  # how long a timed-out or canceled generation is still watched for its result
LATE_POLL_S = 30.0
CANCELED = "Canceled by the user."
# What the timeline tells that no other row shows.
SUBMIT_UNKNOWN, ADOPTED, LATE_SUCCESS, REFUNDED = "submit_unknown", "adopted", "late_success", "refunded"
SOURCE_GONE, ASKED_ANEW, STORAGE_REFUSED = "source_gone", "asked_anew", "storage_refused"
# Asking a provider for new addresses of what it made. Jimeng, the most forgetful, keeps a record for 12 hours, and a
# film's address lives for one (its fact sheet, A4 and A8): so often is enough to outlast any absence of our storage.
ANEW_LIMIT = 12
SHARE = "share"  # in an attempt's memo: how much of what the price is for was made
_LONGEST_BACKOFF_S = 60.0
_HELD = (
    "held"  # in a session's info: the steps its transaction has locked, and whether they are to be canceled
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One result that is safely in the operator's storage."""

    number: int
    kind: str
    key: str
    url: str | None
    thumbnail_key: str | None
    content_type: str
    bytes: int
    sha256: str
    width: int | None
    height: int | None
    duration_s: float | None


# ---------------------------------------------------------------- submit


def sending(session: Session, claims: Sequence[C]) -> list[C]:
    """Write down, before anything is sent, that it may have been. Returns the claims that are to be sent.

    What was canceled since it was claimed ends here, unsent.
    """
    held = _held(session, claims)
    wanted = [claim for claim, canceled in held if not canceled]
    for claim in (claim for claim, canceled in held if canceled):
        _close_attempt(
            session, claim.attempt_id, Outcome.REJECTED, "It was canceled before anything was sent."
        )
        _end_free(session, claim.job_id, canceled=True)
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
    _release(
        session, claim, step=Step.POLL, due_in_s=_first_poll_s(spec.first_poll_s), failures=0, refusals=0
    )
    _answer(
        session, claim, outcome, provider_ref=verdict.provider_ref, memo=dict(verdict.memo), cost=verdict.cost
    )
    _advance(session, claim.job_id, Status.RUNNING, submitted_at=clock.now())
    if _may_have_hook(claim):
        _tell_hooks(session, [claim.job_id])
    if adopted:
        note(session, claim.job_id, ADOPTED, f"found again as {verdict.provider_ref}")
    accounts.succeeded(session, claim.account_id)


def rejected(session: Session, claim: Claim, verdict: Rejected) -> None:
    """A definite no: the job fails and costs nothing. What was mere chance is tried again a few times, with pauses."""
    _answer(session, claim, Outcome.REJECTED, error_code=verdict.code, error_message=verdict.message)
    if verdict.asked:
        accounts.succeeded(session, claim.account_id)
    if verdict.tries and _failures(session, claim, verdict.code) <= verdict.tries:
        back_to_queue(session, claim, at_least_s=_CHANCE_PAUSE_S)
        return
    canceled = _fence(session, claim)
    _end_free(session, claim.job_id, canceled=canceled, code=verdict.code, message=verdict.message,
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
    if verdict.trouble in _ELSEWHERE_ONLY and not is_doubted and not _may_go_elsewhere(session, claim):
        canceled = _fence(session, claim)
        _end_free(
            session, claim.job_id, canceled=canceled, code=code, message=verdict.message, retryable=True
        )
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


def _may_go_elsewhere(session: Session, claim: Claim) -> bool:
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


_ELSEWHERE_ONLY = (Trouble.CREDENTIALS, Trouble.BALANCE, Trouble.MODEL)  # no wait helps at this account
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
    canceled = _release(
        session,
        claim,
        step=Step.SUBMIT,
        due_in_s=max(at_least_s, _backoff_s(claim.failures)),
        failures=claim.failures + 1,
        account_id=None,
        attempt_id=None,
    )
    _queue_or_cancel(session, claim.job_id, canceled=canceled)


def _queue_or_cancel(session: Session, job_id: str, *, canceled: bool) -> None:
    if canceled:
        _end_free(session, job_id, canceled=True)
    else:
        _advance(session, job_id, Status.QUEUED)


def unknown(session: Session, claim: Claim, verdict: Unknown) -> None:
    """It may have been accepted: never send it again, look for it instead."""
    _release(session, claim, step=Step.RECONCILE, due_in_s=1.0, failures=0)
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
        _release(session, claim, step=Step.RECONCILE, due_in_s=min(5.0, 1.0 + claim.failures),
                 failures=claim.failures + 1)  # fmt: skip
        return
    canceled = _fence(session, claim)
    _answer(session, claim, Outcome.ABANDONED, error_code=ErrorCode.SUBMIT_UNKNOWN)
    _end_free(session, claim.job_id, canceled=canceled, code=ErrorCode.SUBMIT_UNKNOWN, retryable=True,
              message="The provider never said whether it took this job, and it could not be found there.")  # fmt: skip


# ---------------------------------------------------------------- poll


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
            {"of_job": claim.job_id, "held": claim.token, "again_at": now + _interval_s(claim)}
            for claim, _ in sorted(looked, key=lambda pair: pair[0].job_id)  # as everywhere: see `_held`
        ],
    )
    told: list[dict[str, Any]] = [
        {"of_job": claim.job_id, "progress_seen": _percent(seen), "preview_seen": seen.preview_url}
        for claim, seen in sorted(looked, key=lambda pair: pair[0].job_id)
        if seen.progress is not None or seen.preview_url is not None
    ]
    of_hooks = {claim.job_id for claim, _ in looked if _may_have_hook(claim)}
    news = {
        seen["of_job"]: (seen["progress_seen"], seen["preview_seen"])
        for seen in told
        if seen["of_job"] in of_hooks
    }
    _tell_hooks(session, webhooks.not_known_yet(session, news) if news else ())
    if told:
        session.connection().execute(_PROGRESSED, told)
    for seen in told:
        live.tell(session, seen["of_job"], progress=seen["progress_seen"], preview_url=seen["preview_seen"])


def _may_have_hook(claim: Claim) -> bool:
    return claim.model.startswith(f"{midjourney_tasks.DIALECT}/")


def _tell_hooks(session: Session, job_ids: Collection[str]) -> None:
    """Have the notifyHooks of these jobs told how far they are."""
    if job_ids and webhooks.owe_progress(session, job_ids):
        after_commit(session, lambda: queue.nudge(Step.DELIVER))


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
        canceled = _release(session, claim, step=Step.STORE, due_in_s=0, failures=0, refusals=0,
                            expires_at=first_dies)  # fmt: skip
    else:
        canceled = _fence(session, claim)
    _keep_made(session, claim, verdict)
    if canceled:
        _end_canceled(session, claim.job_id)
    if not verdict.outputs:
        _succeed(session, claim.job_id)
        return
    after_commit(session, lambda: queue.nudge(Step.STORE))
    after_commit(session, lambda: queue.nudge(Step.SUBMIT))  # its slot is free


def _keep_made(session: Session, claim: Claim, verdict: Succeeded) -> None:
    values: dict[str, Any] = {
        "outputs": [_with_end(output) for output in verdict.outputs],
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


def _with_end(output: Output) -> dict[str, Any]:
    return {**asdict(output), "expires_at": clock.epoch() + output.lives_s}


def failed(session: Session, claim: Claim, verdict: Failed) -> None:
    """The provider's final no: the job fails and costs nothing. What was mere chance, or its account's fault, is tried
    again a few times."""
    canceled = _fence(session, claim)
    _answer_error(session, claim, verdict.code, verdict.message)
    if verdict.trouble is not None:
        accounts.troubled(session, claim.account_id, verdict.trouble, None)
    if not canceled and not claim.finished and _is_worth_another_try(session, claim, verdict):
        _release(
            session,
            claim,
            step=Step.SUBMIT,
            due_in_s=_backoff_s(0),
            failures=1,
            account_id=None,
            attempt_id=None,
        )
        _advance(session, claim.job_id, Status.QUEUED)
        after_commit(session, lambda: queue.nudge(Step.SUBMIT))
        return
    if not _end_free(session, claim.job_id, canceled=canceled, code=verdict.code, message=verdict.message,
                     retryable=verdict.retryable):  # fmt: skip
        _came_to_nothing(session, claim.job_id)


def _is_worth_another_try(session: Session, claim: Claim, verdict: Failed) -> bool:
    if not verdict.try_again and verdict.trouble is None:
        return False
    code = verdict.code if verdict.try_again else None
    if _failures(session, claim, code) > CHANCE_TRIES:
        return False
    return verdict.trouble not in _ELSEWHERE_ONLY or _may_go_elsewhere(session, claim)


def _failures(session: Session, claim: Claim, code: str | None) -> int:
    """How many generations of this job have failed by now, and how many of its submits were refused with this code."""
    failed_ = JobAttempt.ended_at.is_not(None) & JobAttempt.error_code.is_not(None)
    refused = (JobAttempt.outcome == Outcome.REJECTED) & (JobAttempt.error_code == code)
    both = select(func.count()).select_from(JobAttempt).where(
        JobAttempt.job_id == claim.job_id, failed_ | refused
    )  # fmt: skip
    return session.scalar(both) or 0


def no_verdict(session: Session, claim: Claim, seen: NoVerdict) -> None:
    """A look that told nothing: keep the state and look again, less often; repeated denial is a failure.

    Where it was asked to stop and did not answer, it is asked again, but a user who cancels need not wait for ever.
    """
    failures = claim.failures + 1
    if claim.cancel_requested and not claim.finished:
        if failures < CANCEL_TRIES:
            _release(session, claim, step=Step.POLL, due_in_s=_CANCEL_AGAIN_S, failures=failures)
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
        else max(_interval_s(claim), _backoff_s(failures - 1))
    )
    _release(session, claim, step=Step.POLL, due_in_s=delay, failures=failures)


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
    _release(session, claim, step=Step.POLL, due_in_s=_pause_after_denial_s(claim, seen),
             failures=claim.failures + 1, refusals=refusals, **slots)  # fmt: skip


def _pause_after_denial_s(claim: Claim, seen: NoVerdict) -> float:
    first_s = LATE_POLL_S if claim.finished else settings().poll_interval_s or _DENIED_PAUSE_S
    return max(seen.retry_after_s or 0.0, first_s * 3.0**claim.refusals)


def _given_up(session: Session, claim: Claim, message: str) -> None:
    """The provider has said so often that nothing comes of it that the job fails, free. It holds no slot any more, but
    a result is still waited for."""
    _answer_error(session, claim, ErrorCode.PROVIDER_FAILED, message)
    if claim.finished:
        _fence(session, claim)
        _came_to_nothing(session, claim.job_id)
        return
    canceled = _release(session, claim, step=Step.POLL, due_in_s=LATE_POLL_S, failures=0, refusals=0, slots=0)
    _end_free(session, claim.job_id, canceled=canceled, code=ErrorCode.PROVIDER_FAILED, message=message,
              retryable=True, watch=True)  # fmt: skip
    after_commit(session, lambda: queue.nudge(Step.SUBMIT))  # its slot is free


def cancel_answered(session: Session, claim: Claim, *, confirmed: bool) -> None:
    """The provider was asked to stop. Confirmed: free; otherwise CANCEL_CHARGE, and the result is kept if it comes."""
    if not confirmed:
        _release(session, claim, step=claim.step, due_in_s=0, failures=0)
        _end_canceled(session, claim.job_id)
        return
    _fence(session, claim)
    if not _end_free(session, claim.job_id, canceled=True):
        _came_to_nothing(session, claim.job_id)


# ---------------------------------------------------------------- store


def stored(session: Session, claim: Claim, results: Iterable[Stored]) -> None:
    """Every output is in storage: the job has succeeded (or, if it had ended before, got its late result)."""
    _fence(session, claim)
    _keep(session, claim, results)
    _succeed(session, claim.job_id, (claim.handle.memo if claim.handle else {}).get(SHARE))


def partly_stored(
    session: Session, claim: StoreClaim, results: Sequence[Stored], *, retry_in_s: float | None = None,
    refusals: int | None = None,
) -> None:  # fmt: skip
    """Something did not work this time: keep what is stored, try the rest again later.

    `refusals`: how often in a row the source has refused by now, where that has changed; it may become final.
    """
    delay = retry_in_s if retry_in_s is not None else _backoff_s(claim.failures)
    _release(session, claim, step=Step.STORE, due_in_s=delay, failures=claim.failures + 1,
             refusals=claim.refusals if refusals is None else refusals)  # fmt: skip
    _keep(session, claim, results)
    _mark_late(session, claim.job_id, anything=bool(results))


def storage_refused(
    session: Session, claim: StoreClaim, results: Sequence[Stored], message: str, *, retry_in_s: float
) -> None:
    """Our storage takes other objects but not this one: it waits alone, and its timeline says so once."""
    partly_stored(session, claim, results, retry_in_s=retry_in_s, refusals=0)
    if not _notes(session, claim.job_id, STORAGE_REFUSED):
        note(session, claim.job_id, STORAGE_REFUSED, message)


def source_gone(
    session: Session, claim: StoreClaim, results: Sequence[Stored], message: str, *, expired: bool
) -> None:
    """The provider's addresses give nothing any more: it is asked for new ones, and only then the job fails.

    It is asked once, and again only about addresses whose time was over (`expired`), which happens where our own
    storage is away for longer than they live; never twice within SOURCE_PATIENCE_S.
    """
    asked = _notes(session, claim.job_id, ASKED_ANEW)
    is_new = not asked or (expired and asked[-1].timestamp() + settings().source_patience_s < clock.epoch())
    if not is_new or len(asked) >= ANEW_LIMIT or claim.handle is None or claim.model not in MODELS:
        unstorable(session, claim, results, message)
        return
    # It takes no slot, since nothing runs any more; and the job's own deadline was for the generation.
    _release(session, claim, step=Step.POLL, due_in_s=0, failures=0, refusals=0, slots=0,
             deadline_at=clock.epoch() + LATE_WINDOW_S)  # fmt: skip
    _keep(session, claim, results)
    _mark_late(session, claim.job_id, anything=bool(results))
    note(session, claim.job_id, ASKED_ANEW, message)
    after_commit(session, lambda: queue.nudge(Step.POLL))


def asked_anew(session: Session, claim: Claim, seen: PollVerdict) -> None:
    """What the provider says when it is asked for the addresses once more (`Claim.made`). For users it goes on storing.

    Whatever it says now, it made the result once: nothing is submitted or charged again.
    """
    match seen:
        case Succeeded(outputs=(_, *_)):
            _new_addresses(session, claim, seen.outputs)
        case Succeeded():
            unstorable(session, claim, [], "The provider's result is gone: it names no media any more.")
        case Failed():
            unstorable(session, claim, [], f"The provider's result is gone: {seen.message}")
        case NoVerdict(gone=True) if claim.refusals + 1 >= GONE_LIMIT:
            unstorable(session, claim, [], f"The provider's result is gone: {seen.message}")
        case NoVerdict(gone=True):
            _release(session, claim, step=Step.POLL, due_in_s=_pause_after_denial_s(claim, seen),
                     failures=claim.failures + 1, refusals=claim.refusals + 1)  # fmt: skip
        case Running() | NoVerdict():
            said_s = seen.retry_after_s if isinstance(seen, NoVerdict) else None
            pause_s = max(_interval_s(claim), _backoff_s(claim.failures)) if said_s is None else said_s
            _release(session, claim, step=Step.POLL, due_in_s=pause_s, failures=claim.failures + 1)


def _new_addresses(session: Session, claim: Claim, fresh: Sequence[Output]) -> None:
    """Go on with the new addresses of what is not stored yet; if there are none, that was it."""
    known = session.scalars(select(JobAttempt.outputs).where(JobAttempt.id == claim.attempt_id)).one() or []
    stored_ones = set(session.scalars(select(Artifact.number).where(Artifact.job_id == claim.job_id)))
    outputs = list(known)
    for place, (was, output) in enumerate(zip(known, fresh, strict=False)):
        is_new = (output.url, output.base64) != (was.get("url"), was.get("base64"))
        if is_new and place + 1 not in stored_ones:
            outputs[place] = _with_end(output)
    if outputs == known:
        message = "The provider's result is gone: asked again, it names the same dead address."
        unstorable(session, claim, [], message)
        return
    first_dies = min(
        each.get("expires_at", 0.0)
        for number, each in enumerate(outputs, start=1)
        if number not in stored_ones
    )
    canceled = _release(
        session, claim, step=Step.STORE, due_in_s=0, failures=0, refusals=0, expires_at=first_dies
    )
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.id == claim.attempt_id)
        .values(outputs=outputs)
        .execution_options(synchronize_session=False)
    )
    if canceled:
        _end_canceled(session, claim.job_id)
    after_commit(session, lambda: queue.nudge(Step.STORE))


def _notes(session: Session, job_id: str, kind: str) -> Sequence[datetime]:
    """When such a thing was noted, the first time first."""
    query = select(JobEvent.created_at).where(JobEvent.job_id == job_id, JobEvent.kind == kind)
    return session.scalars(query.order_by(JobEvent.id)).all()


def unstorable(session: Session, claim: Claim, results: Sequence[Stored], message: str) -> None:
    """The source is gone for good: the job fails and costs nothing; what was stored stays."""
    _fence(session, claim)
    _keep(session, claim, results)
    _mark_late(session, claim.job_id, anything=bool(results))
    if not finish(
        session, claim.job_id, Status.FAILED, spent=0, code=ErrorCode.STORAGE_FAILED, message=message,
        retryable=True,
    ):  # fmt: skip
        note(session, claim.job_id, SOURCE_GONE, message)
        _forget(session, claim.job_id)


def _keep(session: Session, claim: Claim, results: Iterable[Stored]) -> None:
    rows = [{"id": new_id("art"), "job_id": claim.job_id, "created_at": clock.now(), **asdict(result)}
            for result in results]  # fmt: skip
    if rows:
        session.execute(insert(Artifact), rows)


def _mark_late(session: Session, job_id: str, *, anything: bool) -> None:
    """Say of a job that had ended that results came afterwards; one that lives still may succeed in time."""
    if anything:
        session.execute(update(Job).where(Job.id == job_id, Job.status.in_(TERMINAL)).values(late=True))


# ---------------------------------------------------------------- the way out


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
        _forget(session, job_id)
    return True


def _shared(share: Sequence[int] | None) -> Any:
    """The price, or so many parts of so many of it, rounded up."""
    if share is None:
        return Job.price
    made, most = share
    return Job.price if made >= most else (Job.price * made + (most - 1)) // most


def _succeed(session: Session, job_id: str, share: Sequence[int] | None = None) -> None:
    """All is there. Where the job had ended before, its end and its price stay as they are.

    `share`: so many of so many parts of what it is to cost were made.
    """
    if finish(session, job_id, Status.SUCCEEDED, spent=None, share=share):
        return
    _mark_late(session, job_id, anything=True)
    note(session, job_id, LATE_SUCCESS, "the result came after the job had ended; it is kept, not charged")
    _forget(session, job_id)


def _end_free(
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


def _end_canceled(session: Session, job_id: str) -> None:
    """The user has canceled what the provider goes on with or has finished: CANCEL_CHARGE; the result is kept."""
    spent = None if settings().cancel_charge == "full" else 0
    finish(
        session, job_id, Status.CANCELED, spent=spent, code=ErrorCode.CANCELED, message=CANCELED, watch=True
    )


def _came_to_nothing(session: Session, job_id: str) -> None:
    """A generation that was watched after its job had ended has failed: who paid for canceling it gets that back."""
    refund(session, job_id, reason="the canceled generation failed at the provider")
    _forget(session, job_id)


def refund(session: Session, job_id: str, *, reason: str) -> bool:
    """Give back what a finished job was charged. Returns False where that was nothing, or was given back already."""
    if credits.refund(session, job_id, note=reason) is None:
        return False
    session.execute(update(Job).where(Job.id == job_id).values(charged=0))
    note(session, job_id, REFUNDED, reason)
    return True


def note(session: Session, job_id: str, kind: str, detail: str) -> None:
    """Remember something for the job's timeline."""
    session.add(
        JobEvent(id=new_id("evt"), job_id=job_id, kind=kind, detail=detail[:2000], created_at=clock.now())
    )


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
        _end_free(session, job_id, canceled=True)
    elif waits.step == Step.STORE or status == Status.STORING:  # it is made, wherever it is fetched from
        _end_canceled(session, job_id)
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
            _forget(session, row.job_id)
        elif row.status == Status.STORING:
            with _alone(session, row.job_id):
                _end_free(session, row.job_id, canceled=row.cancel_at is not None, code=ErrorCode.STORAGE_FAILED,
                          message=_NO_ADDRESS, retryable=True)  # fmt: skip
        else:
            with _alone(session, row.job_id):
                _end_free(session, row.job_id, canceled=row.cancel_at is not None, code=ErrorCode.TIMEOUT,
                          message=_TOO_LATE[Step(row.step)], retryable=True, watch=row.step == Step.POLL)  # fmt: skip
    return len(rows)


_TOO_LATE = {
    Step.SUBMIT: "No provider account could take this job before its deadline.",
    Step.POLL: "The provider did not finish before this job's deadline.",
}
_NO_ADDRESS = "The provider's result is gone: it did not say in time where it is now."


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
        with _alone(session, row.job_id):
            if row.outcome == Outcome.INTENT:
                _left_unsent(session, row.job_id, row.attempt_id, canceled=row.cancel_at is not None)
            else:
                _left_sent(session, row.job_id, row.attempt_id)
    return len(rows)


@contextmanager
def _alone(session: Session, job_id: str) -> Iterator[None]:
    """One job of many: if its ledger is broken, what it needed is undone and the others go on."""
    try:
        with session.begin_nested():
            yield
    except LedgerBroken as error:
        log.error("job %s cannot end: %s", job_id, error)


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


# ---------------------------------------------------------------- fences and small steps


def still_held(session: Session, claims: Sequence[C]) -> list[C]:
    """Those of the claims whose lease is still theirs, by user; their rows stay locked until the transaction ends."""
    return [claim for claim, _ in _held(session, claims)]


def _held(session: Session, claims: Sequence[C]) -> list[tuple[C, bool]]:
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


def _fence(session: Session, claim: Claim) -> bool:
    """Raise LeaseLost unless the worker still holds this step. Returns whether the user has asked to cancel."""
    known: bool | None = session.info.get(_HELD, {}).pop((claim.job_id, claim.token), None)
    if known is not None:  # read in this transaction, and locked since
        return known
    held = _held(session, [claim])
    if not held:
        raise LeaseLost(claim.job_id)
    return held[0][1]


def _release(session: Session, claim: Claim, *, step: Step, due_in_s: float, **values: Any) -> bool:
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


def _advance(session: Session, job_id: str, status: Status, **values: Any) -> None:
    """Move a job that has not ended; one that has keeps its end."""
    session.execute(
        update(Job)
        .where(Job.id == job_id, Job.status.not_in(TERMINAL))
        .values(status=status, **values)
        .execution_options(synchronize_session=False)
    )
    live.tell(session, job_id, status=status)


def _answer(session: Session, claim: Claim, outcome: Outcome, **values: Any) -> None:
    if "error_message" in values:
        values["error_message"] = values["error_message"][:2000]
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.id == claim.attempt_id)
        .values(outcome=outcome, answered_at=clock.now(), **values)
        .execution_options(synchronize_session=False)
    )


def _answer_error(session: Session, claim: Claim, code: str, message: str) -> None:
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.id == claim.attempt_id)
        .values(error_code=code, error_message=message[:2000], ended_at=clock.now())
        .execution_options(synchronize_session=False)
    )


def _forget(session: Session, job_id: str) -> None:
    session.execute(
        delete(JobStep).where(JobStep.job_id == job_id).execution_options(synchronize_session=False)
    )
    after_commit(session, lambda: queue.nudge(Step.SUBMIT))  # it may have had a slot


def _interval_s(claim: Claim) -> float:
    """When to look again: the model's rhythm, spread a little so that a cohort does not march in step."""
    every = settings().poll_interval_s or MODELS[claim.model].poll_every_s
    if claim.finished:
        every = max(every, LATE_POLL_S)
    return every * random.uniform(0.9, 1.1)  # noqa: S311


def _first_poll_s(model_s: float) -> float:
    return settings().poll_interval_s or model_s


def _backoff_s(failures: int) -> float:
    return float(min(2.0 ** min(failures, 16), _LONGEST_BACKOFF_S) * random.uniform(0.5, 1.0))  # noqa: S311


def outputs_of(raw: Sequence[dict[str, Any]]) -> list[Output]:
    """The attempt's kept outputs as values again."""
    return [Output(**{name: value for name, value in item.items() if name != "expires_at"}) for item in raw]
