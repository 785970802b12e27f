"""The stand-alone recovery: make a backup, do what the plan says, prove it. What fails leaves the rest done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from common.db import schema
from common.settings import Settings
from migrations import first_run, ladder, reports, runner
from migrations.catalogue import LEFTOVER, compare
from migrations.chain import Chain
from migrations.diagnosis import Plan, diagnose
from migrations.errors import TimedOut, one_line
from migrations.exclusive import exclusive
from migrations.guard import process_name
from migrations.outcomes import Exit, Outcome
from migrations.state import State, look
from migrations.transactions import attempt, checkpoint, outside
from migrations.verify import describe, verify

log = logging.getLogger(__name__)

RUNG = "repair"


def plan(url: str, chain: Chain) -> Plan:
    """Look, without a lock. Raises SQLAlchemy's errors where the database cannot be asked."""
    engine = schema.probe(url)
    try:
        with engine.connect() as connection:
            return diagnose(connection, chain)
    finally:
        engine.dispose()


def repair(given: Settings, chain: Chain, shown: Plan) -> Outcome:
    """Do what was shown, unless the database has changed since, and verify."""
    try:
        with exclusive(given) as connection:
            outcome = _repair(connection, given, chain, shown)
    except TimedOut as error:
        return Outcome(Exit.TIMED_OUT, "timed_out", f"timed out: {error}")
    return _verified(outcome, given, chain) if outcome.code == Exit.OK else outcome


def _repair(connection: Connection, given: Settings, chain: Chain, shown: Plan) -> Outcome:
    if diagnose(connection, chain) != shown:
        return Outcome(Exit.FAILED, "changed", "failed: the database has changed meanwhile; look again")
    state = shown.state
    if shown.findings.conflicts and not state.db:  # nothing of ours is here yet to be put right
        return Outcome(Exit.REFUSED, reports.REFUSED, shown.findings.refusal())
    reports.ensure_tables(connection)
    report = reports.begin(connection, holder=process_name(), db=state.db, aim=chain.aim)
    checkpoint(connection)
    try:
        if state.name != "empty":
            runner.back_up(connection, given, state, report)
        with attempt(connection):
            line = _mend(connection, chain, shown, report)
        connection.commit()
    except Exception as error:
        return runner.failed(connection, report, error)
    return Outcome(Exit.OK, "repaired", line, report.id)


def _mend(connection: Connection, chain: Chain, shown: Plan, report: reports.Report) -> str:
    trouble = [
        *_try("leftovers", connection, lambda: _leftovers(connection, shown)),
        *_drop_indexes(connection, shown.names("drop index")),
        *(_run_chain(connection, chain, shown.state, report) if shown.names("run chain") == [""] else ()),
        *_try("tables and columns", connection, lambda: ladder.add_missing(connection)),
        *_add_indexes(connection),
    ]
    # The first run's work is only done on a schema that has its tables.
    if look(connection, chain).name == "current" and not compare(connection).tables:
        trouble += _try("first run", connection, lambda: _first_run(connection))
    rows_after = reports.count_rows(connection)
    reports.check_kept(report.rows_before, rows_after)
    error = "; ".join(trouble) or None
    verdict = reports.DEGRADED if error else reports.OK
    reports.end(connection, report, verdict, rung=RUNG, rows_after=rows_after, error=error)
    log.info(reports.kept_line(report.rows_before))
    return f"repaired, but for {error}" if error else "repaired"


def _try(what: str, connection: Connection, act: Callable[[], object]) -> list[str]:
    """All of it or nothing; why not, if it failed. A later step may do without this one."""
    try:
        with attempt(connection):
            act()
    except Exception as error:
        line = f"{what}: {one_line(error)}"
        log.error("not repaired: %s", line)
        return [line]
    return []


def _leftovers(connection: Connection, shown: Plan) -> None:
    operations = Operations(MigrationContext.configure(connection))
    for name in shown.names("rename leftover"):
        operations.rename_table(name, name.removeprefix(LEFTOVER))
        log.info("renamed %s", name)
    for name in shown.names("drop leftover"):
        operations.drop_table(name)
        log.info("dropped %s", name)


# ---------------------------------------------------------------- the chain


def _run_chain(connection: Connection, chain: Chain, state: State, report: reports.Report) -> list[str]:
    """All revisions, as if none had been applied: what they stamp is proven by then."""

    def run() -> None:
        _forget(connection, state)
        checkpoint(connection)
        ladder.run_chain(connection, chain, (), report)

    trouble = _try("the chain of revisions", connection, run)
    if trouble:
        _try("the version table", connection, lambda: _put_back(connection, chain, state))
    return trouble


def _forget(connection: Connection, state: State) -> None:
    if state.name == "foreign" and not state.db:
        connection.execute(sa.schema.DropTable(sa.Table(schema.VERSION_TABLE, sa.MetaData())))
    elif state.db:
        connection.execute(sa.delete(sa.table(schema.VERSION_TABLE)))


def _put_back(connection: Connection, chain: Chain, state: State) -> None:
    """The chain stopped before it was as far as the database had been: leave that as it was found.

    On SQLite it was undone with the rest. On PostgreSQL each revision has committed.
    """
    reached = look(connection, chain)
    if state.name in ("current", "behind") and chain.applied(reached.db) < chain.applied(state.db):
        _set_version(connection, state.db)


def _set_version(connection: Connection, revisions: Iterable[str]) -> None:
    table = sa.table(schema.VERSION_TABLE, sa.column("version_num"))
    connection.execute(table.delete())
    connection.execute(table.insert(), [{"version_num": name} for name in revisions])


# ---------------------------------------------------------------- indexes


def _drop_indexes(connection: Connection, names: list[str]) -> Iterator[str]:
    quote = connection.dialect.identifier_preparer.quote
    for name in names:
        statement = f"DROP INDEX CONCURRENTLY IF EXISTS {quote(name)}"
        yield from _try_outside(f"index {name}", connection, statement)


def _add_indexes(connection: Connection) -> Iterator[str]:
    """Those that no revision has made, nor made again."""
    for index in compare(connection).indexes:
        if connection.dialect.name == "sqlite":
            yield from _try(f"index {index.name}", connection, partial(index.create, connection))
            continue
        index.dialect_options["postgresql"]["concurrently"] = True
        create = str(sa.schema.CreateIndex(index).compile(dialect=connection.dialect))
        if trouble := _try_outside(f"index {index.name}", connection, create):
            yield from trouble
            yield from _drop_indexes(connection, [str(index.name)])  # what the failed build left
        else:
            log.info("created %s", describe(index))


def _try_outside(what: str, connection: Connection, statement: str) -> list[str]:
    """PostgreSQL: a statement that must not be in a transaction, since it blocks nobody while it works."""
    try:
        with outside(connection):
            connection.exec_driver_sql(statement)
    except sa.exc.DBAPIError as error:
        line = f"{what}: {one_line(error)}"
        log.error("not repaired: %s", line)
        return [line]
    return []


# ---------------------------------------------------------------- the end


def _first_run(connection: Connection) -> None:
    for line in first_run.prepare(connection):
        log.info(line)


def nothing_to_do(given: Settings, chain: Chain) -> Outcome:
    """The outcome where the plan is empty: what repair cannot mend may still be wrong."""
    return _verified(Outcome(Exit.OK, "whole", "nothing was done"), given, chain)


def _verified(outcome: Outcome, given: Settings, chain: Chain) -> Outcome:
    found = verify(given.database_url, chain)
    if found.is_clean:
        return Outcome(Exit.OK, outcome.state, f"{outcome.line}; {found.lines()[-1]}", outcome.report)
    told = "\n".join([f"{outcome.line}; this is left:", *found.lines()])
    return Outcome(Exit.FAILED, "incomplete", told, outcome.report)
