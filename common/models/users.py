"""Who may use the platform. `user`, `auth` and `group` are Open WebUI's tables and mean what they mean there:
times are epoch seconds, `user.id` equals `auth.id`, and no foreign key points at `user`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.types import Base, SharedJson, UtcDateTime


class User(Base):
    """Someone who may sign in, submit jobs and own credits."""

    __tablename__ = "user"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    email: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(255), info={"compat": "required"})
    profile_image_url: Mapped[str] = mapped_column(Text)
    api_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    created_at: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[int] = mapped_column(BigInteger)
    last_active_at: Mapped[int] = mapped_column(BigInteger)
    phone: Mapped[str | None] = mapped_column(String(64))

    __table_args__ = (Index("ix_user_phone", "phone", unique=True),)


class Auth(Base):
    """A user's password hash (bcrypt, or argon2 where another program wrote it)."""

    __tablename__ = "auth"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    email: Mapped[str] = mapped_column(String(255))
    password: Mapped[str] = mapped_column(Text)
    active: Mapped[bool] = mapped_column(Boolean)


class Group(Base):
    """A named set of users that access control may name."""

    __tablename__ = "group"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[str | None] = mapped_column(Text)
    name: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    user_ids: Mapped[Any] = mapped_column(SharedJson, nullable=True)
    created_at: Mapped[int | None] = mapped_column(BigInteger)
    updated_at: Mapped[int | None] = mapped_column(BigInteger)


class ApiToken(Base):
    """A Bearer token; only its fingerprint is kept. One with `expires_at` came from a sign-in."""

    __tablename__ = "api_token"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255), index=True)
    name: Mapped[str] = mapped_column(String(255))
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True, info={"compat": "required"})
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime, info={"compat": "required"})
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    rate_limit: Mapped[str | None] = mapped_column(String(32))  # of submits with it, beside its user's own
