"""kill -9 of the process that upgrades, at its statement boundaries: the next one goes on, and nothing is lost."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import sqlalchemy as sa

from common.db import schema
from common.settings import Settings
from migrations import runner, waiting
from migrations.chain import HERE, Chain
from migrations.outcomes import Exit
from tests.infrastructure.postgres import Postgres
from tests.migrations.children import exit_codes, start_upgrade
from tests.migrations.conftest import NO_REDIS, settings_for
from tests.migrations.shapes import Rows, catalogue, read
from tests.migrations.test_convergence import fill, upgrade_to

OLD = "7e5b5dc7342b"
SOME = (3, 40)
LEASE_S = 0.6
PAUSE_S = 0.05
Beginning = Literal["empty", "old"]


@dataclass(frozen=True)
class Scene:
    """A database, of which every death gets a copy; what is in it, and what it shall look like in the end."""

    copy: Callable[[], str]
    drop: Callable[[str], None]
    columns: dict[str, list[str]]
    rows: Rows
    whole: list[str]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["empty", "old"])
def beginning(request: pytest.FixtureRequest) -> Beginning:
    found: Beginning = request.param
    return found


@pytest.fixture
def scene(
    database: str, beginning: Beginning, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Scene]:
    if database == "sqlite":
        yield _sqlite(beginning, tmp_path)
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    template = server.create_database()
    yield _scene(
        beginning,
        template,
        lambda: server.create_database(template=template.rpartition("/")[2]),
        server.drop_database,
    )
    server.drop_database(template)


def _sqlite(beginning: Beginning, place: Path) -> Scene:
    template, target = place / "template.db", place / "webui.db"
    template.touch()
    if beginning == "old":  # as web and workers leave it
        with sqlite3.connect(template) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.close()

    def copy() -> str:
        shutil.copy(template, target)
        return f"sqlite:///{target}"

    def drop(_url: str) -> None:
        for path in place.glob("webui.db*"):
            path.unlink()

    return _scene(beginning, f"sqlite:///{template}", copy, drop)


def _scene(
    beginning: Beginning, template: str, copy: Callable[[], str], drop: Callable[[str], None]
) -> Scene:
    url = settings_for(template).database_url
    if beginning == "old":
        upgrade_to(url, OLD)
        fill(sa.create_engine(url, poolclass=sa.NullPool))
    with looking(url) as connection:
        have = {
            table: sorted(names)
            for table, names in schema.columns(connection).items()
            if table not in ("migration_report", "migration_ledger", schema.VERSION_TABLE)
        }
        rows = read(connection, have)
    first = settings_for(copy())
    assert runner.upgrade(first, Chain()).code == Exit.OK
    with looking(first.database_url) as connection:
        whole = catalogue(connection)
    drop(first.database_url)
    return Scene(copy, drop, have, rows, whole)


def looking(url: str) -> sa.Connection:
    return sa.create_engine(url, poolclass=sa.NullPool).connect()


@dataclass
class Patience:
    """How long the process that takes over waits."""

    waited_s: float = 0.0

    def pause(self) -> None:
        time.sleep(PAUSE_S)
        self.waited_s += PAUSE_S


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    made = Patience()
    monkeypatch.setattr(waiting, "pause", made.pause)
    return made


def is_survived(scene: Scene, boundary: int, redis_url: str, place: Path, patience: Patience) -> bool:
    """Kill the process before that boundary and let another one take over. False: there is no such boundary."""
    given = settings_for(scene.copy(), redis_url=redis_url)
    process = start_upgrade(given, HERE, place / "log", lease_s=LEASE_S, die_before=boundary)
    [code] = exit_codes([process])
    if code == 0:
        scene.drop(given.database_url)
        return False
    assert code == -signal.SIGKILL, (place / "log").read_text()
    if given.is_sqlite:
        assert content(given) == (place / "template.db").read_bytes()
    patience.waited_s = 0.0
    outcome = runner.upgrade(given, Chain(), lease_s=LEASE_S)
    assert outcome.code == Exit.OK, outcome
    assert patience.waited_s < (1.0 if redis_url == NO_REDIS else LEASE_S + 0.5)
    with looking(given.database_url) as connection:
        assert catalogue(connection) == scene.whole
        after = read(connection, scene.columns)
        assert {
            table: [row for row in rows if row not in after[table]] for table, rows in scene.rows.items()
        } == {table: [] for table in scene.rows}
        verdicts = list(connection.exec_driver_sql("SELECT verdict FROM migration_report").scalars())
        assert verdicts.count("ok") == 1, verdicts
        assert set(verdicts) <= {"ok", "interrupted"}
        assert (
            connection.exec_driver_sql("SELECT count(*) FROM app_setting WHERE key = 'setup'").scalar() == 1
        )
    scene.drop(given.database_url)
    return True


def content(given: Settings) -> bytes:
    """The SQLite file, once somebody has looked into it: that undoes what was written and not committed."""
    path = Path(sa.make_url(given.database_url).database or "")
    with sqlite3.connect(path) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master")
    connection.close()
    return path.read_bytes()


@pytest.mark.parametrize("beginning", ["old"])
def test_a_killed_upgrade_is_taken_over(scene: Scene, tmp_path: Path, patience: Patience) -> None:
    for boundary in SOME:
        assert is_survived(scene, boundary, NO_REDIS, tmp_path, patience)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("broker", ["with Redis", "Redis down"])
def test_at_every_boundary(
    broker: str, scene: Scene, valkey_url: str, tmp_path: Path, patience: Patience
) -> None:
    redis_url = valkey_url if broker == "with Redis" else NO_REDIS
    boundary, longest_s = 1, 0.0
    while is_survived(scene, boundary, redis_url, tmp_path, patience):
        longest_s = max(longest_s, patience.waited_s)
        boundary += 1
    assert boundary > 30
    print(f"{boundary - 1} boundaries, the longest wait {longest_s:.2f} s")
