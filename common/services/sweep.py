"""What beat does between ticks: decide what nobody came back for, and forget what is over."""

from __future__ import annotations

from sqlalchemy import delete
from sqlalchemy.orm import Session

from common import clock
from common.models import IdempotencyKey
from common.services import lifecycle, users
from common.services.jobs import KEY_LIVES


def sweep(session: Session) -> None:
    """Abandoned submits, passed deadlines, expired sign-ins, old idempotency keys."""
    lifecycle.recover(session)
    lifecycle.past_deadline(session)
    users.forget_expired_tokens(session)
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < clock.now() - KEY_LIVES))
