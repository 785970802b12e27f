"""Rows kept as they were, for the payments part and for the history: codes, tickets, leftover ledgers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from common import clock
from common.models import LegacyRecord
from common.providers.reading import obj
from common.services.legacy.source import Row, exact, parsed, plain
from common.services.legacy.totals import Totals

# Table, and its key.
TABLES: Mapping[str, str] = {
    "redemption_code": "code",
    "trade_ticket": "id",
    "mj_credits": "id",
    "kling_credits": "id",
    "dreamwork_credits": "id",
    "flux_credits": "id",
    "kling_lip_sync_credits": "id",
}
_MONEY = ("amount", "balance", "credit_amount", "credits_balance", "total_used")
_SUMMED = ("amount", "credit_amount", "credits_balance", "total_used")
_PARSED = ("detail",)


def import_batch(session: Session, table: str, rows: Sequence[Row], totals: Totals, *, write: bool) -> None:
    """Keep these rows; one that the legacy program has changed since is kept as it is now."""
    kept = _kept(session, table, rows)
    stale = []
    for row in rows:
        key, data = str(row[TABLES[table]]), as_kept(row)
        totals.new += key not in kept
        totals.known += key in kept
        if key in kept and kept[key] != data:
            totals.notes["changed since they were imported"] += 1
        if kept.get(key) != data:
            stale.append({"source": table, "legacy_id": key, "user_id": row.get("user_id"), "data": data,
                          "imported_at": clock.now()})  # fmt: skip
        _count(table, row, totals)
    totals.rows += len(rows)
    if write and stale:
        dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
        insert = dialect.insert(LegacyRecord)
        fresh = {name: insert.excluded[name] for name in ("user_id", "data", "imported_at")}
        session.execute(
            insert.on_conflict_do_update(
                index_elements=[LegacyRecord.source, LegacyRecord.legacy_id], set_=fresh
            ),
            stale,
        )


def as_kept(row: Row) -> dict[str, Any]:
    """The row as JSON, money in exact words."""
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    if name in _MONEY:
        amount = exact(value)
        return None if amount is None else plain(amount)
    return parsed(value) if name in _PARSED else plain(value)


def _count(table: str, row: Row, totals: Totals) -> None:
    for name in _SUMMED:
        if name in row:
            totals.add(f"sum of {name}", exact(row[name]) or 0)
    if table == "redemption_code":
        which = "used" if row.get("received_at") is not None else "unused"
        totals.notes[which] += 1
        totals.add(f"{which} codes", exact(row.get("amount")) or 0)
    if table == "trade_ticket":
        paid = obj(obj(parsed(row.get("detail"))).get("callback")).get("trade_status") == "TRADE_SUCCESS"
        which = "paid" if paid else "unpaid"
        totals.notes[which] += 1
        totals.add(f"{which} tickets", exact(row.get("amount")) or 0)


def _kept(session: Session, table: str, rows: Sequence[Row]) -> dict[str, Any]:
    keys = [str(row[TABLES[table]]) for row in rows]
    query = select(LegacyRecord.legacy_id, LegacyRecord.data).where(
        LegacyRecord.source == table, LegacyRecord.legacy_id.in_(keys)
    )
    return {key: data for key, data in session.execute(query)}


def contradictions(session: Session, table: str, rows: Sequence[Row]) -> list[str]:
    """Rows that were not kept, or not as they are, a line each."""
    kept = _kept(session, table, rows)
    keys = [str(row[TABLES[table]]) for row in rows if kept.get(str(row[TABLES[table]])) != as_kept(row)]
    return [f"{table} {key[:12]}…: not kept as it is" for key in keys]
