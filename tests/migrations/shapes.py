"""The shape of a database, for comparing two of them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from common.db.schema import VERSION_TABLE

Shape = dict[str, dict[str, Any]]
Rows = dict[str, list[tuple[object, ...]]]


def shape(engine: sa.Engine) -> Shape:
    """Every table: columns with type, nullability and default; keys, indexes and constraints with their names."""
    with engine.connect() as connection:  # one: an inspector of an engine opens one for each question
        return _shape(sa.inspect(connection))


def _shape(inspector: sa.Inspector) -> Shape:
    names = [table for table in inspector.get_table_names() if table != VERSION_TABLE]
    columns = inspector.get_multi_columns(filter_names=names)  # of all at once: two hundred queries fewer
    keys = inspector.get_multi_pk_constraint(filter_names=names)
    parts = {
        "indexes": inspector.get_multi_indexes(filter_names=names),
        "unique": inspector.get_multi_unique_constraints(filter_names=names),
        "foreign keys": inspector.get_multi_foreign_keys(filter_names=names),
        "checks": inspector.get_multi_check_constraints(filter_names=names),
    }
    return {
        table: {
            "columns": {
                column["name"]: (str(column["type"]), column["nullable"], column["default"])
                for column in columns[None, table]
            },
            "primary key": str(keys[None, table]),
            **{name: sorted(map(_text, found.get((None, table), []))) for name, found in parts.items()},
        }
        for table in names
    }


def _text(found: Any) -> str:
    options = {name: str(value) for name, value in found.get("dialect_options", {}).items()}
    return str({**found, "dialect_options": options})


_SQLITE_CATALOGUE = "SELECT type, name, tbl_name, sql FROM sqlite_master"
_POSTGRES_CATALOGUE = """
SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
    pg_get_expr(d.adbin, d.adrelid)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
UNION ALL
SELECT 'index', c.relname, pg_get_indexdef(i.indexrelid), NULL, i.indisvalid, NULL
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = 'public'::regnamespace
UNION ALL
SELECT 'constraint', c.relname, k.conname, pg_get_constraintdef(k.oid), k.convalidated, NULL
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid WHERE c.relnamespace = 'public'::regnamespace
"""


def catalogue(connection: sa.Connection) -> list[str]:
    """All that the database itself has written down about its tables: like `shape`, but quick."""
    query = _SQLITE_CATALOGUE if connection.dialect.name == "sqlite" else _POSTGRES_CATALOGUE
    return sorted(map(repr, connection.exec_driver_sql(query)))


def read(connection: sa.Connection, columns: dict[str, list[str]]) -> Rows:
    """All rows of those tables, in those columns only."""
    return {
        table: [
            tuple(row)
            for row in connection.execute(sa.select(*map(sa.column, names)).select_from(sa.table(table)))
        ]
        for table, names in columns.items()
    }


def sample_values(table: sa.Table) -> dict[str, Any]:
    """One row that satisfies every NOT NULL column."""
    values: dict[str, Any] = {}
    for column in table.columns:
        kind = column.type
        if isinstance(kind, sa.Boolean):
            values[column.name] = True
        elif isinstance(kind, (sa.Integer, sa.Float)):
            values[column.name] = 1
        elif isinstance(kind, sa.JSON):
            values[column.name] = {}
        elif isinstance(kind, sa.DateTime):
            values[column.name] = sa.func.now()
        else:
            values[column.name] = "x"
    return values
