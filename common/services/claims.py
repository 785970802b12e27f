"""Who works on what: due steps are claimed with a token, in short transactions.

Submits are also scheduled here: an account's running steps are counted under a lock on its row, so its limit
holds across all workers, and because the count is made of the steps themselves no slot can leak. Free slots go to
the users with the least in flight, then by priority, then by age.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from common import clock
from common.ids import new_id
from common.models import Artifact, Job, JobAttempt, JobStep, ProviderAccount
from common.providers.base import Handle
from common.providers.registry import ADAPTERS
from common.services.accounts import BREAKER_THRESHOLD
from common.settings import settings
from common.words import TERMINAL, Outcome, Status, Step

LATE_ANSWER = "answer"  # in an attempt's memo: what the provider said to a worker that had lost its lease
_AT_PROVIDER = (Step.SUBMIT, Step.RECONCILE, Step.POLL)  # with an account: these occupy its slots
_CANDIDATES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to work on one step until the lease ends. Results count only while `token` is still the row's."""

    job_id: str
    token: str
    step: Step
    model: str
    account_id: str
    attempt_id: str
    failures: int
    cancel_requested: bool
    finished: bool  # the job has ended; its result is still waited for
    handle: Handle | None = None

    @property
    def key(self) -> str:
        """The row's id."""
        return self.job_id


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitClaim(Claim):
    """A job that has been given an account, and all that the provider needs to know."""

    input: dict[str, Any]
    callback_token: str
    hint: dict[str, Any] | None  # what a callback to this attempt's own URL has claimed
    late_answer: dict[str, Any] | None  # `Accepted`, as a worker heard it that had lost its lease
    parent: Handle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreClaim(Claim):
    """What a provider made and what of it is in storage already."""

    created_at: float
    outputs: list[dict[str, Any]]
    stored: frozenset[int]
    expires_at: float


# ---------------------------------------------------------------- due steps


def due(session: Session, step: Step, limit: int, full: frozenset[str] = frozenset()) -> list[Claim]:
    """Claim up to `limit` due polls, none at an account in `full`."""
    rows = _take(session, step, limit, full, order=JobStep.due_at)
    attempts = _attempts(session, [row.attempt_id for row in rows])
    finished = _finished(session, [row.job_id for row in rows])
    return [
        Claim(
            **_common(row, attempts[row.attempt_id].account_id),
            finished=row.job_id in finished,
            handle=_handle(row.model, attempts[row.attempt_id]),
        )
        for row in rows
        if row.attempt_id in attempts
    ]


def lost_submits(session: Session, limit: int, full: frozenset[str] = frozenset()) -> list[SubmitClaim]:
    """Claim lost submits that are due to be looked for, none at an account in `full`."""
    rows = _take(session, Step.RECONCILE, limit, full, order=JobStep.due_at)
    attempts = _attempts(session, [row.attempt_id for row in rows])
    return _submissions(
        session, [(row, attempts[row.attempt_id]) for row in rows if row.attempt_id in attempts]
    )


def results_to_store(session: Session, limit: int, full: frozenset[str] = frozenset()) -> list[StoreClaim]:
    """Claim finished generations, those whose URLs die first before the others, none of an account in `full`."""
    rows = _take(session, Step.STORE, limit, full, order=JobStep.expires_at)
    attempts = _attempts(session, [row.attempt_id for row in rows])
    job_ids = [row.job_id for row in rows]
    finished = _finished(session, job_ids)
    stored: dict[str, set[int]] = defaultdict(set)
    for job_id, number in session.execute(
        select(Artifact.job_id, Artifact.number).where(Artifact.job_id.in_(job_ids))
    ):
        stored[job_id].add(number)
    return [
        StoreClaim(
            **_common(row, attempts[row.attempt_id].account_id),
            finished=row.job_id in finished,
            handle=_handle(row.model, attempts[row.attempt_id]),
            created_at=row.created_at,
            outputs=attempts[row.attempt_id].outputs or [],
            stored=frozenset(stored[row.job_id]),
            expires_at=row.expires_at or 0.0,
        )
        for row in rows
        if row.attempt_id in attempts
    ]


def renew(session: Session, claims: Sequence[Claim]) -> None:
    """Hold these steps for another lease, as far as they are still held."""
    _each_held(session, claims, due_at=clock.epoch() + settings().lease_s)


def put_back(session: Session, claims: Sequence[Claim]) -> None:
    """Let another worker have these steps at once."""
    _each_held(session, claims, due_at=clock.epoch(), lease_token=None)


def _each_held(session: Session, claims: Sequence[Claim], **values: Any) -> None:
    step = JobStep.__table__
    assert isinstance(step, Table)
    session.connection().execute(
        update(step)
        .where(step.c.job_id == bindparam("of_job"), step.c.lease_token == bindparam("held"))
        .values(values),
        [{"of_job": claim.job_id, "held": claim.token} for claim in claims],
    )


def next_due(session: Session, steps: Iterable[Step]) -> float | None:
    """When the next of these steps falls due (epoch seconds), or None.

    What is due already and still unclaimed waits for a slot or for room, not for a moment.
    """
    return session.scalar(
        select(func.min(JobStep.due_at)).where(JobStep.step.in_(list(steps)), JobStep.due_at > clock.epoch())
    )


def _take(session: Session, step: Step, limit: int, full: frozenset[str], *, order: Any) -> list[Row[Any]]:
    """Lease due rows: `due_at` moves to the lease's end, so a worker that dies simply lets them become due again."""
    now = clock.epoch()
    picked = (
        select(JobStep.job_id)
        .where(JobStep.step == step, JobStep.due_at <= now, *_not_at(full))
        .order_by(order)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(
        session.execute(
            update(JobStep)
            .where(JobStep.job_id.in_(picked), JobStep.step == step)
            .values(due_at=now + settings().lease_s, lease_token=secrets.token_hex(8))
            .returning(
                JobStep.job_id, JobStep.step, JobStep.lease_token, JobStep.model, JobStep.attempt_id,
                JobStep.failures, JobStep.cancel_at, JobStep.created_at, JobStep.expires_at,
            )
            .execution_options(synchronize_session=False)
        )
    )  # fmt: skip


def _not_at(full: frozenset[str]) -> list[ColumnElement[bool]]:
    return [JobStep.account_id.not_in(full)] if full else []


def _common(row: Row[Any], account_id: str) -> dict[str, Any]:
    return {
        "job_id": row.job_id,
        "token": row.lease_token,
        "step": Step(row.step),
        "model": row.model,
        "account_id": account_id,
        "attempt_id": row.attempt_id,
        "failures": row.failures,
        "cancel_requested": row.cancel_at is not None,
    }


def _attempts(session: Session, ids: list[str]) -> dict[str, Row[Any]]:
    if not ids:
        return {}
    query = select(
        JobAttempt.id, JobAttempt.job_id, JobAttempt.account_id, JobAttempt.provider_ref, JobAttempt.memo,
        JobAttempt.outputs, JobAttempt.callback_token, JobAttempt.outcome,
    ).where(JobAttempt.id.in_(ids))  # fmt: skip
    return {row.id: row for row in session.execute(query)}


def _finished(session: Session, job_ids: list[str]) -> frozenset[str]:
    if not job_ids:
        return frozenset()
    return frozenset(session.scalars(select(Job.id).where(Job.id.in_(job_ids), Job.status.in_(TERMINAL))))


def _handle(model: str, attempt: Row[Any]) -> Handle | None:
    if attempt.provider_ref is None:
        return None
    return Handle(
        model=model, reference=attempt.id, provider_ref=attempt.provider_ref, memo=attempt.memo or {}
    )


# ---------------------------------------------------------------- scheduling submits


@dataclass(slots=True)
class _Slots:
    """One account while slots are given out."""

    row: ProviderAccount
    used: int
    free: int = field(init=False)

    def __post_init__(self) -> None:
        limit = 1 if self.row.failures >= BREAKER_THRESHOLD else self.row.max_concurrency
        self.free = max(0, limit - self.used)

    def fits(self, step: Row[Any]) -> bool:
        pinned = step.pinned_account_id
        return (
            self.free >= min(step.slots, self.row.max_concurrency)
            and step.model in ADAPTERS[self.row.adapter].models
            and (pinned is None or pinned == self.row.id)
        )

    @property
    def load(self) -> tuple[float, int]:
        return (self.used / max(1, self.row.weight), self.row.failures)


def submits(session: Session, limit: int, full: frozenset[str] = frozenset()) -> list[SubmitClaim]:
    """Give free slots to waiting jobs: lease them, and write each one's attempt as an intent.

    Accounts in `full` get none.
    """
    if not _anything_waits(session):
        return []
    accounts = [account for account in _open_accounts(session) if account.row.id not in full]
    if not accounts:
        return []
    now = clock.epoch()
    chosen: list[tuple[Row[Any], _Slots]] = []
    in_flight = _in_flight_by_user(session)
    waiting = _candidates(session, accounts, now)
    while waiting and len(chosen) < limit:
        step = min(waiting, key=lambda row: (in_flight[row.user_id], -row.priority, row.created_at))
        waiting.remove(step)
        fitting = [account for account in accounts if account.fits(step)]
        if not fitting:
            continue
        account = min(fitting, key=lambda slots: slots.load)
        account.used += step.slots
        account.free -= step.slots
        in_flight[step.user_id] += 1
        chosen.append((step, account))
    return _intend(session, chosen, now)


def _anything_waits(session: Session) -> bool:
    query = select(JobStep.job_id).where(
        JobStep.step == Step.SUBMIT, JobStep.due_at <= clock.epoch(), JobStep.attempt_id.is_(None)
    )
    return session.scalar(query.limit(1)) is not None


def _open_accounts(session: Session) -> list[_Slots]:
    """The usable accounts with free slots, locked: whoever schedules next waits for this short transaction."""
    rows = session.scalars(
        select(ProviderAccount)
        .where(ProviderAccount.enabled, ProviderAccount.open_until <= clock.epoch())
        .order_by(ProviderAccount.id)
        .with_for_update()
    ).all()
    used = {
        account_id: int(total)
        for account_id, total in session.execute(
            select(JobStep.account_id, func.sum(JobStep.slots))
            .where(JobStep.account_id.is_not(None), JobStep.step.in_(_AT_PROVIDER))
            .group_by(JobStep.account_id)
        )
    }
    accounts = [_Slots(row, used.get(row.id, 0)) for row in rows if row.adapter in ADAPTERS]
    return [account for account in accounts if account.free > 0]


def _in_flight_by_user(session: Session) -> defaultdict[str, int]:
    rows = session.execute(
        select(JobStep.user_id, func.count())
        .where(JobStep.account_id.is_not(None), JobStep.step.in_(_AT_PROVIDER))
        .group_by(JobStep.user_id)
    )
    return defaultdict(int, {user_id: count for user_id, count in rows})


def _candidates(session: Session, accounts: list[_Slots], now: float) -> list[Row[Any]]:
    """The first waiting jobs of every user, so that one user's backlog hides nobody."""
    models = sorted({model for account in accounts for model in ADAPTERS[account.row.adapter].models})
    turn = func.row_number().over(
        partition_by=(JobStep.user_id, JobStep.model), order_by=(JobStep.priority.desc(), JobStep.created_at)
    )
    ranked = (
        select(JobStep.job_id, turn.label("turn"))
        .where(
            JobStep.step == Step.SUBMIT,
            JobStep.due_at <= now,
            JobStep.attempt_id.is_(None),
            JobStep.cancel_at.is_(None),
            JobStep.model.in_(models),
        )
        .subquery()
    )
    query = (
        select(JobStep.job_id, JobStep.user_id, JobStep.model, JobStep.priority, JobStep.created_at, JobStep.slots,
               JobStep.failures, JobStep.pinned_account_id)
        .join(ranked, ranked.c.job_id == JobStep.job_id)
        .order_by(ranked.c.turn, JobStep.created_at)
        .limit(_CANDIDATES)
        .with_for_update(skip_locked=True, of=JobStep)
    )  # fmt: skip
    return list(session.execute(query))


def _intend(session: Session, chosen: list[tuple[Row[Any], _Slots]], now: float) -> list[SubmitClaim]:
    """Write down who will be asked for what, before anybody is."""
    if not chosen:
        return []
    numbers = {
        job_id: attempts
        for job_id, attempts in session.execute(
            select(Job.id, Job.attempts).where(Job.id.in_([step.job_id for step, _ in chosen]))
        )
    }
    moment = clock.now()
    pairs = []
    for step, account in chosen:
        attempt = {
            "id": new_id("att"),
            "job_id": step.job_id,
            "number": numbers[step.job_id] + 1,
            "account_id": account.row.id,
            "outcome": Outcome.INTENT,
            "callback_token": secrets.token_urlsafe(24),
            "created_at": moment,
        }
        pairs.append((step, attempt))
        if account.row.failures >= BREAKER_THRESHOLD:
            account.row.open_until = now + settings().lease_s  # one probe at a time
    session.execute(insert(JobAttempt), [attempt for _, attempt in pairs])
    claims: list[tuple[Any, dict[str, Any]]] = []
    for step, attempt in pairs:
        row = session.execute(
            update(JobStep)
            .where(JobStep.job_id == step.job_id, JobStep.attempt_id.is_(None))
            .values(
                account_id=attempt["account_id"], attempt_id=attempt["id"],
                due_at=now + settings().lease_s, lease_token=secrets.token_hex(8),
            )
            .returning(
                JobStep.job_id, JobStep.step, JobStep.lease_token, JobStep.model, JobStep.attempt_id,
                JobStep.failures, JobStep.cancel_at, JobStep.created_at,
            )
            .execution_options(synchronize_session=False)
        ).one_or_none()  # fmt: skip
        if row is not None:
            claims.append((row, attempt))
    session.execute(
        update(Job)
        .where(Job.id.in_([row.job_id for row, _ in claims]))
        .values(status=Status.SUBMITTING, attempts=Job.attempts + 1)
        .execution_options(synchronize_session=False)
    )
    attempts = _attempts(session, [attempt["id"] for _, attempt in claims])
    return _submissions(session, [(row, attempts[row.attempt_id]) for row, _ in claims])


def _submissions(session: Session, pairs: list[tuple[Row[Any], Row[Any]]]) -> list[SubmitClaim]:
    jobs = {
        row.id: row
        for row in session.execute(
            select(Job.id, Job.input, Job.parent_id, Job.status).where(
                Job.id.in_([row.job_id for row, _ in pairs])
            )
        )
    }
    return [
        SubmitClaim(
            **_common(row, attempt.account_id),
            finished=jobs[row.job_id].status in TERMINAL,
            handle=None,
            input=jobs[row.job_id].input,
            callback_token=attempt.callback_token,
            hint=(attempt.memo or {}).get("callback"),
            late_answer=(attempt.memo or {}).get(LATE_ANSWER),
            parent=_parent_handle(session, jobs[row.job_id].parent_id),
        )
        for row, attempt in pairs
    ]


def _parent_handle(session: Session, parent_id: str | None) -> Handle | None:
    """The generation that a follow-up acts on, with the provider's own names of its actions."""
    if parent_id is None:
        return None
    row = session.execute(
        select(JobAttempt.id, JobAttempt.provider_ref, JobAttempt.memo, Job.model)
        .join(Job, Job.id == JobAttempt.job_id)
        .where(JobAttempt.job_id == parent_id, JobAttempt.outcome.in_((Outcome.ACCEPTED, Outcome.ADOPTED)))
    ).one_or_none()
    if row is None or row.provider_ref is None:
        return None
    return Handle(model=row.model, reference=row.id, provider_ref=row.provider_ref, memo=row.memo or {})
