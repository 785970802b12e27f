"""The import from beginning to end: parts, each of which a door goes through in batches, and then the proof."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from common import clock
from common.models import AppSetting, User
from common.services.legacy import balances, configs, records, tasks
from common.services.legacy.mappings import TABLES, TaskTable
from common.services.legacy.places import Places
from common.services.legacy.source import Row, Source
from common.services.legacy.totals import Totals

KEY = "legacy_import"  # its row in app_setting: when the import was complete, and what it had counted
BATCH = 250
PRICES = "prices"
_LISTED = 20  # contradictions that are told
# Whose rows are neither imported nor changed.
_LEFT = ("credit_log", "generated_files")


@dataclass(slots=True)
class Import:
    """One run. `write` False counts what would be done."""

    source: Source
    write: bool
    rehost: bool
    totals: dict[str, Totals]
    context: tasks.Context


@dataclass(frozen=True, slots=True)
class Part:
    """One table that is gone through by its key."""

    table: str
    key: str
    task: TaskTable | None = None


@dataclass(slots=True)
class Proof:
    """What was found when everything was compared once more."""

    lines: list[str] = field(default_factory=list)
    changed: int = 0  # rows that the legacy program has changed since an earlier import was complete


def parts() -> list[Part]:
    """Every part that goes by batches, in their order: balances before what is paid from them."""
    return [
        Part(balances.TABLE, "id"),
        *(Part(table, key) for table, key in records.TABLES.items()),
        *(Part(its.name, "id", its) for its in TABLES),
    ]


def begin(session: Session, *, write: bool, rehost: bool) -> Import:
    """Look at what there is. Accounts come first, and at once: running tasks are adopted by them."""
    source = Source(session)
    names = [*configs.CONFIGS, PRICES, *(part.table for part in parts())]
    totals = {name: Totals(name) for name in names}
    known = configs.known_accounts(session, source)
    configs.import_accounts(session, source, totals, write=write)
    configs.import_prices(session, source, totals[PRICES], write=write)
    context = tasks.Context(
        source=source, places=Places(configs.buckets(session, source)), accounts=known,
        charged=source.has(balances.TABLE, "credit"), write=write, rehost=rehost,
    )  # fmt: skip
    return Import(source, write, rehost, totals, context)


def is_legacy(session: Session) -> bool:
    """Whether there is anything to import at all."""
    source = Source(session)
    return any(source.has(name) for name in (*configs.CONFIGS, *(part.table for part in parts())))


def size(session: Session, run: Import) -> int:
    """How many rows the batches will go through."""
    return sum(run.source.count(session, part.table) for part in parts())


def step(session: Session, run: Import, part: Part, after: str | None) -> tuple[int, str | None]:
    """Import the next batch of a part. Returns how many rows it had, and where to go on (None: it was the last)."""
    rows = run.source.batch(session, part.table, part.key, after, BATCH)
    totals = run.totals[part.table]
    if not rows:
        return 0, None
    if part.task is not None:
        tasks.import_batch(session, part.task, rows, run.context, totals)
    elif part.table == balances.TABLE:
        balances.import_batch(session, rows, totals, write=run.write)
    else:
        records.import_batch(session, part.table, rows, totals, write=run.write)
    return len(rows), _behind(rows, part)


def _behind(rows: list[Row], part: Part) -> str | None:
    return rows[-1][part.key] if len(rows) == BATCH else None


# ---------------------------------------------------------------- proof


def check(session: Session, run: Import) -> Proof:
    """Read everything once more and compare it with what is in our tables now."""
    was_complete = completed_at(session) is not None
    proof = Proof()
    for part in parts():
        totals = run.totals[part.table]
        if totals.unaccounted():
            proof.lines.append(f"{part.table}: {totals.unaccounted()} rows are unaccounted for")
        rows = run.source.count(session, part.table)
        if rows != totals.rows:
            proof.lines.append(f"{part.table}: {rows} rows, but {totals.rows} were read; run it again")
        for found in _compared(session, run, part):
            if was_complete and part.task is None:
                proof.changed += 1
            elif len(proof.lines) < _LISTED:
                proof.lines.append(found)
    return proof


def _compared(session: Session, run: Import, part: Part) -> Iterator[str]:
    ledger = Totals(part.table)
    for rows in _batches(session, run, part):
        if part.task is not None:
            yield from tasks.contradictions(session, part.task, rows)
        elif part.table == balances.TABLE:
            yield from balances.contradictions(session, rows, ledger)
        else:
            yield from records.contradictions(session, part.table, rows)
    run.totals[part.table].sums |= ledger.sums


def _batches(session: Session, run: Import, part: Part) -> Iterator[list[Row]]:
    after: str | None = None
    while rows := run.source.batch(session, part.table, part.key, after, BATCH):
        yield rows
        session.expunge_all()
        after = _behind(rows, part)
        if after is None:
            return


# ---------------------------------------------------------------- what the operator should know


def remarks(session: Session, run: Import) -> list[str]:
    """What is not imported, and why that is well."""
    lines = []
    for table in _LEFT:
        if run.source.has(table):
            lines.append(f"{table}: {run.source.count(session, table)} rows stay where they are")
    without = _users_without_balance(session, run)
    if without:
        lines.append(
            f"users without a balance: {without} (the legacy program gave a first balance when one was needed)"
        )
    return lines


def _users_without_balance(session: Session, run: Import) -> int:
    if not run.source.has(balances.TABLE, "user_id"):
        return 0
    users = session.scalar(select(func.count()).select_from(User)) or 0
    totals = run.totals[balances.TABLE]
    return max(0, users - (totals.rows - totals.notes["of users who are gone"]))


# ---------------------------------------------------------------- complete


def complete(session: Session, run: Import) -> None:
    """Write down that all of it is here."""
    now = clock.now()
    value: dict[str, Any] = {
        "completed_at": now.isoformat(),
        "rows": {name: totals.rows for name, totals in run.totals.items() if totals.rows},
    }
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    fresh = {"value": value, "updated_at": now}
    session.execute(
        dialect.insert(AppSetting)
        .values(key=KEY, **fresh)
        .on_conflict_do_update(index_elements=[AppSetting.key], set_=fresh)
    )


def completed_at(session: Session) -> str | None:
    """When an import was complete, or None."""
    value = session.scalar(select(AppSetting.value).where(AppSetting.key == KEY))
    return str(value["completed_at"]) if value else None
