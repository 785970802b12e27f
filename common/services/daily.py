"""What is to be done once a day: whoever comes first does it, and it is remembered that it was done."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from common import clock
from common.models import AppSetting

_EVERY = timedelta(hours=24)
_AGAIN = timedelta(minutes=10)  # after what was begun and never finished


def claim(session: Session, name: str) -> bool:
    """Whether it is due and the caller is to do it; nobody else will within the next minutes.

    `name` is its row in app_setting, whose `updated_at` says from when on the next day is counted.
    """
    now = clock.now()
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    begun = {"updated_at": now - _EVERY + _AGAIN}
    taken = session.execute(
        dialect.insert(AppSetting)
        .values(key=name, value={}, **begun)
        .on_conflict_do_update(
            index_elements=[AppSetting.key], set_=begun, where=AppSetting.updated_at <= now - _EVERY
        )
        .returning(AppSetting.key)
    ).one_or_none()
    return taken is not None


def finished(session: Session, name: str, value: dict[str, Any]) -> None:
    """It is done for today; `value` is what came of it."""
    session.execute(
        update(AppSetting).where(AppSetting.key == name).values(value=value, updated_at=clock.now())
    )
