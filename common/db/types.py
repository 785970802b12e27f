"""Column types and the declarative base."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, MetaData
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator, TypeEngine

# A plain `json` column on PostgreSQL has no equality, so DISTINCT and UNION would fail.
Json = JSON().with_variant(JSONB(), "postgresql")


_POSTGRES_TEXT = (25, 1042, 1043)  # text, character, character varying


def _as_it_is(value: Any) -> Any:
    return value


def _parsed(value: str | None) -> Any:
    return None if value is None else json.loads(value)


class SharedJson(TypeDecorator[Any]):
    """JSON in a table that other programs write to, where it may be TEXT: what cannot be read counts as `{}`."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(JSONB() if dialect.name == "postgresql" else JSON())

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        read = super().result_processor(dialect, coltype) or _as_it_is
        if coltype in _POSTGRES_TEXT:
            read = _parsed

        def process(value: Any) -> Any:
            try:
                return read(value)
            except (TypeError, ValueError):
                return {}

        return process


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC. SQLite keeps no zone, so it is added again on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Every table this platform reads or writes."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
