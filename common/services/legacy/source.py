"""Reading legacy tables: any layout, any missing column, both databases, a batch at a time.

Columns are read without a type, because no two layouts agree on one: on SQLite JSON and times are text, on
PostgreSQL they are values already. The functions below take either.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any, TypeAlias

from sqlalchemy import ColumnClause, TableClause, column, func, select, table
from sqlalchemy.orm import Session

from common.db import schema

Row: TypeAlias = Mapping[str, Any]

_PLACES = Decimal("0.000000000001")  # NUMERIC(24, 12)
_HOUR_S = 3600.0
_ZONES = 14  # no host is further from UTC


class Source:
    """The legacy tables that this database has."""

    def __init__(self, session: Session) -> None:
        self._columns = schema.columns(session.connection())

    def has(self, name: str, *columns: str) -> bool:
        """Whether the table is there, with these columns."""
        return name in self._columns and self._columns[name].issuperset(columns)

    def count(self, session: Session, name: str) -> int:
        """How many rows it has; none where it is missing."""
        if not self.has(name):
            return 0
        return session.scalar(select(func.count()).select_from(table(name))) or 0

    def batch(self, session: Session, name: str, key: str, after: str | None, limit: int) -> list[Row]:
        """The rows behind `after`, in the order of the key."""
        if not self.has(name, key):
            return []
        its = self._table(name)
        query = select(its).where(its.c[key].is_not(None)).order_by(its.c[key]).limit(limit)
        if after is not None:
            query = query.where(its.c[key] > after)
        return [dict(row) for row in session.execute(query).mappings()]

    def all(self, session: Session, name: str, limit: int) -> list[Row]:
        """The first rows of a small table."""
        if not self.has(name):
            return []
        its = self._table(name)
        query = select(its).limit(limit)
        if "id" in its.c:
            query = query.order_by(its.c.id.desc())  # where there are several the newest one counts
        return [dict(row) for row in session.execute(query).mappings()]

    def where(self, session: Session, name: str, key: str, values: list[str], *wanted: str) -> list[Row]:
        """These columns of the rows whose key is one of `values`."""
        if not values or not self.has(name, key, *wanted):
            return []
        its = self._table(name)
        query = select(*(its.c[part] for part in wanted)).where(its.c[key].in_(values))
        return [dict(row) for row in session.execute(query).mappings()]

    def _table(self, name: str) -> TableClause:
        parts: list[ColumnClause[Any]] = [column(part) for part in sorted(self._columns[name])]
        return table(name, *parts)


# ---------------------------------------------------------------- values


def text(value: Any) -> str | None:
    """A text that says something, or None."""
    return None if value is None or not str(value).strip() else str(value).strip()


def exact(value: Any) -> Decimal | None:
    """A number as it is stored, to twelve places; None for NULL and for what is none."""
    if value is None:
        return None
    try:
        number = Decimal(f"{value:.12f}") if isinstance(value, float) else Decimal(str(value))
        return number.quantize(_PLACES)
    except InvalidOperation:
        return None


def whole(value: Any) -> int:
    """Credits, rounded up; 0 for what is none, or below zero."""
    number = exact(value)
    return max(0, int(number.to_integral_value(ROUND_CEILING))) if number is not None else 0


def number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        read = float(value)
    except (TypeError, ValueError):
        return None
    return read if math.isfinite(read) else None


def parsed(value: Any) -> Any:
    """JSON, which may be a value already; SQL NULL, the text `null` and what cannot be read are None."""
    if not isinstance(value, (str, bytes)):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return None


def moment(value: Any) -> datetime | None:
    """A date and time without zone, taken as UTC: what the database's own clock wrote."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return datetime.fromtimestamp(value, UTC) if 0 < value < 1e11 else None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def beside(created: datetime, value: Any) -> datetime | None:
    """A time that the host's own clock may have written, on the clock that wrote `created`.

    The zone is stored nowhere, but no task took half an hour: whole hours of difference are the zone.
    """
    found = moment(value)
    if found is None:
        return None
    hours = round((found - created).total_seconds() / _HOUR_S)
    if hours and abs(hours) <= _ZONES:
        found -= timedelta(hours=hours)
    return max(found, created)


def plain(value: Any) -> Any:
    """A column's value as JSON keeps it."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value
