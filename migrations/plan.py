"""What an upgrade would do: the pending revisions run under the guard, and everything is rolled back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from alembic import command
from alembic.script import Script
from sqlalchemy import Connection, event, text

from common.db import schema
from common.settings import Settings
from migrations import ladder, reports
from migrations.chain import Chain
from migrations.errors import is_lock_trouble, one_line
from migrations.exclusive import exclusive
from migrations.operations import REHEARSAL
from migrations.origin import place, raised_at
from migrations.outcomes import Exit, settled
from migrations.preflight import Findings, preflight
from migrations.state import State, look

# What others cannot do to a table while we hold such a lock; weaker ones hinder nobody.
BLOCKS = {
    "AccessExclusiveLock": "reads and writes",
    "ExclusiveLock": "writes",
    "ShareRowExclusiveLock": "writes",
    "ShareLock": "writes",
    "ShareUpdateExclusiveLock": "nothing but other changes of the schema",
}
_SILENT = ("SELECT", "PRAGMA", "SHOW")
_LOCKS = text(
    "SELECT c.relname, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
    " WHERE l.pid = pg_backend_pid() AND l.granted AND c.relkind IN ('r', 'p') AND c.oid = ANY(:known)"
)
_TABLES = text(
    "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
)


@dataclass(frozen=True)
class Lock:
    """A lock on a table that was there before, and what it keeps others from."""

    table: str
    mode: str
    blocks: str


@dataclass(frozen=True)
class Statement:
    """One statement of a revision. `ms` is None for what cannot be tried in a transaction (CONCURRENTLY)."""

    sql: str
    ms: float | None
    locks: list[Lock]

    def lines(self) -> Iterator[str]:
        took = (
            f"  -- {self.ms:.1f} ms" if self.ms is not None else "  -- not tried: runs outside a transaction"
        )
        yield f"  {self.sql};{took}"
        for lock in self.locks:
            yield f"      locks {lock.table}: {lock.mode}, blocks {lock.blocks}"


@dataclass(frozen=True)
class Step:
    """A pending revision."""

    revision: str
    message: str
    statements: list[Statement] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        yield f"{self.revision}, {self.message}"
        for statement in self.statements:
            yield from statement.lines()
        if not self.statements:
            yield "  nothing to do"


@dataclass(frozen=True)
class Plan:
    """What an upgrade would do. `error`: why it would fail; then the steps end at the revision that does."""

    state: str
    steps: list[Step]
    error: str | None = None
    findings: Findings = field(default_factory=Findings)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        told = self.findings.lines() + [line for step in self.steps for line in step.lines()]
        if self.error:
            return [*told, self.error]
        return told or [f"{self.state}: nothing is pending"]


def plan(given: Settings, chain: Chain) -> Plan:
    """Rehearse. Whoever wants to upgrade waits meanwhile, and a table that is in use stops it after two seconds.

    Raises TimedOut when another process keeps the guard, SQLAlchemy's errors where the database cannot be asked.
    """
    with schema.probe(given.database_url).connect() as connection:
        state = look(connection, chain)
    if chain.broken:
        return Plan(state.name, [], f"would fail: the revisions cannot be loaded: {chain.broken}")
    outcome = settled(state, chain)
    if outcome is not None or not chain.pending(state.db):
        return Plan(state.name, [], outcome.line if outcome and outcome.code != Exit.OK else None)
    with exclusive(given) as connection:
        state = look(connection, chain)  # somebody may have upgraded until it was our turn
        findings = preflight(connection)
        if findings.conflicts:
            return Plan(state.name, [], "would be refused, and nothing changed", findings)
        return replace(_rehearse(connection, chain, state), findings=findings)


def _rehearse(connection: Connection, chain: Chain, state: State) -> Plan:
    """Alembic joins the transaction that is under way, so it commits nothing; leaving the guard undoes it all."""
    pending = chain.pending(state.db)
    witness = _Witness(connection, chain, pending)
    reports.ensure_tables(connection)
    rows, broken = reports.count_rows(connection), ladder.broken_references(connection)
    chain.config.attributes["connection"] = connection
    chain.config.attributes["on_apply"] = [witness.note_end, reports.loss_guard(rows)]
    chain.config.attributes[REHEARSAL] = witness.note_untried
    try:
        with witness:
            command.upgrade(chain.config, "heads")
        ladder.verify(connection, chain)
        reports.check_kept(rows, reports.count_rows(connection))
        ladder.check_references(connection, broken)
    except Exception as error:  # a revision is Python: anything may come out of it
        return Plan(state.name, witness.steps_until(error), _told(error, witness.folder))
    finally:
        del chain.config.attributes[REHEARSAL]
    return Plan(state.name, list(witness.steps.values()))


def _told(error: Exception, folder: Path) -> str:
    if is_lock_trouble(error):
        return f"not tried to the end, another session is in the way: {one_line(error)}"
    found = raised_at(error, folder)
    where = f"{found.path.name}:{found.line}: " if found else ""
    return f"would fail: {where}{one_line(error)}"


class _Witness:
    """Sees every statement that a revision runs, how long it takes and what it newly locks."""

    def __init__(self, connection: Connection, chain: Chain, pending: list[Script]) -> None:
        self.folder = Path(chain.script.dir) / "versions"
        self.steps = {script.revision: Step(script.revision, script.doc) for script in pending}
        self._connection = connection
        self._revisions = {path: revision for revision, path in chain.files.items()}
        self._ended: set[str] = set()
        self._known: list[int] = []
        self._held: set[tuple[str, str]] = set()
        self._is_asking = False
        self._began = 0.0

    def __enter__(self) -> _Witness:
        if self._connection.dialect.name == "postgresql":
            self._known = list(self._connection.scalars(_TABLES))
            self._held = self._locks()
        event.listen(self._connection, "before_cursor_execute", self._before)
        event.listen(self._connection, "after_cursor_execute", self._after)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(self._connection, "before_cursor_execute", self._before)
        event.remove(self._connection, "after_cursor_execute", self._after)

    def steps_until(self, error: Exception) -> list[Step]:
        """Those that ended, and the one that the error came out of."""
        found = raised_at(error, self.folder)
        reached = self._ended | ({self._revisions.get(found.path, "")} if found else set())
        return [step for step in self.steps.values() if step.revision in reached]

    def note_end(self, *, step: Any, **_: Any) -> None:
        """Alembic's `on_version_apply` hook."""
        self._ended.add(step.up_revision_id)

    def note_untried(self, sql: str) -> None:
        """What an operation would do outside a transaction."""
        if (found := place(self.folder)) is not None:
            table = sql.partition(" ON ")[2].partition(" ")[0].strip('"')
            mode = "ShareUpdateExclusiveLock"
            locks = [Lock(table, mode, BLOCKS[mode])] if table else []
            self._note(found.path, Statement(_one_line(sql), None, locks))

    def _before(self, *_: object) -> None:
        if not self._is_asking:
            self._began = time.perf_counter()

    def _after(self, _connection: object, _cursor: object, sql: str, *_: object) -> None:
        found = None if self._is_asking or sql.lstrip().upper().startswith(_SILENT) else place(self.folder)
        if found is None:
            return
        ms = round((time.perf_counter() - self._began) * 1000, 1)
        now = self._locks()
        new = [Lock(table, mode, BLOCKS[mode]) for table, mode in sorted(now - self._held) if mode in BLOCKS]
        self._held |= now
        self._note(found.path, Statement(_one_line(sql), ms, new))

    def _note(self, path: Path, statement: Statement) -> None:
        if (step := self.steps.get(self._revisions.get(path, ""))) is not None:
            step.statements.append(statement)

    def _locks(self) -> set[tuple[str, str]]:
        if self._connection.dialect.name != "postgresql":
            return set()
        self._is_asking = True
        try:
            found = self._connection.execute(_LOCKS, {"known": self._known})
            return {(table, mode) for table, mode in found}
        finally:
            self._is_asking = False


def _one_line(sql: str) -> str:
    return " ".join(sql.split())
