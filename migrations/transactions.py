"""All or nothing, on the guarded connection of either database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection


@contextmanager
def attempt(connection: Connection) -> Iterator[None]:
    """What fails inside leaves nothing behind, and the guard stays ours.

    SQLite: a savepoint within the guard's transaction. PostgreSQL: a transaction of its own, begun by the
    first statement, so that Alembic may instead open one for every revision.
    """
    if connection.dialect.name == "sqlite":
        with connection.begin_nested():
            yield
        return
    connection.commit()
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


@contextmanager
def outside(connection: Connection) -> Iterator[None]:
    """PostgreSQL, for CONCURRENTLY: no transaction, what came before is committed, and locks are waited for."""
    connection.commit()
    connection.execution_options(isolation_level="AUTOCOMMIT")
    try:
        connection.exec_driver_sql("SET lock_timeout = 0")
        yield
    finally:
        connection.exec_driver_sql("RESET lock_timeout")
        connection.commit()
        connection.execution_options(isolation_level=connection.default_isolation_level)


def checkpoint(connection: Connection) -> None:
    """Let others see what was done, where that is possible without giving up the guard."""
    if connection.dialect.name != "sqlite":
        connection.commit()
