"""What is still to be removed from the storage."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Float, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.types import Base, UtcDateTime

_REQUIRED = {"compat": "required"}


class ObjectDeletion(Base):
    """An object that nothing needs any more: committed with what forgot it, gone once it is removed."""

    __tablename__ = "object_deletion"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    key: Mapped[str] = mapped_column(Text)
    due_at: Mapped[float] = mapped_column(Float(53), index=True)  # also the lease, as with jobs
    lease_token: Mapped[str | None] = mapped_column(String(32), info=_REQUIRED)
    tries: Mapped[int] = mapped_column(Integer)
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
