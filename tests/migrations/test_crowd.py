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
from migrations.guard import guard_for
from migrations.lease import lease_key
from tests.infrastructure.valkey import Valkey
from tests.migrations.children import exit_codes
from tests.migrations.conftest import NO_REDIS, Stage, add_revision, settings_for
from tests.migrations.shapes import catalogue
from tests.migrations.test_convergence import upgrade_to

REPLICAS = 6


@pytest.fixture(params=["with Redis", "Redis down"])
def redis_url(request: pytest.FixtureRequest, valkey_url: str) -> str:
    return valkey_url if request.param == "with Redis" else NO_REDIS


def heads(url: str) -> list[str]:
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        return list(connection.exec_driver_sql(f"SELECT version_num FROM {schema.VERSION_TABLE}").scalars())


def catalogue_of(url: str) -> list[str]:
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        return catalogue(connection)


def verdicts(url: str) -> list[str]:
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        return list(connection.exec_driver_sql("SELECT verdict FROM migration_report ORDER BY id").scalars())


@pytest.mark.parametrize("count", [3, pytest.param(20, marks=pytest.mark.chaos)])
@pytest.mark.parametrize("beginning", ["base", "70c7b727736e"])
def test_of_many_at_once_one_upgrades(
    beginning: str, count: int, redis_url: str, given: Settings, stage: Stage
) -> None:
    if beginning != "base":
        upgrade_to(given.database_url, beginning)
    crowd = stage.start(given.model_copy(update={"redis_url": redis_url}), count)
    assert exit_codes(crowd) == [0] * count, stage.logs()
    assert stage.logs().count("upgrading from ") == 1
    for script in Chain().pending([] if beginning == "base" else [beginning]):
        assert stage.logs().count(f"-> {script.revision}, ") == 1, script.revision
    assert stage.logs().count("Admin: a@example.com") == 1
    assert verdicts(given.database_url) == ["ok"]


@pytest.mark.parametrize("count", [4, pytest.param(50, marks=pytest.mark.chaos)])
def test_of_many_at_once_none_locks_when_all_is_current(
    count: int, redis_url: str, at_head_url: str, valkey_server: Valkey, stage: Stage
) -> None:
    guard = guard_for(settings_for(at_head_url).database_url)
    assert guard.take() is not None  # who wanted it would wait for us
    try:
        with valkey_server.client() as client:
            client.config_resetstat()
            crowd = stage.start(settings_for(at_head_url, redis_url=redis_url), count)
            assert exit_codes(crowd) == [0] * count, stage.logs()
            assert "cmdstat_eval" not in client.info("commandstats")  # the lease is taken by EVAL
    finally:
        guard.release()
    assert "waiting for" not in stage.logs()
    assert "Redis is unusable" not in stage.logs()  # nobody even asked
    assert verdicts(settings_for(at_head_url).database_url) == ["ok"]


def test_a_failure_is_shared_not_repeated(redis_url: str, at_head_url: str, stage: Stage) -> None:
    """Every replica says why; the database stays at the last good revision, and one upgrade heals it later."""
    given = settings_for(at_head_url, redis_url=redis_url)
    before = catalogue_of(given.database_url)
    add_revision(
        stage.folder, "aaaa00000001", 'op.add_column_if_missing("job", sa.Column("good", sa.Text()))'
    )
    bad = 'op.add_column_if_missing("job", sa.Column("half", sa.Text()))\nopen({!r}, "a").write("x")\n{}'
    raising = bad.format(str(stage.body_log), 'raise RuntimeError("no luck")')
    add_revision(stage.folder, "aaaa00000002", raising)
    replicas = stage.start(given, REPLICAS)
    assert exit_codes(replicas) == [1] * REPLICAS, stage.logs()
    assert stage.bodies == 1
    ends = [line for line in stage.logs().splitlines() if line.startswith("INFO:outcome:failed")]
    assert len(ends) == REPLICAS
    assert {line.rpartition(": RuntimeError: ")[2] for line in ends} == {"no luck"}
    if given.is_sqlite:
        assert catalogue_of(given.database_url) == before
    else:
        assert heads(given.database_url) == ["aaaa00000001"]
        added = set(catalogue_of(given.database_url)) - set(before)
        assert [line for line in added if "'job'" in line and "'good'" in line]
        assert not [line for line in added if "'half'" in line]

    add_revision(stage.folder, "aaaa00000002", bad.format(os.devnull, ""), parent="aaaa00000001")
    assert exit_codes(stage.start(given)) == [0], stage.logs()
    assert heads(given.database_url) == ["aaaa00000002"]
    assert "half" in " ".join(catalogue_of(given.database_url))


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


def test_waiters_give_up_on_a_paused_holder(database_url: str, redis_url: str, stage: Stage) -> None:
    """It is paused for longer than its lease lasts; when it wakes up it goes on where it was."""
    given = settings_for(database_url, redis_url=redis_url)
    stage.add_slow_revision()
    [holder] = stage.start(given, lease_s=1)
    stage.wait_for_body()
    os.kill(holder.pid or 0, signal.SIGSTOP)
    began = time.monotonic()
    impatient = settings_for(database_url, redis_url=redis_url, migration_timeout=1)
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
