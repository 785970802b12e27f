"""Is the database whole? Asked without compat, which would hide what is looked for. Nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, func, select, text
from sqlalchemy.orm import Session

from common.db import schema
from common.db.types import Base
from migrations import ledger, reports
from migrations.catalogue import Gaps, compare
from migrations.chain import Chain
from migrations.errors import one_line
from migrations.state import State, look
from migrations.target import METADATA, MODELS

SAMPLE = 50  # rows read at each end of every table
_PATIENCE_MS = 900_000
_MONEY = {"credit_account", "ledger_entry", "job"}
# Users may delete these themselves, so that fewer than after the last upgrade mean nothing.
_DELETABLE = {"tool", "group"}


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, in one sentence; `kind` is for machines."""

    kind: str
    line: str


@dataclass(frozen=True)
class Verification:
    """What `verify` found. `notes` are no faults."""

    state: str
    findings: list[Finding]
    notes: list[str]
    rows: dict[str, int]
    models: int  # how many were read

    @property
    def is_clean(self) -> bool:
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        found = [{"kind": item.kind, "line": item.line} for item in self.findings]
        return {
            "clean": self.is_clean,
            "state": self.state,
            "findings": found,
            "notes": self.notes,
            "rows": self.rows,
            "models": self.models,
        }

    def lines(self) -> list[str]:
        told = [f"{item.kind}: {item.line}" for item in self.findings] + [
            f"note: {line}" for line in self.notes
        ]
        counted = ", ".join(f"{name} {count}" for name, count in self.rows.items())
        end = "clean" if self.is_clean else f"{len(self.findings)} findings"
        return [
            *told,
            f"{end}: {self.state}, {self.models} of {len(MODELS)} models read, rows: {counted or '-'}",
        ]


def verify(url: str, chain: Chain) -> Verification:
    """Look at everything. Raises SQLAlchemy's errors where the database cannot be asked at all."""
    engine = schema.probe(url)
    try:
        with engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SET statement_timeout = {_PATIENCE_MS}"))
            return examine(connection, chain)
    finally:
        engine.dispose()


def examine(connection: Connection, chain: Chain) -> Verification:
    """`verify`, asked over a connection that is there already."""
    state, gaps = look(connection, chain), compare(connection)
    remarks = ledger.remarks(state, ledger.read(connection), chain)
    incomplete = set(gaps.tables) | {column.table.name for column in gaps.columns}
    whole = [model for model in MODELS if model.__tablename__ not in incomplete]
    counts, uncounted = _count(connection)
    fewer = [] if uncounted else list(_fewer_rows(connection, counts))
    findings = [
        *_standing(state, chain),
        *(Finding(item.kind, item.line) for item in remarks if item.is_fault),
        *_gaps(gaps),
        *_bravely("damaged", lambda: _pages(connection)),
        *uncounted,
        *(item for model in whole for item in _readable(connection, model)),
        *_bravely("unreadable", lambda: _orphans(connection, gaps)),
        *(Finding("rows", line) for table, line in fewer if table not in _DELETABLE),
        *([] if _MONEY & incomplete else _bravely("credits", lambda: _credits(connection))),
    ]
    notes = [item.line for item in remarks if not item.is_fault]
    notes += [line for table, line in fewer if table in _DELETABLE]
    return Verification(state.name, findings, notes, counts, len(whole))


def _bravely(kind: str, look_at: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What a check finds; one that the damage itself stops is a finding, and the next one goes on."""
    try:
        return list(look_at())
    except sa.exc.DBAPIError as error:
        return [Finding(kind, one_line(error))]


def _count(connection: Connection) -> tuple[dict[str, int], list[Finding]]:
    counts: dict[str, int] = {}
    trouble = _bravely("unreadable", lambda: counts.update(reports.count_rows(connection)) or ())
    return counts, trouble


def _standing(state: State, chain: Chain) -> Iterator[Finding]:
    if state.name == "empty":
        yield Finding("empty", "there are no tables: `upgrade` makes them")
    elif state.name == "behind":
        names = [script.revision for script in chain.pending(state.db)]
        yield Finding("behind", f"`upgrade` has work to do: {', '.join(names) or 'overlapping revisions'}")
    elif state.name == "current" and not state.prepared:
        yield Finding("unprepared", "the first run was not completed: `upgrade` does it")


def _gaps(gaps: Gaps) -> Iterator[Finding]:
    for name in gaps.tables:
        yield Finding("missing table", name)
    for column in gaps.columns:
        yield Finding("missing column", f"{column.table.name}.{column.name}")
    for index in gaps.indexes:
        yield Finding("missing index", describe(index))
    for line in gaps.contradictions:
        yield Finding("contradiction", line)
    for name, table in gaps.invalid_indexes:
        yield Finding("invalid index", f"{name} on {table}: an interrupted build left it, nothing uses it")
    for name in gaps.leftovers:
        yield Finding("leftover", f"{name}: an interrupted rebuild of a table left it")


def describe(index: sa.Index) -> str:
    """E.g. `ix_job_parent_id on job (parent_id)`."""
    assert index.table is not None
    return f"{index.name} on {index.table.name} ({', '.join(column.name for column in index.columns)})"


def _pages(connection: Connection) -> Iterator[Finding]:
    """SQLite: is every page in order?"""
    if connection.dialect.name == "sqlite":
        for (line,) in connection.exec_driver_sql("PRAGMA integrity_check(20)"):
            if line != "ok":
                yield Finding("damaged", str(line))


def _readable(connection: Connection, model: type[Base]) -> Iterator[Finding]:
    """Read both ends of a table as the application would, every column of it."""
    key = sa.inspect(model).primary_key
    for ends in (key, [column.desc() for column in key]):
        try:
            with Session(connection) as session:
                session.scalars(select(model).order_by(*ends).limit(SAMPLE)).all()
        except Exception as error:  # a value that its type cannot read may raise anything
            yield Finding("unreadable", f"{model.__tablename__}: {one_line(error)}")
            return


def _orphans(connection: Connection, gaps: Gaps) -> Iterator[Finding]:
    """Rows whose parent is gone: a table that was filled or rebuilt with foreign keys off may have some."""
    lacking = {(column.table.name, column.name) for column in gaps.columns}
    keys = [key for table in METADATA.sorted_tables for key in table.foreign_keys]
    for child, parent in ((key.parent, key.column) for key in keys):
        ends = {(end.table.name, end.name) for end in (child, parent)}
        if ends & lacking or {name for name, _ in ends} & set(gaps.tables):
            continue
        is_there = select(sa.literal(1)).where(parent == child).correlate(child.table).exists()
        lost = connection.scalar(
            select(func.count()).select_from(child.table).where(child.is_not(None), ~is_there)
        )
        if lost:
            yield Finding(
                "orphans", f"{lost} rows of {child.table.name} have no {parent.table.name} ({child.name})"
            )


def _fewer_rows(connection: Connection, counts: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Tables with fewer rows than the last report counted."""
    for report in reports.last(connection, 20):
        if report.rows_after is not None:
            for table, before in report.rows_after.items():
                if counts.get(table, 0) < before:
                    yield (
                        table,
                        f"{table} has {counts.get(table, 0)} rows, {before} after the last upgrade ({report.id})",
                    )
            return


def _credits(connection: Connection) -> Iterator[Finding]:
    # Imported late: no revision may depend on the services of the present code.
    from common.services import credits

    with Session(connection) as session:
        for line in credits.verify(session):
            yield Finding("credits", line)
