"""The daily proof that every credit is accounted for: done once, whoever comes first, and remembered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from common import clock
from common.models import AppSetting

KEY = "ledger_proof"  # its row in app_setting; `updated_at` says from when on the next day is counted
_EVERY = timedelta(hours=24)
_AGAIN = timedelta(minutes=10)  # after one that was begun and never finished
_KEPT = 20  # findings that are kept with it


@dataclass(frozen=True, slots=True)
class Proof:
    """When the ledger was last verified, and how many contradictions there were."""

    verified_at: datetime
    findings: int


def claim(session: Session) -> bool:
    """Whether the proof is due and the caller is to do it; nobody else will within the next minutes."""
    now = clock.now()
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    begun = {"updated_at": now - _EVERY + _AGAIN}
    taken = session.execute(
        dialect.insert(AppSetting)
        .values(key=KEY, value={}, **begun)
        .on_conflict_do_update(
            index_elements=[AppSetting.key], set_=begun, where=AppSetting.updated_at <= now - _EVERY
        )
        .returning(AppSetting.key)
    ).one_or_none()
    return taken is not None


def record(session: Session, findings: list[str]) -> None:
    """Remember what the proof has found."""
    now = clock.now()
    value: dict[str, Any] = {
        "verified_at": now.isoformat(), "findings": len(findings), "lines": findings[:_KEPT],
    }  # fmt: skip
    session.execute(update(AppSetting).where(AppSetting.key == KEY).values(value=value, updated_at=now))


def last(session: Session) -> Proof | None:
    """The last proof that was finished, or None."""
    value = session.scalar(select(AppSetting.value).where(AppSetting.key == KEY))
    if not value:
        return None
    return Proof(datetime.fromisoformat(value["verified_at"]), value["findings"])
