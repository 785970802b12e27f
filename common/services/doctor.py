"""Is the platform well? The same figures for the `doctor` command and for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, Engine, func, select
from sqlalchemy.orm import Session

from common import clock
from common.db.schema import SchemaState, schema_state
from common.db.types import Base
from common.models import (
    CreditAccount,
    Job,
    JobAttempt,
    JobEvent,
    JobStep,
    ProviderAccount,
    WebhookDelivery,
    WebhookEndpoint,
)
from common.providers.base import Trouble
from common.providers.registry import adapters_for
from common.services import credits, deletions, lifecycle, proof
from common.services.accounts import IS_OUT, is_half_open, needs_operator
from common.services.proof import Proof
from common.services.webhook_endpoints import can_be_tried
from common.settings import settings
from common.words import TERMINAL, Delivery, Outcome, Step

_STEPS = (Step.SUBMIT, Step.RECONCILE, Step.POLL, Step.STORE)
EVENTS = (lifecycle.SUBMIT_UNKNOWN, lifecycle.ADOPTED, lifecycle.LATE_SUCCESS, lifecycle.REFUNDED)
_STALE_S = 60.0
_STALE_WEBHOOKS_S = 600.0
_STALE_REMOVALS_S = 3600.0
# Submits wait for slots, however long; results wait for each other, as large ones take their time.
_PATIENCE_S = {Step.RECONCILE: _STALE_S, Step.POLL: _STALE_S, Step.STORE: 600.0}
_STUBBORN = 8  # tries in vain to store a result: some minutes
_NAMED = 20  # jobs, or columns, that a list of findings names
_UNDECIDED = (Outcome.INTENT, Outcome.SENT, Outcome.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What can be counted cheaply at any time. Ages are in seconds, 0 where nothing waits."""

    jobs_by_step: dict[str, int]
    overdue_s: dict[str, float]  # by step: how long the oldest due row has been waiting for a worker
    slots_used: dict[str, int]  # by account name
    slots_limit: dict[str, int]
    paused: dict[str, Trouble]  # by account name, why it is out of work
    past_deadline: int  # jobs that the sweep should have ended a while ago
    stubborn: int  # results that could not be stored for minutes
    unserved: dict[str, int]  # by model: jobs that wait although no account will ever take them
    webhooks_overdue_s: float
    removals: int  # objects that the storage is still to remove
    removals_overdue_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What takes longer to count, and changes slowly."""

    events: dict[str, int]  # by kind: how often it has happened so far
    watched: int  # jobs that have ended and whose result is still waited for
    leaked: int  # steps that hold a slot for nothing
    stuck: tuple[str, ...]  # live jobs that nothing will ever move, the first of them
    unsettled: int  # credits held, less what the live jobs cost: none, if all is well
    proof: Proof | None


# ---------------------------------------------------------------- figures


def schema(session: Session) -> SchemaState:
    """How the database's schema stands to the code."""
    engine = session.get_bind()
    assert isinstance(engine, Engine)
    return schema_state(engine, Base.metadata)


def figures(session: Session) -> Figures:
    """The present figures; a handful of small queries over the live work only."""
    now = clock.epoch()
    waiting = {
        step: (count, oldest)
        for step, count, oldest in session.execute(
            select(JobStep.step, func.count(), func.min(JobStep.due_at)).group_by(JobStep.step)
        )
    }
    accounts = session.scalars(select(ProviderAccount).where(ProviderAccount.enabled)).all()
    used = _slots_used(session)
    removals, removals_overdue_s = deletions.backlog(session)
    return Figures(
        jobs_by_step={step: waiting[step][0] if step in waiting else 0 for step in _STEPS},
        overdue_s={step: max(0.0, now - waiting[step][1]) if step in waiting else 0.0 for step in _STEPS},
        slots_used={account.name: used.get(account.id, 0) for account in accounts},
        slots_limit={account.name: account.max_concurrency for account in accounts},
        paused={
            account.name: Trouble(account.trouble or Trouble.DOWN)
            for account in accounts
            if _is_out(account, now)
        },
        past_deadline=_past_deadline(session, now - _STALE_S),
        stubborn=_count(session, JobStep.step == Step.STORE, JobStep.failures >= _STUBBORN),
        unserved=_unserved(session, {account.adapter for account in accounts}),
        webhooks_overdue_s=max(0.0, now - (_oldest_webhook(session) or now)),
        removals=removals,
        removals_overdue_s=removals_overdue_s,
    )


def _slots_used(session: Session) -> dict[str, int]:
    rows = session.execute(
        select(JobStep.account_id, func.sum(JobStep.slots))
        .where(JobStep.account_id.is_not(None), JobStep.step != Step.STORE)
        .group_by(JobStep.account_id)
    )
    return {str(account_id): int(slots) for account_id, slots in rows}


def _count(session: Session, *conditions: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(JobStep).where(*conditions)) or 0


def _past_deadline(session: Session, late: float) -> int:
    waits = (JobStep.step == Step.SUBMIT) & JobStep.attempt_id.is_(None)
    return _count(session, JobStep.deadline_at < late, (JobStep.step == Step.POLL) | waits)


def _unserved(session: Session, adapters: set[str]) -> dict[str, int]:
    rows = session.execute(
        select(JobStep.model, func.count())
        .where(JobStep.step == Step.SUBMIT, JobStep.attempt_id.is_(None))
        .group_by(JobStep.model)
    )
    return {model: count for model, count in rows if adapters.isdisjoint(adapters_for(model))}


def _oldest_webhook(session: Session) -> float | None:
    """One whose receiver is left alone for a while is not late."""
    return session.scalar(
        select(func.min(WebhookDelivery.due_at))
        .outerjoin(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(WebhookDelivery.status == Delivery.PENDING, can_be_tried(clock.epoch()))
    )


def totals(session: Session) -> Totals:
    """What has happened so far, and what must never have happened."""
    events = select(JobEvent.kind, func.count()).where(JobEvent.kind.in_(EVENTS)).group_by(JobEvent.kind)
    return Totals(
        events=dict.fromkeys(EVENTS, 0) | {kind: count for kind, count in session.execute(events)},
        watched=_steps_of_ended_jobs(session, JobStep.step.in_((Step.POLL, Step.STORE))),
        leaked=_steps_of_ended_jobs(session, JobStep.step.in_((Step.SUBMIT, Step.RECONCILE))),
        stuck=_stuck(session),
        unsettled=_unsettled(session),
        proof=proof.last(session),
    )


def _steps_of_ended_jobs(session: Session, condition: ColumnElement[bool]) -> int:
    query = select(func.count()).select_from(JobStep).join(Job, Job.id == JobStep.job_id)
    return session.scalar(query.where(Job.status.in_(TERMINAL), condition)) or 0


def _stuck(session: Session) -> tuple[str, ...]:
    query = select(Job.id).outerjoin(JobStep, JobStep.job_id == Job.id)
    return tuple(
        session.scalars(query.where(Job.finished_at.is_(None), JobStep.job_id.is_(None)).limit(_NAMED))
    )


def _unsettled(session: Session) -> int:
    """One statement, so that both sums are of one moment."""
    held = select(func.coalesce(func.sum(CreditAccount.held), 0)).scalar_subquery()
    wanted = select(func.coalesce(func.sum(Job.price), 0)).where(Job.finished_at.is_(None)).scalar_subquery()
    return int(session.execute(select(held - wanted)).scalar_one())


# ---------------------------------------------------------------- findings


def findings(session: Session) -> list[str]:
    """What is wrong, a line each; empty when all is well. On a schema that cannot be used it says only that."""
    state = schema(session)
    if not state.usable:
        return _about_schema(state)
    seen, total = figures(session), totals(session)
    return [
        *_about_schema(state),
        *_about_waiting(seen),
        *_about_accounts(seen),
        *_about_lost_submits(session),
        *_about_jobs(session, total),
        *(f"ledger: {line}" for line in credits.verify(session)),
    ]


def _about_schema(its: SchemaState) -> list[str]:
    if its.state in ("current", "ahead") and not its.missing:
        return []
    missing = [f"{table}.{column}" for table, columns in its.missing.items() for column in columns]
    details = f", missing {', '.join(missing[:_NAMED])}" if missing and its.state != "empty" else ""
    return [f"schema: {its.state} (see `python -m migrations status`){details}"]


def _about_waiting(seen: Figures) -> list[str]:
    lines = [
        f"{step}: the oldest due work has waited {seen.overdue_s[step]:.0f} s for a worker"
        for step, patience_s in _PATIENCE_S.items()
        if seen.overdue_s[step] > patience_s
    ]
    lines += [f"{model}: {count} jobs wait, and no enabled account serves this model"
              for model, count in seen.unserved.items()]  # fmt: skip
    if seen.stubborn:
        lines.append(f"storage: {seen.stubborn} results could not be stored for minutes")
    if seen.past_deadline:
        lines.append(f"deadlines: {seen.past_deadline} jobs are past theirs, and nothing has ended them")
    if seen.webhooks_overdue_s > _STALE_WEBHOOKS_S:
        lines.append(f"webhooks: the oldest has waited {seen.webhooks_overdue_s:.0f} s to be sent")
    if seen.removals_overdue_s > _STALE_REMOVALS_S:
        since_s = seen.removals_overdue_s
        lines.append(f"storage: {seen.removals} objects are still to be removed, some for {since_s:.0f} s")
    return lines


def _is_out(account: ProviderAccount, now: float) -> bool:
    """Whether it does not work now. One whose pause is over is as good as any until the next job has tried it."""
    if needs_operator(account.trouble):
        return True
    is_paused = account.open_until > now and is_half_open(account.failures, account.trouble)
    return is_paused or account.open_until > now + _STALE_S


def _about_accounts(seen: Figures) -> list[str]:
    lines = [
        f"account {name}: {used} slots in use of {seen.slots_limit[name]}"
        for name, used in seen.slots_used.items()
        if used > seen.slots_limit[name]
    ]
    return lines + [f"account {name}: {IS_OUT[trouble]}" for name, trouble in seen.paused.items()]


def _about_lost_submits(session: Session) -> list[str]:
    """Lost submits that should have been decided by now, and attempts that nobody is left to decide."""
    late = clock.now() - timedelta(seconds=settings().reconcile_window_s + _STALE_S)
    overdue = session.scalar(
        select(func.count())
        .select_from(JobStep)
        .join(JobAttempt, JobAttempt.id == JobStep.attempt_id)
        .where(
            JobStep.step == Step.RECONCILE,
            func.coalesce(JobAttempt.answered_at, JobAttempt.sent_at) < late,
        )
    )
    forgotten = session.scalar(
        select(func.count())
        .select_from(JobAttempt)
        .outerjoin(JobStep, JobStep.attempt_id == JobAttempt.id)
        .where(JobAttempt.outcome.in_(_UNDECIDED), JobStep.job_id.is_(None))
    )
    lines = [f"{overdue} lost submits are undecided past the reconciliation window"] if overdue else []
    return lines + ([f"{forgotten} attempts were never decided, and nothing will"] if forgotten else [])


def _about_jobs(session: Session, total: Totals) -> list[str]:
    """Slots held for jobs that are over and not watched; jobs that nothing moves; credits that nothing settles."""
    lines = [f"{total.leaked} slots are held for jobs that are over"] if total.leaked else []
    lines += [f"job {job_id}: live, but nothing is waiting to move it" for job_id in total.stuck]
    if total.unsettled:
        lines.append(f"credits: what is held and what the live jobs cost differ by {total.unsettled}")
    return lines
