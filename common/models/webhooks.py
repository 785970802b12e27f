"""What we owe to receivers: endpoints, signing secrets, and the outbox."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Float, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.types import Base, Json, UtcDateTime

_REQUIRED = {"compat": "required"}  # an event would be sent twice, or for ever


class WebhookEndpoint(Base):
    """A URL that receives a user's events."""

    __tablename__ = "webhook_endpoint"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255), index=True)
    url: Mapped[str] = mapped_column(Text)
    event_types: Mapped[Any] = mapped_column(Json)
    secret: Mapped[str] = mapped_column(Text)  # sealed
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    name: Mapped[str | None] = mapped_column(String(255))
    previous_secret: Mapped[str | None] = mapped_column(Text)  # sealed; signs too until `previous_until`
    previous_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    failures: Mapped[int | None] = mapped_column(Integer, server_default="0")  # in a row
    paused_until: Mapped[float | None] = mapped_column(Float(53))  # epoch seconds
    disabled_reason: Mapped[str | None] = mapped_column(String(255))


class WebhookSecret(Base):
    """What signs the per-job webhooks of one user (sealed)."""

    __tablename__ = "webhook_secret"

    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    secret: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    previous_secret: Mapped[str | None] = mapped_column(Text)
    previous_until: Mapped[datetime | None] = mapped_column(UtcDateTime)


class WebhookDelivery(Base):
    """The outbox: an event committed together with what it tells, sent until a receiver takes it."""

    __tablename__ = "webhook_delivery"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)  # the evt_… that receivers see
    job_id: Mapped[str] = mapped_column(String(32), index=True)  # empty: a test of the endpoint
    user_id: Mapped[str] = mapped_column(String(255))
    endpoint_id: Mapped[str | None] = mapped_column(String(32), index=True)
    receiver: Mapped[str | None] = mapped_column(String(255))  # whoever is slow is slow for itself
    url: Mapped[str] = mapped_column(Text)
    type: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))  # pending, delivered, failed
    due_at: Mapped[float] = mapped_column(Float(53))
    lease_token: Mapped[str | None] = mapped_column(String(32), info=_REQUIRED)
    tries: Mapped[int] = mapped_column(Integer, default=0, info=_REQUIRED)
    data: Mapped[Any] = mapped_column(Json, nullable=True)  # NULL: the job, as it is when it is sent
    last_error: Mapped[str | None] = mapped_column(Text)
    response_status: Mapped[int | None] = mapped_column(Integer)
    tried_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    gives_up_at: Mapped[float | None] = mapped_column(Float(53))  # epoch seconds
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    delivered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index("ix_webhook_delivery_status_due_at", "status", "due_at"),
        Index("ix_webhook_delivery_user_id_id", "user_id", "id"),
    )
