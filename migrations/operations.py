"""The operations of our revisions: `op.create_table_if_missing`, `op.add_column_if_missing`,
`op.create_index_if_missing`.

They look before they act, with a new inspector each time (an inspector remembers what it saw before the DDL),
so a revision may meet an empty database, a legacy one, or one on which half of it was done by hand. What has
our name but another shape raises SchemaConflict. Each says in the log what it did. In `--sql` mode nobody can
look: they say IF NOT EXISTS.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import CreateIndexOp, DropIndexOp
from sqlalchemy.engine import Inspector
from sqlalchemy.schema import CreateIndex, DropIndex, SchemaItem

from migrations.conflicts import serves
from migrations.errors import SchemaConflict
from migrations.guard import LIMITS

log = logging.getLogger(__name__)

# Keys of Alembic's options. REHEARSAL: a callable that is told what cannot be done in a transaction, instead of
# it being done. NEW_TABLES: what the present revision has made in `--sql` mode.
REHEARSAL = "rehearsal"
NEW_TABLES = "new_tables"
_SHARED = frozenset({"user", "auth", "group", "tool"})  # with legacy programs


@Operations.register_operation("create_table_if_missing")
class CreateTableIfMissing(MigrateOperation):
    """`op.create_table_if_missing(name, *columns_and_constraints)`."""

    @classmethod
    def create_table_if_missing(cls, operations: Operations, name: str, *elements: SchemaItem) -> None:
        """Create the table. If it is there, add the nullable columns that it lacks.

        Raises SchemaConflict if the one that is there lacks a NOT NULL column or has one of another type.
        """
        if _is_offline(operations):
            operations.create_table(name, *elements, if_not_exists=True)
            _new_tables(operations).add(name)
        elif not _inspector(operations).has_table(name):
            operations.create_table(name, *elements)
            log.info("created table %s", name)
        else:
            log.info("table %s is there already", name)
            for element in elements:
                if isinstance(element, sa.Column):
                    _complete(operations, name, element)


@Operations.register_operation("add_column_if_missing")
class AddColumnIfMissing(MigrateOperation):
    """`op.add_column_if_missing(table, column)`."""

    @classmethod
    def add_column_if_missing(cls, operations: Operations, table: str, column: sa.Column[Any]) -> bool:
        """Add the column, and say whether that was necessary.

        Raises SchemaConflict if the table is missing, or has such a column of another type.
        """
        if _is_offline(operations):
            spoken_there = operations.migration_context.dialect.name == "postgresql"
            operations.add_column(table, column, if_not_exists=spoken_there or None)
            return True
        inspector = _inspector(operations)
        if not inspector.has_table(table):
            raise SchemaConflict(f"table {table} is missing, cannot add {table}.{column.name}")
        if _fits(operations, inspector, table, column):
            log.info("column %s.%s is there already", table, column.name)
            return False
        operations.add_column(table, column)
        log.info("added column %s.%s", table, column.name)
        return True


@Operations.register_operation("create_index_if_missing")
class CreateIndexIfMissing(MigrateOperation):
    """`op.create_index_if_missing(name, table, columns, unique=False, descending=(), where=None)`."""

    @classmethod
    def create_index_if_missing(
        cls,
        operations: Operations,
        name: str,
        table: str,
        columns: Sequence[str],
        *,
        unique: bool = False,
        descending: Sequence[str] = (),
        where: str | None = None,
    ) -> None:
        """Create the index, of the rows `where` holds for; on PostgreSQL without blocking writers, if there are rows.

        Raises SchemaConflict if an index of that name covers other columns.
        """
        parts = [sa.text(f"{column} DESC") if column in descending else column for column in columns]
        options: dict[str, Any] = {"unique": unique}
        if where is not None:
            options |= {"postgresql_where": sa.text(where), "sqlite_where": sa.text(where)}
        if _is_offline(operations):
            is_new = table in _new_tables(operations)
            _create_index(operations, name, table, parts, is_new, {**options, "if_not_exists": True})
            return
        dropped = _drop_invalid(operations, name, table)
        if _is_indexed(_inspector(operations), name, table, columns) and not dropped:
            log.info("index %s is there already", name)
            return
        _create_index(operations, name, table, parts, not _has_rows(operations, table), options)
        log.info("created index %s on %s", name, table)


def _is_offline(operations: Operations) -> bool:
    return operations.migration_context.as_sql


def _inspector(operations: Operations) -> Inspector:
    return sa.inspect(operations.get_bind())


def _complete(operations: Operations, table: str, column: sa.Column[Any]) -> None:
    if _fits(operations, _inspector(operations), table, column):
        return
    if not column.nullable:
        raise SchemaConflict(f"table {table} exists without the column {column.name}: is the name taken?")
    operations.add_column(table, sa.Column(column.name, column.type))
    log.info("added column %s.%s", table, column.name)


def _fits(operations: Operations, inspector: Inspector, table: str, column: sa.Column[Any]) -> bool:
    """False: the column is missing. Raises SchemaConflict: it is there with another type."""
    dialect = operations.migration_context.dialect
    for found in inspector.get_columns(table):
        if found["name"] == column.name:
            kind = column.type.dialect_impl(dialect)
            if not serves(found["type"], kind, dialect.name, shared=table in _SHARED):
                raise SchemaConflict(f"{table}.{column.name} is {found['type']!r}, not {column.type!r}")
            return True
    return False


def _is_indexed(inspector: Inspector, name: str, table: str, columns: Sequence[str]) -> bool:
    # SQLite accepts a misspelt column and indexes a constant string.
    unknown = set(columns) - {found["name"] for found in inspector.get_columns(table)}
    if unknown:
        raise SchemaConflict(f"index {name}: {table} has no column {', '.join(sorted(unknown))}")
    with warnings.catch_warnings(action="ignore", category=sa.exc.SAWarning):  # others' expression indexes
        there = inspector.get_indexes(table)
    for found in there:
        if found["name"] == name:
            if list(found["column_names"]) != list(columns):
                raise SchemaConflict(f"index {name} is on {found['column_names']}, not on {list(columns)}")
            return True
    return False


def _create_index(
    operations: Operations,
    name: str,
    table: str,
    parts: Sequence[Any],
    is_idle: bool,
    options: dict[str, Any],
) -> None:
    """`is_idle`: nobody uses the table, so it may be locked for as long as the index takes."""
    if operations.migration_context.dialect.name != "postgresql" or is_idle:
        operations.create_index(name, table, parts, **options)
        return
    wish = CreateIndexOp(name, table, parts, postgresql_concurrently=True, **options)
    _beside_the_work(operations, wish, lambda: CreateIndex(wish.to_index(operations.migration_context)))


def _has_rows(operations: Operations, table: str) -> bool:
    one = sa.select(sa.literal(1)).select_from(sa.table(table)).limit(1)
    return operations.get_bind().execute(one).first() is not None


def _new_tables(operations: Operations) -> set[str]:
    tables: set[str] = operations.migration_context.opts.setdefault(NEW_TABLES, set())
    return tables


def _drop_invalid(operations: Operations, name: str, table: str) -> bool:
    """A concurrent build that was interrupted leaves an index that nobody uses but everybody maintains."""
    if operations.migration_context.dialect.name != "postgresql":
        return False
    carcass = sa.text(
        "SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " WHERE NOT i.indisvalid AND c.relname = :name AND pg_table_is_visible(c.oid)"
    )
    if operations.get_bind().execute(carcass, {"name": name}).first() is None:
        return False
    wish = DropIndexOp(name, table, postgresql_concurrently=True)
    _beside_the_work(operations, wish, lambda: DropIndex(wish.to_index(operations.migration_context)))
    log.warning("dropped index %s: an interrupted build had left it unusable", name)
    return True


def _beside_the_work(
    operations: Operations, wish: MigrateOperation, statement: Callable[[], sa.schema.ExecutableDDLElement]
) -> None:
    """CONCURRENTLY: commit what came before, and wait for slow readers; nobody is blocked meanwhile."""
    context = operations.migration_context
    if (tell := context.opts.get(REHEARSAL)) is not None:
        tell(str(statement().compile(dialect=context.dialect)))
        return
    with context.autocommit_block():
        operations.execute("SET lock_timeout = 0")
        try:
            operations.invoke(wish)
        finally:
            operations.execute(f"SET lock_timeout = '{LIMITS['lock_timeout']}'")
