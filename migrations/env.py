"""Alembic's environment: for the runner, which passes its guarded connection in `config.attributes`, and for
`alembic …` on the command line, where it takes the guard itself."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import Connection

import migrations.operations  # noqa: F401  (registers op.…_if_missing)
from common.db import schema
from common.settings import settings
from migrations import reports
from migrations.chain import Chain
from migrations.guard import guard_for, take_or_time_out
from migrations.target import METADATA


def _is_ours(_object: Any, name: str | None, kind: str, reflected: bool, compared_to: Any) -> bool:
    """A legacy program's tables and columns are none of our business: autogenerate must not drop them."""
    return not (
        reflected and compared_to is None and kind in ("table", "column", "index", "unique_constraint")
    )


def _run(connection: Connection | None, **options: Any) -> None:
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        version_table=schema.VERSION_TABLE,
        include_object=_is_ours,
        transactional_ddl=True,  # on SQLite too: BEGIN is ours
        compare_server_default=True,
        **options,
    )
    with context.begin_transaction():
        context.run_migrations()


def _run_on(connection: Connection) -> None:
    on_apply = context.config.attributes.get("on_apply") or reports.ledger_writer(Chain(), None)
    _run(
        connection,
        on_version_apply=on_apply,
        transaction_per_migration=connection.dialect.name == "postgresql",
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


if context.is_offline_mode():
    dialect = "sqlite" if settings().is_sqlite else "postgresql"
    _run(None, dialect_name=dialect, literal_binds=True, transaction_per_migration=True)
elif "connection" in context.config.attributes:
    _run_on(context.config.attributes["connection"])
else:
    _run_alone()
