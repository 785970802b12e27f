"""Backups: made before a change, complete or absent, private, and few."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from common.settings import Settings
from migrations import backup, postgres_client, runner, sqlite_file
from migrations.chain import Chain
from migrations.errors import MigrationError
from migrations.outcomes import Exit
from tests.infrastructure.children import wait_until
from tests.migrations.conftest import add_revision, settings_for

HEAD = Chain().aim


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PostgreSQL's backups go to `data/backups` of the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def given(database_url: str) -> Settings:
    return settings_for(database_url, migration_backup="auto")


def last_backup(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        newest = sa.text("SELECT backup FROM migration_report ORDER BY id DESC LIMIT 1")
        return connection.scalar(newest)


def made(given: Settings) -> list[Path]:
    folder = backup.folder(given)
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.exists() else []


def users_in(path: Path, engine: sa.Engine, given: Settings) -> int:
    if given.is_sqlite:
        return sqlite_file.count_rows(path)["user"]
    with engine.connect() as connection:
        return postgres_client.count_rows(backup.client_for(connection, given), path)["user"]


class TestBeforeAnUpgrade:
    def test_it_holds_what_was_there_and_nothing_of_the_upgrade(
        self, given: Settings, engine: sa.Engine, folder: Path
    ) -> None:
        runner.upgrade(given, Chain())
        later = add_revision(
            folder, "aaaa00000001", 'op.create_table_if_missing("later", sa.Column("id", sa.Integer()))'
        )
        assert runner.upgrade(given, later).code == Exit.OK
        [path] = made(given)
        assert last_backup(engine) == str(path)
        assert backup.revision_in(path) == HEAD
        assert users_in(path, engine, given) == 1
        if given.is_sqlite:
            assert "later" not in sqlite_file.count_rows(path)
            assert sqlite_file.faults(path) == []

    def test_an_empty_database_needs_none(self, given: Settings, engine: sa.Engine) -> None:
        assert runner.upgrade(given, Chain()).code == Exit.OK
        assert (made(given), last_backup(engine)) == ([], None)

    def test_a_current_database_needs_none(self, given: Settings) -> None:
        for _ in range(2):
            assert runner.upgrade(given, Chain()).code == Exit.OK
        assert made(given) == []

    def test_only_an_unfinished_first_run_needs_none(self, given: Settings, engine: sa.Engine) -> None:
        runner.upgrade(given, Chain())
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM app_setting")
            connection.exec_driver_sql('DELETE FROM "user"')
        assert runner.upgrade(given, Chain()).code == Exit.OK
        assert made(given) == []

    def test_it_is_there_when_the_upgrade_fails(
        self, given: Settings, engine: sa.Engine, folder: Path
    ) -> None:
        runner.upgrade(given, Chain())
        failing = add_revision(folder, "aaaa00000001", "raise RuntimeError('no')")
        assert runner.upgrade(given, failing).code == Exit.FAILED
        assert [str(path) for path in made(given)] == [last_backup(engine)]

    def test_off(self, database_url: str, folder: Path) -> None:
        given = settings_for(database_url, migration_backup="off")
        runner.upgrade(given, Chain())
        assert runner.upgrade(given, add_revision(folder, "aaaa00000001", "pass")).code == Exit.OK
        assert made(given) == []

    def test_one_that_fails_stops_the_upgrade(self, given: Settings, engine: sa.Engine, folder: Path) -> None:
        runner.upgrade(given, Chain())
        backup.folder(given).parent.mkdir(exist_ok=True)
        backup.folder(given).write_text("a file is in the way")
        outcome = runner.upgrade(given, add_revision(folder, "aaaa00000001", "pass"))
        assert (outcome.code, "the backup failed" in outcome.line) == (Exit.FAILED, True)
        assert versions(engine) == [HEAD]

    def test_nobody_else_can_read_it(self, given: Settings, folder: Path) -> None:
        runner.upgrade(given, Chain())
        runner.upgrade(given, add_revision(folder, "aaaa00000001", "pass"))
        [path] = made(given)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def versions(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.exec_driver_sql("SELECT version_num FROM wxiai_alembic_version").scalars())


def test_the_last_few_are_kept_and_the_last_of_a_release_longest(given: Settings, engine: sa.Engine) -> None:
    runner.upgrade(given, Chain())
    with engine.connect() as connection:
        old = backup.make(connection, given, ("before",))
        for _ in range(backup.KEPT + 2):
            backup.make(connection, given, ("now",))
    backup.prune(given)
    kept = made(given)
    assert len(kept) == backup.KEPT
    assert Path(old) in kept
    assert [backup.revision_in(path) for path in kept].count("now") == backup.KEPT - 1


def test_the_time_is_in_the_name(given: Settings, engine: sa.Engine) -> None:
    runner.upgrade(given, Chain())
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    with engine.connect() as connection:
        path = Path(backup.make(connection, given, ("a", "b")))
    assert before <= backup.taken_at(path) <= datetime.now(UTC)
    assert backup.revision_in(path) == "a+b"
    other = path.rename(path.with_name("renamed"))
    assert abs(backup.taken_at(other) - datetime.now(UTC)) < timedelta(minutes=1)


# ---------------------------------------------------------------- SQLite


@pytest.fixture
def busy_file(tmp_path: Path) -> Iterator[Path]:
    """A file in WAL mode, into which somebody writes pairs of rows all the time."""
    path, ended = tmp_path / "busy.db", threading.Event()
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    writer.executescript("PRAGMA journal_mode=WAL; CREATE TABLE pair (text TEXT);")
    writer.executemany("INSERT INTO pair VALUES (?)", [("x" * 4000,)] * 4000)

    def write() -> None:
        while not ended.is_set():
            writer.executescript(
                "BEGIN; INSERT INTO pair VALUES ('a'); INSERT INTO pair VALUES ('b'); COMMIT;"
            )

    thread = threading.Thread(target=write)
    thread.start()
    yield path
    ended.set()
    thread.join()
    writer.close()


def test_a_copy_under_writes_is_of_one_moment(busy_file: Path, tmp_path: Path) -> None:
    wait_until(lambda: sqlite_file.count_rows(busy_file)["pair"] > 4010, what="writes")
    sqlite_file.copy_out(busy_file, tmp_path / "copy.db")
    during = sqlite_file.count_rows(tmp_path / "copy.db")["pair"]
    wait_until(lambda: sqlite_file.count_rows(busy_file)["pair"] > during, what="the writer goes on")
    assert during % 2 == 0
    assert sqlite_file.faults(tmp_path / "copy.db") == []
    assert [path.name for path in tmp_path.glob("copy.db*")] == ["copy.db"]  # nothing beside it is needed


# ---------------------------------------------------------------- PostgreSQL


@pytest.fixture
def postgres(postgres_server: object, request: pytest.FixtureRequest) -> Iterator[Settings]:
    """A database at the head, behind a password that no log and no process list may show."""
    server = request.getfixturevalue("postgres_server")
    url = server.create_database()
    with sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect() as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS keeper")
        connection.exec_driver_sql("CREATE ROLE keeper LOGIN SUPERUSER PASSWORD 's3cret-word'")
    given = settings_for(url.replace("postgres@", "keeper:s3cret-word@"), migration_backup="auto")
    runner.upgrade(given, Chain())
    yield given
    server.drop_database(url)


@pytest.fixture
def no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_client, "_folders", lambda: iter([Path("/nowhere")]))


@pytest.mark.usefixtures("no_client")
def test_without_pg_dump_it_warns_and_goes_on(
    postgres: Settings, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert runner.upgrade(postgres, add_revision(folder, "aaaa00000001", "pass")).code == Exit.OK
    assert any(message.startswith("no backup: there is no pg_dump") for message in caplog.messages)


@pytest.mark.usefixtures("no_client")
def test_without_pg_dump_it_refuses_where_one_is_required(postgres: Settings, folder: Path) -> None:
    required = postgres.model_copy(update={"migration_backup": "required"})
    outcome = runner.upgrade(required, add_revision(folder, "aaaa00000001", "pass"))
    assert outcome.code == Exit.REFUSED
    assert "MIGRATION_BACKUP=required, but there is no pg_dump" in outcome.line
    with sa.create_engine(postgres.database_url, poolclass=sa.NullPool).connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM wxiai_alembic_version").scalar() == HEAD


@pytest.mark.usefixtures("no_client")
class TestCommand:
    def run(self, postgres: Settings, folder: Path, command: str) -> tuple[int, str | None]:
        given = postgres.model_copy(update={"migration_backup_cmd": command})
        code = runner.upgrade(given, add_revision(folder, "aaaa00000001", "pass")).code
        return code, last_backup(sa.create_engine(postgres.database_url, poolclass=sa.NullPool))

    def test_its_file_is_kept(self, postgres: Settings, folder: Path) -> None:
        code, path = self.run(postgres, folder, 'echo "$PGUSER $PGDATABASE" > "$BACKUP_FILE"')
        assert (code, Path(path or "").read_text().split()[0]) == (Exit.OK, "keeper")

    def test_it_may_keep_the_backup_elsewhere(self, postgres: Settings, folder: Path) -> None:
        assert self.run(postgres, folder, "true") == (Exit.OK, backup.BY_COMMAND)
        assert made(postgres) == []

    def test_its_failure_stops_the_upgrade(
        self, postgres: Settings, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        given = postgres.model_copy(
            update={"migration_backup_cmd": 'echo "error: $PGPASSWORD is wrong" >&2; exit 7'}
        )
        outcome = runner.upgrade(given, add_revision(folder, "aaaa00000001", "pass"))
        reason = "the backup failed: MIGRATION_BACKUP_CMD failed: error: *** is wrong"
        assert outcome.line == f"failed: {reason} (MIGRATION_BACKUP=off goes on without one)"
        assert "s3cret-word" not in caplog.text


def test_the_password_is_in_no_process_list(postgres: Settings, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with sa.create_engine(postgres.database_url, poolclass=sa.NullPool).connect() as connection:
        real = backup.client_for(connection, postgres).folder / "pg_dump"
    spy = tmp_path / "bin" / "pg_dump"
    spy.parent.mkdir()
    spy.write_text(f'#!/bin/sh\ntr "\\0" " " < /proc/$$/cmdline > {seen}\nexec {real} "$@"\n')
    spy.chmod(0o755)
    postgres_client.dump(postgres_client.Client(spy.parent, postgres.database_url), tmp_path / "dump")
    assert "pg_dump" in seen.read_text()
    assert "s3cret-word" not in seen.read_text()
    assert postgres_client.is_archive(tmp_path / "dump")


def test_a_dump_that_fails_leaves_nothing(postgres: Settings) -> None:
    with sa.create_engine(postgres.database_url, poolclass=sa.NullPool).connect() as connection:
        wrong = postgres.model_copy(
            update={"database_url": postgres.database_url.replace("keeper:s3cret-word", "nobody:s3cret-word")}
        )
        with pytest.raises(MigrationError, match=r'role "nobody" does not exist') as failed:
            backup.make(connection, wrong, ("x",))
    assert "s3cret-word" not in str(failed.value)
    assert list(backup.folder(postgres).iterdir()) == []


def test_an_old_client_is_as_good_as_none(postgres: Settings, tmp_path: Path) -> None:
    assert postgres_client.find(postgres.database_url, 999) is None
    assert postgres_client.find(postgres.database_url, 15) is not None


def test_all_of_a_url_reaches_the_programs() -> None:
    url = "postgresql+psycopg://u:p%40ss@h:5433/d?sslmode=require&options=-csearch_path%3Dapp"
    found = postgres_client.environment(url)
    assert {name: found[name] for name in ("PGUSER", "PGPASSWORD", "PGHOST", "PGPORT", "PGDATABASE")} == {
        "PGUSER": "u", "PGPASSWORD": "p@ss", "PGHOST": "h", "PGPORT": "5433", "PGDATABASE": "d"
    }  # fmt: skip
    assert (found["PGSSLMODE"], found["PGOPTIONS"]) == ("require", "-csearch_path=app")


def test_a_program_that_is_interrupted_leaves_no_child(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    command = f"sleep 60 & echo $! > {pid_file}.new; mv {pid_file}.new {pid_file}; wait"
    with (
        pytest.raises(subprocess.TimeoutExpired),
        postgres_client._process(
            ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        ) as (process, _),
    ):
        wait_until(pid_file.exists, what="the child runs")
        process.wait(0.01)
    child = int(pid_file.read_text())
    wait_until(lambda: not _is_alive(child), what="the child is gone")


def _is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_unfinished_files_are_removed_once_they_are_old(given: Settings, engine: sa.Engine) -> None:
    runner.upgrade(given, Chain())
    with engine.connect() as connection:
        backup.make(connection, given, ("x",))
        [path] = made(given)
        old, young = (path.with_name(f".{path.name}{n}.partial") for n in (1, 2))
        for draft in (old, young):
            draft.touch()
        os.utime(old, (1, 1))
    backup.prune(given)
    assert (old.exists(), young.exists()) == (False, True)
