"""The daily proof that every credit is accounted for: done once, whoever comes first, and remembered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from common import clock
from common.models import AppSetting
from common.services import daily

KEY = "ledger_proof"  # its row in app_setting
_KEPT = 20  # findings that are kept with it


@dataclass(frozen=True, slots=True)
class Proof:
    """When the ledger was last verified, and how many contradictions there were."""

    verified_at: datetime
    findings: int


def claim(session: Session) -> bool:
    """Whether the proof is due and the caller is to do it."""
    return daily.claim(session, KEY)


def record(session: Session, findings: list[str]) -> None:
    """Remember what the proof has found."""
    moment = clock.now().isoformat()
    value = {"verified_at": moment, "findings": len(findings), "lines": findings[:_KEPT]}
    daily.finished(session, KEY, value)


def last(session: Session) -> Proof | None:
    """The last proof that was finished, or None."""
    value = session.scalar(select(AppSetting.value).where(AppSetting.key == KEY))
    if not value:
        return None
    return Proof(datetime.fromisoformat(value["verified_at"]), value["findings"])
