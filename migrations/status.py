"""What `status`, `current`, `history` and `pending` show. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from alembic.script import Script
from alembic.util import to_tuple
from sqlalchemy import Row

from common import clock
from common.db import schema
from migrations import ledger, reports
from migrations.chain import Chain
from migrations.preflight import Findings, preflight
from migrations.state import State, look
from migrations.target import METADATA

_REPORTS = 5


@dataclass(frozen=True)
class Revision:
    """One revision, as the lists show it. `message` is empty where this code does not know it."""

    revision: str
    parents: list[str]
    message: str
    marks: list[str]  # (head), (current), (merge point), (changed since it was applied)
    applied_at: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        parents = ", ".join(self.parents) or "<base>"
        told = " ".join(f"({mark})" for mark in self.marks)
        applied = f"  {self.applied_at}" if self.applied_at else ""
        return f"{parents} -> {self.revision} {told}, {self.message}{applied}".replace(" ,", ",")


@dataclass(frozen=True)
class Status:
    """Everything about one database at one moment."""

    state: str
    db: list[str]
    code: list[str]
    pending: list[str]
    prepared: bool
    missing: dict[str, list[str]]
    findings: Findings
    holder: str | None
    remarks: list[dict[str, Any]]
    reports: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        told = [
            f"state     {self.state}",
            f"database  {', '.join(self.db) or '-'}",
            f"code      {', '.join(self.code)}",
            f"pending   {len(self.pending)}{': ' if self.pending else ''}{', '.join(self.pending)}",
        ]
        told += [f"missing   {table}: {', '.join(names)}" for table, names in self.missing.items() if self.db]
        told += self.findings.lines()
        told += [f"upgrading {self.holder}"] if self.holder else []
        told += [f"{remark['kind']:<9} {remark['line']}" for remark in self.remarks]
        return told + [f"run       {_report_line(report)}" for report in self.reports]


def _report_line(report: dict[str, Any]) -> str:
    way = f"{report['from_revision'] or 'base'} -> {report['to_revision']}"
    trouble = f": {report['error']}" if report["error"] else ""
    took = f"{report['duration_s']} s" if report["duration_s"] is not None else "…"
    kept = f", backup {report['backup']}" if report["backup"] else ""
    return f"{report['started_at']} {report['verdict']} {way} by {report['holder']} in {took}{kept}{trouble}"


def status(url: str, chain: Chain) -> Status:
    """Raises SQLAlchemy's errors where the database cannot be asked."""
    with schema.probe(url).connect() as connection:
        state = look(connection, chain)
        holder = schema.holder(connection)
        return Status(
            state=state.name,
            db=list(state.db),
            code=list(chain.heads),
            pending=[script.revision for script in _pending(state, chain)],
            prepared=state.prepared,
            missing=schema.missing_columns(schema.columns(connection), METADATA),
            findings=preflight(connection),
            holder=holder.name if holder else None,
            remarks=[item.as_json() for item in ledger.remarks(state, ledger.read(connection), chain)],
            reports=[_plain(report) for report in reports.last(connection, _REPORTS)],
        )


def current(url: str, chain: Chain) -> list[Revision]:
    """What the version table names."""
    with schema.probe(url).connect() as connection:
        state = look(connection, chain)
        known = {script.revision: script for script in chain.revisions}
        found = ledger.read(connection)
        return [
            _revision(known[name], chain, state, found) if name in known else _unknown(name, found)
            for name in state.db
        ]


def history(url: str, chain: Chain) -> list[Revision]:
    """The whole chain."""
    return _listed(url, chain, lambda _: chain.revisions)


def pending(url: str, chain: Chain) -> list[Revision]:
    """What an upgrade would apply."""
    return _listed(url, chain, lambda state: _pending(state, chain))


def _listed(url: str, chain: Chain, choose: Any) -> list[Revision]:
    with schema.probe(url).connect() as connection:
        state, found = look(connection, chain), ledger.read(connection)
    return [_revision(script, chain, state, found) for script in choose(state)]


def _pending(state: State, chain: Chain) -> Iterable[Script]:
    return [] if state.name in ("ahead", "foreign") else chain.pending(state.db)


def _revision(script: Script, chain: Chain, state: State, found: ledger.Ledger) -> Revision:
    name, line = script.revision, found.get(script.revision)
    marks = {
        "head": name in chain.heads,
        "current": name in state.db,
        "merge point": script.is_merge_point,
        "file changed since": ledger.is_edited(name, found, chain),
    }
    return Revision(
        revision=name,
        parents=list(to_tuple(script.down_revision, default=())),
        message=script.doc,
        marks=[mark for mark, holds in marks.items() if holds],
        applied_at=clock.iso(line.applied_at) if line else None,
    )


def _unknown(name: str, found: ledger.Ledger) -> Revision:
    line = found.get(name)
    mark = "of a later release" if line else "unknown"
    return Revision(name, [], "", ["current", mark], clock.iso(line.applied_at) if line else None)


def _plain(report: Row[Any]) -> dict[str, Any]:
    values = report._asdict()
    return {
        name: clock.iso(value) if isinstance(value, datetime) else value for name, value in values.items()
    }
