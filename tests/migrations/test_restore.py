"""The drill: a release goes wrong, and the backup made before it brings everything back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from common.settings import Settings
from migrations import backup, postgres_client, restore, runner, sqlite_file, verify
from migrations.chain import Chain
from migrations.errors import MigrationError
from migrations.exclusive import exclusive
from migrations.guard import guard_for
from migrations.outcomes import Exit, Outcome
from tests.infrastructure.databases import Released
from tests.infrastructure.environment import ROOT, clean_environment
from tests.infrastructure.inside import configured
from tests.migrations.conftest import NO_REDIS, add_revision, settings_for
from tests.migrations.test_verify import do, insert

Everything = dict[str, list[tuple[object, ...]]]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def database_url(at_head_url: str) -> str:
    return at_head_url


@pytest.fixture
def given(database_url: str) -> Settings:
    return settings_for(database_url, migration_backup="auto")


def everything(engine: sa.Engine) -> Everything:
    """Every row of every table, reports apart."""
    tables = sa.MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        return {
            name: sorted((tuple(row) for row in connection.execute(sa.select(table))), key=repr)
            for name, table in tables.tables.items()
            if name != "migration_report"
        }


def make_backup(given: Settings, engine: sa.Engine) -> Path:
    with engine.connect() as connection:
        return Path(backup.make(connection, given, ("before",)))


def put_back(given: Settings, path: Path, *, force: bool = False) -> Outcome:
    return restore.restore(given, Chain(), path, force=force)


# ---------------------------------------------------------------- the drill


BAD_RELEASE = """
op.create_table_if_missing("bad", sa.Column("id", sa.Integer(), primary_key=True),
    sa.Column("job_id", sa.String(32), sa.ForeignKey("job.id")))
op.add_column_if_missing("user", sa.Column("bad", sa.Text()))
op.execute("UPDATE \\"user\\" SET email = 'lost'")
"""


def test_the_drill(given: Settings, engine: sa.Engine, folder: Path, released: Released) -> None:
    for number in range(20):
        insert(engine, "job", id=f"job_{number}", price=0)
    before = everything(engine)
    assert runner.upgrade(given, add_revision(folder, "aaaa00000001", BAD_RELEASE)).code == Exit.OK
    do(engine, "DELETE FROM job WHERE id <> 'job_1'", "DROP TABLE webhook_secret")
    [made] = backup.folder(given).iterdir()
    outcome = put_back(given, made)
    assert (outcome.code, outcome.state) == (Exit.OK, "restored"), outcome.line
    assert everything(engine) == before
    assert verify.verify(given.database_url, Chain()).findings == []
    assert _can_sign_in(given, released)


def _can_sign_in(given: Settings, released: Released) -> bool:
    """The application, on what was restored."""
    from web.app import create_app

    environment = {
        "DATABASE_URL": given.database_url,
        "REDIS_URL": NO_REDIS,
        "SECRET_KEY": "a secret for tests",
    }
    with configured(environment):
        client = create_app().test_client()
        ready = client.get("/readyz").get_json()
        login = {"email": released.admin_email, "password": released.admin_password}
        signed_in = client.post("/v1/auth/signin", json=login)
        account = client.get("/v1/me", headers={"Authorization": f"Bearer {released.admin_token}"})
    assert ready["schema"]["state"] == "current", ready
    assert (signed_in.status_code, account.status_code) == (200, 200)
    return True


def test_a_backup_of_an_older_release_is_upgraded_again(
    given: Settings, engine: sa.Engine, folder: Path
) -> None:
    later = add_revision(folder, "aaaa00000001", 'op.add_column_if_missing("job", sa.Column("x", sa.Text()))')
    assert runner.upgrade(given, later).code == Exit.OK
    [made] = backup.folder(given).iterdir()
    outcome = restore.restore(given, later, made)
    assert outcome.line.endswith("1 revisions are pending: `upgrade`")
    assert "x" not in {column["name"] for column in sa.inspect(engine).get_columns("job")}
    assert runner.upgrade(given, later).code == Exit.OK


# ---------------------------------------------------------------- newer data


def test_newer_rows_are_not_replaced_without_force(given: Settings, engine: sa.Engine) -> None:
    made = make_backup(given, engine)
    insert(engine, "user", id="u1", email="new@example.com", created_at=1, updated_at=1)
    now = everything(engine)
    refused = put_back(given, made)
    assert (refused.code, refused.state) == (Exit.REFUSED, "refused")
    assert "newer data: user has 2 rows, the backup 1" in refused.line
    assert everything(engine) == now
    forced = put_back(given, made, force=True)
    assert forced.code == Exit.OK
    assert len(everything(engine)["user"]) == 1
    # What was replaced is not lost.
    [safety] = [path for path in backup.folder(given).iterdir() if "before-restore" in path.name]
    assert str(safety) in forced.line
    assert put_back(given, safety).code == Exit.OK
    assert everything(engine) == now


def test_changed_rows_are_newer_data_too(given: Settings, engine: sa.Engine) -> None:
    insert(engine, "job", id="job_1", price=0, finished_at=None)
    made = make_backup(given, engine)
    do(
        engine,
        f"UPDATE job SET finished_at = {'now()' if engine.dialect.name == 'postgresql' else 'CURRENT_TIMESTAMP'}",
    )
    if engine.dialect.name == "sqlite":  # which tells whole seconds only
        do(engine, "UPDATE job SET finished_at = datetime('now', '+1 second')")
    assert "job was written to after the backup" in put_back(given, made).line


def test_a_table_of_another_program_that_the_backup_lacks(given: Settings, engine: sa.Engine) -> None:
    made = make_backup(given, engine)
    do(engine, "CREATE TABLE chat (id TEXT)", "INSERT INTO chat VALUES ('c1')")
    assert "chat has 1 rows, the backup 0" in put_back(given, made).line


def test_a_backup_that_is_the_same_needs_no_force(given: Settings, engine: sa.Engine) -> None:
    assert put_back(given, make_backup(given, engine)).code == Exit.OK


def test_old_backups_are_safe_from_the_safety_copy(given: Settings, engine: sa.Engine) -> None:
    paths = [make_backup(given, engine) for _ in range(backup.KEPT)]
    assert put_back(given, paths[0]).code == Exit.OK
    assert all(path.exists() for path in paths)


# ---------------------------------------------------------------- files that will not do


@pytest.mark.parametrize(
    "content", [b"", b"no backup at all", b"SQLite format 3\0 and then nonsense", b"PGDMP cut off"]
)
def test_a_file_that_is_no_backup(content: bytes, given: Settings, engine: sa.Engine, tmp_path: Path) -> None:
    before = everything(engine)
    path = tmp_path / "file"
    path.write_bytes(content)
    outcome = put_back(given, path)
    assert outcome.code in (Exit.REFUSED, Exit.FAILED)
    assert len(outcome.line.splitlines()) == 1
    assert everything(engine) == before


def test_a_file_that_is_not_there(given: Settings) -> None:
    assert put_back(given, Path("nowhere")).line == "refused: there is no file nowhere"


def test_a_truncated_backup_changes_nothing(given: Settings, engine: sa.Engine) -> None:
    rows = (
        "SELECT n, n, n, n FROM n"
        if engine.dialect.name == "sqlite"
        else "SELECT n::text, n::text, n::text, n::text FROM n"
    )
    do(engine, "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 3000)"
       f" INSERT INTO \"group\" (id, user_id, name, description) {rows}")  # fmt: skip
    made = make_backup(given, engine)
    with made.open("r+b") as file:
        file.truncate(made.stat().st_size * 2 // 3)
    before = everything(engine)
    assert put_back(given, made, force=True).code in (Exit.REFUSED, Exit.FAILED)
    assert everything(engine) == before


# ---------------------------------------------------------------- others


def test_an_upgrade_under_way_is_not_disturbed(given: Settings, engine: sa.Engine) -> None:
    made = make_backup(given, engine)
    guard = guard_for(given.database_url)
    assert guard.take() is not None
    try:
        outcome = put_back(given.model_copy(update={"migration_timeout": 0.5}), made)
        assert (outcome.code, outcome.state) == (Exit.TIMED_OUT, "timed_out")
    finally:
        guard.release()


def test_it_is_reported(given: Settings, engine: sa.Engine) -> None:
    outcome = put_back(given, make_backup(given, engine))
    with engine.connect() as connection:
        newest = sa.text("SELECT id, rung, verdict, backup FROM migration_report ORDER BY id DESC LIMIT 1")
        report = connection.execute(newest).one()
    assert (report.id, report.rung, report.verdict) == (outcome.report, "restore", "ok")
    assert "before-restore" in report.backup


def test_readers_and_writers_go_on(given: Settings, engine: sa.Engine) -> None:
    """A connection that was there before sees the restored rows, and can write."""
    made = make_backup(given, engine)
    do(engine, "UPDATE auth SET email = 'changed'")
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        connection.rollback()
        assert put_back(given, made).code == Exit.OK
        assert connection.exec_driver_sql("SELECT email FROM auth").scalar() == "admin@example.com"
        connection.rollback()
        connection.exec_driver_sql("UPDATE auth SET email = 'after'")
        connection.commit()


# ---------------------------------------------------------------- SQLite


def test_a_lost_file_is_made_again(sqlite_at_head: str, tmp_path: Path) -> None:
    given = settings_for(sqlite_at_head)
    engine = sa.create_engine(sqlite_at_head, poolclass=sa.NullPool)
    before, made = everything(engine), make_backup(given, engine)
    for path in tmp_path.glob("webui.db*"):
        path.unlink()
    assert put_back(given, made).code == Exit.OK
    assert everything(engine) == before


@pytest.mark.parametrize("damage", ["no database any more", "a page of rubbish"])
def test_a_damaged_file_is_kept_aside(damage: str, sqlite_at_head: str, tmp_path: Path) -> None:
    given = settings_for(sqlite_at_head)
    engine = sa.create_engine(sqlite_at_head, poolclass=sa.NullPool)
    before, made = everything(engine), make_backup(given, engine)
    with (tmp_path / "webui.db").open("r+b") as file:
        file.seek(0 if damage == "no database any more" else 4096)
        file.write(b"\xff" * 20_000)
    assert "cannot be read" in put_back(given, made).line
    assert put_back(given, made, force=True).code == Exit.OK
    assert everything(engine) == before
    [kept] = backup.folder(given).glob("webui-damaged-*.db")
    assert b"\xff" * 100 in kept.read_bytes()


def test_the_database_is_not_its_own_backup(sqlite_at_head: str, tmp_path: Path) -> None:
    outcome = put_back(settings_for(sqlite_at_head), tmp_path / "webui.db")
    assert "is the database itself" in outcome.line


def test_a_file_that_somebody_keeps_writing_to(sqlite_at_head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "_BUSY_S", 0.2)
    given = settings_for(sqlite_at_head)
    made = make_backup(given, sa.create_engine(sqlite_at_head, poolclass=sa.NullPool))
    path = backup.database_file(given)
    assert path is not None
    with exclusive(given), pytest.raises(MigrationError, match="has been writing"):
        sqlite_file.copy_in(made, path)


# ---------------------------------------------------------------- PostgreSQL


@pytest.fixture
def loaded(postgres_at_head: str) -> tuple[Settings, sa.Engine]:
    """With a view, a type, a function, an extension and another program's table around ours."""
    engine = sa.create_engine(postgres_at_head, poolclass=sa.NullPool)
    do(
        engine,
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
        'CREATE TABLE "Odd Name" (id SERIAL PRIMARY KEY, mood mood, parent TEXT)',
        "INSERT INTO \"Odd Name\" (mood) VALUES ('good'), (NULL)",
        'CREATE VIEW people AS SELECT id, email FROM "user"',
        "CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM job",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    )
    return settings_for(postgres_at_head), engine


def test_all_kinds_of_things_come_back(loaded: tuple[Settings, sa.Engine]) -> None:
    given, engine = loaded
    before, made = everything(engine), make_backup(given, engine)
    do(
        engine,
        "CREATE TABLE newer (id INT PRIMARY KEY, job_id VARCHAR REFERENCES job (id))",
        "CREATE VIEW newer_view AS SELECT * FROM people",
    )
    outcome = put_back(given, made)
    assert outcome.code == Exit.OK, outcome.line
    assert everything(engine) == before
    inspector = sa.inspect(engine)
    assert (inspector.get_view_names(), inspector.has_table("newer")) == (["people"], False)
    do(
        engine,
        "INSERT INTO \"Odd Name\" (mood) VALUES ('bad')",
        "REFRESH MATERIALIZED VIEW counted",
        "SELECT one()",
    )


def test_rows_in_an_archive_are_counted(loaded: tuple[Settings, sa.Engine]) -> None:
    given, engine = loaded
    made = make_backup(given, engine)
    with engine.connect() as connection:
        counts = postgres_client.count_rows(backup.client_for(connection, given), made)
    assert (counts["Odd Name"], counts["user"], counts["job"]) == (2, 1, 0)


def test_a_session_in_the_way_is_an_error_and_nothing_is_changed(loaded: tuple[Settings, sa.Engine]) -> None:
    given, engine = loaded
    before, made = everything(engine), make_backup(given, engine)
    with engine.connect() as reader, pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            postgres_client, "_EMPTY_SCHEMA", postgres_client._EMPTY_SCHEMA.replace("'10s'", "'200ms'")
        )
        reader.exec_driver_sql('SELECT count(*) FROM "user"')
        outcome = put_back(given, made)
        assert outcome.code == Exit.FAILED
        assert "lock timeout" in outcome.line
    assert everything(engine) == before


def test_an_archive_that_cannot_be_loaded_changes_nothing(loaded: tuple[Settings, sa.Engine]) -> None:
    given, engine = loaded
    do(engine, "DROP ROLE IF EXISTS gone", "CREATE ROLE gone", 'GRANT SELECT ON "user" TO gone')
    made = make_backup(given, engine)
    do(engine, 'REVOKE SELECT ON "user" FROM gone', "DROP ROLE gone")
    before = everything(engine)
    outcome = put_back(given, made)
    assert (outcome.code, 'role "gone" does not exist' in outcome.line) == (Exit.FAILED, True)
    assert everything(engine) == before


# ---------------------------------------------------------------- the commands


def test_the_commands(sqlite_at_head: str, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = clean_environment(
            {"DATABASE_URL": sqlite_at_head, "REDIS_URL": NO_REDIS, "PYTHONPATH": str(ROOT)}
        )
        return subprocess.run(
            [sys.executable, "-m", "migrations", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    made = run("backup")
    assert made.returncode == 0, made.stderr
    restored = run("restore", made.stdout.strip())
    assert (restored.returncode, restored.stdout.startswith("restored ")) == (0, True)
    refused = run("restore", "nowhere", "--json")
    assert (refused.returncode, '"state": "refused"' in refused.stdout) == (5, True)
    assert run("verify").stdout.startswith("clean: current")
    for name in ("backup", "restore", "verify"):
        assert f"python -m migrations {name}" in run(name, "--help").stdout
