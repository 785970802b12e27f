"""The Redis lease alone, against a real Valkey."""

from __future__ import annotations

import time

import pytest
import redis

from migrations.lease import Lease, lease_key
from tests.infrastructure.valkey import Valkey
from tests.migrations.conftest import NO_REDIS
from tests.migrations.lossy import LossyFront


@pytest.fixture
def client(valkey_url: str) -> redis.Redis:
    made = redis.Redis.from_url(valkey_url, decode_responses=True)
    made.flushall()
    return made


def until_gone(client: redis.Redis, key: str, seconds: float = 3) -> bool:
    end = time.monotonic() + seconds
    while client.exists(key) and time.monotonic() < end:
        time.sleep(0.02)
    return not client.exists(key)


def test_one_owner_at_a_time(client: redis.Redis, valkey_url: str) -> None:
    first, second = Lease(valkey_url, "k", "a:1"), Lease(valkey_url, "k", "b:2")
    assert first.acquire()
    assert not second.acquire()
    assert second.holder() == "a:1"
    first.release()
    assert second.acquire()
    second.release()


def test_renewed_while_held(client: redis.Redis, valkey_url: str) -> None:
    lease = Lease(valkey_url, "k", "a:1", ttl_s=0.3)
    assert lease.acquire()
    time.sleep(0.7)  # more than two lifetimes: what is tested is time
    assert client.exists("k")
    lease.release()
    assert not client.exists("k")


def test_a_lost_reply_is_no_lost_lease(client: redis.Redis, valkey_server: Valkey) -> None:
    with LossyFront(valkey_server.port) as front:
        lease, other = Lease(front.url, "k", "a:1"), Lease(valkey_server.url, "k", "b:2")
        front.lost = 1
        assert lease.acquire()
        assert not other.acquire()
        assert lease.holder() == "a:1"
        lease.release()
        assert front.lost == 0
        assert not client.exists("k")


def test_a_lease_that_nobody_knows_he_has_is_given_back(
    client: redis.Redis, valkey_server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis executes all and answers nothing: the guard decides, and no lease outlives its owner."""
    with LossyFront(valkey_server.port) as front:
        lease = Lease(front.url, "k", "a:1")
        front.lost = 2
        assert lease.acquire()
        assert client.exists("k")
        assert "Redis is unusable (ConnectionError): the database guard alone decides" in caplog.messages
        lease.release()
        assert not client.exists("k")


def test_another_owners_lease_is_not_released(client: redis.Redis, valkey_url: str) -> None:
    lease = Lease(valkey_url, "k", "a:1")
    assert lease.acquire()
    client.set("k", "b:2:token")
    lease.release()
    assert client.get("k") == "b:2:token"


def test_a_dead_owners_lease_runs_out(client: redis.Redis, valkey_url: str) -> None:
    client.set("k", "dead:1:token", px=200)
    assert until_gone(client, "k")
    lease = Lease(valkey_url, "k", "a:1")
    assert lease.acquire()
    lease.release()


@pytest.mark.parametrize(
    "url", [NO_REDIS, "redis://no-such-host.invalid:6379/0", "unix:///no/socket", "redis://:x@[::1"]
)
def test_without_redis_everybody_may_go_to_the_guard(url: str, caplog: pytest.LogCaptureFixture) -> None:
    lease = Lease(url, "k", "a:1")
    assert lease.acquire()
    assert lease.acquire()
    assert lease.holder() is None
    lease.release()
    assert len([message for message in caplog.messages if "Redis is unusable" in message]) == 1


def test_the_key_tells_databases_apart_and_no_password() -> None:
    one = lease_key("postgresql+psycopg://u:secret@db:5432/one")
    assert one == lease_key("postgresql+psycopg://other:words@db:5432/one")
    assert one != lease_key("postgresql+psycopg://u:secret@db:5432/two")
    assert "secret" not in one
