"""The database's catalogue against the models: what is missing, what contradicts, and what was left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from common.db import schema
from migrations import reflection
from migrations.preflight import contradictions
from migrations.reflection import Found
from migrations.target import METADATA, SHARED

LEFTOVER = "_alembic_tmp_"  # under this name Alembic rebuilds a table on SQLite

_INVALID_INDEXES = sa.text(
    "SELECT i.relname, t.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
    " JOIN pg_class t ON t.oid = x.indrelid"
    " WHERE NOT x.indisvalid AND i.relnamespace = to_regnamespace(quote_ident(current_schema()))"
)
_UNCHECKED_KEYS = sa.text(
    "SELECT t.relname, c.conname FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid"
    " WHERE c.contype = 'f' AND NOT c.convalidated"
    " AND t.relnamespace = to_regnamespace(quote_ident(current_schema()))"
)


@dataclass(frozen=True)
class Gaps:
    """What `compare` found. `contradictions` are sentences: nothing here could mend them without a human."""

    tables: list[str] = field(default_factory=list)
    columns: list[sa.Column[Any]] = field(default_factory=list)
    indexes: list[sa.Index] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    invalid_indexes: list[tuple[str, str]] = field(default_factory=list)  # name, table
    leftovers: list[str] = field(default_factory=list)


def compare(connection: Connection) -> Gaps:
    """Look at every table of the models. Nothing is changed."""
    have = schema.columns(connection)
    lacking = schema.missing_columns(have, METADATA)
    seen = reflection.read(connection, METADATA.tables)
    found = seen.tables
    there = [table for table in METADATA.sorted_tables if table.name in found]
    return Gaps(
        tables=[name for name in lacking if name not in have],
        columns=[table.columns[name] for table in there for name in lacking.get(table.name, ())],
        indexes=[index for table in there for index in _missing_indexes(found[table.name], table)],
        contradictions=[
            *contradictions(seen, connection.dialect),
            *(line for table in there for line in _missing_references(found[table.name], table)),
            *_unchecked_keys(connection),
        ],
        invalid_indexes=_invalid_indexes(connection),
        leftovers=sorted(name for name in have if name.startswith(LEFTOVER)),
    )


# ---------------------------------------------------------------- indexes


def _missing_indexes(found: Found, table: sa.Table) -> Iterator[sa.Index]:
    covered = list(_covered(found))
    have = {column["name"] for column in found.columns}
    for index in [*table.indexes, *_unique_constraints(table)]:
        columns = tuple(column.name for column in index.columns)
        serving = [unique for there, unique in covered if there == columns and (unique or not index.unique)]
        if (
            index.name not in found.index_names
            and not (serving and _is_plain(index))
            and set(columns) <= have
        ):
            yield _copy(index)


def _copy(index: sa.Index) -> sa.Index:
    """One that its finder may change without changing the model."""
    assert index.table is not None
    copies = index.table.to_metadata(sa.MetaData()).indexes
    return next((copy for copy in copies if copy.name == index.name), index)


def _covered(found: Found) -> Iterator[tuple[tuple[str | None, ...], bool]]:
    """What the indexes and keys of a table cover, and whether it is unique. Names differ between legacies."""
    for index in found.indexes:
        if not any(option.endswith("_where") for option in index.get("dialect_options", {})):
            yield tuple(index["column_names"]), bool(index["unique"])
    for constraint in found.uniques:
        yield tuple(constraint["column_names"]), True
    yield tuple(found.primary_key["constrained_columns"]), True


def _is_plain(index: sa.Index) -> bool:
    """Only columns, and every row: such an index may be recognised by what it covers."""
    conditions = (index.dialect_options[name]["where"] for name in ("sqlite", "postgresql"))
    columns_only = all(isinstance(part, sa.Column) for part in index.expressions)
    return columns_only and all(condition is None for condition in conditions)


def _unique_constraints(table: sa.Table) -> Iterator[sa.Index]:
    """As indexes, which can be added later. Not of the tables that other programs made: theirs may differ."""
    if table.name not in SHARED:
        for constraint in table.constraints:
            if isinstance(constraint, sa.UniqueConstraint):
                names = "_".join(column.name for column in constraint.columns)
                copy = table.to_metadata(sa.MetaData())  # or the index would belong to the model from now on
                columns = (copy.columns[column.name] for column in constraint.columns)
                yield sa.Index(f"uq_{table.name}_{names}", *columns, unique=True)


def _invalid_indexes(connection: Connection) -> list[tuple[str, str]]:
    if connection.dialect.name != "postgresql":
        return []
    return [(name, table) for name, table in connection.execute(_INVALID_INDEXES)]


# ---------------------------------------------------------------- contradictions


def _unchecked_keys(connection: Connection) -> list[str]:
    if connection.dialect.name != "postgresql":
        return []
    return [
        f"the foreign key {key} of {owner} was never validated"
        for owner, key in connection.execute(_UNCHECKED_KEYS)
        if owner in METADATA.tables
    ]


def _missing_references(found: Found, table: sa.Table) -> Iterator[str]:
    there = {(tuple(key["constrained_columns"]), key["referred_table"]) for key in found.foreign_keys}
    for key in table.foreign_key_constraints:
        columns = tuple(column.name for column in key.columns)
        if (columns, key.referred_table.name) not in there:
            yield f"{table.name} has no foreign key ({', '.join(columns)}) to {key.referred_table.name}"
