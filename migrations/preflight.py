"""Before anything is changed: does what is there leave our tables, reads and INSERTs their place?

A legacy program's tables may differ from our models in many ways that do no harm. Those are told; what would
break us is a conflict, told by name, and an upgrade is refused before it begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from common.db import schema
from migrations import reflection
from migrations.conflicts import family, serves
from migrations.reflection import Catalogue, Found
from migrations.target import METADATA, SHARED

_NEVER_INSERTED = {"group"}  # read only, so a column that must be given harms nobody
_ALWAYS_GIVEN = {"tool.access_control"}  # nullable, but no INSERT of ours leaves it out
_SHOWN = 5  # names in a list

_SCHEMA_RIGHTS = sa.text(
    "SELECT current_user, current_schema(), has_schema_privilege(current_schema(), 'CREATE')"
)
_TABLE_RIGHTS = sa.text(
    "SELECT relname, pg_get_userbyid(relowner), pg_has_role(relowner, 'USAGE'), has_table_privilege(oid, 'SELECT')"
    " AND has_table_privilege(oid, 'INSERT') AND has_table_privilege(oid, 'UPDATE') FROM pg_class"
    " WHERE relname = ANY(CAST(:names AS text[])) AND relkind IN ('r', 'p')"
    " AND relnamespace = to_regnamespace(quote_ident(current_schema()))"
)


@dataclass(frozen=True)
class Findings:
    """`conflicts` stop an upgrade; `differences` are borne."""

    conflicts: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, list[str]]:
        return asdict(self)

    def lines(self) -> list[str]:
        return [f"conflict  {line}" for line in self.conflicts] + self.differing()

    def differing(self) -> list[str]:
        return [f"differs   {line}" for line in self.differences]

    def refusal(self) -> str:
        """One line that names every conflict."""
        return f"refused, and nothing was changed: {'; '.join(self.conflicts)}"


def preflight(connection: Connection) -> Findings:
    """Compare everything that has a name of ours with what we need. Nothing is changed."""
    seen = reflection.read(connection, METADATA.tables)
    pairs = [(METADATA.tables[name], found) for name, found in seen.tables.items()]
    strangers = [line for table, found in pairs for line in _stranger(found, table)]
    repetitions = [line for table, found in pairs for line in _repetitions(connection, found, table)]
    differences = [line for table, found in pairs for line in _differences(found, table, connection.dialect)]
    taken = contradictions(seen, connection.dialect)
    return Findings([*strangers, *taken, *repetitions, *_rights(connection, seen)], differences)


def contradictions(seen: Catalogue, dialect: sa.Dialect) -> list[str]:
    """Names that are taken, and columns and indexes that break us."""
    lines = list(_taken_names(seen, dialect))
    for name, found in seen.tables.items():
        table = METADATA.tables[name]
        lines += _columns(found, table, dialect)
        lines += _indexes(found, table)
    return lines


# ---------------------------------------------------------------- names


def _taken_names(seen: Catalogue, dialect: sa.Dialect) -> Iterator[str]:
    fold = str.lower if dialect.name == "sqlite" else str  # there Job and job are one name
    known = {fold(relation.name): relation for relation in seen.relations}
    for name in (*METADATA.tables, schema.VERSION_TABLE):
        taken = known.get(name)
        if taken is not None and taken.name != name:
            yield f"{taken.name} is {taken}, and SQLite does not tell it from {name}, which is ours"
        elif taken is not None and taken.kind != "table":
            yield f"{name} is {taken}, and we need a table of that name"
    for table in METADATA.sorted_tables:
        for name in _index_names(table, dialect, is_new=table.name not in known):
            taken = known.get(fold(name))
            if taken is not None and (taken.kind, taken.table) != ("index", table.name):
                yield f"{name} is {taken}, and we need the name for an index of {table.name}"


def _index_names(table: sa.Table, dialect: sa.Dialect, *, is_new: bool) -> Iterator[str]:
    yield from (str(index.name) for index in table.indexes)
    if is_new and dialect.name == "postgresql":  # there a key's index has a name among the tables'
        for constraint in table.constraints:
            if isinstance(constraint, (sa.PrimaryKeyConstraint, sa.UniqueConstraint)):
                yield str(dialect.identifier_preparer.format_constraint(constraint)).strip('"')


# ---------------------------------------------------------------- columns


def _stranger(found: Found, table: sa.Table) -> Iterator[str]:
    """Lacks it what no revision adds to a table that is there? Then it is another program's."""
    there = {column["name"] for column in found.columns}
    lacking = [
        column.name
        for column in table.columns
        if column.name not in there and not column.nullable and column.server_default is None
    ]
    if lacking:
        yield f"the table {table.name} is there and is not ours by its shape: it lacks {_list(lacking)}"


def _columns(found: Found, table: sa.Table, dialect: sa.Dialect) -> Iterator[str]:
    for column in found.columns:
        ours = table.columns.get(column["name"])
        if ours is not None:
            yield from _ours(column, ours, dialect)
        elif dialect.name == "sqlite" and column["name"].lower() in table.columns:
            yield f"SQLite does not tell {table.name}.{column['name']} from the {column['name'].lower()} that is ours"
        elif table.name not in _NEVER_INSERTED and _must_be_given(column):
            yield (
                f"{table.name}.{column['name']} must be given a value and the model does not know it:"
                " our INSERTs will fail"
            )


def _ours(column: Any, ours: sa.Column[Any], dialect: sa.Dialect) -> Iterator[str]:
    table, name = ours.table.name, f"{ours.table.name}.{ours.name}"
    wanted = ours.type.dialect_impl(dialect)
    if not serves(column["type"], wanted, dialect.name, shared=table in SHARED):
        yield f"{name} is {_sql(column['type'], dialect)}, not {_sql(wanted, dialect)}"
    elif table in _NEVER_INSERTED:
        return
    elif column.get("computed"):
        yield f"{name} is computed by the database: our INSERTs will fail"
    elif ours.nullable and not column["nullable"] and name not in _ALWAYS_GIVEN:
        yield f"{name} must have a value, which not every row of ours has: our INSERTs will fail"


def _must_be_given(column: Any) -> bool:
    filled = column["default"] is not None or column.get("identity") or column.get("computed")
    return not column["nullable"] and not filled


def _indexes(found: Found, table: sa.Table) -> Iterator[str]:
    there = {index["name"]: index for index in found.indexes}
    for index in table.indexes if table.name in SHARED else ():
        if str(index.name) in found.index_names:
            names = [column.name for column in index.columns]
            covers = there[index.name]["column_names"] if index.name in there else ["an expression"]
            if covers != names:
                yield f"the index {index.name} of {table.name} is on ({_list(covers)}), not on ({_list(names)})"


def _repetitions(connection: Connection, found: Found, table: sa.Table) -> Iterator[str]:
    """Where a legacy program's rows do not bear a unique index of ours."""
    have = {column["name"] for column in found.columns}
    for index in table.indexes if table.name in SHARED else ():
        names = [column.name for column in index.columns]
        is_to_be_made = index.unique and str(index.name) not in found.index_names and set(names) <= have
        if is_to_be_made and (count := _repeated(connection, table, names)):
            yield f"{count} values of {table.name}.{_list(names)} occur more than once: {index.name} cannot be made"


def _repeated(connection: Connection, table: sa.Table, names: list[str]) -> int:
    columns = [table.columns[name] for name in names]
    groups = sa.select(*columns).where(*(column.is_not(None) for column in columns)).group_by(*columns)
    repeated = groups.having(sa.func.count() > 1).subquery()
    return connection.scalar(sa.select(sa.func.count()).select_from(repeated)) or 0


# ---------------------------------------------------------------- rights


def _rights(connection: Connection, seen: Catalogue) -> Iterator[str]:
    """PostgreSQL: may this user do to a legacy program's tables what has to be done?"""
    if connection.dialect.name != "postgresql":
        return
    who, where, may_create = connection.execute(_SCHEMA_RIGHTS).one()
    if not may_create and METADATA.tables.keys() - seen.tables.keys():
        yield f"{who} may not create tables in the schema {where}"
    for name, owner, is_owned, is_usable in connection.execute(_TABLE_RIGHTS, {"names": list(seen.tables)}):
        have = {column["name"] for column in seen.tables[name].columns} | seen.tables[name].index_names
        table = METADATA.tables[name]
        adds = [each.name for each in (*table.columns, *table.indexes) if each.name not in have]
        if not is_usable:
            yield f"{who} may not read and write {name}"
        elif adds and not is_owned:
            yield f"{name} belongs to {owner}, so {who} may not add {_list(adds)}"


# ---------------------------------------------------------------- differences


def _differences(found: Found, table: sa.Table, dialect: sa.Dialect) -> Iterator[str]:
    key = found.primary_key["constrained_columns"]
    if not key:
        yield f"{table.name} has no primary key"
    for column in found.columns:
        name = f"{table.name}.{column['name']}"
        ours = table.columns.get(column["name"])
        if ours is None:
            if table.name in _NEVER_INSERTED and _must_be_given(column):
                yield f"{name} must be given a value; we only read this table"
            continue
        kind, wanted = column["type"], ours.type.dialect_impl(dialect)
        if family(kind) != family(wanted):
            yield f"{name} is {_sql(kind, dialect)}, which serves as {_sql(wanted, dialect)}"
        elif (length := _length(kind)) and length < (_length(wanted) or length + 1):
            yield f"{name} holds {length} characters, ours {_length(wanted) or 'any number'}"
    nullable = [column["name"] for column in found.columns if column["nullable"]]
    surprising = [name for name in nullable if name in table.columns and not table.columns[name].nullable]
    if loose := [name for name in surprising if name not in key]:
        yield f"{table.name}: {_list(loose)} may be NULL"


def _sql(kind: Any, dialect: sa.Dialect) -> str:
    """The type as the database writes it; what SQLAlchemy does not know by its own name."""
    return "of no known type" if isinstance(kind, sa.types.NullType) else str(kind.compile(dialect=dialect))


def _length(kind: Any) -> int | None:
    return getattr(kind, "length", None)


def _list(names: Iterable[str | None]) -> str:
    all_names = [str(name) for name in names]
    more = len(all_names) - _SHOWN
    return ", ".join(all_names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
