"""Who works on what: due steps are claimed with a token, in short transactions.

Submits are also scheduled here: an account's running steps are counted under a lock on its row, so its limit
holds across all workers, and because the count is made of the steps themselves no slot can leak. The same goes for
its submits per minute, which are counted from the attempts. Who gets a free slot is decided in `turns`.
"""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Integer,
    Row,
    ScalarSelect,
    Select,
    String,
    Text,
    bindparam,
    case,
    cast,
    exists,
    func,
    insert,
    literal,
    outerjoin,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.orm import Session, aliased

from common import clock, live
from common.ids import new_id, since
from common.models import Artifact, Job, JobAttempt, JobStep, ProviderAccount
from common.providers.base import Handle, Trouble
from common.providers.registry import ADAPTERS
from common.services import credits
from common.services.accounts import is_half_open
from common.services.turns import UNLIMITED, Room, Turns, Waiting, place
from common.settings import settings
from common.words import TERMINAL, Outcome, Status, Step

LATE_ANSWER = "answer"  # in an attempt's memo: what the provider said to a worker that had lost its lease
TROUBLE = "trouble"  # in an attempt's memo: why its account could not take the job
_PROBE_WITHIN_S = 60.0  # after its pause a half-open account may wait so long before somebody has to try it
_PILES = 1000  # users times models that are looked at; with more of them, the oldest jobs as well
_TOPS = 400  # jobs that are looked at first, spread evenly over the piles, at least two of each
MOST_INPUT_BYTES = 64 * 1024 * 1024  # of what one process submits at a time
_SMALL_INPUT_BYTES = 65_536
_INPUT_BYTES = func.length(cast(Job.input, Text))
_AT_ONCE = 1000  # jobs that one statement asks about
_STEPS = JobStep.metadata.tables[JobStep.__tablename__]


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
    refusals: int  # definite ones in a row, which may become final
    cancel_requested: bool
    finished: bool  # the job has ended; its result is still waited for
    handle: Handle | None = None
    made: bool = False  # the provider has made it: a poll asks for new addresses only

    @property
    def key(self) -> str:
        """The row's id."""
        return self.job_id


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitClaim(Claim):
    """A job that has been given an account, and all that the provider needs to know."""

    input: dict[str, Any]
    input_bytes: int = 0  # as text; media may stand in it as base64
    callback_token: str
    pinned: bool  # a follow-up, which no other account can take
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
    rows, token = _take(session, step, limit, full)
    return [Claim(**_common(row, token), handle=_handle(row)) for row in rows]


def lost_submits(session: Session, limit: int, full: frozenset[str] = frozenset()) -> list[SubmitClaim]:
    """Claim lost submits that are due to be looked for, none at an account in `full`."""
    rows, token = _take(session, Step.RECONCILE, limit, full, JobStep.pinned_account_id,
                        JobAttempt.callback_token, Job.input, Job.parent_id)  # fmt: skip
    parents = _parents(session, [row.parent_id for row in rows])
    return [
        SubmitClaim(
            **_common(row, token),
            pinned=row.pinned_account_id is not None,
            input=row.input,
            callback_token=row.callback_token,
            hint=(row.memo or {}).get("callback"),
            late_answer=(row.memo or {}).get(LATE_ANSWER),
            parent=parents.get(row.parent_id),
        )
        for row in rows
    ]


def results_to_store(session: Session, limit: int, full: frozenset[str] = frozenset()) -> list[StoreClaim]:
    """Claim finished generations, those whose URLs die first before the others, none of an account in `full`."""
    rows, token = _take(
        session, Step.STORE, limit, full, JobStep.expires_at, JobAttempt.outputs, order=JobStep.expires_at
    )  # fmt: skip
    stored: dict[str, set[int]] = defaultdict(set)
    for job_id, number in session.execute(
        select(Artifact.job_id, Artifact.number).where(Artifact.job_id.in_([row.job_id for row in rows]))
    ):
        stored[job_id].add(number)
    return [
        StoreClaim(
            **_common(row, token),
            handle=_handle(row),
            created_at=row.created_at,
            outputs=row.outputs or [],
            stored=frozenset(stored[row.job_id]),
            expires_at=row.expires_at or 0.0,
        )
        for row in rows
    ]


def renew(session: Session, claims: Sequence[Claim]) -> None:
    """Hold these steps for another lease, as far as they are still held."""
    _each_held(session, claims, due_at=clock.epoch() + settings().lease_s)


def put_back(session: Session, claims: Sequence[Claim]) -> None:
    """Let another worker have these steps at once."""
    _each_held(session, claims, due_at=clock.epoch(), lease_token=None)


def _each_held(session: Session, claims: Sequence[Claim], **values: Any) -> None:
    session.connection().execute(
        update(_STEPS)
        .where(_STEPS.c.job_id == bindparam("of_job"), _STEPS.c.lease_token == bindparam("held"))
        .values(values),
        [
            {"of_job": claim.job_id, "held": claim.token}
            for claim in sorted(
                claims, key=lambda claim: claim.job_id
            )  # rows are locked in one order everywhere
        ],
    )


def next_due(session: Session, steps: Iterable[Step]) -> float | None:
    """When the next of these steps falls due (epoch seconds), or None.

    What is due already and still unclaimed waits for a slot or for room, not for a moment.
    """
    return session.scalar(
        select(func.min(JobStep.due_at)).where(JobStep.step.in_(list(steps)), JobStep.due_at > clock.epoch())
    )


def _take(
    session: Session, step: Step, limit: int, full: frozenset[str], *more: Any, order: Any = JobStep.due_at
) -> tuple[list[Row[Any]], str]:
    """Lease due rows: `due_at` moves to the lease's end, so a worker that dies simply lets them become due again.

    Returns them with what belongs to them, `more` columns too, and the token of their lease.
    """
    now, token = clock.epoch(), secrets.token_hex(8)
    columns: tuple[Any, ...] = (
        JobStep.job_id, JobStep.step, JobStep.model, JobStep.attempt_id, JobStep.failures, JobStep.refusals,
        JobStep.cancel_at, JobStep.created_at, JobAttempt.account_id, JobAttempt.provider_ref, JobAttempt.memo,
        JobAttempt.ended_at, JobAttempt.error_code, Job.status, *more,
    )  # fmt: skip
    rows = session.execute(
        select(*columns)
        .join(JobAttempt, JobAttempt.id == JobStep.attempt_id)
        .join(Job, Job.id == JobStep.job_id)
        .where(JobStep.step == step, JobStep.due_at <= now, *_not_at(full))
        .order_by(order)
        .limit(limit)
        .with_for_update(skip_locked=True, of=JobStep)
    ).all()  # fmt: skip
    if rows:
        session.execute(
            update(JobStep)
            .where(JobStep.job_id.in_([row.job_id for row in rows]))
            .values(due_at=now + settings().lease_s, lease_token=token)
            .execution_options(synchronize_session=False)
        )
    return list(rows), token


def _not_at(full: frozenset[str]) -> list[ColumnElement[bool]]:
    return [JobStep.account_id.not_in(full)] if full else []


def _common(row: Row[Any], token: str) -> dict[str, Any]:
    return {
        "job_id": row.job_id,
        "token": token,
        "step": Step(row.step),
        "model": row.model,
        "account_id": row.account_id,
        "attempt_id": row.attempt_id,
        "failures": row.failures,
        "refusals": row.refusals or 0,
        "cancel_requested": row.cancel_at is not None,
        "finished": row.status in TERMINAL,
        "made": row.ended_at is not None and row.error_code is None,
    }


def _handle(row: Row[Any]) -> Handle | None:
    if row.provider_ref is None:
        return None
    return Handle(
        model=row.model, reference=row.attempt_id, provider_ref=row.provider_ref, memo=row.memo or {}
    )


def _parents(session: Session, job_ids: Iterable[str | None]) -> dict[str | None, Handle | None]:
    """The generations that follow-ups act on, with the provider's own names of their actions."""
    wanted = {job_id for job_id in job_ids if job_id is not None}
    if not wanted:
        return {}
    attempt = JobAttempt
    rows = session.execute(
        select(attempt.job_id, attempt.id.label("attempt_id"), attempt.provider_ref, attempt.memo, Job.model)
        .join(Job, Job.id == attempt.job_id)
        .where(attempt.job_id.in_(wanted), attempt.outcome.in_((Outcome.ACCEPTED, Outcome.ADOPTED)))
        .order_by(attempt.number)  # the last one is what came of it
    )
    return {row.job_id: _handle(row) for row in rows}


# ---------------------------------------------------------------- scheduling submits


def submits(session: Session, limit: int, full: frozenset[str] = frozenset()) -> list[SubmitClaim]:
    """Give free slots to waiting jobs: lease them, and write each one's attempt as an intent.

    Accounts in `full` get none.
    """
    if not _anything_is_due(session):
        return []
    waiting = set(session.scalars(select(_waiting_models())))
    rooms, in_flight = _rooms(session, waiting, full)
    if not rooms:
        return []
    turns = _turns(session, waiting, rooms, in_flight, limit)
    chosen: list[tuple[Waiting, str]] = []
    while len(chosen) < limit and any(room.is_open for room in rooms) and (job := turns.next()):
        room = place(job, rooms)
        if room is not None:
            turns.served(job)
            chosen.append((job, room.account_id))
    return _intend(session, chosen) if chosen else []


def _anything_is_due(session: Session) -> bool:
    query = select(JobStep.job_id).where(
        JobStep.step == Step.SUBMIT, JobStep.due_at <= clock.epoch(), JobStep.attempt_id.is_(None)
    )
    return session.scalar(query.limit(1)) is not None


def _rooms(session: Session, waiting: set[str], full: frozenset[str]) -> tuple[list[Room], Counter[str]]:
    """The accounts that can take something of what waits, and how much every user has at them and their like.

    The accounts' rows stay locked until the transaction ends: whoever schedules next waits for it, and then counts
    what it has given out.
    """
    account = ProviderAccount
    rows = session.execute(
        select(
            account.id, account.adapter, account.enabled, account.weight, account.max_concurrency,
            account.max_submits_per_minute, account.failures, account.open_until, account.trouble,
        )
        .where(account.adapter.in_([name for name, api in ADAPTERS.items() if waiting.intersection(api.models)]))
        .order_by(account.id)
        .with_for_update()
    ).all()  # fmt: skip
    now = clock.epoch()
    usable = [row for row in rows if row.enabled and row.open_until <= now and row.id not in full]
    if not usable:
        return [], Counter()
    used, submitting, in_flight = _loads(session, [row.id for row in rows])
    lately = _submits_of_the_last_minute(session, [row.id for row in usable if row.max_submits_per_minute])
    rooms = [_room(row, used[row.id], submitting[row.id], lately[row.id]) for row in usable]
    return [room for room in rooms if room.is_open], in_flight


def _loads(
    session: Session, account_ids: list[str]
) -> tuple[Counter[str | None], Counter[str | None], Counter[str]]:
    """In one pass over their work: slots used and submits under way at each account, jobs of each user."""
    used: Counter[str | None] = Counter()
    submitting: Counter[str | None] = Counter()
    in_flight: Counter[str] = Counter()
    at_provider = (
        select(JobStep.account_id, JobStep.user_id, JobStep.step, func.sum(JobStep.slots), func.count())
        .where(JobStep.account_id.in_(account_ids), JobStep.step != Step.STORE)
        .group_by(JobStep.account_id, JobStep.user_id, JobStep.step)
    )
    for account_id, user_id, step, slots, jobs in session.execute(at_provider):
        used[account_id] += int(slots)
        submitting[account_id] += jobs if step == Step.SUBMIT else 0
        in_flight[user_id] += jobs
    return used, submitting, in_flight


def _submits_of_the_last_minute(session: Session, account_ids: list[str]) -> Counter[str]:
    """By account. An attempt's id tells the time, so this reads a minute of the table, however long it is."""
    if not account_ids:
        return Counter()
    rows = session.execute(
        select(JobAttempt.account_id, func.count())
        .where(JobAttempt.id > since("att", clock.epoch() - 60), JobAttempt.account_id.in_(account_ids))
        .group_by(JobAttempt.account_id)
    )
    return Counter({account_id: submits for account_id, submits in rows})


def _room(row: Any, used: int, submitting: int, lately: int) -> Room:
    half_open = is_half_open(row.failures, row.trouble)
    by_rate = max(0, row.max_submits_per_minute - lately) if row.max_submits_per_minute else UNLIMITED
    as_probe = (0 if submitting else 1) if half_open else UNLIMITED
    return Room(
        account_id=row.id,
        models=ADAPTERS[row.adapter].models,
        limit=row.max_concurrency,
        used=used,
        weight=row.weight,
        failures=row.failures,
        submits_left=min(by_rate, as_probe),
        is_half_open=half_open,
        is_overdue=row.open_until <= clock.epoch() - _PROBE_WITHIN_S,
    )


def _intend(session: Session, chosen: list[tuple[Waiting, str]]) -> list[SubmitClaim]:
    """Write down who will be asked for what, before anybody is.

    Who was canceled meanwhile is left out, and so is who would bring more input than a process should hold.
    """
    rows = {row.job_id: row for row in session.execute(
        select(JobStep.job_id, JobStep.failures, Job.attempts, Job.parent_id,
               _INPUT_BYTES.label("input_bytes"), case((_INPUT_BYTES <= _SMALL_INPUT_BYTES, Job.input)).label("input"))
        .join(Job, Job.id == JobStep.job_id)
        .where(
            JobStep.job_id.in_([job.job_id for job, _ in chosen]),
            JobStep.attempt_id.is_(None),
            JobStep.cancel_at.is_(None),
        )
        .with_for_update(skip_locked=True, of=JobStep)
    )}  # fmt: skip
    chosen = _as_much_as_fits([(job, account_id) for job, account_id in chosen if job.job_id in rows], rows)
    inputs = _inputs(session, chosen, rows)
    parents = _parents(session, [row.parent_id for row in rows.values()])
    token = secrets.token_hex(8)
    claims = [
        SubmitClaim(
            job_id=job.job_id,
            token=token,
            step=Step.SUBMIT,
            model=job.model,
            account_id=account_id,
            attempt_id=new_id("att"),
            failures=rows[job.job_id].failures,
            refusals=0,
            cancel_requested=False,
            finished=False,
            pinned=job.pinned_account_id is not None,
            input=inputs[job.job_id],
            input_bytes=rows[job.job_id].input_bytes,
            callback_token=secrets.token_urlsafe(24),
            hint=None,
            late_answer=None,
            parent=parents.get(rows[job.job_id].parent_id),
        )
        for job, account_id in chosen
    ]
    if claims:
        _write_intents(session, claims, {claim.job_id: rows[claim.job_id].attempts + 1 for claim in claims})
    return claims


def _as_much_as_fits(
    chosen: list[tuple[Waiting, str]], rows: Mapping[str, Row[Any]]
) -> list[tuple[Waiting, str]]:
    """The first of them whose inputs are together not too large; one that is too large alone is alone."""
    sizes = accumulate(rows[job.job_id].input_bytes for job, _ in chosen)
    fitting = sum(size <= MOST_INPUT_BYTES for size in sizes)
    return chosen[: max(fitting, 1)]


def _inputs(
    session: Session, chosen: list[tuple[Waiting, str]], rows: Mapping[str, Row[Any]]
) -> dict[str, dict[str, Any]]:
    """What each of them asks for; what is large was not read before."""
    inputs = {job.job_id: rows[job.job_id].input for job, _ in chosen}
    if large := [job_id for job_id, given in inputs.items() if given is None]:
        read = session.execute(select(Job.id, Job.input).where(Job.id.in_(large)))
        inputs |= {row.id: row.input for row in read}
    return inputs


def _write_intents(session: Session, claims: list[SubmitClaim], numbers: Mapping[str, int]) -> None:
    moment = clock.now()
    session.execute(insert(JobAttempt), [
        {
            "id": claim.attempt_id,
            "job_id": claim.job_id,
            "number": numbers[claim.job_id],
            "account_id": claim.account_id,
            "outcome": Outcome.INTENT,
            "callback_token": claim.callback_token,
            "created_at": moment,
        }
        for claim in claims
    ])  # fmt: skip
    session.connection().execute(
        update(_STEPS)
        .where(_STEPS.c.job_id == bindparam("of_job"))
        .values(
            account_id=bindparam("at"), attempt_id=bindparam("by"), lease_token=bindparam("held"),
            due_at=moment.timestamp() + settings().lease_s,
        ),
        [
            {"of_job": claim.job_id, "at": claim.account_id, "by": claim.attempt_id, "held": claim.token}
            for claim in claims
        ],
    )  # fmt: skip
    session.execute(
        update(Job)
        .where(Job.id.in_([claim.job_id for claim in claims]))
        .values(status=Status.SUBMITTING, attempts=Job.attempts + 1)
        .execution_options(synchronize_session=False)
    )
    for claim in claims:
        live.tell(session, claim.job_id, status=Status.SUBMITTING)


# ---------------------------------------------------------------- who waits


def _turns(
    session: Session, waiting: set[str], rooms: list[Room], in_flight: Mapping[str, int], limit: int
) -> Turns:
    """The first jobs of all users that these accounts could take, so that one user's backlog hides nobody.

    A model that nothing waited for when the accounts were locked is left to the next time: the best account for it
    may not be among them.
    """
    dialect = session.get_bind().dialect.name
    now = clock.epoch()

    def read(query: Select[Any], **values: Any) -> list[Row[Any]]:
        open_ = [room for room in rooms if room.is_open]
        able = [(room.account_id, model) for room in open_ for model in room.models if model in waiting]
        fitting = {"now": now, "accounts": [room.account_id for room in open_], "able": able}
        return list(session.execute(query, fitting | values))

    def more(user_id: str, models: list[str], most: int) -> list[Waiting]:
        wanted = [model for model in models if any(room.is_open and model in room.models for room in rooms)]
        if not wanted:
            return []
        return _jobs(session, read(_firsts_of_a_user(dialect), models=wanted, user=user_id, most=most))

    models = sorted({model for room in rooms for model in room.models if model in waiting})
    rows = read(_firsts(dialect), models=models)
    piles = len({row[:2] for row in rows})
    if piles == _PILES:
        rows += read(_oldest(), models=models, most=limit)
    weights = credits.weights(session, {row.user_id for row in rows})
    return Turns(_jobs(session, rows), max(2, _TOPS // max(1, piles)), in_flight, weights, more)


def _jobs(session: Session, rows: Iterable[Row[Any]]) -> list[Waiting]:
    found = [row for row in rows if row.job_id is not None]
    refused_by = _refusals(session, [row.job_id for row in found if row.failures])
    return [Waiting._make((*row[2:-1], refused_by.get(row.job_id, frozenset()))) for row in found]


def _refusals(session: Session, job_ids: list[str]) -> dict[str, frozenset[str]]:
    """By job, the accounts that cannot serve it, as they have said."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for start in range(0, len(job_ids), _AT_ONCE):
        some = job_ids[start : start + _AT_ONCE]
        for job_id, account_id in session.execute(
            select(JobAttempt.job_id, JobAttempt.account_id).where(JobAttempt.job_id.in_(some), REFUSED)
        ):
            found[job_id].add(account_id)
    return {job_id: frozenset(accounts) for job_id, accounts in found.items()}


# The queries are put together once: that takes longer than running them.


@cache
def _firsts(dialect: str) -> Select[Any]:
    """The first jobs of every pile: waiting jobs of one user for one model.

    From pile to pile it goes along the index of what waits: the next model, in it the next user, and so on. So it
    costs as much as there are piles, however deep. Rows: user, model, and a job; or none, if no job fits.
    """
    each = _waiting_models()
    first = _smallest(JobStep.user_id, JobStep.model == each.c.model)
    walk = select(each.c.model, first.label("user_id")).where(each.c.model.in_(_MODELS))
    users = walk.cte("each_user", recursive=True)
    after = _smallest(JobStep.user_id, JobStep.model == users.c.model, JobStep.user_id > users.c.user_id)
    users = users.union_all(select(users.c.model, after).where(users.c.user_id.is_not(None)))
    piles = select(users).where(users.c.user_id.is_not(None)).limit(_PILES).cte("piles")
    even = select(literal(_TOPS) // func.count()).select_from(piles).scalar_subquery()
    return _firsts_in(piles, case((even > 2, even), else_=2), dialect)


@cache
def _firsts_of_a_user(dialect: str) -> Select[Any]:
    """The same for `user` alone: the first `most` jobs of each pile."""
    each = _waiting_models()
    user_id = bindparam("user", type_=String).label("user_id")
    piles = select(each.c.model, user_id).where(each.c.model.in_(_MODELS)).cte("piles")
    return _firsts_in(piles, _MOST, dialect)


@cache
def _oldest() -> Select[Any]:
    """The same rows for the oldest `most` jobs, whoever's they are."""
    return (
        select(JobStep.user_id, JobStep.model, *_waiting(JobStep))
        .where(JobStep.step == Step.SUBMIT, JobStep.model.in_(_MODELS), *_FITTING)
        .order_by(JobStep.due_at)
        .limit(_MOST)
    )


def _firsts_in(piles: CTE, most: Any, dialect: str) -> Select[Any]:
    of_pile = (
        select(JobStep.job_id)
        .where(JobStep.model == piles.c.model, JobStep.user_id == piles.c.user_id, *_FITTING)
        .order_by(JobStep.priority.desc(), JobStep.created_at)
        .limit(most)
        .correlate(piles)
    )
    job = aliased(JobStep)
    if dialect == "sqlite":  # which has no LATERAL, but looks up such a list row by row
        joined = outerjoin(piles, job, job.job_id.in_(of_pile))
    else:
        found = of_pile.lateral()
        joined = outerjoin(outerjoin(piles, found, true()), job, job.job_id == found.c.job_id)
    pile = (piles.c.user_id.label("of_user"), piles.c.model.label("for_model"))
    return select(*pile, *_waiting(job)).select_from(joined)


def _waiting_models() -> CTE:
    """Every model that something waits for, and at the end a NULL."""
    each = select(_smallest(JobStep.model).label("model")).cte("each_model", recursive=True)
    after = _smallest(JobStep.model, JobStep.model > each.c.model)
    return each.union_all(select(after).where(each.c.model.is_not(None)))


def _smallest(of: Any, *where: ColumnElement[bool]) -> ScalarSelect[Any]:
    return select(func.min(of)).where(JobStep.attempt_id.is_(None), *where).scalar_subquery()


def _waiting(step: Any) -> list[Any]:
    """What `_jobs` reads: the fields of `Waiting` that stand in the row, and whether the job was tried before."""
    return [*(getattr(step, name) for name in Waiting._fields if name != "refused_by"), step.failures]


_MODELS = bindparam("models", type_=String, expanding=True)
_MOST = bindparam("most", type_=Integer)
# Of an attempt: its account cannot serve the job, now or later. The job has outlived it, for another may.
REFUSED = (JobAttempt.outcome == Outcome.REJECTED) & (JobAttempt.memo[TROUBLE].as_string() == Trouble.MODEL)
_HAS_REFUSED = (
    exists()
    .where(JobAttempt.job_id == JobStep.job_id, JobAttempt.account_id == ProviderAccount.id, REFUSED)
    .correlate(JobStep, ProviderAccount)
)
_SOMEBODY_MAY_SERVE = (
    exists()
    .where(tuple_(ProviderAccount.id, JobStep.model).in_(bindparam("able", expanding=True)), ~_HAS_REFUSED)
    .correlate(JobStep)
)
_FITTING = (
    JobStep.attempt_id.is_(None),
    JobStep.cancel_at.is_(None),
    JobStep.due_at <= bindparam("now"),
    JobStep.pinned_account_id.is_(None)
    | JobStep.pinned_account_id.in_(bindparam("accounts", expanding=True)),
    (JobStep.failures == 0) | _SOMEBODY_MAY_SERVE,
)
