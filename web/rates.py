"""Rate limits of submits: per user, and per token that has a limit of its own; and notes of what happened just now.

They are counted in Redis for all web processes together. A Redis that is away neither stops nor delays a submit: for a
while each process counts for itself then.
"""

from __future__ import annotations

import logging
import math
import time
from functools import cache, lru_cache

from flask import g
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage, RedisStorage
from redis.exceptions import RedisError

from common import broker
from common.errors import Forbidden, RateLimited
from common.services.users import Actor
from common.settings import settings

log = logging.getLogger(__name__)

_TIMEOUT_S = 0.3
_AWAY_S = 5.0  # so long Redis is not asked again
_TROUBLE = (RedisError, OSError, ValueError)
_parsed = lru_cache(1000)(parse)


def count(actor: Actor) -> None:
    """Count a submit. Raises RateLimited for one too many.

    What is left is told in the answer's headers, whatever the answer is.
    """
    found = [_hit(settings().rate_limit_submits, "user", actor.user_id)]
    if actor.rate_limit:
        found.append(_hit(actor.rate_limit, "token", actor.token_id))
    left, limit, reset_s = min(found)
    g.rate_headers = {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": str(max(0, left)),
        "x-ratelimit-reset-requests": f"{reset_s}s",
    }
    if left < 0:
        raise RateLimited(
            f"There can be {limit} submits in this time; try again later.", retry_after_s=reset_s
        )


def count_upload(actor: Actor) -> None:
    """Count an upload: a user may send as many as jobs, counted apart. Raises RateLimited for one too many."""
    left, limit, reset_s = _hit(settings().rate_limit_submits, "uploads", actor.user_id)
    if left < 0:
        raise RateLimited(
            f"There can be {limit} uploads in this time; try again later.", retry_after_s=reset_s
        )


def refuse_limited_token(actor: Actor) -> None:
    """Raise Forbidden for a token that has a limit: what would submit on its own is not counted with it."""
    if actor.rate_limit:
        raise Forbidden("A token with a rate limit of its own can make neither tokens nor schedules.")


def note(what: str, lives_s: int) -> None:
    """Note that something was there, for so long after the first of several."""
    _counters().add(f"noted/{what}", lives_s)


def take(what: str, lives_s: int) -> bool:
    """Take one of these notes away. Returns whether there was one."""
    if _counters().add(f"noted/{what}", lives_s, -1) >= 0:
        return True
    _counters().add(f"noted/{what}", lives_s)
    return False


def _hit(limit: str, kind: str, of: str) -> tuple[int, int, int]:
    """How many are left after this one (below zero: it is one too many), of how many, and for how many seconds."""
    item: RateLimitItem = _parsed(limit)
    window_s, now = item.get_expiry(), time.time()
    number = int(now // window_s)
    hits = _counters().add(item.key_for(kind, of, str(number)), window_s)
    return item.amount - hits, item.amount, max(1, math.ceil((number + 1) * window_s - now))


class _Counters:
    """Where hits are counted."""

    def __init__(self) -> None:
        pool = broker.client(_TIMEOUT_S).connection_pool
        self._shared = RedisStorage("redis://", connection_pool=pool, key_prefix="wxiai:rates")
        self._own = MemoryStorage()
        self._ask_again_at = 0.0

    def add(self, key: str, window_s: int, amount: int = 1) -> int:
        if time.monotonic() >= self._ask_again_at:
            try:
                return self._shared.incr(key, window_s, amount)
            except _TROUBLE as error:
                log.warning("rate limits are counted by each process for itself: %s", type(error).__name__)
                self._ask_again_at = time.monotonic() + _AWAY_S
        return self._own.incr(key, window_s, amount)


@cache
def _counters() -> _Counters:
    return _Counters()
