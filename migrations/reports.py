"""The memory of upgrades: a report for each run, a ledger line for each revision, and the counting of rows.

Both tables are made by the runner and not by a revision: they must exist to tell that a revision failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, literal, select, table, text, update

from common import clock
from common.db import schema
from common.ids import new_id
from migrations.chain import Chain
from migrations.errors import RowsLost
from migrations.target import LEDGER, METADATA, REPORT

# Verdicts.
RUNNING = "running"
OK = "ok"
DEGRADED = "degraded"
FAILED = "failed"
REFUSED = "refused"
INTERRUPTED = "interrupted"

Rows = dict[str, int]

# Tables whose rows are kept for good. The others (steps, tokens, keys, deliveries) shrink in everyday work,
# which goes on during an upgrade on PostgreSQL.
LASTING = {
    "user": "users",
    "job": "jobs",
    "tool": "tools",
    "group": "groups",
    "artifact": "artifacts",
    "credit_account": "credit accounts",
    "ledger_entry": "ledger entries",
    "auth": "passwords",
}
_ALWAYS_NAMED = {"user", "job"}

_SUSPECTS = text(
    "SELECT names.name FROM unnest(CAST(:names AS text[])) AS names(name)"
    " LEFT JOIN pg_class c ON c.relname = names.name AND c.relkind IN ('r', 'p')"
    " AND c.relnamespace = to_regnamespace(quote_ident(current_schema()))"
    " LEFT JOIN pg_stat_xact_user_tables s ON s.relid = c.oid"
    " WHERE c.oid IS NULL OR pg_relation_size(c.oid) = 0 OR s.n_tup_del > 0"
)


@dataclass(frozen=True)
class Report:
    """A run that has begun."""

    id: str
    began: float
    rows_before: Rows


def ensure_tables(connection: Connection) -> None:
    """Make the two tables if they are missing. Runs under the guard."""
    METADATA.create_all(connection, tables=[REPORT, LEDGER])


def begin(connection: Connection, *, holder: str, db: tuple[str, ...], aim: str) -> Report:
    """Note that a run begins; runs that never ended were killed."""
    killed = update(REPORT).where(REPORT.c.verdict == RUNNING).values(verdict=INTERRUPTED)
    connection.execute(killed)
    report = Report(new_id("mig"), time.monotonic(), count_rows(connection))
    connection.execute(
        REPORT.insert().values(
            id=report.id,
            started_at=clock.now(),
            holder=holder,
            from_revision=",".join(db) or None,
            to_revision=aim,
            verdict=RUNNING,
            rows_before=report.rows_before,
        )
    )
    return report


def note_backup(connection: Connection, report: Report, backup: str | None) -> None:
    """Write down where the backup is, before anything is changed."""
    connection.execute(update(REPORT).where(REPORT.c.id == report.id).values(backup=backup))


def end(connection: Connection, report: Report, verdict: str, **facts: Any) -> None:
    """Note how a run ended: `rung`, `rows_after`, `error`."""
    duration_s = round(time.monotonic() - report.began, 3)
    ended = {"finished_at": clock.now(), "verdict": verdict, "duration_s": duration_s, **facts}
    connection.execute(update(REPORT).where(REPORT.c.id == report.id).values(ended))


def ledger_writer(chain: Chain, report_id: str | None) -> Callable[..., None]:
    """Alembic's `on_version_apply` hook: one ledger line per revision, in the revision's own transaction."""
    last = [time.monotonic()]

    def write(*, ctx: Any, step: Any, **_: Any) -> None:
        duration_ms = int((time.monotonic() - last[0]) * 1000)
        last[0] = time.monotonic()
        if step.is_upgrade and not step.is_stamp:
            record(ctx.connection, chain, step.up_revision_id, duration_ms, report_id)

    return write


def record(
    connection: Connection, chain: Chain, revision: str, duration_ms: int, report_id: str | None
) -> None:
    """Write a revision into the ledger; a repeated one (its version table was lost) replaces its line."""
    connection.execute(LEDGER.delete().where(LEDGER.c.revision == revision))
    connection.execute(
        LEDGER.insert().values(
            revision=revision,
            checksum=chain.checksum(revision),
            applied_at=clock.now(),
            duration_ms=duration_ms,
            report_id=report_id,
        )
    )


def last(connection: Connection, limit: int = 1) -> list[Row[Any]]:
    """The latest reports, newest first; none where the table is missing, or another program's."""
    if not set(REPORT.columns.keys()) <= schema.columns(connection).get(REPORT.name, set()):
        return []
    return list(connection.execute(select(REPORT).order_by(REPORT.c.id.desc()).limit(limit)))


def count_rows(connection: Connection, names: Iterable[str] = LASTING) -> Rows:
    """Rows of those tables that exist, of all whose rows are kept for good unless told otherwise."""
    existing = schema.columns(connection).keys()
    tables = [METADATA.tables[name] for name in names if name in existing]
    return {table.name: connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


def check_kept(before: Rows, after: Rows) -> None:
    """Raises RowsLost if any table has fewer rows than before."""
    lost = [
        f"{name}: {count} → {after.get(name, 0)}"
        for name, count in before.items()
        if after.get(name, 0) < count
    ]
    if lost:
        raise RowsLost(f"rows were lost: {', '.join(lost)}")


def loss_guard(before: Rows) -> Callable[..., None]:
    """Alembic's `on_version_apply` hook: RowsLost in a revision's own transaction, which is then rolled back.

    The count at the end would come too late on PostgreSQL, where every revision commits by itself. Only tables
    that give cause for it are counted here: their locks are held meanwhile.
    """
    kept = {name: count for name, count in before.items() if count}

    def check(*, ctx: Any, **_: Any) -> None:
        suspects = _suspects(ctx.connection, kept) if kept else set()
        check_kept({name: kept[name] for name in suspects}, count_rows(ctx.connection, suspects))

    return check


def _suspects(connection: Connection, names: Iterable[str]) -> set[str]:
    """Tables that are gone or empty, or on PostgreSQL, which knows, that this transaction deleted from."""
    if connection.dialect.name == "postgresql":
        return set(connection.scalars(_SUSPECTS, {"names": list(names)}))
    existing = schema.columns(connection).keys()
    return {name for name in names if name not in existing or not _has_rows(connection, name)}


def _has_rows(connection: Connection, name: str) -> bool:
    return connection.execute(select(literal(1)).select_from(table(name)).limit(1)).first() is not None


def kept_line(before: Rows) -> str:
    """E.g. `Existing users: 1250, jobs: 5000 (all kept)`."""
    named = [name for name in LASTING if name in before and (before[name] or name in _ALWAYS_NAMED)]
    told = [f"{LASTING[name]}: {before[name]}" for name in named]
    return f"Existing {', '.join(told)} (all kept)" if told else "A new database"


def is_since(report: Row[Any], moment: datetime) -> bool:
    """Did that run end after `moment`?"""
    ended = report.finished_at
    return ended is not None and ended >= moment
