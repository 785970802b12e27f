"""The ladder: merge point → heads → head → create_all. The chain resolves the rungs beforehand; only the last
one is tried because the others failed."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from common.db import schema
from migrations import reports
from migrations.chain import Chain
from migrations.errors import MigrationError, RowsLost, SchemaConflict, is_lock_trouble, one_line
from migrations.reports import Report
from migrations.state import State, look
from migrations.target import METADATA
from migrations.transactions import attempt

log = logging.getLogger(__name__)

CREATE_ALL = "create_all"
_PATIENCE_S = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)  # between tries at a table that another session is using


@dataclass(frozen=True)
class Climb:
    """Which rung held. `error`: why the last one was needed. `degraded`: the database is not at the heads,
    or lacks columns that the models can bear to miss."""

    rung: str
    error: str | None = None
    degraded: bool = False


def climb(connection: Connection, chain: Chain, state: State, report: Report, *, fallback: bool) -> Climb:
    """Bring the database to the heads and prove it.

    Raises SchemaConflict where names are taken, RowsLost, and MigrationError or the database's own error where
    it failed; the last two with `fallback` only if the last rung failed too.
    """
    try:
        return run_chain(connection, chain, state.db, report)
    except (SchemaConflict, RowsLost):
        raise
    except Exception as error:
        if not fallback or is_lock_trouble(error) or (chain.broken and state.name != "empty"):
            raise
        log.error("the upgrade failed: %s; last rung: %s", one_line(error), CREATE_ALL)
        return _create_all(connection, chain, report.id, one_line(error))


def run_chain(connection: Connection, chain: Chain, db: Iterable[str], report: Report) -> Climb:
    """Run every revision that `db` has not behind it, and prove the result. Raises what `climb` raises."""
    if chain.broken:
        raise MigrationError(f"the revisions cannot be loaded: {chain.broken}")
    rungs = chain.rungs(db)
    chain.config.attributes["connection"] = connection
    hooks = [reports.ledger_writer(chain, report.id), reports.loss_guard(report.rows_before)]
    chain.config.attributes["on_apply"] = hooks
    with attempt(connection):
        for rung in rungs:
            _upgrade(connection, chain, rung.target)
        return Climb(rungs[-1].name, degraded=verify(connection, chain))


def _upgrade(connection: Connection, chain: Chain, target: str) -> None:
    """Run Alembic; while another session holds a lock that we need, try again, each time a little later."""
    for delay_s in _delays():
        try:
            with attempt(connection):
                command.upgrade(chain.config, target)
            return
        except sa.exc.DBAPIError as error:
            if delay_s is None or not is_lock_trouble(error):
                raise
            log.warning("another session is in the way (%s); next try in %.1f s", one_line(error), delay_s)
            time.sleep(delay_s)


def _delays() -> Iterator[float | None]:
    for seconds in _PATIENCE_S:
        yield seconds * random.uniform(0.5, 1.0)  # noqa: S311
    yield None


def verify(connection: Connection, chain: Chain) -> bool:
    """At all heads? Raises MigrationError if not. True if only columns are missing that models can bear to."""
    state = look(connection, chain)
    if state.name != "current":
        raise MigrationError(
            f"the database is at {', '.join(state.db)} after the upgrade, not at {chain.aim}"
        )
    if len(chain.heads) > 1:
        log.warning("the chain has %d heads: %s", len(chain.heads), chain.aim)
    return _is_incomplete(connection)


def broken_references(connection: Connection) -> set[tuple[object, ...]]:
    """SQLite: rows without their parent (legacy files may have some already). PostgreSQL checks by itself."""
    if connection.dialect.name != "sqlite":
        return set()
    return {tuple(row) for row in connection.exec_driver_sql("PRAGMA foreign_key_check")}


def check_references(connection: Connection, before: set[tuple[object, ...]]) -> None:
    """Raises MigrationError if more foreign keys are broken than `before`."""
    if new := broken_references(connection) - before:
        raise MigrationError(f"foreign keys were broken: {sorted(new)[:3]}")


def _is_incomplete(connection: Connection) -> bool:
    have = schema.columns(connection)
    missing = schema.missing_columns(have, METADATA)
    if fatal := schema.unbearable(missing, have, METADATA):
        raise MigrationError(f"the models need what the database lacks: {', '.join(fatal)}")
    for table, names in missing.items():
        log.warning("no revision adds %s", ", ".join(f"{table}.{name}" for name in names))
    return bool(missing)


def _create_all(connection: Connection, chain: Chain, report_id: str, error: str) -> Climb:
    with attempt(connection):
        if look(connection, chain).name == "empty":
            METADATA.create_all(connection)
            _stamp(connection, chain, report_id)
            return Climb(CREATE_ALL, error, degraded=_is_incomplete(connection))
        add_missing(connection)
        _is_incomplete(connection)
        return Climb(CREATE_ALL, error, degraded=True)


def _stamp(connection: Connection, chain: Chain, report_id: str) -> None:
    """Only for a database that create_all made from nothing: it has all that the chain would have made."""
    version = sa.Table(
        schema.VERSION_TABLE,
        sa.MetaData(),
        sa.Column("version_num", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("version_num", name=f"{schema.VERSION_TABLE}_pkc"),
    )
    version.create(connection, checkfirst=True)
    connection.execute(version.delete())
    connection.execute(version.insert(), [{"version_num": head} for head in chain.heads])
    for revision in sorted(chain.ids):
        reports.record(connection, chain, revision, 0, report_id)


def add_missing(connection: Connection) -> None:
    """Add missing tables, and missing columns that need no value in the rows that exist."""
    missing = schema.missing_columns(schema.columns(connection), METADATA)
    existing = schema.columns(connection).keys()
    METADATA.create_all(connection)
    operations = Operations(MigrationContext.configure(connection))
    for table in missing.keys() & existing:
        for name in missing[table]:
            _add_column(connection, operations, METADATA.tables[table].columns[name])


def _add_column(connection: Connection, operations: Operations, column: sa.Column[Any]) -> None:
    """A `required` one (money, security) is not invented on rows: NULL in `access_control` means everyone."""
    table = column.table
    has_rows = connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is not None
    if not column.nullable or (column.info.get("compat") == "required" and has_rows):
        log.warning("left out: %s.%s", table.name, column.name)
        return
    operations.add_column(table.name, sa.Column(column.name, column.type))
    log.info("added %s.%s", table.name, column.name)
