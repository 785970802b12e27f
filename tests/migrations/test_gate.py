"""The gate of web and workers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from common import gate
from common.settings import Settings, settings
from migrations import runner
from migrations.chain import Chain
from tests.migrations.conftest import NO_REDIS

COMMANDS: list[list[str]] = []


@pytest.fixture(autouse=True)
def environment(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", NO_REDIS)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands for the command's process: what was run, and what it shall answer."""
    made = SimpleNamespace(commands=[], code=0)

    def run(command: list[str], **_: object) -> SimpleNamespace:
        made.commands.append(command[3])
        return SimpleNamespace(returncode=made.code)

    monkeypatch.setattr(subprocess, "run", run)
    return made


def test_a_current_schema_starts_no_process(given: Settings, child: SimpleNamespace) -> None:
    runner.upgrade(given, Chain())
    gate.require_schema()
    assert child.commands == []


def test_an_unfinished_first_run_is_not_current(
    given: Settings, engine: sa.Engine, child: SimpleNamespace
) -> None:
    runner.upgrade(given, Chain())
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM app_setting")
    gate.require_schema()
    assert child.commands == ["upgrade"]


def test_looking_makes_no_file(child: SimpleNamespace, tmp_path: Path) -> None:
    gate.require_schema()
    assert child.commands == ["upgrade"]
    assert not (tmp_path / "webui.db").exists()


def test_without_auto_migration_it_waits(child: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENABLE_AUTO_MIGRATION", "false")
    settings.cache_clear()
    gate.require_schema()
    assert child.commands == ["wait"]


@pytest.mark.parametrize(("code", "raised"), [(1, 1), (3, 3), (5, 5), (-9, 1)])
def test_an_unusable_schema_ends_the_process(code: int, raised: int, child: SimpleNamespace) -> None:
    child.code = code
    with pytest.raises(SystemExit) as ended:
        gate.require_schema()
    assert ended.value.code == raised


def test_a_degraded_schema_is_good_enough(child: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    child.code = 4
    gate.require_schema()
    assert "degraded" in caplog.text
