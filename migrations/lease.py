"""The Redis lease: who goes first, and who it is. Advice only; what makes an upgrade safe is the guard.

Whatever goes wrong with Redis costs a line in the log and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import uuid

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from sqlalchemy.engine import make_url

from migrations.threads import Repeating

log = logging.getLogger(__name__)

TTL_S = 15.0
_TROUBLE = (RedisError, OSError, ValueError)

# The second half accepts a SET of ours that was executed while its reply was lost.
_ACQUIRE = """
if redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('pexpire', KEYS[1], ARGV[2])
"""
_RENEW = """
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('pexpire', KEYS[1], ARGV[2])
"""
_RELEASE = """
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('del', KEYS[1])
"""


def lease_key(database_url: str) -> str:
    """One key a database, so that installations may share a Redis. The password is not part of it."""
    url = make_url(database_url)
    place = f"{url.host}:{url.port}/{url.database}"
    return f"wxiai:migration:{hashlib.sha256(place.encode()).hexdigest()[:16]}"


class Lease:
    """A lease on upgrading one database, renewed by a thread while it is ours."""

    def __init__(self, redis_url: str, key: str, owner: str, ttl_s: float = TTL_S) -> None:
        self._key, self._ttl_s = key, ttl_s
        self._token = f"{owner}:{uuid.uuid4().hex}"
        self._renewal: Repeating | None = None
        self._lost: Redis | None = None  # what we gave up on; it may still keep a lease of ours
        self._redis: Redis | None = None
        self._redis = self._connect(redis_url)

    def _connect(self, url: str) -> Redis | None:
        try:
            return Redis.from_url(
                url,
                socket_timeout=2,
                socket_connect_timeout=1,
                retry=Retry(NoBackoff(), 0),
                decode_responses=True,
            )
        except _TROUBLE as error:
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        log.warning("Redis is unusable (%s): the database guard alone decides", type(error).__name__)
        self._lost, self._redis = self._redis, None

    def acquire(self) -> bool:
        """May we go to the guard? Yes with the lease, and yes if Redis cannot tell."""
        if self._redis is None or self._renewal is not None:
            return True
        if not self._call(_ACQUIRE, str(self._ttl_ms)):
            return self._redis is None
        self._renewal = Repeating(self._ttl_s / 3, self._renew)
        return True

    @property
    def _ttl_ms(self) -> int:
        return int(self._ttl_s * 1000)

    def _call(self, script: str, *arguments: str) -> bool:
        if (client := self._redis) is None:
            return False
        for is_last in (False, True):  # once more: a request may have been executed and its reply lost
            try:
                return bool(client.eval(script, 1, self._key, self._token, *arguments))
            except _TROUBLE as error:
                if is_last:
                    self._give_up(error)
        return False

    def _renew(self) -> bool:
        if self._call(_RENEW, str(self._ttl_ms)):
            return True
        if self._redis is not None:
            log.warning("the Redis lease was lost: the database guard alone decides")
        return False

    def holder(self) -> str | None:
        """The process that has the lease, e.g. `web-3:4711`."""
        if self._redis is None:
            return None
        try:
            token = self._redis.get(self._key)
        except _TROUBLE as error:
            self._give_up(error)
            return None
        return str(token).rpartition(":")[0] if token else None

    def kept(self) -> tuple[str, float] | None:
        """The whole token that is there, and for how many seconds it has not been renewed. Raises RedisError."""
        if self._redis is None:
            return None
        token, left_ms = self._redis.get(self._key), self._redis.pttl(self._key)
        return (
            (str(token), max(self._ttl_s - int(left_ms) / 1000, 0.0)) if token and int(left_ms) > 0 else None
        )

    def remove(self, token: str) -> bool:
        """Take away the lease of a process that is gone, if it still is that one's. Raises RedisError."""
        return self._redis is not None and bool(self._redis.eval(_RELEASE, 1, self._key, token))

    def release(self) -> None:
        """Give the lease back, if it is still ours."""
        if self._renewal is not None:
            self._renewal.stop()
            self._renewal = None
            self._call(_RELEASE)
        if self._redis is not None:
            self._redis.close()
        if self._lost is not None:
            with contextlib.suppress(*_TROUBLE):
                self._lost.eval(_RELEASE, 1, self._key, self._token)
            self._lost.close()
