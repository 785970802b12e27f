"""Balances and the append-only history that proves them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.types import Base, UtcDateTime

_MONEY = {"compat": "required"}


class CreditAccount(Base):
    """One user's balance: what may be spent, what running jobs hold; and the weight of the user's turns."""

    __tablename__ = "credit_account"

    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    available: Mapped[int] = mapped_column(BigInteger, default=0, info=_MONEY)
    held: Mapped[int] = mapped_column(BigInteger, default=0, info=_MONEY)
    weight: Mapped[int | None] = mapped_column(Integer, server_default="1")
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (
        CheckConstraint("available >= 0", name="available_not_negative"),
        CheckConstraint("held >= 0", name="held_not_negative"),
    )


class LedgerEntry(Base):
    """One immutable line of credit history.

    `reference` is unique, e.g. `job_…:hold`; a closing entry names its hold in `closes_id`, also unique: the
    database itself refuses to hold, settle or grant twice.
    """

    __tablename__ = "ledger_entry"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255), index=True)
    kind: Mapped[str] = mapped_column(String(16), info=_MONEY)
    amount: Mapped[int] = mapped_column(BigInteger, info=_MONEY)
    available_delta: Mapped[int] = mapped_column(BigInteger, info=_MONEY)
    held_delta: Mapped[int] = mapped_column(BigInteger, info=_MONEY)
    available_after: Mapped[int] = mapped_column(BigInteger, info=_MONEY)
    held_after: Mapped[int] = mapped_column(BigInteger, info=_MONEY)
    job_id: Mapped[str | None] = mapped_column(String(32), index=True, info=_MONEY)
    closes_id: Mapped[str | None] = mapped_column(String(32), unique=True, info=_MONEY)
    reference: Mapped[str] = mapped_column(String(255), unique=True, info=_MONEY)
    note: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (CheckConstraint("amount >= 0", name="amount_not_negative"),)
