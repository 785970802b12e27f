"""Back to a backup: not over newer data unless forced, and never without a copy of what is replaced."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DatabaseError

from common.db import schema
from common.settings import Settings
from migrations import backup, postgres_client, reports, sqlite_file
from migrations.chain import Chain
from migrations.errors import MigrationError, Refused, TimedOut, one_line
from migrations.exclusive import exclusive
from migrations.guard import process_name
from migrations.outcomes import Exit, Outcome
from migrations.reports import Rows
from migrations.state import State, look
from migrations.target import BOOKKEEPING, METADATA

log = logging.getLogger(__name__)

RUNG = "restore"
_SAFETY, _DAMAGED = "-before-restore", "-damaged"
# The upgrade and starting processes fill these by themselves: rows in a new one are nobody's work.
_SELF_FILLED = METADATA.tables.keys() - reports.LASTING.keys()
_BOOKKEEPING = BOOKKEEPING | {schema.VERSION_TABLE}
_MOMENTS = ("created_at", "updated_at", "finished_at")
_SECONDS = 10**11  # an epoch beyond this is not in seconds: another program's own way


def restore(given: Settings, chain: Chain, path: Path, *, force: bool = False) -> Outcome:
    """Replace the database's content by that of a backup, and prove that all of it is there.

    Refused where the database has rows that the backup lacks, or where that cannot be told; with `force` those
    rows are in the safety copy only.
    """
    if not path.is_file():
        return Outcome(Exit.REFUSED, "refused", f"refused: there is no file {path}")
    try:
        return (_restore_sqlite if given.is_sqlite else _restore_postgres)(given, chain, path, force)
    except TimedOut as error:
        return Outcome(Exit.TIMED_OUT, "timed_out", f"timed out: {error}")
    except Refused as error:
        return Outcome(Exit.REFUSED, "refused", f"refused: {error}")
    except Exception as error:
        return Outcome(Exit.FAILED, "failed", f"failed: {one_line(error)}")


# ---------------------------------------------------------------- SQLite


def _restore_sqlite(given: Settings, chain: Chain, path: Path, force: bool) -> Outcome:
    target = backup.database_file(given)
    assert target is not None
    if target.exists() and target.samefile(path):
        raise Refused(f"{path} is the database itself")
    if faults := sqlite_file.faults(path):
        raise Refused(f"{path} is no sound SQLite database: {faults[0]}")
    rows = sqlite_file.count_rows(path)
    before, safety = _set_aside(given, chain, target, path, force)
    target.parent.mkdir(parents=True, exist_ok=True)
    sqlite_file.copy_in(path, target)
    _check_there(rows, sqlite_file.count_rows(target))
    if faults := sqlite_file.faults(target):
        raise MigrationError(f"after the restore: {faults[0]}")
    with exclusive(given) as connection:
        outcome = _conclude(connection, chain, path, before, safety)
        connection.commit()
    return outcome


def _set_aside(
    given: Settings, chain: Chain, target: Path, path: Path, force: bool
) -> tuple[tuple[str, ...], str | None]:
    """Keep what is there. Returns the revisions it was at, and where it is kept.

    The guard is given up again, since SQLite itself locks the file while pages are copied into it.
    """
    if not target.exists():
        return (), None
    try:
        with exclusive(given) as connection:
            state = look(connection, chain)
            _refuse_newer(connection, sqlite_file.count_rows(path), backup.taken_at(path), force=force)
            return state.db, _safety_copy(connection, given, state)
    except DatabaseError as error:
        if isinstance(error, sa.exc.OperationalError) and not _is_damage(error):
            raise
        if not force:
            raise Refused(
                f"what is there cannot be read ({one_line(error)}); --force moves it aside"
            ) from None
        return (), str(_move_aside(given, target))


def _is_damage(error: DatabaseError) -> bool:
    name = str(getattr(error.orig, "sqlite_errorname", ""))
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR"))


def _move_aside(given: Settings, target: Path) -> Path:
    place = backup.folder(given) / f"{target.stem}{_DAMAGED}-{datetime.now(UTC):%Y%m%dT%H%M%S}{target.suffix}"
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    sqlite_file.move_aside(target, place)
    log.warning("what was there cannot be read; it is kept as %s", place)
    return place


# ---------------------------------------------------------------- PostgreSQL


def _restore_postgres(given: Settings, chain: Chain, path: Path, force: bool) -> Outcome:
    if not postgres_client.is_archive(path):
        raise Refused(f"{path} was not written by `pg_dump --format=custom`: use the program that made it")
    with exclusive(given) as connection:
        client = backup.client_for(connection, given)
        rows = postgres_client.count_rows(client, path)
        state = look(connection, chain)
        _refuse_newer(connection, rows, backup.taken_at(path), force=force)
        connection.commit()
        safety = _safety_copy(connection, given, state)
        postgres_client.load(client, path)
        _check_there(rows, _count(connection, rows))
        outcome = _conclude(connection, chain, path, state.db, safety)
        connection.commit()
        return outcome


# ---------------------------------------------------------------- what both need


def _safety_copy(connection: Connection, given: Settings, state: State) -> str | None:
    if state.name == "empty":
        return None
    try:
        return backup.make(connection, given, state.db, note=_SAFETY)
    except backup.Unavailable as reason:
        raise Refused(f"no copy of what is there can be made: {reason}") from None


def _refuse_newer(connection: Connection, rows: Rows, at: datetime, *, force: bool) -> None:
    newer = [*_more_rows(_count(connection), rows), *_later_rows(connection, at)]
    if newer and not force:
        told = "; ".join(newer[:5])
        raise Refused(f"the database has newer data: {told}; --force replaces it, after a copy was made")
    for line in newer:
        log.warning("replacing newer data: %s", line)


def _more_rows(live: Rows, rows: Rows) -> Iterator[str]:
    for table, count in sorted(live.items()):
        is_ours = table in _BOOKKEEPING or (table not in rows and table in _SELF_FILLED)
        if not is_ours and count > rows.get(table, 0):
            yield f"{table} has {count} rows, the backup {rows.get(table, 0)}"


def _later_rows(connection: Connection, at: datetime) -> Iterator[str]:
    """Tables whose lasting rows were made or changed after the backup."""
    have = schema.columns(connection)
    for table in (METADATA.tables[name] for name in reports.LASTING if name in have):
        for column in (table.columns[name] for name in _MOMENTS if name in table.columns):
            if column.name in have[table.name] and _is_later(connection.scalar(select(func.max(column))), at):
                yield f"{table.name} was written to after the backup"
                break


def _is_later(value: Any, at: datetime) -> bool:
    if isinstance(value, datetime):
        return value > at
    return isinstance(value, int) and int(at.timestamp()) < value < _SECONDS


def _count(connection: Connection, names: Rows | None = None) -> Rows:
    """The rows of every table, or of those that are named."""
    there = sa.inspect(connection).get_table_names()
    tables = [sa.table(name) for name in there if names is None or name in names]
    return {table.name: connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


def _check_there(wanted: Rows, found: Rows) -> None:
    lacking = [
        f"{name}: {found.get(name, 0)} of {count}"
        for name, count in wanted.items()
        if found.get(name, 0) < count
    ]
    if lacking:
        raise MigrationError(f"the restore is incomplete: {', '.join(lacking)}")


def _conclude(
    connection: Connection, chain: Chain, path: Path, before: tuple[str, ...], safety: str | None
) -> Outcome:
    """Report it where the restored database keeps reports; a legacy one stays exactly as the backup has it."""
    state, report_id = look(connection, chain), None
    if schema.columns(connection).keys() >= BOOKKEEPING:
        aim = ",".join(state.db) or "base"
        report = reports.begin(connection, holder=process_name(), db=before, aim=aim)
        reports.note_backup(connection, report, safety)
        reports.end(connection, report, reports.OK, rung=RUNG, rows_after=report.rows_before)
        report_id = report.id
    pending = len(chain.pending(state.db)) if state.name == "behind" else 0
    told = [f"restored {path}, at {', '.join(state.db) or 'no revision'}"]
    told += [f"what was there is {safety}"] if safety else []
    told += [f"{pending} revisions are pending: `upgrade`"] if pending else []
    return Outcome(Exit.OK, "restored", "; ".join(told), report_id)
