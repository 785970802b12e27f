"""What a database holds, in a form that shows the least change: rows by their hash, and the shape of every table."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import sqlalchemy as sa

from tests.migrations.shapes import Shape, shape

OURS_TO_FILL = {"user", "auth"}  # the first run adds an admin where there is no user at all


@dataclass(frozen=True)
class Content:
    """Every table with its columns, the number of its rows and their hash, and how it is made."""

    rows: dict[str, tuple[list[str], int, str]]
    made: Shape


def contents(engine: sa.Engine, only: Content | None = None) -> Content:
    """All of it, or only the tables and columns that `only` has."""
    with engine.connect() as connection:
        made = shape(engine)
        tables = {name: parts for name, parts in only.rows.items()} if only else {}
        wanted = {name: parts[0] for name, parts in tables.items()} or {
            name: list(parts["columns"]) for name, parts in made.items()
        }
        return Content(
            {name: (columns, *_hashed(connection, name, columns)) for name, columns in wanted.items()}, made
        )


def _hashed(connection: sa.Connection, table: str, columns: list[str]) -> tuple[int, str]:
    """As the database itself stores it: on SQLite a number that became a text is another value."""
    quoted = [f'"{name}"' for name in columns]
    parts = [
        f"quote({name}) || typeof({name})" if connection.dialect.name == "sqlite" else f"CAST({name} AS TEXT)"
        for name in quoted
    ]
    lines = sorted(map(repr, connection.exec_driver_sql(f'SELECT {", ".join(parts)} FROM "{table}"')))
    return len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_kept(before: Content, engine: sa.Engine) -> None:
    """Every table, column, key, index and row of theirs is what it was; tables may have got columns and indexes."""
    after = contents(engine, before)
    assert after.rows == before.rows
    for table, parts in before.made.items():
        now = after.made[table]
        assert parts["columns"].items() <= now["columns"].items(), table
        for kind in ("primary key", "unique", "foreign keys", "checks"):
            assert now[kind] == parts[kind], (table, kind)
        assert set(parts["indexes"]) <= set(now["indexes"]), table
