"""Many processes at once, dying processes, and a Redis that comes and goes: still exactly one upgrade."""

from __future__ import annotations

import os
import signal
import time

import pytest
import redis
import sqlalchemy as sa

from common.db import schema
from common.settings import Settings
from migrations import runner
from migrations.chain import Chain
from migrations.lease import lease_key
from tests.migrations.children import exit_codes
from tests.migrations.conftest import NO_REDIS, Stage, add_revision, settings_for

CROWD = 8


def heads(url: str) -> list[str]:
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        return list(connection.exec_driver_sql(f"SELECT version_num FROM {schema.VERSION_TABLE}").scalars())


@pytest.mark.parametrize("broker", ["with Redis", "Redis down"])
def test_of_many_at_once_one_upgrades(
    broker: str, database_url: str, valkey_url: str, stage: Stage, engine: sa.Engine
) -> None:
    given = settings_for(database_url, redis_url=valkey_url if broker == "with Redis" else NO_REDIS)
    codes = exit_codes(stage.start(given, CROWD))
    assert codes == [0] * CROWD, stage.logs()
    assert stage.logs().count("Running upgrade  -> 7e5b5dc7342b, init") == 1
    assert stage.logs().count("Admin: a@example.com") == 1
    with engine.connect() as connection:
        verdicts = list(connection.exec_driver_sql("SELECT verdict FROM migration_report").scalars())
    assert verdicts == ["ok"]


@pytest.mark.parametrize("broker", ["with Redis", "Redis down"])
def test_a_failure_is_shared_not_repeated(
    broker: str, database_url: str, valkey_url: str, stage: Stage
) -> None:
    given = settings_for(database_url, redis_url=valkey_url if broker == "with Redis" else NO_REDIS)
    body = f'open({str(stage.body_log)!r}, "a").write("x")\nraise RuntimeError("no luck")'
    add_revision(stage.folder, "aaaa00000001", body)
    codes = exit_codes(stage.start(given, CROWD))
    assert codes == [1] * CROWD, stage.logs()
    assert stage.bodies == 1
    assert stage.logs().count("RuntimeError: no luck") >= CROWD  # everybody says why


def test_a_killed_holder_is_succeeded(database_url: str, valkey_url: str, stage: Stage) -> None:
    given = settings_for(database_url, redis_url=valkey_url)
    stage.add_slow_revision()
    [holder] = stage.start(given, lease_s=1)
    stage.wait_for_body()
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join()
    stage.go.touch()
    assert exit_codes(stage.start(given, lease_s=1)) == [0], stage.logs()
    assert heads(database_url) == ["aaaa00000001"]
    assert stage.bodies == 2  # the first time was rolled back


def test_waiters_take_over_from_a_killed_holder(database_url: str, stage: Stage) -> None:
    given = settings_for(database_url)
    stage.add_slow_revision()
    [holder] = stage.start(given)
    stage.wait_for_body()
    waiters = stage.start(given, 3)
    os.kill(holder.pid or 0, signal.SIGKILL)
    stage.wait_for_body(2)
    stage.go.touch()
    assert exit_codes(waiters) == [0, 0, 0], stage.logs()
    assert stage.bodies == 2


def test_waiters_are_patient_while_the_holder_lives(database_url: str, stage: Stage) -> None:
    """A revision that takes longer than MIGRATION_TIMEOUT is no reason to give up."""
    stage.add_slow_revision()
    [holder] = stage.start(settings_for(database_url))
    stage.wait_for_body()
    [waiter] = stage.start(settings_for(database_url, migration_timeout=1.5))
    waiter.join(4)
    assert waiter.exitcode is None, stage.logs()
    stage.go.touch()
    assert exit_codes([holder, waiter]) == [0, 0]


def test_waiters_give_up_on_a_paused_holder(database_url: str, valkey_url: str, stage: Stage) -> None:
    given = settings_for(database_url, redis_url=valkey_url)
    stage.add_slow_revision()
    [holder] = stage.start(given, lease_s=1)
    stage.wait_for_body()
    os.kill(holder.pid or 0, signal.SIGSTOP)
    began = time.monotonic()
    impatient = settings_for(database_url, redis_url=valkey_url, migration_timeout=1)
    assert exit_codes(stage.start(impatient, 2, lease_s=1)) == [3, 3], stage.logs()
    assert time.monotonic() - began < 10
    os.kill(holder.pid or 0, signal.SIGCONT)
    stage.go.touch()
    assert exit_codes([holder]) == [0], stage.logs()
    assert stage.bodies == 1


def test_a_flushed_redis_does_not_start_a_second_upgrade(
    database_url: str, valkey_url: str, stage: Stage
) -> None:
    given = settings_for(database_url, redis_url=valkey_url)
    stage.add_slow_revision()
    [holder] = stage.start(given)
    stage.wait_for_body()
    redis.Redis.from_url(valkey_url).delete(lease_key(database_url))
    [second] = stage.start(given)
    second.join(1)
    assert stage.bodies == 1
    stage.go.touch()
    assert exit_codes([holder, second]) == [0, 0], stage.logs()
    assert stage.bodies == 1


def test_readers_go_on_during_an_upgrade(given: Settings, engine: sa.Engine, stage: Stage) -> None:
    runner.upgrade(given, Chain())
    stage.add_slow_revision()
    [holder] = stage.start(given)
    stage.wait_for_body()
    with engine.connect() as connection:
        assert connection.exec_driver_sql('SELECT count(*) FROM "user"').scalar() == 1
        running = schema.holder(connection)
    assert running is not None
    assert running.name.endswith(f":{holder.pid}")
    stage.go.touch()
    assert exit_codes([holder]) == [0], stage.logs()
