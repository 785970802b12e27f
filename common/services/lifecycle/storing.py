"""A job whose results go to the operator's storage: stored, in part, refused, or gone at their source.

In: a claim and what was stored of it. A provider whose addresses have died is asked for new ones (`asked_anew`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from common import clock, queue
from common.db import after_commit
from common.ids import new_id
from common.models import Artifact, JobAttempt, JobEvent
from common.providers.base import Failed, NoVerdict, Output, PollVerdict, Running, Succeeded
from common.providers.registry import MODELS
from common.services.claims import Claim, StoreClaim
from common.services.lifecycle.ending import LATE_WINDOW_S, end_canceled, finish, forget, mark_late, succeed
from common.services.lifecycle.fences import fence, release
from common.services.lifecycle.pauses import GONE_LIMIT, backoff_s, interval_s, pause_after_denial_s
from common.services.lifecycle.records import ASKED_ANEW, SHARE, SOURCE_GONE, STORAGE_REFUSED, note, with_end
from common.settings import settings
from common.words import ErrorCode, Status, Step

# Asking a provider for new addresses of what it made. Jimeng, the most forgetful, keeps a record for 12 hours, and a
# film's address lives for one (its fact sheet, A4 and A8): so often is enough to outlast any absence of our storage.
ANEW_LIMIT = 12


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


def stored(session: Session, claim: Claim, results: Iterable[Stored]) -> None:
    """Every output is in storage: the job has succeeded (or, if it had ended before, got its late result)."""
    fence(session, claim)
    _keep(session, claim, results)
    succeed(session, claim.job_id, (claim.handle.memo if claim.handle else {}).get(SHARE))


def partly_stored(
    session: Session, claim: StoreClaim, results: Sequence[Stored], *, retry_in_s: float | None = None,
    refusals: int | None = None,
) -> None:  # fmt: skip
    """Something did not work this time: keep what is stored, try the rest again later.

    `refusals`: how often in a row the source has refused by now, where that has changed; it may become final.
    """
    delay = retry_in_s if retry_in_s is not None else backoff_s(claim.failures)
    release(session, claim, step=Step.STORE, due_in_s=delay, failures=claim.failures + 1,
            refusals=claim.refusals if refusals is None else refusals)  # fmt: skip
    _keep(session, claim, results)
    mark_late(session, claim.job_id, anything=bool(results))


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
    release(session, claim, step=Step.POLL, due_in_s=0, failures=0, refusals=0, slots=0,
            deadline_at=clock.epoch() + LATE_WINDOW_S)  # fmt: skip
    session.execute(  # it was made, whoever had it made (`Claim.made`): a legacy program did not say when
        update(JobAttempt)
        .where(JobAttempt.id == claim.attempt_id)
        .values(ended_at=func.coalesce(JobAttempt.ended_at, clock.now()), error_code=None)
        .execution_options(synchronize_session=False)
    )
    _keep(session, claim, results)
    mark_late(session, claim.job_id, anything=bool(results))
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
            release(session, claim, step=Step.POLL, due_in_s=pause_after_denial_s(claim, seen),
                    failures=claim.failures + 1, refusals=claim.refusals + 1)  # fmt: skip
        case Running() | NoVerdict():
            said_s = seen.retry_after_s if isinstance(seen, NoVerdict) else None
            pause_s = max(interval_s(claim), backoff_s(claim.failures)) if said_s is None else said_s
            release(session, claim, step=Step.POLL, due_in_s=pause_s, failures=claim.failures + 1)


def _new_addresses(session: Session, claim: Claim, fresh: Sequence[Output]) -> None:
    """Go on with the new addresses of what is not stored yet; if there are none, that was it."""
    known = session.scalars(select(JobAttempt.outputs).where(JobAttempt.id == claim.attempt_id)).one() or []
    stored_ones = set(session.scalars(select(Artifact.number).where(Artifact.job_id == claim.job_id)))
    outputs = list(known)
    for place, (was, output) in enumerate(zip(known, fresh, strict=False)):
        is_new = (output.url, output.base64) != (was.get("url"), was.get("base64"))
        if is_new and place + 1 not in stored_ones:
            outputs[place] = with_end(output)
    if outputs == known:
        message = "The provider's result is gone: asked again, it names the same dead address."
        unstorable(session, claim, [], message)
        return
    first_dies = min(
        each.get("expires_at", 0.0)
        for number, each in enumerate(outputs, start=1)
        if number not in stored_ones
    )
    canceled = release(
        session, claim, step=Step.STORE, due_in_s=0, failures=0, refusals=0, expires_at=first_dies
    )
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.id == claim.attempt_id)
        .values(outputs=outputs)
        .execution_options(synchronize_session=False)
    )
    if canceled:
        end_canceled(session, claim.job_id)
    after_commit(session, lambda: queue.nudge(Step.STORE))


def _notes(session: Session, job_id: str, kind: str) -> Sequence[datetime]:
    """When such a thing was noted, the first time first."""
    query = select(JobEvent.created_at).where(JobEvent.job_id == job_id, JobEvent.kind == kind)
    return session.scalars(query.order_by(JobEvent.id)).all()


def unstorable(session: Session, claim: Claim, results: Sequence[Stored], message: str) -> None:
    """The source is gone for good: the job fails and costs nothing; what was stored stays."""
    fence(session, claim)
    _keep(session, claim, results)
    mark_late(session, claim.job_id, anything=bool(results))
    if not finish(
        session, claim.job_id, Status.FAILED, spent=0, code=ErrorCode.STORAGE_FAILED, message=message,
        retryable=True,
    ):  # fmt: skip
        note(session, claim.job_id, SOURCE_GONE, message)
        forget(session, claim.job_id)


def _keep(session: Session, claim: Claim, results: Iterable[Stored]) -> None:
    rows = [{"id": new_id("art"), "job_id": claim.job_id, "created_at": clock.now(), **asdict(result)}
            for result in results]  # fmt: skip
    if rows:
        session.execute(insert(Artifact), rows)
