"""Copies of a SQLite database, out of it and back into it, by SQLite's own backup API.

It copies pages under SQLite's locks, so others may go on reading and writing, and a copy interrupted anywhere
leaves its target as it was. https://www.sqlite.org/backup.html
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from migrations.errors import MigrationError

_PAGES = 2048  # copied in one go; between two of them a signal is heard
_RETRY_S = 0.05
_BUSY_S = 30.0
_COMPANIONS = ("", "-wal", "-shm", "-journal")


def copy_out(path: Path, target: Path) -> None:
    """Write the present content to `target`, one file that needs no companions."""
    with _opened(path, "rw") as source, _opened(target, "rwc") as copy:
        source.execute("BEGIN")  # one snapshot, however long it takes: or each commit would start us anew
        source.execute("SELECT count(*) FROM sqlite_master")
        source.backup(copy, pages=_PAGES)
        copy.execute("PRAGMA journal_mode=DELETE")
    with target.open("rb") as written:
        os.fsync(written.fileno())


def copy_in(backup: Path, path: Path) -> None:
    """Replace the content of the database at `path`, in one transaction, whoever else has it open.

    Raises MigrationError when nobody lets us write for half a minute, sqlite3.DatabaseError when what is at
    `path` is no database.
    """
    end = time.monotonic() + _BUSY_S

    def patiently(status: int, _remaining: int, _total: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > end:
            raise MigrationError(f"another process has been writing to {path.name} for {_BUSY_S:g} s")

    with _opened(backup, "ro") as source, _opened(path, "rwc", timeout_s=0) as target:
        source.backup(target, pages=_PAGES, progress=patiently, sleep=_RETRY_S)


def move_aside(path: Path, target: Path) -> None:
    """Keep a file that is no database any more, with what belongs to it."""
    for companion in _COMPANIONS:
        there = path.with_name(path.name + companion)
        if there.exists():
            there.rename(target.with_name(target.name + companion))


def count_rows(path: Path) -> dict[str, int]:
    """The rows of every table. Raises sqlite3.DatabaseError where they cannot be read."""
    with _opened(path, "ro") as connection:
        found = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
        names = [name for (name,) in found]
        return {name: _count(connection, name) for name in names}


def _count(connection: sqlite3.Connection, table: str) -> int:
    quoted = table.replace('"', '""')
    return int(connection.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])  # noqa: S608 - quoted


def faults(path: Path) -> list[str]:
    """What SQLite's integrity check says about the file; empty when it is sound."""
    try:
        with _opened(path, "ro") as connection:
            lines = [str(line) for (line,) in connection.execute("PRAGMA integrity_check(20)")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [line for line in lines if line != "ok"]


@contextmanager
def _opened(path: Path, mode: str, *, timeout_s: float = 5) -> Iterator[sqlite3.Connection]:
    where = f"file:{quote(str(path))}?mode={mode}"
    connection = sqlite3.connect(where, uri=True, isolation_level=None, timeout=timeout_s)
    try:
        yield connection
    finally:
        connection.close()
