"""Who keeps others from upgrading: the guard in the database, the lease in Redis. And how to end a stuck one."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from redis.exceptions import RedisError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from common.db import schema
from common.settings import Settings
from migrations.blockers import head
from migrations.errors import MigrationError, one_line
from migrations.guard import process_name
from migrations.lease import TTL_S, Lease, lease_key

_RENEWED_S = TTL_S / 3 + 2  # a living holder renews more often than that
_ENDS_S = 10.0
_SESSION = text(
    "SELECT a.pid, a.state, a.query, extract(epoch FROM clock_timestamp() - a.state_change)"
    " FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND (l.classid::bigint << 32 | l.objid::bigint) = :key"
)


@dataclass(frozen=True)
class GuardHolder:
    """The process that has the guard. `pid` and what follows are its database session's, on PostgreSQL."""

    process: str
    silent_s: float
    pid: int | None = None
    state: str | None = None
    query: str | None = None

    def line(self) -> str:
        told = f"guard  {self.process}, last sign of life {self.silent_s:.0f} s ago"
        return f"{told}; session {self.pid}, {self.state}: {self.query}" if self.pid else told


@dataclass(frozen=True)
class LeaseHolder:
    """The process that has the lease. `is_stale`: it is gone, or renews it no more."""

    process: str
    age_s: float
    is_stale: bool

    def line(self) -> str:
        told = f"lease  {self.process}, renewed {self.age_s:.0f} s ago"
        return f"{told}: it renews it no more" if self.is_stale else told


@dataclass(frozen=True)
class Unlocking:
    """What was found, what was done about it, and what is left."""

    guard: GuardHolder | None
    lease: LeaseHolder | None
    notes: list[str]
    done: list[str]
    left: list[str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        held = [holder.line() for holder in (self.guard, self.lease) if holder is not None]
        return [*(held or ["nobody is upgrading"]), *self.notes, *self.done, *self.left]


def unlock(given: Settings, *, terminate: bool) -> Unlocking:
    """Look; only with `terminate` end the session that has the guard and remove a stale lease.

    Raises SQLAlchemy's errors where the database cannot be asked.
    """
    engine = schema.probe(given.database_url)
    lease = Lease(given.redis_url, lease_key(given.database_url), process_name())
    done: list[str] = []
    left: list[str] = []
    try:
        with engine.connect() as connection:
            guard = _guard(connection)
            if terminate and guard is not None:
                is_ended = _end(connection, guard)
                (done if is_ended else left).append(_told(guard, is_ended=is_ended))
        notes, kept = _lease(lease)
        if terminate and kept is not None:
            token, holder = kept
            if not holder.is_stale:
                left.append(
                    f"{holder.process} renews its lease: it gives it back itself, or loses it in {TTL_S:.0f} s"
                )
            elif lease.remove(token):
                done.append(f"removed the lease of {holder.process}")
        return Unlocking(guard, kept[1] if kept else None, notes, done, left)
    finally:
        lease.release()
        engine.dispose()


def _guard(connection: Connection) -> GuardHolder | None:
    holder = schema.holder(connection)
    if holder is None or connection.dialect.name == "sqlite":
        return GuardHolder(holder.name, holder.silent_s) if holder else None
    row = connection.execute(_SESSION, {"key": schema.GUARD_KEY}).first()
    if row is None:
        return None
    return GuardHolder(holder.name, holder.silent_s, row[0], row[1], head(row[2] or ""))


def _end(connection: Connection, guard: GuardHolder) -> bool:
    """Was it ended? SQLite has no way to end another process. Raises MigrationError where we may not."""
    if guard.pid is None:
        return False
    try:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": guard.pid})
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise MigrationError(
                f"session {guard.pid} may not be ended by this user: {one_line(error)}"
            ) from None
        raise
    until = time.monotonic() + _ENDS_S
    while (now := _guard(connection)) is not None and now.pid == guard.pid:
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _told(guard: GuardHolder, *, is_ended: bool) -> str:
    if guard.pid is None:
        return f"SQLite cannot end another process: end {guard.process} (host:pid) on its host"
    if is_ended:
        return f"ended session {guard.pid} of {guard.process}: what it had not committed is undone"
    return f"session {guard.pid} of {guard.process} has been told to end and is still there"


def _lease(lease: Lease) -> tuple[list[str], tuple[str, LeaseHolder] | None]:
    try:
        kept = lease.kept()
    except (RedisError, OSError) as error:
        return [f"Redis cannot be asked ({type(error).__name__}): the guard alone decides"], None
    if kept is None:
        return [], None
    token, age_s = kept
    process = token.rpartition(":")[0]
    return [], (token, LeaseHolder(process, age_s, age_s > _RENEWED_S or _is_dead(process)))


def _is_dead(process: str) -> bool:
    """A process of this very host that is not there. Of other hosts only the lease's age tells."""
    host, _, pid = process.rpartition(":")
    if host != socket.gethostname()[:32] or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
