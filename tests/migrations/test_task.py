"""`migrations.upgrade`, the Celery task: the same command under the same lock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from common.settings import settings
from migrations.guard import guard_for, process_name
from tests.infrastructure.children import wait_until
from tests.infrastructure.platform import Platform
from tests.migrations.conftest import NO_REDIS
from tests.migrations.test_verify import do
from workers import tasks


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.chaos)])
def at_head_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_at_head")
    return url


@pytest.fixture
def url(at_head_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database at which one revision is pending, in the settings of this process and of those it starts."""
    monkeypatch.setenv("DATABASE_URL", at_head_url)
    monkeypatch.setenv("REDIS_URL", NO_REDIS)
    monkeypatch.setenv("MIGRATION_BACKUP", "off")
    settings.cache_clear()
    made = settings().database_url
    step_back(made)
    yield made
    settings.cache_clear()


def step_back(url: str) -> None:
    do(
        sa.create_engine(url, poolclass=sa.NullPool),
        "DROP INDEX ix_job_step_waiting",
        "UPDATE wxiai_alembic_version SET version_num = 'd8b04e6f3c19'",
    )


def verdicts(url: str) -> list[str]:
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        return list(connection.exec_driver_sql("SELECT verdict FROM migration_report ORDER BY id").scalars())


def test_it_waits_its_turn_and_upgrades(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    guard = guard_for(url)
    assert guard.take() is not None
    said = ""

    def waits() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return f"waiting for {process_name()}, which upgrades the schema" in said

    task = threading.Thread(target=tasks.upgrade)
    task.start()
    try:
        wait_until(waits, 30, what="it waits for the guard's holder")
        assert verdicts(url) == ["ok"]
    finally:
        guard.release()
        task.join(60)
    assert verdicts(url) == ["ok", "ok"]


def test_a_failure_is_one_of_the_task(url: str) -> None:
    do(
        sa.create_engine(url, poolclass=sa.NullPool),
        "UPDATE wxiai_alembic_version SET version_num = 'f0f0f0f0f0f0'",
    )
    with pytest.raises(tasks.UpgradeFailed, match="exit code 5"):
        tasks.upgrade()


@pytest.mark.chaos
def test_a_worker_runs_it(at_head_url: str, valkey_url: str, tmp_path: Path) -> None:
    """Asked for with Celery's own command, of a worker whose schema fell behind while it ran."""
    place = tmp_path / "platform"
    place.mkdir()
    with Platform(
        place, database_url=at_head_url, redis_url=valkey_url, environment={"MIGRATION_BACKUP": "off"}
    ) as platform:
        [worker] = platform.start("worker")
        platform.group.wait_until(lambda: "ready" in worker.output, 60)
        url = at_head_url.replace("postgresql://", "postgresql+psycopg://")
        step_back(url)
        asked = platform.group.start_command("ask", "celery -A workers.app call migrations.upgrade")
        assert asked.wait(60) == 0, asked.output
        platform.group.wait_until(lambda: "the upgrade ended with exit code 0" in worker.output, 60)
        assert verdicts(url) == ["ok", "ok"]
