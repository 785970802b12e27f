"""`unlock`: who keeps others from upgrading, and the end of one that is stuck."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis
import sqlalchemy as sa

from common.settings import Settings
from migrations.guard import Guard, guard_for, process_name
from migrations.lease import TTL_S, Lease, lease_key
from migrations.unlock import Unlocking, unlock
from tests.infrastructure.postgres import Postgres
from tests.migrations.children import exit_codes
from tests.migrations.conftest import Stage, settings_for


@pytest.fixture
def given(database_url: str, valkey_url: str) -> Settings:
    return settings_for(database_url, redis_url=valkey_url)


@pytest.fixture
def guard(database_url: str) -> Iterator[Guard]:
    """Taken by this process."""
    made = guard_for(database_url)
    assert made.take() is not None
    yield made
    made.release()


@pytest.fixture
def client(valkey_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey_url, decode_responses=True) as made:
        yield made


def is_free(url: str) -> bool:
    other = guard_for(url)
    try:
        return other.take() is not None
    finally:
        other.release()


def test_nobody(given: Settings) -> None:
    assert unlock(given, terminate=True) == Unlocking(None, None, [], [], [])
    assert unlock(given, terminate=False).lines() == ["nobody is upgrading"]


def test_looking_shows_the_holder_and_touches_nothing(given: Settings, guard: Guard) -> None:
    lease = Lease(given.redis_url, lease_key(given.database_url), process_name())
    assert lease.acquire()
    found = unlock(given, terminate=False)
    assert found.guard is not None
    assert found.lease is not None
    assert (found.guard.process, found.lease.process) == (process_name(), process_name())
    assert found.guard.silent_s < 2
    assert (found.lease.is_stale, found.done, found.left) == (False, [], [])
    assert (found.guard.pid is None) == given.is_sqlite
    assert not is_free(given.database_url)
    assert lease.holder() == process_name()
    lease.release()


def test_a_held_guard(given: Settings, guard: Guard) -> None:
    """PostgreSQL ends its session; SQLite has no such power, and says whom to end."""
    found = unlock(given, terminate=True)
    if given.is_sqlite:
        assert found.left == [
            f"SQLite cannot end another process: end {process_name()} (host:pid) on its host"
        ]
        assert not is_free(given.database_url)
    else:
        assert found.left == []
        assert found.done[0].startswith("ended session ")
        assert is_free(given.database_url)


def test_a_stuck_upgrade_is_ended_and_done_again(
    postgres_server: Postgres, stage: Stage, valkey_url: str, client: redis.Redis
) -> None:
    """Its process is paused. When it wakes up its session is gone, and it does nothing without: no last rung."""
    given = settings_for(postgres_server.create_database(), redis_url=valkey_url)
    stage.add_slow_revision()
    [stuck] = stage.start(given.model_copy(update={"enable_fallback_create": True}))
    stage.wait_for_body()
    os.kill(stuck.pid or 0, signal.SIGSTOP)
    client.delete(lease_key(given.database_url))  # it would run out in its time
    assert unlock(given, terminate=True).left == []
    stage.go.touch()
    assert exit_codes(stage.start(given)) == [0], stage.logs()
    os.kill(stuck.pid or 0, signal.SIGCONT)
    assert exit_codes([stuck]) == [1], stage.logs()
    assert stage.bodies == 2  # of the first nothing is left
    engine = sa.create_engine(given.database_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        verdicts = connection.exec_driver_sql("SELECT verdict FROM migration_report ORDER BY id").scalars()
        assert list(verdicts) == ["interrupted", "ok"]
    postgres_server.drop_database(given.database_url)


def dead_process() -> str:
    """A process of this host that is no more."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return f"{process_name().rpartition(':')[0]}:{child.pid}"


class TestLeases:
    """The guard is free; only Redis says that somebody upgrades."""

    @pytest.fixture
    def database_url(self, sqlite_at_head: str) -> str:
        return sqlite_at_head

    @pytest.mark.parametrize("age_s", [0.0, 9.0])
    def test_of_a_dead_process_or_not_renewed(
        self, age_s: float, given: Settings, client: redis.Redis
    ) -> None:
        owner = "other-host:7" if age_s else dead_process()
        key = lease_key(given.database_url)
        client.set(key, f"{owner}:token", px=int((TTL_S - age_s) * 1000))
        seen = unlock(given, terminate=False)
        assert seen.lease is not None
        assert (seen.lease.process, seen.lease.is_stale) == (owner, True)
        assert seen.lines()[0].endswith("it renews it no more")
        assert client.exists(key)
        assert unlock(given, terminate=True).done == [f"removed the lease of {owner}"]
        assert not client.exists(key)

    @pytest.mark.parametrize("where", ["here", "elsewhere"])
    def test_of_a_living_process(self, where: str, given: Settings, client: redis.Redis) -> None:
        owner = process_name() if where == "here" else "other-host:7"
        key = lease_key(given.database_url)
        client.set(key, f"{owner}:token", px=int((TTL_S - 2) * 1000))
        found = unlock(given, terminate=True)
        assert found.left == [f"{owner} renews its lease: it gives it back itself, or loses it in 15 s"]
        assert client.get(key) == f"{owner}:token"

    def test_without_redis(self, database_url: str) -> None:
        found = unlock(settings_for(database_url), terminate=True)
        assert found.notes == ["Redis cannot be asked (ConnectionError): the guard alone decides"]
        assert found.left == []
