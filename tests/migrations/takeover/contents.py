"""What a database holds, in a form that shows the least change: rows by their hash, and how every table is made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tests.migrations.shapes import catalogue, shape


@dataclass(frozen=True)
class Content:
    """Every table with its columns, the number of its rows and their hash, and how it is made."""

    rows: dict[str, tuple[list[str], int, str]]
    made: Any


def contents(engine: sa.Engine, only: Content | None = None) -> Content:
    """All of it, or only the tables and columns that `only` has."""
    with engine.connect() as connection:
        have = sa.inspect(connection).get_multi_columns()
        wanted = (
            {name: columns for name, (columns, *_) in only.rows.items()}
            if only
            else {str(name): [column["name"] for column in columns] for (_, name), columns in have.items()}
        )
        rows = {name: (columns, *_hashed(connection, name, columns)) for name, columns in wanted.items()}
        made = shape(engine) if engine.dialect.name == "sqlite" else catalogue(connection)
        return Content(rows, made)


def _hashed(connection: sa.Connection, table: str, columns: list[str]) -> tuple[int, str]:
    """As the database itself stores it: on SQLite a number that became a text is another value."""
    part = _sqlite_part if connection.dialect.name == "sqlite" else _postgres_part
    query = f'SELECT {", ".join(map(part, columns))} FROM "{table}"'
    lines = sorted(map(repr, connection.exec_driver_sql(query)))
    return len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _sqlite_part(name: str) -> str:
    return f'typeof("{name}") || quote("{name}")'


def _postgres_part(name: str) -> str:
    return f'CAST("{name}" AS TEXT)'


def check_kept(before: Content, engine: sa.Engine) -> None:
    """Every table, column, key, index and row of theirs is what it was; tables may have got columns and indexes."""
    after = contents(engine, before)
    assert after.rows == before.rows
    if engine.dialect.name == "postgresql":
        assert set(before.made) <= set(after.made)
        return
    for table, parts in before.made.items():
        now = after.made[table]
        assert parts["columns"].items() <= now["columns"].items(), table
        for kind in ("primary key", "unique", "foreign keys", "checks"):
            assert now[kind] == parts[kind], (table, kind)
        assert set(parts["indexes"]) <= set(now["indexes"]), table
