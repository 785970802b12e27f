"""What a database says of its tables, read for all of them at once: asking for each takes a hundred times as many
queries."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

_RELATIONS = {
    "sqlite": sa.text(
        "SELECT name, CASE WHEN sql LIKE 'CREATE VIRTUAL%' THEN 'virtual table' ELSE type END, tbl_name"
        " FROM sqlite_master WHERE type IN ('table', 'view', 'index')"
    ),
    "postgresql": sa.text(
        "SELECT c.relname, CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view'"
        " WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence'"
        " WHEN 'c' THEN 'type' ELSE 'index' END, coalesce(t.relname, c.relname)"
        " FROM pg_class c LEFT JOIN pg_index x ON x.indexrelid = c.oid LEFT JOIN pg_class t ON t.oid = x.indrelid"
        " WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))"
        " UNION ALL SELECT typname, 'type', typname FROM pg_type WHERE typrelid = 0 AND typcategory <> 'A'"
        " AND typnamespace = to_regnamespace(quote_ident(current_schema()))"
    ),
}


@dataclass(frozen=True)
class Relation:
    """Whatever has a name that a new table or index cannot have. `table`: an index's own."""

    name: str
    kind: str
    table: str

    def __str__(self) -> str:
        return f"an index of {self.table}" if self.kind == "index" else f"a {self.kind}"


@dataclass(frozen=True)
class Found:
    """What the database says of one table, in the inspector's words."""

    columns: list[Any]
    indexes: list[Any]
    index_names: set[str]
    uniques: list[Any]
    primary_key: Any
    foreign_keys: list[Any]


@dataclass(frozen=True)
class Catalogue:
    """Every name of the schema, and what was found of the tables that were asked for and are tables."""

    relations: list[Relation]
    tables: dict[str, Found]


def read(connection: Connection, names: Collection[str]) -> Catalogue:
    """Look, and change nothing."""
    known = [Relation(*row) for row in connection.execute(_RELATIONS[connection.dialect.name])]
    there = {relation.name for relation in known if relation.kind == "table"}
    return Catalogue(known, _found(connection, [name for name in names if name in there], known))


def _found(connection: Connection, tables: list[str], known: list[Relation]) -> dict[str, Found]:
    if not tables:
        return {}
    names: defaultdict[str, set[str]] = defaultdict(set)
    for relation in known:
        if relation.kind == "index":
            names[relation.table].add(relation.name)
    inspector = sa.inspect(connection)
    with warnings.catch_warnings(action="ignore", category=sa.exc.SAWarning):  # expression indexes, by name
        columns = inspector.get_multi_columns(filter_names=tables)
        indexes = inspector.get_multi_indexes(filter_names=tables)
        uniques = inspector.get_multi_unique_constraints(filter_names=tables)
        primary_keys = inspector.get_multi_pk_constraint(filter_names=tables)
        foreign_keys = inspector.get_multi_foreign_keys(filter_names=tables)
    return {
        table: Found(
            columns=columns[None, table],
            indexes=indexes.get((None, table), []),
            index_names=names[table],
            uniques=uniques.get((None, table), []),
            primary_key=primary_keys[None, table],
            foreign_keys=foreign_keys.get((None, table), []),
        )
        for table in tables
    }
