"""Balances as opening grants. `credit.credit` is the only one that could be spent; the rest is history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_CEILING, Decimal

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.models import LedgerEntry, User
from common.services import credits
from common.services.legacy.source import Row, exact
from common.services.legacy.totals import Totals

TABLE = "credit"
_READ, _UP, _DEBTS, _GRANTED = "sum of balances", "added by rounding up", "debts, which end", "granted"


def import_batch(session: Session, rows: Sequence[Row], totals: Totals, *, write: bool) -> None:
    """Grant each user what the row says, once: a fraction of a credit becomes a whole one, a debt nothing."""
    amounts = _granted(session, rows)
    owners = set(session.scalars(select(User.id).where(User.id.in_([str(row["user_id"]) for row in rows]))))
    for row in sorted(
        rows, key=lambda row: str(row["user_id"])
    ):  # balances are locked in one order everywhere
        balance = exact(row.get("credit"))
        amount = opening(balance)
        _count(totals, balance, amount)
        totals.notes["of users who are gone"] += str(row["user_id"]) not in owners
        if amount == 0:
            totals.skipped[_why_nothing(balance)] += 1
        elif _reference(row) in amounts:
            totals.known += 1
            totals.notes["changed since they were imported"] += amounts[_reference(row)] != amount
        else:
            totals.new += 1
            if write:
                note = f"opening balance, {format((balance or Decimal(0)).normalize(), 'f')} in the legacy program"
                credits.grant(session, str(row["user_id"]), amount, note=note, reference=_reference(row))
    totals.rows += len(rows)
    totals.notes = +totals.notes


def opening(balance: Decimal | None) -> int:
    """What a balance is worth here: rounded up, so nobody loses a fraction; never below zero."""
    return max(0, int(balance.to_integral_value(ROUND_CEILING))) if balance is not None else 0


def _count(totals: Totals, balance: Decimal | None, amount: int) -> None:
    totals.add(_READ, balance or 0)
    if balance is not None and balance > 0:
        totals.add(_UP, amount - balance)
    if balance is not None and balance < 0:
        totals.add(_DEBTS, -balance)
        totals.notes["negative balances"] += 1
    totals.add(_GRANTED, amount)


def _why_nothing(balance: Decimal | None) -> str:
    if balance is None:
        return "without a balance"
    return "negative" if balance < 0 else "empty"


def _reference(row: Row) -> str:
    return f"legacy:{TABLE}:{row['id']}"


def _granted(session: Session, rows: Iterable[Row]) -> dict[str, int]:
    references = [_reference(row) for row in rows]
    found = select(LedgerEntry.reference, LedgerEntry.amount).where(LedgerEntry.reference.in_(references))
    return {reference: amount for reference, amount in session.execute(found)}


def contradictions(session: Session, rows: Sequence[Row], changed: Totals) -> list[str]:
    """Balances that are not what the ledger was opened with, a line each."""
    amounts = _granted(session, rows)
    lines = []
    for row in rows:
        wanted, granted = opening(exact(row.get("credit"))), amounts.get(_reference(row), 0)
        changed.add("expected", wanted)
        changed.add("in the ledger", granted)
        if wanted != granted:
            lines.append(f"{TABLE} {row['id']}: {wanted} credits expected, {granted} in the ledger")
    return lines
