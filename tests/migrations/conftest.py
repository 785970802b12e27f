"""Databases and brokers for the tests of the migrations, and chains that may be broken on purpose."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import types
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import sqlalchemy as sa

from common.settings import Settings
from migrations.chain import HERE, MERGE_POINT, Chain
from tests.infrastructure.children import wait_until
from tests.infrastructure.databases import Released
from tests.infrastructure.postgres import Postgres
from tests.migrations.children import start_upgrade, stub_setup

NO_REDIS = "redis://127.0.0.1:1/0"
AFTER_MERGE = [script.revision for script in Chain().pending((MERGE_POINT,))]

_REVISION = '''"""{message}"""

import os
import time
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = {parent!r}
branch_labels = None
depends_on = None


def upgrade() -> None:
{body}


def downgrade() -> None:
    """Nothing."""
'''

# Shows that it runs, and goes on once the file `go` is there.
SLOW = """
op.add_column_if_missing("job", sa.Column("slow", sa.Text()))
with open({log!r}, "a") as file:
    file.write("x")
while not Path({go!r}).exists():
    time.sleep(0.02)
"""


@pytest.fixture
def given(database_url: str) -> Settings:
    """Settings for that database, without Redis, backups and the last rung."""
    return settings_for(database_url)


def settings_for(url: str, **others: object) -> Settings:
    values: dict[str, object] = {
        "redis_url": NO_REDIS,
        "enable_fallback_create": False,
        "migration_timeout": 20,
        "migration_backup": "off",
    }
    return Settings(_env_file=None, database_url=url, **{**values, **others})  # type: ignore[arg-type]


@pytest.fixture
def sqlite_at_head(released: Released, tmp_path: Path) -> str:
    """DATABASE_URL of a SQLite database as the release process leaves it, for the one test that asks."""
    return released.sqlite(tmp_path / "webui.db")


@pytest.fixture
def postgres_at_head(released: Released, postgres_server: Postgres) -> Iterator[str]:
    """The same on PostgreSQL."""
    url = released.postgresql()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(params=["sqlite", "postgres"])
def at_head_url(request: pytest.FixtureRequest) -> str:
    """One of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_at_head")
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """To look into the database and to prepare it."""
    made = sa.create_engine(database_url, poolclass=sa.NullPool)
    yield made
    made.dispose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the chain that a test may change."""
    copy = tmp_path / "chain"
    shutil.copytree(HERE / "versions", copy / "versions", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("env.py", "script.py.mako"):
        shutil.copy(HERE / name, copy / name)
    return copy


def without_merge(folder: Path) -> Chain:
    """Remove the merge point and all that follows it, and load the chain."""
    for name in (MERGE_POINT, *AFTER_MERGE):
        (folder / "versions" / Chain().files[name].name).unlink()
    return Chain(folder)


def add_revision(folder: Path, revision: str, body: str, *, parent: str | None = None) -> Chain:
    """Write one more revision behind the head (or `parent`), and load the chain."""
    before = parent or Chain(folder).heads[0]
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    text = _REVISION.format(message=f"add {revision}", revision=revision, parent=before, body=lines)
    (folder / "versions" / f"{revision}_test.py").write_text(text)
    return Chain(folder)


@pytest.fixture(autouse=True)
def setup_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first run's set-up, replaced by one that makes a user; the list grows by one with each call."""
    calls: list[str] = []
    module = types.ModuleType("common.services.setup")
    module.prepare_fresh_database = lambda session: stub_setup(session, calls)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "common.services.setup", module)
    return calls


@pytest.fixture
def stage(folder: Path, tmp_path: Path) -> Iterator[Stage]:
    """A copy of the chain, and processes that run it."""
    made = Stage(folder, tmp_path)
    yield made
    made.clear()


class Stage:
    """A chain, with a revision that goes on when it is told to, and the processes that run it."""

    def __init__(self, folder: Path, place: Path) -> None:
        self.folder, self.body_log, self.go, self._place = folder, place / "bodies", place / "go", place
        self.processes: list[BaseProcess] = []

    def add_slow_revision(self) -> None:
        add_revision(self.folder, "aaaa00000001", SLOW.format(log=str(self.body_log), go=str(self.go)))

    def start(self, given: Settings, count: int = 1, *, lease_s: float = 15.0) -> list[BaseProcess]:
        first = len(self.processes)
        started = [
            start_upgrade(given, self.folder, self._place / f"log{first + number}", lease_s=lease_s)
            for number in range(count)
        ]
        self.processes += started
        return started

    def logs(self) -> str:
        return "".join(path.read_text() for path in sorted(self._place.glob("log*")))

    def wait_for_body(self, runs: int = 1) -> None:
        wait_until(lambda: self.bodies >= runs, 20, what=f"body number {runs}")

    @property
    def bodies(self) -> int:
        return len(self.body_log.read_text()) if self.body_log.exists() else 0

    def clear(self) -> None:
        for process in self.processes:
            if process.is_alive():
                os.kill(process.pid or 0, signal.SIGKILL)
                process.join()
