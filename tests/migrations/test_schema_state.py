"""What /readyz tells about the schema."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from common.db import build_engine, schema
from common.settings import Settings
from migrations import runner
from migrations.chain import Chain
from migrations.target import METADATA
from tests.migrations.conftest import AFTER_MERGE, add_revision, settings_for


def state(engine: sa.Engine) -> schema.SchemaState:
    schema._cache.clear()
    return schema.schema_state(engine, METADATA)


@pytest.fixture
def app_engine(database_url: str) -> sa.Engine:
    return build_engine(database_url)


def test_empty_then_current(app_engine: sa.Engine, given: Settings) -> None:
    before = state(app_engine)
    assert (before.state, before.usable, before.db) == ("empty", False, [])
    app_engine.dispose()
    runner.upgrade(given, Chain())
    after = state(app_engine)
    assert (after.state, after.usable, after.missing, after.holder) == ("current", True, {}, None)
    assert after.db == [after.code]
    app_engine.dispose()


def test_a_missing_column_is_listed_and_borne(
    app_engine: sa.Engine, given: Settings, engine: sa.Engine
) -> None:
    runner.upgrade(given, Chain())
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE artifact DROP COLUMN url")
        connection.exec_driver_sql("UPDATE wxiai_alembic_version SET version_num = '24e8f9a7b1c2'")
        connection.exec_driver_sql(f"DELETE FROM migration_ledger WHERE revision IN {(*AFTER_MERGE, '')}")
    found = state(app_engine)
    assert (found.state, found.missing, found.usable) == ("behind", {"artifact": ["url"]}, True)
    app_engine.dispose()


@pytest.mark.parametrize("wanted", [True, False])
def test_a_missing_column_is_told_once(
    wanted: bool,
    app_engine: sa.Engine,
    given: Settings,
    engine: sa.Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    runner.upgrade(given, Chain())
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE artifact DROP COLUMN url")
    monkeypatch.setattr(schema, "_warned", set())
    monkeypatch.setattr(
        schema, "settings", lambda: given.model_copy(update={"log_compatibility_warnings": wanted})
    )
    caplog.clear()
    for _ in range(2):
        state(app_engine)
    told = [record.getMessage() for record in caplog.records if record.name == schema.__name__]
    assert told == ["the database lacks artifact.url: see `python -m migrations status`"] * wanted
    app_engine.dispose()


def test_a_missing_table_is_not_borne(app_engine: sa.Engine, given: Settings, engine: sa.Engine) -> None:
    runner.upgrade(given, Chain())
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE webhook_secret")
    assert state(app_engine).usable is False
    app_engine.dispose()


def test_ahead_foreign_and_degraded(
    app_engine: sa.Engine, given: Settings, engine: sa.Engine, folder: Path
) -> None:
    runner.upgrade(given, add_revision(folder, "aaaa00000001", "pass"))
    assert (state(app_engine).state, state(app_engine).usable) == ("ahead", True)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE wxiai_alembic_version SET version_num = 'f0f0f0f0f0f0'")
    assert (state(app_engine).state, state(app_engine).usable) == ("foreign", False)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE wxiai_alembic_version SET version_num = 'merge_heads_final'")
        connection.exec_driver_sql(
            f"DELETE FROM migration_ledger WHERE revision IN {(*AFTER_MERGE, 'aaaa00000001')}"
        )
    broken = folder / "versions" / "d8b04e6f3c19_add_webhook_tables.py"
    broken.write_text(
        broken.read_text().replace("def upgrade() -> None:", "def upgrade() -> None:\n    raise OSError")
    )
    (folder / "versions" / "aaaa00000001_test.py").unlink()
    fallback = settings_for(given.database_url, enable_fallback_create=True)
    assert runner.upgrade(fallback, Chain(folder)).code == 4
    assert (state(app_engine).state, state(app_engine).usable) == ("degraded", True)
    app_engine.dispose()


def test_it_is_cached_for_a_moment(app_engine: sa.Engine, given: Settings) -> None:
    runner.upgrade(given, Chain())
    first = state(app_engine)
    assert schema.schema_state(app_engine, METADATA) is first
    app_engine.dispose()
