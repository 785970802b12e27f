"""What beat does between ticks: decide what nobody came back for, and forget what is over."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import delete
from sqlalchemy.orm import Session

from common import clock
from common.models import IdempotencyKey
from common.services import deletions, lifecycle, uploads, users, webhooks
from common.services.jobs import KEY_LIVES

_BATCH = 200


def _abandoned_submits(session: Session) -> bool:
    return lifecycle.recover(session, _BATCH) == _BATCH


def _passed_deadlines(session: Session) -> bool:
    return lifecycle.past_deadline(session, _BATCH) == _BATCH


def _untaken_webhooks(session: Session) -> bool:
    return webhooks.give_up(session) > 0


def _what_is_over(session: Session) -> bool:
    users.forget_expired_tokens(session)
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < clock.now() - KEY_LIVES))
    return False


# Each in transactions of its own, again while it returns that there may be more.
PARTS: tuple[Callable[[Session], bool], ...] = (
    _abandoned_submits,
    _passed_deadlines,
    _untaken_webhooks,
    uploads.sweep,
    deletions.expire,
    _what_is_over,
)
