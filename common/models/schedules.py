"""Jobs that are submitted by the clock."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Float, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.types import Base, Json, UtcDateTime


class Schedule(Base):
    """A job body and when to submit it: by `cron` in a time zone, or every `interval_s`.

    `next_at` (epoch seconds) moves on in the transaction that accepts the job, so each due time counts once.
    """

    __tablename__ = "schedule"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255), index=True)
    name: Mapped[str] = mapped_column(String(255))
    cron: Mapped[str | None] = mapped_column(String(255))
    interval_s: Mapped[int | None] = mapped_column(Integer)
    timezone: Mapped[str] = mapped_column(String(64))
    job: Mapped[Any] = mapped_column(Json)
    enabled: Mapped[bool] = mapped_column(Boolean)
    catch_up: Mapped[bool] = mapped_column(Boolean)
    next_at: Mapped[float | None] = mapped_column(Float(53), index=True)  # NULL: never
    last_at: Mapped[float | None] = mapped_column(Float(53))
    last_job_id: Mapped[str | None] = mapped_column(String(32))
    last_error: Mapped[str | None] = mapped_column(Text)
    runs: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
