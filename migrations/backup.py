"""Backups: one file each, complete or not there at all, named by database, time and revision; the last few are kept."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from common import clock
from common.settings import Settings
from migrations import postgres_client, sqlite_file
from migrations.errors import MigrationError, Refused

log = logging.getLogger(__name__)

KEPT = 5
BY_COMMAND = "MIGRATION_BACKUP_CMD"  # what a report names when that command kept the backup elsewhere

_ABANDONED_S = 3600.0  # a file that has been unfinished for so long belongs to nobody
_NAME = re.compile(r"(?P<database>.+)-(?P<at>\d{8}T\d{6}\.\d{3}Z)-(?P<revision>.+)\.(db|dump)")
_MOMENT = "%Y%m%dT%H%M%S"


class Unavailable(Exception):
    """This machine has nothing that could make a backup of this database."""


def before_change(connection: Connection, given: Settings, db: tuple[str, ...]) -> str | None:
    """Make a backup as MIGRATION_BACKUP says, and name it; None where it is off or cannot be made.

    Raises Refused where it is required and cannot be made, MigrationError where making it failed.
    """
    if given.migration_backup == "off":
        log.info("no backup: MIGRATION_BACKUP=off")
        return None
    try:
        made = make(connection, given, db)
    except Unavailable as reason:
        if given.migration_backup == "required":
            raise Refused(f"MIGRATION_BACKUP=required, but {reason}") from None
        log.warning("no backup: %s", reason)
        return None
    except MigrationError as error:
        raise MigrationError(f"{error} (MIGRATION_BACKUP=off goes on without one)") from None
    prune(given)
    return made


def make(connection: Connection, given: Settings, db: tuple[str, ...], *, note: str = "") -> str:
    """Make a backup of the database that `connection` leads to.

    `db`: the revisions it is at; `note` is added to the name. Raises Unavailable, or MigrationError where it failed.
    """
    kind, write = _writer(connection, given)
    target = folder(given) / _name(given, db, note, kind)
    began = time.monotonic()
    draft = _draft(target)
    try:
        write(draft)
        if draft.stat().st_size == 0:
            return BY_COMMAND
        draft.rename(target)
    except OSError as error:
        raise MigrationError(f"the backup failed: {error.strerror}") from None
    except Exception as error:
        raise MigrationError(f"the backup failed: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    size_mb = target.stat().st_size / 1e6
    log.info("backup: %s (%.1f MB in %.1f s)", target, size_mb, time.monotonic() - began)
    return str(target)


def folder(given: Settings) -> Path:
    """`backups` beside a SQLite file, `data/backups` for PostgreSQL."""
    path = database_file(given)
    return (path.parent if path else Path("data")) / "backups"


def database_file(given: Settings) -> Path | None:
    """The SQLite file; None on PostgreSQL."""
    return Path(make_url(given.database_url).database or "") if given.is_sqlite else None


def taken_at(path: Path) -> datetime:
    """When a backup was made: what its name says, else when it was last written."""
    if match := _NAME.fullmatch(path.name):
        day, _, millis = match["at"].rstrip("Z").partition(".")
        return datetime.strptime(day, _MOMENT).replace(microsecond=int(millis) * 1000, tzinfo=UTC)
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def revision_in(path: Path) -> str | None:
    """The revision that a backup's name tells."""
    match = _NAME.fullmatch(path.name)
    return match["revision"] if match else None


def _name(given: Settings, db: tuple[str, ...], note: str, kind: str) -> str:
    moment = clock.now()
    at = f"{moment:{_MOMENT}}.{moment.microsecond // 1000:03}Z"
    revision = re.sub(r"[^\w+.]", "_", "+".join(db) or "base")[:80]
    return f"{_database(given)}-{at}-{revision}{note}.{kind}"


def _database(given: Settings) -> str:
    name = make_url(given.database_url).database or "database"
    return re.sub(r"[^\w.]", "_", Path(name).stem)[:60]


def _writer(connection: Connection, given: Settings) -> tuple[str, Callable[[Path], None]]:
    """The kind of file, and what writes it."""
    if (path := database_file(given)) is not None:
        return "db", lambda target: sqlite_file.copy_out(path, target)
    if given.migration_backup_cmd:
        return "dump", lambda target: _run_command(given, target)
    version = _server_version(connection)
    client = postgres_client.find(given.database_url, version)
    if client is None:
        raise Unavailable(f"there is no pg_dump for PostgreSQL {version} here, and no MIGRATION_BACKUP_CMD")
    return "dump", lambda target: postgres_client.dump(client, target)


def _server_version(connection: Connection) -> int:
    number = connection.scalar(text("SHOW server_version_num"))
    connection.rollback()  # nothing may stay open while the dump runs
    return int(str(number)) // 10000


def client_for(connection: Connection, given: Settings) -> postgres_client.Client:
    """PostgreSQL's programs for this server. Raises MigrationError where they are missing."""
    version = _server_version(connection)
    client = postgres_client.find(given.database_url, version)
    if client is None:
        raise MigrationError(f"there is no pg_restore for PostgreSQL {version} here")
    return client


def _run_command(given: Settings, target: Path) -> None:
    """Let a shell run the operator's command: it writes to $BACKUP_FILE, or keeps the backup elsewhere."""
    environment = postgres_client.environment(given.database_url) | {"BACKUP_FILE": str(target.resolve())}
    try:
        postgres_client.run(["/bin/sh", "-c", given.migration_backup_cmd], environment)
    except MigrationError as error:
        raise MigrationError(str(error).replace("sh failed", f"{BY_COMMAND} failed", 1)) from None


def _draft(target: Path) -> Path:
    """An empty file beside the target that only we can read."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = target.with_name(f".{target.name}.partial")
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise MigrationError(f"the backup failed: {target.parent}: {error.strerror}") from None
    return draft


def prune(given: Settings) -> None:
    """Remove the oldest beyond KEPT, and what was never finished.

    Those that have a newer one of the same revision go first, so that an upgrade that fails on every restart
    does not push out the last backup of the release before.
    """
    mine = sorted(path for path in folder(given).iterdir() if _is_of(path, given))
    newest = {revision_in(path): path for path in mine}
    for path in sorted(mine, key=lambda path: newest[revision_in(path)] == path)[: max(0, len(mine) - KEPT)]:
        log.info("backup removed: %s", path)
        _remove(path)
    for draft in folder(given).glob(f".{_database(given)}-*.partial"):
        with contextlib.suppress(OSError):
            if draft.stat().st_mtime < clock.epoch() - _ABANDONED_S:
                _remove(draft)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _is_of(path: Path, given: Settings) -> bool:
    match = _NAME.fullmatch(path.name)
    return match is not None and match["database"] == _database(given)
