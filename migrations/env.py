"""Alembic's environment: for the runner, which passes its guarded connection in `config.attributes`, and for
`alembic …` on the command line, where it takes the guard itself."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import Connection

from common.db import schema
from common.settings import settings
from migrations import operations, reports  # operations: registers op.…_if_missing
from migrations.chain import Chain
from migrations.guard import LIMITS, guard_for, take_or_time_out
from migrations.scratch import is_ours
from migrations.target import METADATA


def _run(connection: Connection | None, **options: Any) -> None:
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        version_table=schema.VERSION_TABLE,
        include_object=is_ours,
        transactional_ddl=True,  # on SQLite too: BEGIN is ours
        compare_server_default=True,
        **options,
    )
    if context.is_offline_mode() and context.get_context().dialect.name == "postgresql":
        for name, value in LIMITS.items():
            context.static_output(f"SET {name} = '{value}';")
    with context.begin_transaction():
        context.run_migrations()


def _run_on(connection: Connection) -> None:
    given = context.config.attributes
    rehearsal = given.get(operations.REHEARSAL)  # plan's: one transaction, which is then rolled back
    _run(
        connection,
        on_version_apply=given.get("on_apply") or reports.ledger_writer(Chain(), None),
        transaction_per_migration=connection.dialect.name == "postgresql" and rehearsal is None,
        **{operations.REHEARSAL: rehearsal},
    )


def _run_alone() -> None:
    url = settings().database_url
    guard = guard_for(url)
    try:
        connection = take_or_time_out(guard, settings().migration_timeout)
        reports.ensure_tables(connection)
        if connection.dialect.name == "postgresql":
            connection.commit()
        _run_on(connection)
        connection.commit()
    finally:
        guard.release()


def _run_offline() -> None:
    """`--sql`. Lint sets `dialect`: it judges the SQL for PostgreSQL whatever DATABASE_URL says."""
    new_tables: set[str] = set()
    dialect = context.config.attributes.get("dialect") or ("sqlite" if settings().is_sqlite else "postgresql")
    _run(
        None,
        dialect_name=dialect,
        literal_binds=True,
        transaction_per_migration=True,
        on_version_apply=lambda **_: new_tables.clear(),
        **{operations.NEW_TABLES: new_tables},
    )


if context.is_offline_mode():
    _run_offline()
elif "connection" in context.config.attributes:
    _run_on(context.config.attributes["connection"])
else:
    _run_alone()
