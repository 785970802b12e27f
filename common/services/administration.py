"""What administrators give to users, at most once per Idempotency-Key."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from common import clock
from common.errors import Conflict, KeyReused
from common.ids import new_id
from common.models import ApiToken, IdempotencyKey, LedgerEntry
from common.services import credits, jobs, users
from common.services.jobs import Once
from common.services.users import Actor
from common.settings import secret_key

_LONGEST_REFERENCE = 255
_TOKEN_ROUTE = "POST /v1/admin/users/tokens"


def grant(
    session: Session, admin: Actor, user_id: str, amount: int, *, note: str | None, key: str | None = None
) -> tuple[LedgerEntry, bool]:
    """Give a user credits: the entry, and whether the key had made it before. Such a key is never forgotten.

    Raises NotFound, or KeyReused where the key was used for other values.
    """
    users.get_user(session, user_id)
    reference = _reference(admin, key)
    entry = _granted(session, reference) if key else None
    if entry is None:
        try:
            with session.begin_nested():
                return credits.grant(session, user_id, amount, note=note, reference=reference), False
        except IntegrityError:  # the same key at the same moment
            entry = _granted(session, reference)
            if entry is None:
                raise
    if (entry.user_id, entry.amount, entry.note) != (user_id, amount, note):
        raise KeyReused(param="Idempotency-Key")
    return entry, True


def _reference(admin: Actor, key: str | None) -> str:
    plain = f"grant:{admin.user_id}:{key or new_id('key')}"
    return (
        plain if len(plain) <= _LONGEST_REFERENCE else f"grant:{hashlib.sha256(plain.encode()).hexdigest()}"
    )


def _granted(session: Session, reference: str) -> LedgerEntry | None:
    return session.scalars(select(LedgerEntry).where(LedgerEntry.reference == reference)).one_or_none()


def issue_token(
    session: Session,
    admin: Actor,
    user_id: str,
    name: str,
    key: str | None = None,
    *,
    rate_limit: str | None = None,
) -> tuple[str, ApiToken, bool]:
    """A token for a user: the secret, its row, and whether the key had made it before. Raises NotFound.

    With a key the secret is derived from it, so that a repeat can answer the very same token though no secret is
    kept. Raises KeyReused for other values, and Conflict if that token was deleted meanwhile.
    """
    users.get_user(session, user_id)
    if key is None:
        return *users.create_token(session, user_id, name, rate_limit=rate_limit), False
    body = hashlib.sha256(f"{user_id}\0{name}\0{rate_limit or ''}".encode()).hexdigest()
    earlier = jobs.claim_key(session, admin.user_id, Once(_TOKEN_ROUTE, key, body), "")
    known = session.get_one(IdempotencyKey, (admin.user_id, _TOKEN_ROUTE, key))
    secret = _derived(admin, key, known.created_at)
    if earlier is None:
        secret, row = users.create_token(session, user_id, name, token=secret, rate_limit=rate_limit)
        known.result_id = row.id
        return secret, row, False
    issued = session.get(ApiToken, earlier)
    if issued is None:
        raise Conflict("This Idempotency-Key made a token that was deleted since.")
    return secret, issued, True


def _derived(admin: Actor, key: str, first_used_at: datetime) -> str:
    """A secret that only this server can make again; the moment keeps a key that is used anew apart."""
    text = f"token\0{admin.user_id}\0{key}\0{clock.iso(first_used_at)}"
    digest = hmac.digest(secret_key().encode(), text.encode(), "sha256")
    return "sk-" + base64.urlsafe_b64encode(digest).decode().rstrip("=")
