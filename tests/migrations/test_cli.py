"""The command as operators run it: words, exit codes, no traceback, no password."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from common.db import schema
from common.settings import settings
from migrations import __main__ as cli
from migrations.chain import Chain
from migrations.guard import guard_for, process_name
from tests.migrations.conftest import NO_REDIS

ROOT = Path(__file__).parents[2]
REVISIONS = len(Chain().revisions)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", NO_REDIS)
    monkeypatch.setenv("MIGRATION_TIMEOUT", "1")
    monkeypatch.setattr(cli, "_log_like_alembic", lambda: None)


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("DATABASE_URL", database_url)
    return command


def command(*arguments: str) -> Result:
    settings.cache_clear()
    try:
        return CliRunner().invoke(cli.main, arguments)
    finally:
        settings.cache_clear()


@pytest.mark.usefixtures("run")
class TestCommands:
    def test_before_and_after(self) -> None:
        assert "state     empty" in command("status").output
        assert len(command("pending").output.splitlines()) == REVISIONS
        upgraded = command("upgrade")
        assert (upgraded.exit_code, upgraded.output) == (0, f"current: {schema.head()}\n")
        assert command("pending").output == "nothing is pending\n"
        assert f"{schema.head()} (head) (current), {Chain().revisions[-1].doc}" in command("current").output
        assert "24e8f9a7b1c2, abc123def456 -> merge_heads_final (merge point)" in command("history").output
        assert f"ok base -> {schema.head()}" in command("status").output

    def test_json(self) -> None:
        assert json.loads(command("upgrade", "--json").output)["state"] == "current"
        status = json.loads(command("status", "--json").output)
        assert (status["state"], status["db"], status["pending"]) == ("current", [schema.head()], [])
        assert status["reports"][0]["verdict"] == "ok"
        assert json.loads(command("current", "--json").output)[0]["revision"] == schema.head()
        assert len(json.loads(command("history", "--json").output)) == REVISIONS

    def test_plan(self, engine: sa.Engine) -> None:
        planned = command("plan")
        assert planned.exit_code == 0
        assert "CREATE INDEX ix_job_step_waiting ON job_step" in planned.output
        steps = json.loads(command("plan", "--json").output)["steps"]
        assert [step["revision"] for step in steps][-1] == schema.head()
        command("upgrade")
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE wxiai_alembic_version SET version_num = 'f0f0f0f0f0f0'")
        assert command("plan").exit_code == 1

    def test_unlock(self, database_url: str) -> None:
        free = command("unlock", "--json")
        assert (free.exit_code, json.loads(free.output)["guard"]) == (0, None)
        guard = guard_for(database_url)
        assert guard.take() is not None
        seen = command("unlock")
        assert (seen.exit_code, seen.output.startswith(f"guard  {process_name()}, ")) == (0, True)
        ended = command("unlock", "--terminate")
        guard.release()
        assert ended.exit_code == int(database_url.startswith("sqlite"))  # which ends nobody

    def test_waiting_in_vain(self) -> None:
        waited = command("wait")
        assert waited.exit_code == 3
        assert waited.output.startswith("timed out: the schema is not current")
        assert len(waited.output.splitlines()) == 1

    def test_nothing_is_changed_by_looking(self, engine: sa.Engine) -> None:
        for name in ("status", "current", "history", "pending"):
            assert command(name).exit_code == 0
        assert sa.inspect(engine).get_table_names() == []

    def test_a_changed_file_is_marked(self, engine: sa.Engine) -> None:
        command("upgrade")
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE migration_ledger SET checksum = 'other' WHERE revision = 'ca81bd47c050'"
            )
        assert "ca81bd47c050 (file changed since)" in command("history").output


def test_help_has_examples() -> None:
    assert "Exit codes" in command("--help").output
    assert "python -m migrations upgrade" in command("upgrade", "--help").output


def as_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "migrations", *arguments],
        cwd=ROOT,
        env={**os.environ, "REDIS_URL": NO_REDIS, "MIGRATION_TIMEOUT": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", ["upgrade", "status"])
def test_a_database_that_is_down(name: str) -> None:
    url = "postgres://user:s3cret-word@127.0.0.1:1/db"
    ended = as_process(name, DATABASE_URL=url)
    assert ended.returncode == (3 if name == "upgrade" else 1)
    assert "Connection refused" in ended.stderr
    assert "s3cret-word" not in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "webui.db").write_text("these are no SQLite pages" * 100)
    ended = as_process("upgrade", DATABASE_URL=f"sqlite:///{tmp_path}/webui.db")
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1] == "Error: DatabaseError: file is not a database"


def test_a_bad_setting_is_named() -> None:
    ended = as_process("upgrade", DATABASE_URL="mysql://x/y")
    assert ended.returncode == 1
    assert ended.stderr.startswith("settings: DATABASE_URL:")
    assert len(ended.stderr.splitlines()) == 1


def test_alembic_works_alone(tmp_path: Path) -> None:
    for arguments in (["history"], ["upgrade", "heads"], ["current"], ["check"]):
        ended = subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": f"sqlite:///{tmp_path}/webui.db"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
    with sa.create_engine(f"sqlite:///{tmp_path}/webui.db").connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM migration_ledger").scalar() == REVISIONS
