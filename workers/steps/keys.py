"""Keep the keys at hand that providers sign their callbacks with."""

from __future__ import annotations

import logging
from http import HTTPStatus

from redis.exceptions import RedisError

from common import broker
from common.providers.base import Http, NotSent, Unanswered
from common.providers.callbacks import public_keys
from common.services import callbacks
from workers.http import AioHttp

log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
_REDIS_TIMEOUT_S = 2.0
_CONNECTIONS = 2


async def renew(key_sets: list[str]) -> None:
    """Fetch those keys that are missing, a day old or in doubt. What fails is tried again at the next call."""
    http = AioHttp(connections=_CONNECTIONS, downloads=1)
    try:
        for key_set in key_sets:
            await _renew(http, key_set)
    except (RedisError, OSError, ValueError) as error:
        log.warning("the keys of callbacks are not renewed: %s", type(error).__name__)
    finally:
        await http.close()


async def _renew(http: Http, key_set: str) -> None:
    with broker.client(_REDIS_TIMEOUT_S) as redis:
        if not callbacks.needs_renewal(redis, key_set):
            return
        keys = await _published(http, key_set)
        if keys:
            callbacks.keep(redis, key_set, keys)


async def _published(http: Http, key_set: str) -> tuple[str, ...]:
    try:
        reply = await http.send("GET", key_set, timeout_s=_TIMEOUT_S)
    except (NotSent, Unanswered) as error:
        log.warning("no keys from %s: %s", key_set, error)
        return ()
    keys = public_keys(reply.object()) if reply.status == HTTPStatus.OK else ()
    if not keys:
        log.warning("no keys from %s: HTTP %d", key_set, reply.status)
    return keys
