"""Every credit movement. A balance and its ledger entry change together, in the caller's transaction.

Conditional updates keep a balance from ever going below zero; unique references keep a movement from
happening twice. A hold is closed once, by a capture (which gives back what it does not take) or a release.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from common import clock
from common.errors import InsufficientCredits
from common.ids import new_id
from common.models import CreditAccount, Job, LedgerEntry
from common.words import TERMINAL, EntryKind

MAX_AMOUNT = 10**12


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
    _open_account(session, user_id)
    return _move(session, EntryKind.GRANT, user_id, amount, available=amount, note=note, reference=reference)


def hold(session: Session, user_id: str, job_id: str, amount: int) -> LedgerEntry:
    """Set credits aside for a job. Raises InsufficientCredits and changes nothing if there are too few."""
    if amount == 0:
        _open_account(session, user_id)  # a free job needs no credits, but its settlement needs a line
    reference = f"{job_id}:{EntryKind.HOLD}"
    return _move(session, EntryKind.HOLD, user_id, amount, available=-amount, held=amount,
                 job_id=job_id, reference=reference)  # fmt: skip


def settle(session: Session, job_id: str, *, spent: int) -> LedgerEntry | None:
    """Close a job's hold: take `spent` (at most what was held), give the rest back.

    Returns None if the hold is closed already; the second caller changes nothing.
    """
    held = session.scalars(
        select(LedgerEntry).where(LedgerEntry.reference == f"{job_id}:{EntryKind.HOLD}")
    ).one()
    if session.scalar(select(LedgerEntry.id).where(LedgerEntry.closes_id == held.id)):
        return None
    spent = min(spent, held.amount)
    kind = EntryKind.CAPTURE if spent else EntryKind.RELEASE
    return _move(session, kind, held.user_id, spent or held.amount, available=held.amount - spent,
                 held=-held.amount, job_id=job_id, closes_id=held.id, reference=f"{job_id}:{kind}")  # fmt: skip


def refund(session: Session, job_id: str, *, note: str | None) -> LedgerEntry:
    """Give back what a job's capture took. Once per job: the reference is unique."""
    taken = session.scalars(
        select(LedgerEntry).where(LedgerEntry.reference == f"{job_id}:{EntryKind.CAPTURE}")
    ).one()
    return _move(session, EntryKind.REFUND, taken.user_id, taken.amount, available=taken.amount,
                 job_id=job_id, note=note, reference=f"{job_id}:{EntryKind.REFUND}")  # fmt: skip


def entries(session: Session, user_id: str, *, limit: int, after: str | None) -> list[LedgerEntry]:
    """The user's history, newest first, from behind the entry `after`."""
    query = select(LedgerEntry).where(LedgerEntry.user_id == user_id)
    if after:
        query = query.where(LedgerEntry.id < after)
    return list(session.scalars(query.order_by(LedgerEntry.id.desc()).limit(limit)))


def _open_account(session: Session, user_id: str) -> None:
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    row = {"user_id": user_id, "available": 0, "held": 0, "updated_at": clock.now()}
    session.execute(dialect.insert(CreditAccount).values(row).on_conflict_do_nothing())


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
        update(CreditAccount)
        .where(
            CreditAccount.user_id == user_id,
            CreditAccount.available + available >= 0,
            CreditAccount.held + held >= 0,
        )
        .values(available=CreditAccount.available + available, held=CreditAccount.held + held, updated_at=now)
        .returning(CreditAccount.available, CreditAccount.held)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if after is None:
        raise InsufficientCredits(
            f"This needs {amount} credits; {balance(session, user_id).available} are available."
        )
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
    session.execute(insert(LedgerEntry), [entry])
    return LedgerEntry(**entry)


# ---------------------------------------------------------------- proof


def verify(session: Session) -> list[str]:
    """Every contradiction between ledger, balances and jobs, a line each; empty when all is well."""
    return [*_wrong_balances(session), *_unsettled(session), *_orphaned_holds(session)]


def _wrong_balances(session: Session) -> list[str]:
    sums = (
        select(
            LedgerEntry.user_id,
            func.sum(LedgerEntry.available_delta).label("available"),
            func.sum(LedgerEntry.held_delta).label("held"),
        )
        .group_by(LedgerEntry.user_id)
        .subquery()
    )
    rows = session.execute(
        select(
            CreditAccount.user_id, CreditAccount.available, CreditAccount.held, sums.c.available, sums.c.held
        )
        .outerjoin(sums, sums.c.user_id == CreditAccount.user_id)
        .where(
            (CreditAccount.available != func.coalesce(sums.c.available, 0))
            | (CreditAccount.held != func.coalesce(sums.c.held, 0))
        )
    )
    wrong = [
        f"user {user}: balance {available}+{held} held, ledger says {in_ledger or 0}+{held_in_ledger or 0}"
        for user, available, held, in_ledger, held_in_ledger in rows
    ]
    strangers = session.scalars(
        select(sums.c.user_id).where(
            ~select(literal(1)).where(CreditAccount.user_id == sums.c.user_id).exists()
        )
    )
    return wrong + [f"user {user}: has ledger entries but no balance" for user in strangers]


def _open_holds() -> Any:
    closing = LedgerEntry.__table__.alias("closing")
    return (LedgerEntry.kind == EntryKind.HOLD) & ~(
        select(literal(1)).where(closing.c.closes_id == LedgerEntry.id).exists()
    )


def _unsettled(session: Session) -> list[str]:
    finished = session.scalars(
        select(Job.id)
        .join(LedgerEntry, LedgerEntry.job_id == Job.id)
        .where(Job.status.in_(TERMINAL), _open_holds())
    )
    unpaid = session.scalars(
        select(Job.id).where(
            Job.price > 0, ~select(literal(1)).where(LedgerEntry.reference == Job.id + ":hold").exists()
        )
    )
    lines = [f"job {job_id}: finished, but its hold is open" for job_id in finished]
    return lines + [f"job {job_id}: has no hold" for job_id in unpaid]


def _orphaned_holds(session: Session) -> list[str]:
    holds = session.execute(
        select(LedgerEntry.id, LedgerEntry.job_id)
        .outerjoin(Job, Job.id == LedgerEntry.job_id)
        .where(_open_holds(), Job.id.is_(None))
    )
    return [f"hold {entry}: job {job_id} does not exist" for entry, job_id in holds]
