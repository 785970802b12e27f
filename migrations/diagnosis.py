"""What is wrong with a database, and what `repair` would do about it. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Connection, func, select

from common.db import schema
from migrations import ledger
from migrations.catalogue import LEFTOVER, Gaps, compare
from migrations.chain import Chain
from migrations.preflight import Findings, preflight
from migrations.state import State, look
from migrations.target import METADATA
from migrations.verify import describe

Kind = Literal[
    "rename leftover", "drop leftover", "drop index", "forget revision", "run chain",
    "add table", "add column", "add index", "first run",
]  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One thing that `repair` does. `name`: of the table, column, index or revision."""

    kind: Kind
    name: str
    line: str


@dataclass(frozen=True)
class Plan:
    """What `repair` does, in this order, and what it leaves to a human."""

    state: State
    steps: list[Step]
    left: list[str]
    findings: Findings = field(default_factory=Findings)

    def names(self, kind: Kind) -> list[str]:
        return [step.name for step in self.steps if step.kind == kind]

    def as_json(self) -> dict[str, Any]:
        return {
            "state": self.state.name,
            "plan": [asdict(step) for step in self.steps],
            "left": self.left,
            "findings": self.findings.as_json(),
        }

    def lines(self) -> list[str]:
        told = [f"{number}. {step.line}" for number, step in enumerate(self.steps, 1)]
        left = dict.fromkeys([*self.left, *self.findings.conflicts])  # a conflict may be in both
        told = told or ["there is nothing to repair"]
        return [*told, *(f"left alone: {line}" for line in left), *self.findings.differing()]


def diagnose(connection: Connection, chain: Chain) -> Plan:
    """Look at everything that `repair` knows how to mend."""
    state, gaps = look(connection, chain), compare(connection)
    remarks = ledger.remarks(state, ledger.read(connection), chain)
    leftovers, strange_leftovers = _leftovers(connection, gaps)
    rerun = _reasons_to_run_the_chain(state, gaps, remarks, chain)
    steps = [
        *leftovers,
        *(
            Step("drop index", name, f"drop the index {name} of {table}, whose build was interrupted")
            for name, table in gaps.invalid_indexes
            if table in METADATA.tables
        ),
        *(_run_chain(state, rerun) if rerun else ()),
        *_additions(connection, gaps, leftovers),
        *([Step("first run", "", "complete the first run")] if _is_unprepared(state, rerun) else []),
    ]
    left = [*strange_leftovers, *gaps.contradictions, *_beyond_repair(gaps)]
    left += [item.line for item in remarks if item.kind in ("broken chain", "missing file")]
    left += [
        f"the invalid index {name} on {table}, which another program made"
        for name, table in gaps.invalid_indexes
        if table not in METADATA.tables
    ]
    return Plan(state, steps, left, preflight(connection))


def _leftovers(connection: Connection, gaps: Gaps) -> tuple[list[Step], list[str]]:
    """Tables that an interrupted rebuild left: their rows are copies, unless the original is gone or has fewer."""
    steps, strange = [], []
    for name in gaps.leftovers:
        table = name.removeprefix(LEFTOVER)
        if table not in METADATA.tables:
            strange.append(f"the table {name}: its owner is another program")
        elif table in gaps.tables:
            line = f"rename {name} to {table}: the rebuild was interrupted after the original was dropped"
            steps.append(Step("rename leftover", name, line))
        elif _rows(connection, name) <= _rows(connection, table):
            line = f"drop {name}: the rebuild was interrupted before the original was dropped"
            steps.append(Step("drop leftover", name, line))
        else:
            strange.append(f"the table {name}: it has rows that {table} lacks")
    return steps, strange


def _rows(connection: Connection, name: str) -> int:
    return connection.scalar(select(func.count()).select_from(sa.table(name))) or 0


def _reasons_to_run_the_chain(
    state: State, gaps: Gaps, remarks: list[ledger.Remark], chain: Chain
) -> list[str]:
    """Every revision looks before it acts, so that running them all again proves what the version table says."""
    if chain.broken or state.name == "ahead":
        return []
    reasons = []
    if state.name in ("behind", "empty"):
        reasons.append("the database is behind")
    if state.name == "foreign":
        reasons.append("nobody knows its revision")
    if gaps.tables or gaps.columns:
        reasons.append("tables or columns are missing")
    if any(item.kind == "edited" for item in remarks):
        reasons.append("files of applied revisions were changed")
    if any(item.kind == "unrecorded" for item in remarks):
        reasons.append("the ledger is incomplete")
    return reasons


def _run_chain(state: State, reasons: list[str]) -> Iterator[Step]:
    for name in state.db:
        yield Step("forget revision", name, f"forget that {schema.VERSION_TABLE} says {name}")
    if state.name == "foreign" and not state.db:
        yield Step("forget revision", "", f"drop {schema.VERSION_TABLE}, which has another shape")
    yield Step("run chain", "", f"run every revision, each of which looks first ({'; '.join(reasons)})")


def _additions(connection: Connection, gaps: Gaps, leftovers: list[Step]) -> Iterator[Step]:
    renamed = {step.name.removeprefix(LEFTOVER) for step in leftovers if step.kind == "rename leftover"}
    for name in gaps.tables:
        if name not in renamed:
            yield Step("add table", name, f"create the table {name}")
    for column in gaps.columns:
        if column.nullable:
            name = f"{column.table.name}.{column.name}"
            yield Step("add column", name, f"add the column {name}")
    for index in gaps.indexes:
        yield Step("add index", str(index.name), f"create the index {describe(index)}")


def _is_unprepared(state: State, rerun: list[str]) -> bool:
    return not state.prepared and (state.name == "current" or bool(rerun))


def _beyond_repair(gaps: Gaps) -> Iterator[str]:
    for column in gaps.columns:
        if not column.nullable:
            name = f"{column.table.name}.{column.name}"
            yield f"{name} is missing and must have a value in every row, which only a backup knows: `restore`"
