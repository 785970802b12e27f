"""A database that exists only to be compared: the whole chain on a SQLite in memory, against the models."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from alembic import command
from alembic.autogenerate import produce_migrations
from alembic.operations.ops import CreateIndexOp, MigrateOperation, ModifyTableOps, UpgradeOps
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Connection, Index, StaticPool, create_engine, event

from common.db import schema
from migrations import reports
from migrations.chain import Chain
from migrations.guard import prepare_sqlite
from migrations.target import METADATA


@contextmanager
def upgraded(chain: Chain) -> Iterator[Connection]:
    """A new database at the chain's heads, made without a word in the log. Raises what a revision raises."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    event.listen(engine, "connect", prepare_sqlite)
    with engine.connect() as connection:
        with quietly():
            reports.ensure_tables(connection)
            chain.config.attributes["connection"] = connection
            chain.config.attributes["on_apply"] = [lambda **_: None]
            command.upgrade(chain.config, "heads")
        yield connection
    engine.dispose()


@contextmanager
def quietly() -> Iterator[None]:
    """What revisions log on a database that nobody will ever see is of no interest."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def is_ours(_object: object, name: str | None, kind: str, reflected: bool, compared_to: object) -> bool:
    """A legacy program's tables and columns are none of our business: autogenerate must not drop them."""
    return not (
        reflected and compared_to is None and kind in ("table", "column", "index", "unique_constraint")
    )


def difference(connection: Connection) -> UpgradeOps:
    """What the models have and this database has not, or has otherwise: as `alembic check` compares."""
    options = {
        "target_metadata": METADATA,
        "version_table": schema.VERSION_TABLE,
        "include_object": is_ours,
        "compare_server_default": True,
    }
    with quietly(), warnings.catch_warnings(action="ignore", category=UserWarning):
        context = MigrationContext.configure(connection, opts=options)
        found = produce_migrations(context, METADATA).upgrade_ops
    assert found is not None
    found.ops += map(CreateIndexOp.from_index, _missing_by_expression(connection))
    return found


def _missing_by_expression(connection: Connection) -> Iterator[Index]:
    """Indexes like `priority DESC`: Alembic leaves them out of its comparison on SQLite."""
    there = set(connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'index'").scalars())
    for table in METADATA.sorted_tables:
        for index in table.indexes:
            if index.name not in there and not all(isinstance(part, Column) for part in index.expressions):
                yield index


def each(operations: UpgradeOps) -> Iterator[MigrateOperation]:
    """One by one, without the nesting by table."""
    for operation in operations.ops:
        yield from operation.ops if isinstance(operation, ModifyTableOps) else [operation]
