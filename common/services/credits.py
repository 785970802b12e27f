"""Every credit movement. A balance and its ledger entry change together, in the caller's transaction.

Conditional updates keep a balance from ever going below zero; unique references keep a movement from
happening twice. A hold is closed once, by a capture (which gives back what it does not take) or a release.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Subquery,
    bindparam,
    case,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from common import clock
from common.errors import InsufficientCredits, LedgerBroken
from common.ids import new_id
from common.models import CreditAccount, Job, LedgerEntry
from common.words import TERMINAL, EntryKind

MAX_AMOUNT = 10**12
MAX_WEIGHT = 100


@dataclass(frozen=True, slots=True)
class Balance:
    """What a user may spend, and what running jobs hold."""

    available: int
    held: int


def balance(session: Session, user_id: str) -> Balance:
    """The user's present balance; zero for one who never had credits."""
    row = session.execute(
        select(CreditAccount.available, CreditAccount.held).where(CreditAccount.user_id == user_id)
    ).one_or_none()
    return Balance(row.available, row.held) if row else Balance(0, 0)


def grant(session: Session, user_id: str, amount: int, *, note: str | None, reference: str) -> LedgerEntry:
    """Add credits. `reference` names the reason once and for all; using it twice breaks the unique constraint."""
    open_account(session, user_id)
    return _move(session, EntryKind.GRANT, user_id, amount, available=amount, note=note, reference=reference)


def hold(session: Session, user_id: str, job_id: str, amount: int) -> LedgerEntry:
    """Set credits aside for a job. Raises InsufficientCredits and changes nothing if there are too few."""
    if amount == 0:
        open_account(session, user_id)  # a free job needs no credits, but its settlement needs a line
    reference = f"{job_id}:{EntryKind.HOLD}"
    return _move(session, EntryKind.HOLD, user_id, amount, available=-amount, held=amount,
                 job_id=job_id, reference=reference)  # fmt: skip


def settle(session: Session, job_id: str, *, spent: int) -> LedgerEntry | None:
    """Close a job's hold: take `spent` (at most what was held), give the rest back.

    Returns None if the hold is closed already; the second caller changes nothing. Raises LedgerBroken where there
    is no hold.
    """
    held = _entry(session, job_id, EntryKind.HOLD)
    if held is None:
        raise LedgerBroken(f"job {job_id} has no hold")
    if session.scalar(select(LedgerEntry.id).where(LedgerEntry.closes_id == held.id)):
        return None
    spent = min(spent, held.amount)
    kind = EntryKind.CAPTURE if spent else EntryKind.RELEASE
    return _move(session, kind, held.user_id, spent or held.amount, available=held.amount - spent,
                 held=-held.amount, job_id=job_id, closes_id=held.id, reference=f"{job_id}:{kind}")  # fmt: skip


def refund(session: Session, job_id: str, *, note: str | None) -> LedgerEntry | None:
    """Give back what a job's capture took. Returns None where nothing was taken, or it was given back already."""
    taken = _entry(session, job_id, EntryKind.CAPTURE)
    if taken is None or _entry(session, job_id, EntryKind.REFUND) is not None:
        return None
    return _move(session, EntryKind.REFUND, taken.user_id, taken.amount, available=taken.amount,
                 job_id=job_id, note=note, reference=f"{job_id}:{EntryKind.REFUND}")  # fmt: skip


def entries(session: Session, user_id: str, *, limit: int, after: str | None) -> list[LedgerEntry]:
    """The user's history, newest first, from behind the entry `after`."""
    query = select(LedgerEntry).where(LedgerEntry.user_id == user_id)
    if after:
        query = query.where(LedgerEntry.id < after)
    return list(session.scalars(query.order_by(LedgerEntry.id.desc()).limit(limit)))


def _entry(session: Session, job_id: str, kind: EntryKind) -> LedgerEntry | None:
    """The job's entry of this kind, locked: whoever else wants to close it waits, and then sees that it is closed."""
    query = select(LedgerEntry).where(LedgerEntry.reference == f"{job_id}:{kind}")
    return session.scalars(query.with_for_update()).one_or_none()


def open_account(session: Session, user_id: str) -> None:
    """Give a user who never had credits a balance of none."""
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    row = {"user_id": user_id, "available": 0, "held": 0, "updated_at": clock.now()}
    session.execute(dialect.insert(CreditAccount).values(row).on_conflict_do_nothing())


# ---------------------------------------------------------------- weights


def weights(session: Session, user_ids: Collection[str]) -> dict[str, int]:
    """How many turns these users get for each turn of others, where it is not one."""
    rows = session.execute(
        select(CreditAccount.user_id, CreditAccount.weight).where(
            CreditAccount.user_id.in_(user_ids), CreditAccount.weight > 1
        )
    )
    return {user_id: weight for user_id, weight in rows if weight}


def set_weight(session: Session, user_id: str, weight: int) -> None:
    """From the next turn on the user gets `weight` (1 to MAX_WEIGHT) turns for each turn of others."""
    open_account(session, user_id)
    session.execute(update(CreditAccount).where(CreditAccount.user_id == user_id).values(weight=weight))


# ---------------------------------------------------------------- movements

_ACCOUNT = CreditAccount.metadata.tables[CreditAccount.__tablename__]
_MORE, _MORE_HELD = bindparam("more", type_=BigInteger), bindparam("more_held", type_=BigInteger)
# Built once: building them for each movement would take longer than running them.
_MOVE = (
    update(_ACCOUNT)
    .where(
        _ACCOUNT.c.user_id == bindparam("of_user"),
        _ACCOUNT.c.available + _MORE >= 0,
        _ACCOUNT.c.held + _MORE_HELD >= 0,
    )
    .values(
        available=_ACCOUNT.c.available + _MORE,
        held=_ACCOUNT.c.held + _MORE_HELD,
        updated_at=bindparam("at", type_=_ACCOUNT.c.updated_at.type),
    )
    .returning(_ACCOUNT.c.available, _ACCOUNT.c.held)
)
_ENTRY = CreditAccount.metadata.tables[LedgerEntry.__tablename__]
_WRITE = insert(_ENTRY)

# The same for a hold, as parts of a bigger statement (PostgreSQL): HELD has no row where there are too few credits,
# and nothing is written then. `hold_parameters` are what they need.
HELD = _MOVE.cte("held")
HOLD_WRITTEN = (
    insert(_ENTRY)
    .from_select(
        ["id", "user_id", "kind", "amount", "available_delta", "held_delta", "available_after", "held_after",
         "job_id", "reference", "created_at"],
        select(
            bindparam("entry_id", type_=_ENTRY.c.id.type), bindparam("of_user", type_=_ENTRY.c.user_id.type),
            literal(EntryKind.HOLD, _ENTRY.c.kind.type), _MORE_HELD, _MORE, _MORE_HELD,
            HELD.c.available, HELD.c.held, bindparam("of_job", type_=_ENTRY.c.job_id.type),
            bindparam("reference", type_=_ENTRY.c.reference.type),
            bindparam("at", type_=_ENTRY.c.created_at.type),
        ),
    )
    .cte("hold_written")
)  # fmt: skip


def hold_parameters(user_id: str, job_id: str, amount: int, at: datetime) -> dict[str, Any]:
    """What HELD and HOLD_WRITTEN are run with."""
    return {
        "of_user": user_id, "more": -amount, "more_held": amount, "at": at, "entry_id": new_id("led"),
        "of_job": job_id, "reference": f"{job_id}:{EntryKind.HOLD}",
    }  # fmt: skip


def too_few(session: Session, user_id: str, amount: int) -> InsufficientCredits:
    """What to raise where nothing could be held."""
    available = balance(session, user_id).available
    return InsufficientCredits(f"This needs {amount} credits; {available} are available.")


def _move(
    session: Session,
    kind: EntryKind,
    user_id: str,
    amount: int,
    *,
    reference: str,
    available: int = 0,
    held: int = 0,
    job_id: str | None = None,
    closes_id: str | None = None,
    note: str | None = None,
) -> LedgerEntry:
    """Change the balance if it stays at or above zero, and write the line that says so."""
    now = clock.now()
    after = session.execute(
        _MOVE, {"of_user": user_id, "more": available, "more_held": held, "at": now}
    ).one_or_none()
    if after is None and kind is EntryKind.HOLD:
        raise too_few(session, user_id, amount)
    if after is None:
        raise LedgerBroken(f"user {user_id} has no balance that a {kind} of {amount} credits fits")
    entry: dict[str, Any] = {
        "id": new_id("led"),
        "user_id": user_id,
        "kind": kind,
        "amount": amount,
        "available_delta": available,
        "held_delta": held,
        "available_after": after.available,
        "held_after": after.held,
        "job_id": job_id,
        "closes_id": closes_id,
        "reference": reference,
        "note": note,
        "created_at": now,
    }
    session.execute(_WRITE, [entry])
    return LedgerEntry(**entry)


# ---------------------------------------------------------------- proof

_LISTED = 200  # findings of one sort; a ledger with more of them is not read line by line
_LONGEST_PROOF_S = 120
_CLOSINGS = (EntryKind.CAPTURE, EntryKind.RELEASE)


def verify(session: Session) -> list[str]:
    """Every contradiction between ledger, balances and jobs, a line each; empty when all is well.

    Each sort is looked for by one statement over whole tables, so it sees one moment, whatever goes on meanwhile.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"SET LOCAL statement_timeout = '{_LONGEST_PROOF_S}s'"))
    wrong = _wrong_balances(session)
    return [
        *wrong.values(),
        *(line for user_id, line in _broken_chains(session).items() if user_id not in wrong),
        *_wrong_entries(session),
        *_wrong_settlements(session),
        *_orphaned_holds(session),
    ]


def _wrong_balances(session: Session) -> dict[str, str]:
    """By user: the balance is not the sum of the entries."""
    parts = union_all(
        select(LedgerEntry.user_id, LedgerEntry.available_delta.label("available"),
               LedgerEntry.held_delta.label("held"), literal(0).label("is_balance")),
        select(CreditAccount.user_id, CreditAccount.available, CreditAccount.held, literal(1)),
    ).subquery()  # fmt: skip
    is_balance = parts.c.is_balance == 1
    has = [func.coalesce(func.sum(case((is_balance, column), else_=0)), 0)
           for column in (parts.c.available, parts.c.held, parts.c.is_balance)]  # fmt: skip
    should = [func.coalesce(func.sum(case((is_balance, 0), else_=column)), 0)
              for column in (parts.c.available, parts.c.held)]  # fmt: skip
    rows = session.execute(
        select(parts.c.user_id, *has, *should)
        .group_by(parts.c.user_id)
        .having(or_(has[0] != should[0], has[1] != should[1], has[2] != 1))
        .limit(_LISTED)
    )
    return {
        user_id: f"user {user_id}: balance {available}+{held} held, ledger says {in_ledger}+{held_in_ledger}"
        if balances
        else f"user {user_id}: has ledger entries but no balance"
        for user_id, available, held, balances, in_ledger, held_in_ledger in rows
    }


def _broken_chains(session: Session) -> dict[str, str]:
    """By user: an entry that does not begin where another one ended.

    Two machines' clocks may differ, so the order of the entries is not known for certain. But whatever it is, each
    balance that was reached was left again, except for the last one; and each that was left had been reached,
    except for the empty one at the beginning.
    """
    entry, account = LedgerEntry, CreditAccount
    left = (entry.available_after - entry.available_delta, entry.held_after - entry.held_delta)
    states = union_all(
        select(entry.user_id, entry.available_after.label("available"), entry.held_after.label("held"),
               literal(1).label("times")),
        select(entry.user_id, *left, literal(-1)),
        select(account.user_id, literal(0), literal(0), literal(1)),
        select(account.user_id, account.available, account.held, literal(-1)),
    ).subquery()  # fmt: skip
    state = (states.c.user_id, states.c.available, states.c.held)
    rows = session.execute(
        select(*state).group_by(*state).having(func.sum(states.c.times) != 0).limit(_LISTED)
    )
    return {
        user_id: f"user {user_id}: the entries do not follow from one another at {available}+{held} held"
        for user_id, available, held in rows
    }


def _wrong_entries(session: Session) -> list[str]:
    """Entries that are not what their kind says."""
    entry, held = LedgerEntry, aliased(LedgerEntry)
    kind, amount, available, in_hold = entry.kind, entry.amount, entry.available_delta, entry.held_delta
    closes, taken = kind.in_(_CLOSINGS), case((kind == EntryKind.CAPTURE, amount), else_=0)
    reason = case(
        (kind.not_in(list(EntryKind)), "is of no known kind"),
        (or_(amount < 0, entry.available_after < 0, entry.held_after < 0), "is below zero"),
        ((kind != EntryKind.GRANT) & entry.job_id.is_(None), "names no job"),
        (closes & held.id.is_(None), "closes no hold"),
        (~closes & entry.closes_id.is_not(None), "closes a hold, which only a capture or a release may"),
        (closes & ((held.kind != EntryKind.HOLD) | (held.user_id != entry.user_id) | (held.job_id != entry.job_id)),
         "closes a hold that is not its own"),
        (closes & (amount > held.amount), "takes more than was held"),
        (closes & ((in_hold != -held.amount) | (available + in_hold != -taken)
                   | ((kind == EntryKind.RELEASE) & (amount != held.amount))),
         "does not give back exactly what it does not take"),
        ((kind == EntryKind.HOLD) & ((available != -amount) | (in_hold != amount)), "does not move its amount"),
        (kind.in_((EntryKind.GRANT, EntryKind.REFUND)) & ((available != amount) | (in_hold != 0)),
         "does not move its amount"),
    )  # fmt: skip
    rows = session.execute(
        select(entry.id, kind, reason)
        .outerjoin(held, held.id == entry.closes_id)
        .where(reason.is_not(None))
        .limit(_LISTED)
    )
    return [f"entry {entry_id}: the {its_kind} {why}" for entry_id, its_kind, why in rows]


def _by_job() -> Subquery:
    """What the ledger says about each job."""

    def count(*kinds: EntryKind) -> ColumnElement[int]:
        return func.sum(case((LedgerEntry.kind.in_(kinds), 1), else_=0))

    def total(kind: EntryKind) -> ColumnElement[int]:
        return func.sum(case((LedgerEntry.kind == kind, LedgerEntry.amount), else_=0))

    return (
        select(
            LedgerEntry.job_id,
            func.min(LedgerEntry.user_id).label("user_id"),
            count(EntryKind.HOLD).label("holds"),
            count(*_CLOSINGS).label("closings"),
            count(EntryKind.REFUND).label("refunds"),
            total(EntryKind.HOLD).label("held"),
            total(EntryKind.CAPTURE).label("captured"),
            total(EntryKind.REFUND).label("refunded"),
        )
        .where(LedgerEntry.job_id.is_not(None))
        .group_by(LedgerEntry.job_id)
        .subquery()
    )


def _wrong_settlements(session: Session) -> list[str]:
    """Jobs whose state and whose ledger entries contradict each other."""
    ledger = _by_job().c
    over = Job.status.in_(TERMINAL)
    reason = case(
        (ledger.job_id.is_(None) & (Job.price == 0), None),
        (func.coalesce(ledger.holds, 0) == 0, "has no hold"),
        (ledger.holds > 1, "has more than one hold"),
        (ledger.closings > 1, "was settled more than once"),
        (ledger.refunds > 1, "was refunded more than once"),
        (ledger.refunded > ledger.captured, "was refunded more than was taken"),
        (ledger.user_id != Job.user_id, "is paid for by somebody else"),
        (ledger.held != Job.price, "its hold is not its price"),
        (over & (ledger.closings == 0), "finished, but its hold is open"),
        (~over & (ledger.closings > 0), "is live, but its hold is closed"),
        (over & (func.coalesce(Job.charged, -1) != ledger.captured - ledger.refunded),
         "finished, and was charged other than the ledger says"),
    )  # fmt: skip
    rows = session.execute(
        select(Job.id, reason)
        .outerjoin(ledger.job_id.table, ledger.job_id == Job.id)
        .where(reason.is_not(None))
        .limit(_LISTED)
    )
    return [f"job {job_id}: {why}" for job_id, why in rows]


def _orphaned_holds(session: Session) -> list[str]:
    """Open holds that no job will ever close."""
    ledger = _by_job().c
    rows = session.scalars(
        select(ledger.job_id)
        .outerjoin(Job, Job.id == ledger.job_id)
        .where(Job.id.is_(None), ledger.holds > ledger.closings)
        .limit(_LISTED)
    )
    return [f"job {job_id}: does not exist, but its hold is open" for job_id in rows]
