"""Jobs: the lasting record, and the narrow row that the workers fight over while a job lives."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from common.db.types import Base, Json, UtcDateTime

_REQUIRED = {"compat": "required"}  # money, and what a job would be lost or doubled without


class Job(Base):
    """One user request, from acceptance to settlement. `price` was frozen when it was accepted."""

    __tablename__ = "job"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(16))
    provider: Mapped[str] = mapped_column(String(32))
    model: Mapped[str] = mapped_column(String(128))
    action: Mapped[str] = mapped_column(String(64))
    input: Mapped[Any] = mapped_column(Json)
    metadata_: Mapped[Any] = mapped_column("metadata", Json)
    priority: Mapped[int] = mapped_column(Integer, default=0)
    parent_id: Mapped[str | None] = mapped_column(String(32), index=True)
    tool_id: Mapped[str | None] = mapped_column(Text)
    webhook_url: Mapped[str | None] = mapped_column(Text)
    dialect: Mapped[str | None] = mapped_column(String(16))  # of the API it came through, if not our own
    price: Mapped[int] = mapped_column(BigInteger, info=_REQUIRED)
    charged: Mapped[int | None] = mapped_column(BigInteger, info=_REQUIRED)
    progress: Mapped[int] = mapped_column(Integer, default=0)
    preview_url: Mapped[str | None] = mapped_column(Text)
    actions: Mapped[Any] = mapped_column(Json)
    output: Mapped[Any] = mapped_column(Json, nullable=True, info=_REQUIRED)
    error: Mapped[Any] = mapped_column(Json, nullable=True)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    late: Mapped[bool] = mapped_column(Boolean, default=False)
    deadline_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    submitted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index("ix_job_user_id_id", "user_id", "id"),
        Index("ix_job_finished_at", "finished_at"),
    )


_SUBMITTING = text("step = 'submit' AND attempt_id IS NOT NULL")


class JobStep(Base):
    """What one live job waits for. Gone once the job is finished, so the table stays as small as the work.

    `due_at` (epoch seconds) is also the lease: a claim moves it into the future and writes its token, and a
    worker that dies simply lets it become due again. A row with an `account_id` occupies `slots` of that
    account's concurrency while its step is submit, reconcile or poll (none, where an ended job is still watched that
    its provider denies); nothing else counts slots, so none leak.
    """

    __tablename__ = "job_step"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[str] = mapped_column(String(16))
    due_at: Mapped[float] = mapped_column(Float(53))
    lease_token: Mapped[str | None] = mapped_column(String(32), info=_REQUIRED)
    user_id: Mapped[str] = mapped_column(String(255))
    model: Mapped[str] = mapped_column(String(128))
    priority: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[float] = mapped_column(Float(53))
    deadline_at: Mapped[float] = mapped_column(Float(53))
    slots: Mapped[int] = mapped_column(Integer, default=1)
    pinned_account_id: Mapped[str | None] = mapped_column(
        String(32), info=_REQUIRED
    )  # a follow-up stays at its parent's account
    account_id: Mapped[str | None] = mapped_column(String(32), info=_REQUIRED)
    attempt_id: Mapped[str | None] = mapped_column(String(32), info=_REQUIRED)
    expires_at: Mapped[float | None] = mapped_column(Float(53))  # store: when the first URL dies
    failures: Mapped[int] = mapped_column(Integer, default=0)
    refusals: Mapped[int | None] = mapped_column(
        Integer, server_default="0"
    )  # in a row, and definite: store: of the source, not of ours; poll: of knowing the job, or to make it
    cancel_at: Mapped[float | None] = mapped_column(Float(53), info=_REQUIRED)

    __table_args__ = (
        Index("ix_job_step_step_due_at", "step", "due_at"),
        Index("ix_job_step_account_id", "account_id"),
        Index("ix_job_step_deadline_at", "deadline_at"),
        Index("ix_job_step_user_id", "user_id"),
        # Both are small, and no poll touches them: the backlog by turns, and the submits under way.
        Index("ix_job_step_waiting", "model", "user_id", priority.desc(), "created_at",
              postgresql_where=text("attempt_id IS NULL"), sqlite_where=text("attempt_id IS NULL")),
        Index("ix_job_step_submitting", "step", "due_at",
              postgresql_where=_SUBMITTING, sqlite_where=_SUBMITTING),
    )  # fmt: skip


class JobAttempt(Base):
    """One try at one account. Its id is the reference that the provider is given."""

    __tablename__ = "job_attempt"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer)
    account_id: Mapped[str] = mapped_column(String(32), index=True)
    outcome: Mapped[str] = mapped_column(String(16))
    callback_token: Mapped[str] = mapped_column(String(64), unique=True)
    provider_ref: Mapped[str | None] = mapped_column(Text, info=_REQUIRED)
    memo: Mapped[Any] = mapped_column(Json, nullable=True, info=_REQUIRED)
    outputs: Mapped[Any] = mapped_column(
        Json, nullable=True, info=_REQUIRED
    )  # the provider's own URLs, which expire
    cost: Mapped[str | None] = mapped_column(String(64))  # as the provider said it
    error_code: Mapped[str | None] = mapped_column(String(32))
    error_message: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # the submit
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # the generation: made, or failed

    __table_args__ = (UniqueConstraint("job_id", "number"),)


class JobEvent(Base):
    """Something about a job worth telling that no other row shows: a verdict, a lost answer, a late success."""

    __tablename__ = "job_event"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    detail: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Artifact(Base):
    """A result in the operator's storage, kept for good. Written before the job may succeed."""

    __tablename__ = "artifact"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(String(16))
    key: Mapped[str] = mapped_column(Text)
    url: Mapped[str | None] = mapped_column(Text)  # where the storage says it is; never a signed one
    thumbnail_key: Mapped[str | None] = mapped_column(Text)
    content_type: Mapped[str] = mapped_column(String(128))
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    width: Mapped[int | None] = mapped_column(Integer)
    height: Mapped[int | None] = mapped_column(Integer)
    duration_s: Mapped[float | None] = mapped_column(Float(53))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (UniqueConstraint("job_id", "number"),)


class IdempotencyKey(Base):
    """Which answer a client's key already got; kept 24 hours."""

    __tablename__ = "idempotency_key"

    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    route: Mapped[str] = mapped_column(String(128), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(String(64))
    result_id: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
