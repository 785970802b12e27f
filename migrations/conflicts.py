"""Compares what a database has with what a revision or a model wants: by family of type, not by spelling."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import NullType, TypeEngine

# Wanted family → families that serve as well. SQLite stores what it is given, so it bears more.
_SERVES: dict[str, set[str]] = {"number": {"integer", "small integer"}}
_SERVES_IN_SHARED_TABLES: dict[str, set[str]] = {**_SERVES, "json": {"text"}}  # the models read it as either
_SERVES_ON_SQLITE: dict[str, set[str]] = {
    "boolean": {"integer", "small integer"},
    "integer": {"small integer"},
    "json": {"text"},
    "text": {"json"},
    "number": {"integer", "small integer"},
}
_FAMILIES: list[tuple[type[TypeEngine[Any]], str]] = [
    (sa.JSON, "json"),
    (sa.Boolean, "boolean"),
    (sa.SmallInteger, "small integer"),
    (sa.Integer, "integer"),
    (sa.Numeric, "number"),
    (sa.Float, "number"),
    (sa.Enum, "enumeration"),
    (sa.String, "text"),
    (sa.DateTime, "moment"),
    (sa.Date, "date"),
    (sa.LargeBinary, "bytes"),
]


def family(kind: TypeEngine[Any]) -> str:
    """The family of a column type, e.g. `text` for VARCHAR(255) and TEXT."""
    if isinstance(kind, sa.types.TypeDecorator):
        kind = kind.impl_instance
    return next((name for base, name in _FAMILIES if isinstance(kind, base)), type(kind).__name__.lower())


def serves(have: TypeEngine[Any], want: TypeEngine[Any], dialect: str, *, shared: bool) -> bool:
    """Can a column of type `have` hold what a column of type `want` is for?

    `shared`: in a table that a legacy program may have made.
    """
    if isinstance(have, NullType):
        return True  # SQLite: declared without a type
    found, wanted = family(have), family(want)
    elsewhere = _SERVES_IN_SHARED_TABLES if shared else _SERVES
    others = _SERVES_ON_SQLITE if dialect == "sqlite" else elsewhere
    return found == wanted or found in others.get(wanted, ())
