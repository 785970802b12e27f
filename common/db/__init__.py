"""The database: one engine per process, and the transactions that every door opens.

SQLite runs in WAL mode with our own BEGIN: `BEGIN IMMEDIATE` for a transaction that will write (a deferred one
would fail with SQLITE_BUSY when it upgrades), a plain `BEGIN` for one that only reads.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from common.db import compat
from common.db.types import Base
from common.settings import settings

T = TypeVar("T")

_POOL = 12  # connections of a process
_REST_S = 1.0
_BUSY_S = 30.0  # a writer of SQLite waits so long for its turn
_POSTGRES_OPTIONS = (
    "-c statement_timeout=15000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=30000"
)


@cache
def engine() -> Engine:
    """This process's engine, made at first use so that a parent process never opens a connection."""
    made = build_engine(settings().database_url)
    bridge = compat.install(made, Base.metadata)

    def forked() -> None:
        made.dispose(close=False)
        if bridge is not None:
            bridge.forked()

    os.register_at_fork(after_in_child=forked)
    return made


def build_engine(url: str) -> Engine:
    """An engine with the options that every process shares; `url` has passed the settings' check."""
    return _sqlite(url) if url.startswith("sqlite") else _postgresql(url)


def _postgresql(url: str) -> Engine:
    made = create_engine(
        url,
        pool_size=_POOL,
        max_overflow=0,  # these are closed after each use, and opening one costs more than most transactions
        pool_timeout=5,
        pool_recycle=1800,
        pool_use_lifo=True,
        connect_args={
            "connect_timeout": 5,
            "application_name": "wxiai",
            "keepalives_idle": 30,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "options": _POSTGRES_OPTIONS,
        },
    )
    event.listen(made, "checkin", _remember_use)
    event.listen(made, "checkout", partial(_ping_after_rest, made))
    return made


def _remember_use(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _ping_after_rest(
    made: Engine, connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object
) -> None:
    """Like `pool_pre_ping`, but a busy connection is not asked each time: no server dies and is back so soon."""
    if time.monotonic() - record.info.get("used_at", time.monotonic()) > _REST_S:
        try:
            made.dialect.do_ping(connection)
        except psycopg.Error as error:
            raise DisconnectionError from error  # the pool opens another one


def _sqlite(url: str) -> Engine:
    path = make_url(url).database
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    made = create_engine(url, connect_args={"timeout": _BUSY_S, "check_same_thread": False})
    event.listen(made, "connect", _prepare_sqlite)
    event.listen(made, "begin", _begin_sqlite)
    return made


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours
    connection.execute(f"PRAGMA busy_timeout={_BUSY_S * 1000:.0f}")
    _write_ahead(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turn WAL on, which stays on. Of several that do it at once SQLite lets all but one fail, without a wait."""
    end = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@contextmanager
def transaction(*, one_write: bool = False) -> Iterator[Session]:
    """Do on the way out what had to wait for the end, commit, then do what had to wait for the commit.

    `one_write`: where the database can, all is written by one statement, the last one. It commits by itself then,
    and PostgreSQL is neither sent BEGIN nor COMMIT: two of three round trips.
    """
    with Session(engine(), expire_on_commit=False) as session, session.begin():
        with _each_by_itself(session) if one_write else nullcontext():
            yield session
        for call in session.info.pop("before_commit", ()):
            call()
    _commits.set(_commits.get() + 1)
    for call in session.info.pop("after_commit", ()):
        call()


@contextmanager
def reading(*, one_read: bool = False) -> Iterator[Session]:
    """A transaction that only reads: on SQLite it never waits for a writer.

    `one_read`: nothing depends on several statements being one transaction, and PostgreSQL need not be told of one.
    """
    with Session(engine(), expire_on_commit=False) as session:
        if one_read:
            with _each_by_itself(session, reads_only=True):
                yield session
        else:
            session.connection(execution_options={"reads_only": True})
            yield session


@contextmanager
def _each_by_itself(session: Session, **options: Any) -> Iterator[None]:
    """Let every statement be a transaction of its own on PostgreSQL."""
    if session.get_bind().dialect.name == "postgresql":
        options["isolation_level"] = "AUTOCOMMIT"
    connection = session.connection(execution_options=options)
    try:
        yield
    except compat.SchemaDrift:
        connection.invalidate()  # psycopg forgets what it has prepared at a rollback, and there is none
        raise


_commits: ContextVar[int] = ContextVar("commits", default=0)
_MOST_TRIES = 3  # columns may come and go one by one


def again(call: Callable[[], T]) -> T:
    """What `call` returns; it is called once more where the schema changed under it before it committed anything."""
    before = _commits.get()
    for _ in range(_MOST_TRIES - 1):
        try:
            return call()
        except compat.SchemaDrift:
            if _commits.get() != before:
                raise
    return call()


def commits() -> int:
    """How often this thread has committed: whether something was, shows by comparison."""
    return _commits.get()


def before_commit(session: Session, call: Callable[[], None]) -> None:
    """Have `call` run as the last thing in this transaction: what locks rows that many others wait for."""
    session.info.setdefault("before_commit", []).append(call)


def after_commit(session: Session, call: Callable[[], None]) -> None:
    """Have `call` run once this transaction has committed; never if it rolls back.

    Not SQLAlchemy's own event: that one also fires when a savepoint is released.
    """
    session.info.setdefault("after_commit", []).append(call)
