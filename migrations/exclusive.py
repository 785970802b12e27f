"""The database for one operator's command alone: the same guard as `upgrade`, without its waiting for outcomes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from common.db import schema
from common.settings import Settings
from migrations.errors import TimedOut
from migrations.guard import guard_for, process_name, take_or_time_out
from migrations.lease import Lease, lease_key


@contextmanager
def exclusive(given: Settings) -> Iterator[Connection]:
    """The guarded connection; whoever upgrades meanwhile waits. Not committed work is undone at the end.

    The lease is taken if it is free, to keep others from queueing at the guard. Raises TimedOut when somebody
    else keeps the guard for MIGRATION_TIMEOUT.
    """
    lease = Lease(given.redis_url, lease_key(given.database_url), process_name())
    guard = guard_for(given.database_url)
    try:
        lease.acquire()
        try:
            connection = take_or_time_out(guard, given.migration_timeout)
        except TimedOut as error:
            raise TimedOut(f"{error}{_holder(given.database_url)}") from None
        yield connection
    finally:
        guard.release()
        lease.release()


def _holder(url: str) -> str:
    with suppress(DBAPIError), schema.probe(url).connect() as connection:
        holder = schema.holder(connection)
        return f": {holder.name}" if holder else ""
    return ""
