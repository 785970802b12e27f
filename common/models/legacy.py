"""What the program that was here before had written down, and no table of ours has a place for."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from common.db.types import Base, Json, UtcDateTime


class LegacyRecord(Base):
    """One row of a legacy table, kept as it was: redemption codes, trade tickets, leftover ledgers."""

    __tablename__ = "legacy_record"

    source: Mapped[str] = mapped_column(String(64), primary_key=True)  # the legacy table
    legacy_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    user_id: Mapped[str | None] = mapped_column(String(255), index=True)
    data: Mapped[Any] = mapped_column(Json)
    imported_at: Mapped[datetime] = mapped_column(UtcDateTime)
