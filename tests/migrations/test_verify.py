"""`verify`: clean where all is well, and for every kind of damage a finding that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from common import clock
from common.db.types import UtcDateTime
from common.settings import Settings
from migrations import runner, verify
from migrations.chain import Chain
from migrations.target import METADATA, MODELS
from tests.migrations.conftest import add_revision, settings_for
from tests.migrations.shapes import sample_values


@pytest.fixture
def database_url(at_head_url: str) -> str:
    return at_head_url


def findings(given: Settings, chain: Chain | None = None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in verify.verify(given.database_url, chain or Chain()).findings:
        found.setdefault(item.kind, []).append(item.line)
    return found


def do(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def insert(engine: sa.Engine, table: str, **values: Any) -> None:
    with engine.begin() as connection:
        model = METADATA.tables[table]
        moments = {
            column.name: clock.now() for column in model.columns if isinstance(column.type, UtcDateTime)
        }
        connection.execute(model.insert().values({**sample_values(model), **moments, **values}))


def test_a_released_database_is_clean(given: Settings) -> None:
    found = verify.verify(given.database_url, Chain())
    assert found.lines()[-1].startswith(f"clean: current, {len(MODELS)} of {len(MODELS)} models read")
    assert found.rows["user"] == 1
    assert json.loads(json.dumps(found.as_json()))["clean"] is True


def test_looking_changes_nothing(given: Settings, engine: sa.Engine, tmp_path: Path) -> None:
    do(engine, "DROP TABLE webhook_secret")
    before = sorted(tmp_path.iterdir()), sa.inspect(engine).get_table_names()
    verify.verify(given.database_url, Chain())
    assert (sorted(tmp_path.iterdir()), sa.inspect(engine).get_table_names()) == before


def test_missing_tables_and_columns_are_listed(given: Settings, engine: sa.Engine) -> None:
    do(engine, "DROP TABLE webhook_secret", "ALTER TABLE artifact DROP COLUMN url")
    found = findings(given)
    assert found == {"missing table": ["webhook_secret"], "missing column": ["artifact.url"]}


def test_compat_hides_nothing(given: Settings, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENABLE_BACKWARD_COMPATIBILITY", "true")
    do(engine, "ALTER TABLE job DROP COLUMN output")
    assert findings(given)["missing column"] == ["job.output"]


def test_missing_indexes_are_listed_whatever_they_were_called(given: Settings, engine: sa.Engine) -> None:
    do(
        engine,
        "DROP INDEX ix_job_parent_id",
        "DROP INDEX ix_job_finished_at",
        "CREATE INDEX another_name ON job (finished_at)",
        "DROP INDEX ix_user_phone",
        'CREATE INDEX not_unique ON "user" (phone)',
    )
    found = findings(given)
    assert found.keys() == {"missing index"}
    assert sorted(found["missing index"]) == [
        "ix_job_parent_id on job (parent_id)",
        "ix_user_phone on user (phone)",
    ]


def test_what_contradicts_the_models(given: Settings, engine: sa.Engine) -> None:
    do(
        engine,
        "DROP TABLE app_setting",
        "CREATE TABLE app_setting (key INTEGER PRIMARY KEY, value TEXT NOT NULL,"
        " updated_at TIMESTAMP WITH TIME ZONE NOT NULL, must INTEGER NOT NULL, filled INTEGER NOT NULL DEFAULT 1)",
    )
    lines = " ".join(findings(given)["contradiction"])
    assert "app_setting.key is INTEGER, not VARCHAR(255)" in lines
    assert "app_setting.must must be given a value" in lines
    assert "filled" not in lines
    assert ("app_setting.value" in lines) == (engine.dialect.name == "postgresql")  # there TEXT is not JSON


def test_rows_that_cannot_be_read(sqlite_at_head: str) -> None:
    """On SQLite only: PostgreSQL checks values when they are written."""
    engine, given = sa.create_engine(sqlite_at_head, poolclass=sa.NullPool), settings_for(sqlite_at_head)
    insert(engine, "catalog_model", id="odd/one")
    do(engine, "UPDATE catalog_model SET updated_at = 'yesterday' WHERE id = 'odd/one'")
    [line] = findings(given)["unreadable"]
    assert line.startswith("catalog_model: ValueError")


def test_orphans(given: Settings, engine: sa.Engine) -> None:
    if engine.dialect.name == "postgresql":
        [key] = sa.inspect(engine).get_foreign_keys("job_event")
        do(engine, f'ALTER TABLE job_event DROP CONSTRAINT "{key["name"]}"')
    insert(engine, "job_event", job_id="job_gone")
    found = findings(given)
    assert found["orphans"] == ["1 rows of job_event have no job (job_id)"]
    if engine.dialect.name == "postgresql":
        assert found["contradiction"] == ["job_event has no foreign key (job_id) to job"]


def test_fewer_rows_than_the_last_report_counted(given: Settings, engine: sa.Engine) -> None:
    insert(engine, "tool")
    insert(engine, "job")
    do(engine, """UPDATE migration_report SET rows_after = '{"user": 3, "job": 1, "tool": 2}'""")
    found = verify.verify(given.database_url, Chain())
    [line] = [item.line for item in found.findings if item.kind == "rows"]
    assert line.startswith("user has 1 rows, 3 after the last upgrade (mig_")
    [note] = found.notes  # users delete tools themselves
    assert note.startswith("tool has 1 rows, 2 after")


def test_credits_that_do_not_add_up(given: Settings, engine: sa.Engine) -> None:
    insert(engine, "credit_account", user_id="u1", available=7, held=0)
    assert findings(given) == {"credits": ["user u1: balance 7+0 held, ledger says 0+0"]}


def test_a_leftover_of_a_rebuild(given: Settings, engine: sa.Engine) -> None:
    do(engine, "CREATE TABLE _alembic_tmp_job (id TEXT)")
    assert "leftover" in findings(given)


def test_an_invalid_index(postgres_at_head: str) -> None:
    """On PostgreSQL only: SQLite builds an index or does not."""
    engine, given = sa.create_engine(postgres_at_head, poolclass=sa.NullPool), settings_for(postgres_at_head)
    break_index(engine)
    assert findings(given)["invalid index"] == [
        "ix_user_email on user: an interrupted build left it, nothing uses it"
    ]


def break_index(engine: sa.Engine) -> None:
    """Leave what a concurrent build leaves that found a duplicate."""
    insert(engine, "user", id="u1", email="same", api_key=None, phone=None)
    insert(engine, "user", id="u2", email="same", api_key=None, phone=None)
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(sa.exc.IntegrityError),
    ):
        connection.exec_driver_sql('CREATE UNIQUE INDEX CONCURRENTLY ix_user_email ON "user" (email)')


def test_a_damaged_file(sqlite_at_head: str, tmp_path: Path) -> None:
    with sa.create_engine(sqlite_at_head, poolclass=sa.NullPool).connect() as connection:
        [page] = connection.exec_driver_sql(
            "SELECT rootpage FROM sqlite_master WHERE name = 'ix_job_finished_at'"
        ).scalars()
        [size] = connection.exec_driver_sql("PRAGMA page_size").scalars()
    with (tmp_path / "webui.db").open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * 100)
    kinds = {item.kind for item in verify.verify(sqlite_at_head, Chain()).findings}
    assert "damaged" in kinds


@pytest.mark.parametrize("at", ["behind", "empty"])
def test_a_database_that_is_not_there_yet(at: str, given: Settings, engine: sa.Engine, folder: Path) -> None:
    if at == "behind":
        found = findings(given, add_revision(folder, "aaaa00000001", "pass"))
        assert found == {"behind": ["`upgrade` has work to do: aaaa00000001"]}
        return
    with engine.begin() as connection:
        METADATA.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE wxiai_alembic_version")
    assert findings(given)["empty"] == ["there are no tables: `upgrade` makes them"]


def test_a_database_of_a_later_release_is_clean(given: Settings, folder: Path) -> None:
    later = add_revision(
        folder, "aaaa00000001", 'op.add_column_if_missing("job", sa.Column("later", sa.Text()))'
    )
    assert runner.upgrade(given, later).code == 0
    found = verify.verify(given.database_url, Chain())
    assert (found.is_clean, found.state) == (True, "ahead")
    assert "by a later release" in found.notes[0]
