"""What a door may do with jobs: accept, show, list, cancel. What workers do with them is in `lifecycle`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import accumulate
from typing import Any

from sqlalchemy import Text, cast, func, select, update
from sqlalchemy import delete as sql_delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, load_only

from common import clock, queue
from common.db import after_commit
from common.errors import Conflict, InvalidInput, KeyReused, NotFound
from common.ids import new_id
from common.live import State
from common.models import Artifact, IdempotencyKey, Job, JobAttempt, JobStep
from common.providers.base import ModelSpec
from common.services import (
    acceptance,
    catalog,
    deletions,
    lifecycle,
    repeats,
    uploads,
    users,
    webhook_endpoints,
    webhooks,
)
from common.services.acceptance import AcceptedJob
from common.services.repeats import Try
from common.services.users import Actor
from common.settings import settings
from common.words import TERMINAL, Outcome, Status, Step

LONGEST_DEADLINE_S = 86_400.0
KEY_LIVES = timedelta(hours=24)
_HINT_LIMIT = 16_384
_PAGE_CHARACTERS = 16 * 1024 * 1024  # of inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What a client asks for; the shapes are checked by the door, the meaning here."""

    model: str
    input: Any
    parent_id: str | None = None
    webhook_url: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    priority: int = 0
    deadline_s: float | None = None
    tool_id: str | None = None
    dialect: str | None = None


@dataclass(frozen=True, slots=True)
class Once:
    """A client's Idempotency-Key and the fingerprint of the body it came with; or a try of a call that has no key."""

    route: str
    key: str
    body_sha256: str
    tried: Try | None = None


# ---------------------------------------------------------------- accept


def accept(
    session: Session, actor: Actor, new: NewJob, once: Once | None = None
) -> tuple[Job | AcceptedJob, bool]:
    """Accept a job: price frozen, credits held, row queued, all in this transaction; a nudge after the commit.

    Returns the job and whether an earlier request with this key had made it before. Raises UnknownModel, InvalidInput,
    InsufficientCredits, KeyReused.
    """
    job_id = new_id("job")
    if once is not None:
        earlier = claim_key(session, actor.user_id, once, job_id)
        if earlier is not None:
            return get(session, actor, earlier), True
    if new.webhook_url:
        webhook_endpoints.check_url(new.webhook_url, param="webhook_url")
    offer = catalog.offer(session, new.model)
    given = catalog.check_input(offer.spec, new.input)
    uploads.require(session, actor.user_id, offer.spec.input_schema, given)
    parent = _parent(session, actor, new, offer.spec)
    price = catalog.quote(offer, given).credits
    now = clock.now()
    deadline_s = new.deadline_s or offer.spec.deadline_s or settings().job_deadline_s
    job = AcceptedJob(
        id=job_id,
        user_id=actor.user_id,
        provider=offer.spec.provider,
        model=new.model,
        action=given.get("action") or offer.spec.action,
        input=given,
        metadata_=new.metadata,
        priority=new.priority,
        parent_id=new.parent_id,
        tool_id=new.tool_id,
        webhook_url=new.webhook_url,
        dialect=new.dialect,
        price=price,
        created_at=now,
        deadline_at=now + timedelta(seconds=deadline_s),
    )
    slots = catalog.with_defaults(offer.spec, given).get(offer.spec.slots, 1) if offer.spec.slots else 1
    acceptance.write(session, job, slots=int(slots), pinned_account_id=parent)
    after_commit(session, lambda: queue.nudge(Step.SUBMIT))
    return job, False


def claim_key(session: Session, user_id: str, once: Once, job_id: str) -> str | None:
    """Take the key for this job, or return the job that has it. Raises KeyReused for another body."""
    if once.tried is not None:
        return repeats.claim(session, user_id, once.tried, job_id)
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    row = {"user_id": user_id, "route": once.route, "key": once.key, "body_sha256": once.body_sha256,
           "result_id": job_id, "created_at": clock.now()}  # fmt: skip
    taken = session.execute(
        dialect.insert(IdempotencyKey)
        .values(row)
        .on_conflict_do_update(  # a key whose time is over may be used anew; only one of two finds it so
            index_elements=[IdempotencyKey.user_id, IdempotencyKey.route, IdempotencyKey.key],
            set_={name: row[name] for name in ("body_sha256", "result_id", "created_at")},
            where=IdempotencyKey.created_at < clock.now() - KEY_LIVES,
        )
        .returning(IdempotencyKey.key)
    ).one_or_none()
    if taken is not None:
        return None
    known = session.get_one(IdempotencyKey, (user_id, once.route, once.key))
    if known.body_sha256 != once.body_sha256:
        raise KeyReused(param="Idempotency-Key")
    return known.result_id


def _parent(session: Session, actor: Actor, new: NewJob, spec: ModelSpec) -> str | None:
    """The account that a job which continues another has to use, or None. Raises InvalidInput where its parent
    does not fit."""
    instead = spec.parent_or if spec.parent_or in new.input else None
    if new.parent_id is None:
        if spec.follows and instead is None:
            raise InvalidInput("This model needs the `parent_id` of the job it continues.", param="parent_id")
        return None
    parent = session.get(Job, new.parent_id)
    if parent is None or parent.deleted_at is not None or parent.user_id != actor.user_id:
        raise InvalidInput("There is no such job.", param="parent_id")
    if not spec.follows:
        return None
    if instead is not None:
        raise InvalidInput(f"Give either `parent_id` or `{instead}`.", param=f"input.{instead}")
    if parent.status != Status.SUCCEEDED or parent.model not in spec.follows:
        models = " or ".join(spec.follows)
        raise InvalidInput(f"The parent must be a succeeded job of {models}.", param="parent_id")
    action = new.input.get("action")
    if action is not None and action not in [offered["id"] for offered in parent.actions]:
        raise InvalidInput("The parent does not offer this action; see its `actions`.", param="input.action")
    return session.scalar(
        select(JobAttempt.account_id)
        .where(JobAttempt.job_id == parent.id, JobAttempt.outcome.in_((Outcome.ACCEPTED, Outcome.ADOPTED)))
        .order_by(JobAttempt.number.desc())
        .limit(1)
    )


def retry(session: Session, job_id: str) -> Job | AcceptedJob:
    """Accept a failed or canceled job once more, as a new job of its user at today's price.

    Raises NotFound, Conflict for one that is live or has succeeded, and what `accept` raises.
    """
    job = session.get(Job, job_id)
    if job is None or job.deleted_at is not None:
        raise NotFound(f"There is no job {job_id}.")
    if job.status not in (Status.FAILED, Status.CANCELED):
        raise Conflict(f"Only a failed or canceled job can be run again; this one is {job.status}.")
    again = NewJob(
        model=job.model,
        input=job.input,
        parent_id=job.parent_id,
        webhook_url=job.webhook_url,
        metadata=job.metadata_,
        priority=job.priority,
        deadline_s=(job.deadline_at - job.created_at).total_seconds(),
        tool_id=job.tool_id,
        dialect=job.dialect,
    )
    return accept(session, users.actor_of(users.get_user(session, job.user_id)), again)[0]


# ---------------------------------------------------------------- show


def get(session: Session, actor: Actor, job_id: str) -> Job:
    """One of the actor's own jobs (an admin: anybody's). Raises NotFound."""
    job = session.get(Job, job_id)
    if job is None or job.deleted_at is not None or (job.user_id != actor.user_id and not actor.is_admin):
        raise NotFound("There is no such job.")
    return job


def state(job: Job) -> State:
    """What viewers see of a job."""
    return State(
        status=Status(job.status), progress=job.progress, preview_url=job.preview_url, at=clock.epoch()
    )


def states(session: Session, job_ids: Collection[str]) -> dict[str, State]:
    """What viewers see of those of these jobs that there are, in one query."""
    columns = load_only(Job.status, Job.progress, Job.preview_url)
    rows = session.scalars(select(Job).options(columns).where(Job.id.in_(job_ids)))
    return {job.id: state(job) for job in rows}


def artifacts(session: Session, job_ids: list[str]) -> dict[str, list[Artifact]]:
    """The stored results of these jobs, in their order."""
    found: dict[str, list[Artifact]] = {job_id: [] for job_id in job_ids}
    query = select(Artifact).where(Artifact.job_id.in_(job_ids)).order_by(Artifact.job_id, Artifact.number)
    for artifact in session.scalars(query):
        found[artifact.job_id].append(artifact)
    return found


def page(
    session: Session, actor: Actor, *, status: Status | None, model: str | None, limit: int, after: str | None,
    models: Collection[str] | None = None, oldest_first: bool = False,
) -> tuple[list[Job], bool]:  # fmt: skip
    """The actor's jobs, newest first unless told otherwise, from behind the job `after`; and whether there are more.

    It ends early where inputs are large: with pictures in them a hundred may have gigabytes.
    """
    query = select(Job.id, func.length(cast(Job.input, Text))).where(
        Job.user_id == actor.user_id, Job.deleted_at.is_(None)
    )
    if status is not None:
        query = query.where(Job.status == status)
    if model is not None:
        query = query.where(Job.model == model)
    if models is not None:
        query = query.where(Job.model.in_(models))
    if after is not None:
        query = query.where(Job.id > after if oldest_first else Job.id < after)
    order = Job.id.asc() if oldest_first else Job.id.desc()
    found = session.execute(query.order_by(order).limit(limit + 1)).all()
    sizes = accumulate(size for _, size in found)
    fitting = sum(size <= _PAGE_CHARACTERS for size in sizes)
    ids = [job_id for job_id, _ in found[: min(limit, max(fitting, 1))]]
    rows = session.scalars(select(Job).where(Job.id.in_(ids)).order_by(order))
    return list(rows), len(found) > len(ids)


# ---------------------------------------------------------------- cancel


def cancel(session: Session, actor: Actor, job_id: str) -> Job:
    """Cancel at once what is not at a provider; have a worker ask the provider otherwise.

    Raises NotFound, and Conflict for a finished job.
    """
    job = get(session, actor, job_id)
    if not lifecycle.cancel(session, job_id):
        raise Conflict("This job is finished already.")
    session.refresh(job)
    return job


def delete(session: Session, actor: Actor, job_id: str) -> None:
    """Delete a finished job: its results, what was asked for and what came of it. What it cost stays in the ledger.

    A result that is still waited for will not come. Raises NotFound, and Conflict for a job that lives.
    """
    get(session, actor, job_id)
    # Locked in the workers' order: whoever works on it loses its lease, and writes nothing.
    session.execute(select(JobStep.job_id).where(JobStep.job_id == job_id).with_for_update())
    job = session.get_one(Job, job_id, populate_existing=True)
    if job.status not in TERMINAL:
        raise Conflict("This job is not finished; cancel it first.")
    session.execute(sql_delete(JobStep).where(JobStep.job_id == job_id))
    deletions.forget_results(session, [job_id])
    webhooks.abandon(session, job_id, "The job was deleted.")
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.job_id == job_id)
        .values(outputs=None, memo=None, error_message=None)
    )
    job.deleted_at = clock.now()
    job.input, job.metadata_, job.output, job.preview_url, job.webhook_url = {}, {}, None, None, None
    session.flush()


def called_back(session: Session, token: str, body: dict[str, Any] | None = None) -> str | None:
    """A provider called: look at its job now. Returns the job's id, or None for a token we never gave.

    The body is believed in nothing. Where the submit's answer is still missing it is kept as a hint for whoever
    looks for the lost submit; what it claims is then asked of the provider itself.
    """
    attempt = select(JobAttempt.id, JobAttempt.job_id, JobAttempt.outcome, JobAttempt.memo).where(
        JobAttempt.callback_token == token
    )
    row = session.execute(attempt).one_or_none()
    if row is None:
        return None
    # Locked in the workers' order; what is read then is what they have written.
    session.execute(select(JobStep.job_id).where(JobStep.job_id == row.job_id).with_for_update())
    row = session.execute(attempt.with_for_update()).one()
    if row.outcome in (Outcome.SENT, Outcome.UNKNOWN) and body and len(str(body)) <= _HINT_LIMIT:
        session.execute(
            update(JobAttempt)
            .where(JobAttempt.id == row.id)
            .values(memo={**(row.memo or {}), "callback": body})
        )
    woken = session.execute(
        update(JobStep)
        .where(
            JobStep.attempt_id == row.id,
            JobStep.job_id == row.job_id,
            JobStep.lease_token.is_(None),
            JobStep.step.in_((Step.POLL, Step.RECONCILE)),
        )
        .values(due_at=clock.epoch())
        .returning(JobStep.step)
    ).one_or_none()
    if woken is not None:
        step = Step(woken.step)
        after_commit(session, lambda: queue.nudge(step))
    return str(row.job_id)
