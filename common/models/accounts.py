"""Credentials at the providers."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Boolean, Float, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.types import Base, UtcDateTime


class ProviderAccount(Base):
    """One set of credentials at one provider API, with its limits and its health.

    The `env` account of each API mirrors the settings; the others are the operator's own rows.
    Health: `failures` counts troubles in a row; until `open_until` (epoch seconds) the breaker lets nothing
    through, then a single probe.
    """

    __tablename__ = "provider_account"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    provider: Mapped[str] = mapped_column(String(32), index=True)
    adapter: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(String(64), unique=True)
    base_url: Mapped[str] = mapped_column(Text)
    credentials: Mapped[str] = mapped_column(Text)  # sealed by common.crypto
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    weight: Mapped[int] = mapped_column(Integer, default=1)
    max_concurrency: Mapped[int] = mapped_column(Integer)
    max_submits_per_minute: Mapped[int | None] = mapped_column(Integer)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    open_until: Mapped[float] = mapped_column(Float(53), default=0.0)
    trouble: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
