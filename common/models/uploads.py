"""What users bring for their jobs' inputs."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Float, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.types import Base, UtcDateTime

_REQUIRED = {"compat": "required"}  # what is deleted must not come back, what is not stored must not be used


class Upload(Base):
    """A picture, film or sound in the operator's storage, one for each content and user.

    The row comes before the object: without `stored_at` it is not there yet, and nobody may use it.
    """

    __tablename__ = "upload"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255))
    name: Mapped[str | None] = mapped_column(String(255))  # what the user called the file; only shown
    kind: Mapped[str] = mapped_column(String(16))
    content_type: Mapped[str] = mapped_column(String(128))
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    width: Mapped[int | None] = mapped_column(Integer)
    height: Mapped[int | None] = mapped_column(Integer)
    duration_s: Mapped[float | None] = mapped_column(Float(53))
    key: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    stored_at: Mapped[datetime | None] = mapped_column(UtcDateTime, info=_REQUIRED)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime, info=_REQUIRED)

    __table_args__ = (
        Index("ix_upload_user_id_id", "user_id", "id"),
        Index("uq_upload_user_id_sha256", "user_id", "sha256", unique=True,
              postgresql_where=text("deleted_at IS NULL"), sqlite_where=text("deleted_at IS NULL")),
        Index("ix_upload_deleted_at", "deleted_at",
              postgresql_where=text("deleted_at IS NOT NULL"), sqlite_where=text("deleted_at IS NOT NULL")),
        Index("ix_upload_unstored", "created_at",
              postgresql_where=text("stored_at IS NULL AND deleted_at IS NULL"),
              sqlite_where=text("stored_at IS NULL AND deleted_at IS NULL")),
    )  # fmt: skip
