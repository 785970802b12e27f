"""The platform itself: its configuration, its catalogue, and the history of its schema."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Float, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.types import Base, Json, UtcDateTime


class AppSetting(Base):
    """Our own configuration that is changed at run time. Not Open WebUI's `config`."""

    __tablename__ = "app_setting"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    value: Mapped[Any] = mapped_column(Json)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class CatalogModel(Base):
    """The operator's say about one model of the catalogue: on sale or not, and at which price.

    `price` NULL means the price that the code ships with.
    """

    __tablename__ = "catalog_model"

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    price: Mapped[Any] = mapped_column(Json, nullable=True, info={"compat": "required"})
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class MigrationReport(Base):
    """One run of `python -m migrations upgrade` that had something to do."""

    __tablename__ = "migration_report"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    holder: Mapped[str] = mapped_column(String(255))
    from_revision: Mapped[str | None] = mapped_column(Text)
    to_revision: Mapped[str | None] = mapped_column(Text)
    rung: Mapped[str | None] = mapped_column(String(32))
    verdict: Mapped[str] = mapped_column(String(16))
    duration_s: Mapped[float | None] = mapped_column(Float(53))
    backup: Mapped[str | None] = mapped_column(Text)
    rows_before: Mapped[Any] = mapped_column(Json, nullable=True)
    rows_after: Mapped[Any] = mapped_column(Json, nullable=True)
    error: Mapped[str | None] = mapped_column(Text)


class MigrationLedger(Base):
    """One applied revision, with the checksum of its file."""

    __tablename__ = "migration_ledger"

    revision: Mapped[str] = mapped_column(String(64), primary_key=True)
    checksum: Mapped[str] = mapped_column(String(64))
    applied_at: Mapped[datetime] = mapped_column(UtcDateTime)
    duration_ms: Mapped[int] = mapped_column(Integer)
    report_id: Mapped[str | None] = mapped_column(String(32))
