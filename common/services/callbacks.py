"""Who calls back: the account that an attempt was made with, and how its provider signs.

Published keys are fetched by a worker and kept in Redis, where web reads them. Without keys or Redis a callback
cannot be checked and counts as what it is anyway: a nudge.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import select
from sqlalchemy.orm import Session

from common import broker, clock
from common.models import JobAttempt, ProviderAccount
from common.providers.callbacks import Callback, fal_key_set, signed_with_key, signed_with_secret
from common.services import accounts
from common.services.accounts import Account

log = logging.getLogger(__name__)

KEEP_S = 24 * 3600  # fal: no longer than that
RENEW_S = 23 * 3600
_TIMEOUT_S = 0.5
_TROUBLE = (RedisError, OSError, ValueError)
_FAL = "fal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who may call to one token. `account` is None where it is gone, or its credentials cannot be read."""

    account: Account | None


def caller(session: Session, token: str) -> Caller | None:
    """Whose calls come to this token; None for a token that we never gave."""
    account_id = session.scalar(select(JobAttempt.account_id).where(JobAttempt.callback_token == token))
    if account_id is None:
        return None
    return Caller(account=accounts.load(session, [account_id]).get(account_id))


def is_forged(caller: Caller, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the call should have carried a right signature and does not. Asks Redis: no transaction may be open."""
    account = caller.account
    if account is None:
        return False
    call = Callback(headers=headers, body=body, at=clock.epoch())
    if secret := account.credentials.secrets.get("webhook_secret"):
        return not signed_with_secret(secret, call)
    if account.adapter == _FAL:
        return _is_forged_at_fal(fal_key_set(account.credentials.base_url), call)
    return False


def _is_forged_at_fal(key_set: str, call: Callback) -> bool:
    keys = known_keys(key_set)
    if not keys or signed_with_key(keys, call):
        return False
    _doubt(key_set)
    return True


# ---------------------------------------------------------------- published keys


def _keys_at(key_set: str) -> str:
    return f"wxiai:callback-keys:{key_set}"


def _fresh_at(key_set: str) -> str:
    return f"wxiai:callback-keys-fresh:{key_set}"


def known_keys(key_set: str) -> tuple[str, ...]:
    """The keys that were published there when a worker last looked; none while Redis is away."""
    try:
        with broker.client(_TIMEOUT_S) as redis:
            kept = redis.get(_keys_at(key_set))
            return tuple(json.loads(kept)) if isinstance(kept, bytes) else ()
    except _TROUBLE as error:
        log.warning("a callback cannot be checked: %s", type(error).__name__)
        return ()


def _doubt(key_set: str) -> None:
    """A call did not fit these keys: have a worker look whether there are new ones."""
    try:
        with broker.client(_TIMEOUT_S) as redis:
            redis.delete(_fresh_at(key_set))
    except _TROUBLE as error:
        log.warning("published keys stay as they are: %s", type(error).__name__)


def key_sets(session: Session) -> list[str]:
    """Where the accounts in use have their keys published, each once."""
    bases = session.scalars(
        select(ProviderAccount.base_url).where(ProviderAccount.adapter == _FAL, ProviderAccount.enabled)
    )
    return sorted({fal_key_set(base_url) for base_url in bases})


def needs_renewal(redis: Redis, key_set: str) -> bool:
    """Whether these keys are to be fetched: missing, a day old, or in doubt."""
    return not redis.exists(_fresh_at(key_set))


def keep(redis: Redis, key_set: str, keys: tuple[str, ...]) -> None:
    """Keep the keys that are published there now."""
    with redis.pipeline(transaction=True) as pipe:
        pipe.set(_keys_at(key_set), json.dumps(keys), ex=KEEP_S)
        pipe.set(_fresh_at(key_set), "1", ex=RENEW_S)
        pipe.execute()
