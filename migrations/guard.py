"""The guard: a lock in the database itself, on the very connection that does the DDL. It makes upgrades safe.

PostgreSQL: a session-level advisory lock. If the connection dies, lock and DDL die together. It is polled
for, because a session blocked in `pg_advisory_lock` holds a snapshot that CREATE INDEX CONCURRENTLY would wait
for. SQLite: one `BEGIN IMMEDIATE` around the whole upgrade, so that a killed one leaves the file as it was.

While a guard is held, its pulse shows the others that the holder is alive: a second connection, or a file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import time
from typing import Any, NoReturn, Protocol

from sqlalchemy import Connection, Engine, NullPool, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError

from common.db import schema
from migrations.blockers import blockers
from migrations.errors import MigrationError, TimedOut, is_busy
from migrations.threads import Repeating

log = logging.getLogger(__name__)

PULSE_S = 1.0
POLL_S = 0.2
LIMITS = {
    "lock_timeout": "2s",  # whoever queues behind us waits as long; then it is their turn, and we try again
    "statement_timeout": "15min",
    "idle_in_transaction_session_timeout": "10min",
}
_COMMIT_TIMEOUT_MS = 30_000


class Guard(Protocol):
    """Exclusive right to change one database's schema."""

    def take(self) -> Connection | None:
        """The connection to upgrade on, or None while somebody else has the guard. Never waits."""

    def release(self) -> None:
        """Give up the guard and everything not committed."""


def process_name() -> str:
    """This process as others see it, e.g. `web-3:4711`; short enough for PostgreSQL's application_name."""
    return f"{socket.gethostname()[:32]}:{os.getpid()}"


def guard_for(url: str) -> Guard:
    """The guard of the database at `url`, not yet taken."""
    return SqliteGuard(url) if url.startswith("sqlite") else PostgresGuard(url)


def pause() -> None:
    """Between two tries, so that many waiters do not march in step."""
    time.sleep(POLL_S * random.uniform(0.5, 1.5))  # noqa: S311


def take_or_time_out(guard: Guard, seconds: float) -> Connection:
    """Take the guard within `seconds`, or raise TimedOut."""
    end = time.monotonic() + seconds
    while (connection := guard.take()) is None:
        if time.monotonic() > end:
            raise TimedOut(f"another process has had the database for {seconds:g} s")
        pause()
    return connection


class SqliteGuard:
    """`BEGIN IMMEDIATE`; every step of the upgrade is a savepoint in it."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": 0})
        event.listen(self._engine, "connect", prepare_sqlite)
        event.listen(self._engine, "begin", _begin_immediate)
        self._pulse_file = schema.pulse_file(url)
        self._connection: Connection | None = None
        self._pulse: Repeating | None = None

    def take(self) -> Connection | None:
        connection = self._engine.connect()
        try:
            connection.begin()
            # From here on the others' short reads must not fail our COMMIT.
            connection.exec_driver_sql(f"PRAGMA busy_timeout={_COMMIT_TIMEOUT_MS}")
        except DBAPIError as error:
            connection.close()
            if is_busy(error):
                return None
            raise
        self._connection = connection
        self._show_life()
        return connection

    def _show_life(self) -> None:
        if self._pulse_file is not None:
            self._pulse_file.write_text(process_name())
            self._pulse = Repeating(PULSE_S, self._touch)

    def _touch(self) -> bool:
        assert self._pulse_file is not None
        with contextlib.suppress(OSError):
            os.utime(self._pulse_file)
        return True

    def release(self) -> None:
        if self._pulse is not None and self._pulse_file is not None:
            self._pulse.stop()
            self._pulse_file.unlink(missing_ok=True)
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()


def prepare_sqlite(connection: Any, _record: object) -> None:
    """Take BEGIN out of the driver's hands: it would not begin before DDL."""
    connection.isolation_level = None
    # Before BEGIN, or it has no effect: a table rebuilt with foreign keys on deletes its children's rows.
    connection.execute("PRAGMA foreign_keys=OFF")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


class PostgresGuard:
    """A session-level advisory lock; every revision is a transaction of its own."""

    def __init__(self, url: str) -> None:
        self._engine = _postgres_engine(url, schema.GUARD_NAME)
        self._pulse_engine = _postgres_engine(url, schema.PULSE_NAME)
        self._connection: Connection | None = None
        self._pulse_connection: Connection | None = None
        self._pulse: Repeating | None = None
        self._pid = 0  # of the session that upgrades
        self._blockers: set[int] = set()  # those that were named in the log

    def take(self) -> Connection | None:
        if self._connection is None:
            self._connection = self._engine.connect()
        connection = self._connection
        try:
            got = connection.execute(
                text("SELECT pg_try_advisory_lock(:key)"), {"key": schema.GUARD_KEY}
            ).scalar()
            connection.commit()
            if not got:
                return None
            self._check_session(connection)
        except OperationalError:
            self._forget_connection()
            raise
        event.listen(self._engine, "do_connect", _refuse)
        self._show_life()
        return connection

    def _check_session(self, connection: Connection) -> None:
        """Behind a transaction pooler the lock would sit on a connection that we no longer have."""
        mine = connection.execute(
            text(
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()"
                " AND (classid::bigint << 32 | objid::bigint) = :key"
            ),
            {"key": schema.GUARD_KEY},
        ).first()
        connection.commit()
        if mine is None:
            raise MigrationError(
                "DATABASE_URL leads to a pooler in transaction mode; migrations need a direct one"
            )
        self._pid = int(mine[0])

    def _show_life(self) -> None:
        try:
            self._pulse_connection = self._pulse_engine.connect()
            self._pulse = Repeating(PULSE_S, self._beat)
        except DBAPIError as error:
            log.warning("no second connection to show life on (%s)", type(error.orig).__name__)

    def _beat(self) -> bool:
        assert self._pulse_connection is not None
        try:
            found = blockers(self._pulse_connection, self._pid)
            self._pulse_connection.rollback()
        except DBAPIError:
            return False
        for blocker in found:
            if blocker.pid not in self._blockers:
                self._blockers.add(blocker.pid)
                log.warning("waiting for %s", blocker)
        return True

    def _forget_connection(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def release(self) -> None:
        if self._pulse is not None:
            self._pulse.stop()
        if self._pulse_connection is not None:
            self._pulse_connection.close()
        self._forget_connection()  # closing the session is what releases the lock
        self._engine.dispose()
        self._pulse_engine.dispose()


def _refuse(*_: object) -> NoReturn:
    """SQLAlchemy would connect again, and what follows an error would go on without the guard."""
    raise MigrationError("the connection that had the guard was lost, and the guard with it")


def _postgres_engine(url: str, name: str) -> Engine:
    return create_engine(
        url,
        poolclass=NullPool,
        connect_args={
            "connect_timeout": 5,
            "application_name": f"{name} {process_name()}",
            "options": " ".join(f"-c {name}={value}" for name, value in LIMITS.items()),
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        },
    )
