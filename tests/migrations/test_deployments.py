"""The three deployments that operators know, with the real commands: a fresh one, an update, containers."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from common import clock
from common.db import schema
from common.settings import Settings, settings
from migrations import runner
from migrations.chain import Chain
from migrations.outcomes import Exit
from tests.infrastructure.environment import ROOT
from tests.infrastructure.platform import Platform
from tests.infrastructure.processes import Process
from tests.migrations.shapes import read, sample_values
from tests.migrations.test_convergence import upgrade_to
from tests.migrations.trees import migrations

OLD = "70c7b727736e"
USERS, JOBS = 1250, 5000
DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.chaos)]
PASSWORD = "correct horse battery"


def release(url: str, place: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m migrations upgrade`. The backup of PostgreSQL is only pretended: others test it."""
    backup = {} if url.startswith("sqlite") else {"MIGRATION_BACKUP_CMD": f"echo kept > {place}/kept"}
    return migrations(ROOT, "upgrade", DATABASE_URL=url, **backup, **environment)


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The log's lines without level and logger."""
    return [line.partition("] ")[2] or line for line in done.stderr.splitlines()]


@pytest.mark.parametrize("database_url", DATABASES, indirect=True)
def test_fresh(database_url: str, tmp_path: Path) -> None:
    """An empty database: every revision, the catalogue, the first admin, in this order; then nothing more."""
    done = release(database_url, tmp_path, ADMIN_EMAIL="boss@example.com", ADMIN_PASSWORD=PASSWORD)
    assert (done.returncode, done.stdout) == (0, f"current: {schema.head()}\n")
    assert "INFO  [alembic.runtime.migration] Running upgrade  -> 7e5b5dc7342b, init" in done.stderr
    lines = told(done)
    ran = [match[1] for line in lines if (match := re.match(r"Running upgrade .*-> (\w+), ", line))]
    assert sorted(ran) == sorted(Chain().ids)
    assert lines.index("Running upgrade  -> 7e5b5dc7342b, init") < lines.index("A new database")
    assert lines[-1] == "Admin: boss@example.com"
    assert PASSWORD not in done.stderr


@pytest.fixture
def old(given: Settings, engine: sa.Engine) -> sa.Engine:
    """What an older release would have left, after a busy year."""
    upgrade_to(given.database_url, OLD)
    there = sa.MetaData()
    there.reflect(engine, only=["user", "job"])
    user, job = there.tables["user"], there.tables["job"]
    rows = {
        user: [{"id": f"user_{n}", "email": f"{n}@example.com"} for n in range(USERS)],
        job: [{"id": f"job_{n}", "user_id": f"user_{n % USERS}"} for n in range(JOBS)],
    }
    with engine.begin() as connection:
        for table, facts in rows.items():
            wanted = {column.name: column for column in table.columns if not column.nullable}
            sample = {name: value for name, value in sample_values(table).items() if name in wanted}
            sample |= {
                name: clock.now() for name, column in wanted.items() if isinstance(column.type, sa.DateTime)
            }
            connection.execute(table.insert(), [sample | fact for fact in facts])
    return engine


def test_an_update(given: Settings, old: sa.Engine, tmp_path: Path) -> None:
    """Only what is missing runs, after a backup; all rows are kept, and told; nobody gets a second admin."""
    with old.connect() as connection:
        have = schema.columns(connection)
        columns = {table: sorted(have[table]) for table in ("user", "job")}
        before = read(connection, columns)
    done = release(given.database_url, tmp_path)
    assert (done.returncode, done.stdout) == (0, f"current: {schema.head()}\n"), done.stderr
    lines = told(done)
    assert f"Existing users: {USERS}, jobs: {JOBS} (all kept)" in lines
    assert f"upgrading from {OLD} to {schema.head()}" in lines
    assert f"Running upgrade {OLD} -> ef6fab585ac1, add user phone column" in lines
    assert not [line for line in lines if "7e5b5dc7342b" in line or line.startswith("Admin: ")]
    backups = list((tmp_path / "backups").glob("*.db")) if given.is_sqlite else [tmp_path / "kept"]
    assert [backup.exists() for backup in backups] == [True]
    with old.connect() as connection:
        after = read(connection, columns)
    assert {table: sorted(rows, key=repr) for table, rows in after.items()} == {
        table: sorted(rows, key=repr) for table, rows in before.items()
    }


def waits(process: Process) -> bool:
    """Is `python -m migrations wait` running for it?"""
    lines = [" ".join(child.cmdline()) for child in process.children()]
    return any(line.endswith("-m migrations wait") for line in lines)


@pytest.mark.chaos
def test_containers(database_url: str, valkey_url: str, tmp_path: Path) -> None:
    """A container that serves only waits; `migrate` upgrades, and then it serves. Nothing is installed."""
    place = tmp_path / "platform"
    place.mkdir()
    waiting = {"ENABLE_AUTO_MIGRATION": "false", "MIGRATION_TIMEOUT": "60", "WEB_CONCURRENCY": "1"}
    with Platform(place, database_url=database_url, redis_url=valkey_url, environment=waiting) as platform:
        web = platform.group.start("web")
        platform.group.wait_until(lambda: waits(web), 30)
        assert not platform.answers()
        platform.release()
        platform.group.wait_until(platform.answers, 60)


@pytest.fixture
def settings_change() -> Iterator[None]:
    """What is remembered of the environment is forgotten when the test is over."""
    yield
    settings.cache_clear()


@pytest.mark.usefixtures("settings_change")
@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("ADMIN_PASSWORD", "short77", "A password has 8 characters to 72 bytes."),
        ("ADMIN_EMAIL", "nobody-at-all", "This is not an e-mail address."),
    ],
)
def test_a_bad_value_of_the_first_admin_is_named_and_not_shown(
    setting: str, value: str, why: str, given: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "common.services.setup")  # the real one
    for bad, code in ((value, Exit.FAILED), ("", Exit.OK)):
        monkeypatch.setenv(setting, bad)
        settings.cache_clear()
        outcome = runner.upgrade(given, Chain())
        assert outcome.code == code
        if bad:
            assert outcome.line == f"failed: InvalidInput: {setting}: {why}"
