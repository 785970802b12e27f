"""One process: what upgrade does in each state, and how it fails."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import sqlalchemy as sa

from common.db import schema
from common.settings import Settings
from migrations import guard as guards
from migrations import ladder, runner
from migrations.chain import Chain
from migrations.outcomes import Exit
from tests.migrations.conftest import add_revision, settings_for, without_merge
from tests.migrations.shapes import shape


def scalars(engine: sa.Engine, sql: str) -> list[object]:
    with engine.connect() as connection:
        return list(connection.execute(sa.text(sql)).scalars())


def last_report(engine: sa.Engine) -> sa.Row[tuple[object, ...]]:
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT * FROM migration_report ORDER BY id DESC LIMIT 1")).first()
        assert found is not None
        return found


def versions(engine: sa.Engine) -> list[object]:
    return scalars(engine, "SELECT version_num FROM wxiai_alembic_version")


def test_an_empty_database_becomes_current(given: Settings, engine: sa.Engine) -> None:
    outcome = runner.upgrade(given, Chain())
    assert (outcome.code, outcome.state) == (Exit.OK, "current")
    assert versions(engine) == [schema.head()]
    report = last_report(engine)
    assert (report.verdict, report.rung, report.from_revision) == ("ok", "head", None)
    ledger = scalars(engine, "SELECT revision FROM migration_ledger WHERE length(checksum) = 64")
    assert set(ledger) == Chain().ids


def test_a_current_database_is_not_locked(given: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.upgrade(given, Chain())
    monkeypatch.setattr(runner, "guard_for", lambda url: pytest.fail("took the guard"))
    monkeypatch.setattr(runner, "Lease", lambda *_: pytest.fail("took the lease"))
    assert runner.upgrade(given, Chain()).code == Exit.OK


def test_rows_are_counted_and_told(
    given: Settings, engine: sa.Engine, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner.upgrade(given, Chain())
    caplog.set_level(logging.INFO)
    assert runner.upgrade(given, add_revision(folder, "aaaa00000001", "pass")).code == Exit.OK
    assert "Existing users: 1, jobs: 0 (all kept)" in caplog.messages
    assert any(
        message.startswith(f"Running upgrade {schema.head()} -> aaaa00000001") for message in caplog.messages
    )


def test_lost_rows_are_a_failure(given: Settings, engine: sa.Engine, folder: Path) -> None:
    runner.upgrade(given, Chain())
    outcome = runner.upgrade(
        given, add_revision(folder, "aaaa00000001", "op.execute('DELETE FROM \"user\"')")
    )
    assert (outcome.code, outcome.line) == (Exit.FAILED, "failed: rows were lost: user: 1 → 0")
    if engine.dialect.name == "sqlite":
        assert scalars(engine, 'SELECT id FROM "user"') == ["admin"]


def test_a_database_of_a_later_release_is_served(given: Settings, engine: sa.Engine, folder: Path) -> None:
    later = add_revision(
        folder, "aaaa00000001", 'op.create_table_if_missing("later", sa.Column("id", sa.Integer()))'
    )
    assert runner.upgrade(given, later).code == Exit.OK
    outcome = runner.upgrade(given, Chain())
    assert (outcome.code, outcome.state) == (Exit.OK, "ahead")
    assert runner.wait(given, Chain()).code == Exit.OK
    assert versions(engine) == ["aaaa00000001"]


def test_a_foreign_revision_is_refused(given: Settings, engine: sa.Engine) -> None:
    runner.upgrade(given, Chain())
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE wxiai_alembic_version SET version_num = 'f0f0f0f0f0f0'")
    outcome = runner.upgrade(given, Chain())
    assert (outcome.code, outcome.state) == (Exit.REFUSED, "foreign")
    assert runner.wait(given, Chain()).code == Exit.REFUSED


def test_another_programs_version_table_is_left_alone(given: Settings, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('b10670c03dd5')")
    assert runner.upgrade(given, Chain()).code == Exit.OK
    assert scalars(engine, "SELECT version_num FROM alembic_version") == ["b10670c03dd5"]


def test_a_taken_name_is_refused(given: Settings, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE job (number INTEGER NOT NULL)")
    outcome = runner.upgrade(settings_for(given.database_url, enable_fallback_create=True), Chain())
    assert outcome.code == Exit.REFUSED
    assert "the table job is there and is not ours by its shape: it lacks id, user_id, status" in outcome.line
    assert sa.inspect(engine).get_table_names() == ["job"]


def test_a_column_of_another_type_is_refused(given: Settings, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE auth (id INTEGER, email TEXT, password TEXT, active BOOLEAN)"
        )
    outcome = runner.upgrade(given, Chain())
    assert (outcome.code, "auth.id is INTEGER, not VARCHAR(255)" in outcome.line) == (Exit.REFUSED, True)


FAILING = """
op.add_column_if_missing("job", sa.Column("half", sa.Text()))
with open({log!r}, "a") as file:
    file.write("x")
raise RuntimeError("the body failed")
"""


def test_a_failing_revision_changes_nothing_and_heals(
    given: Settings, engine: sa.Engine, folder: Path, tmp_path: Path
) -> None:
    runner.upgrade(given, Chain())
    before = shape(engine)
    body_log = tmp_path / "bodies"
    failing = add_revision(folder, "aaaa00000001", FAILING.format(log=str(body_log)))
    outcome = runner.upgrade(given, failing)
    assert (outcome.code, outcome.line) == (Exit.FAILED, "failed: RuntimeError: the body failed")
    assert body_log.read_text() == "x"
    assert shape(engine) == before
    assert versions(engine) == [schema.head()]
    healed = add_revision(folder, "aaaa00000001", "pass", parent=schema.head())
    assert runner.upgrade(given, healed).code == Exit.OK
    assert versions(engine) == ["aaaa00000001"]


def test_a_good_revision_before_a_failing_one(given: Settings, engine: sa.Engine, folder: Path) -> None:
    runner.upgrade(given, Chain())
    add_revision(folder, "aaaa00000001", "pass")
    failing = add_revision(folder, "aaaa00000002", "raise RuntimeError('no')")
    assert runner.upgrade(given, failing).code == Exit.FAILED
    # SQLite: the whole upgrade is one transaction. PostgreSQL: each revision is.
    assert versions(engine) == [schema.head() if engine.dialect.name == "sqlite" else "aaaa00000001"]


def test_last_rung_on_an_empty_database(database_url: str, engine: sa.Engine, folder: Path) -> None:
    init = folder / "versions" / "7e5b5dc7342b_init.py"
    init.write_text(
        init.read_text().replace("def upgrade() -> None:", "def upgrade() -> None:\n    raise OSError")
    )
    given = settings_for(database_url, enable_fallback_create=True)
    assert runner.upgrade(given, Chain(folder)).code == Exit.OK
    report = last_report(engine)
    assert (report.rung, report.verdict) == ("create_all", "ok")
    assert versions(engine) == [schema.head()]
    assert set(scalars(engine, "SELECT revision FROM migration_ledger")) == Chain().ids
    assert scalars(engine, 'SELECT id FROM "user"') == ["admin"]
    assert runner.upgrade(given, Chain()).code == Exit.OK


def test_last_rung_on_a_database_with_rows(given: Settings, engine: sa.Engine, folder: Path) -> None:
    runner.upgrade(given, Chain())
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE webhook_secret")
        connection.exec_driver_sql("ALTER TABLE artifact DROP COLUMN url")
        connection.exec_driver_sql("UPDATE wxiai_alembic_version SET version_num = 'merge_heads_final'")
    head = folder / "versions" / "d8b04e6f3c19_add_webhook_tables.py"
    good = head.read_text()
    head.write_text(good.replace("def upgrade() -> None:", "def upgrade() -> None:\n    raise OSError"))
    fallback = settings_for(given.database_url, enable_fallback_create=True)
    outcome = runner.upgrade(fallback, Chain(folder))
    assert (outcome.code, outcome.state) == (Exit.DEGRADED, "degraded")
    assert versions(engine) == ["merge_heads_final"]
    inspector = sa.inspect(engine)
    assert inspector.has_table("webhook_secret")
    assert "url" in {column["name"] for column in inspector.get_columns("artifact")}
    assert runner.wait(fallback, Chain(folder)).code == Exit.DEGRADED
    head.write_text(good)
    assert runner.upgrade(fallback, Chain(folder)).code == Exit.OK


def test_last_rung_never_invents_access(given: Settings, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE tool (id TEXT, user_id TEXT, name TEXT)")
        connection.exec_driver_sql("INSERT INTO tool VALUES ('t', 'u', 'mine')")
        ladder.add_missing(connection)
    names = {column["name"] for column in sa.inspect(engine).get_columns("tool")}
    assert "access_control" not in names


def test_a_chain_that_cannot_be_loaded(database_url: str, engine: sa.Engine, folder: Path) -> None:
    (folder / "versions" / "broken.py").write_text("import nowhere_to_be_found")
    given = settings_for(database_url, enable_fallback_create=True)
    assert runner.upgrade(given, Chain(folder)).code == Exit.OK  # empty: create_all
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE wxiai_alembic_version SET version_num = 'merge_heads_final'")
    outcome = runner.upgrade(given, Chain(folder))
    assert outcome.code in (Exit.FAILED, Exit.REFUSED)


def test_two_heads_are_both_reached(given: Settings, engine: sa.Engine, folder: Path) -> None:
    outcome = runner.upgrade(settings_for(given.database_url), without_merge(folder))
    assert outcome.code == Exit.FAILED  # the models need the webhook tables
    assert "webhook_secret" in outcome.line


def test_the_first_run_prepares_once(given: Settings, engine: sa.Engine, setup_calls: list[str]) -> None:
    runner.upgrade(given, Chain())
    runner.upgrade(given, Chain())
    assert setup_calls == ["called"]


def test_a_first_run_killed_before_its_setup_is_completed(
    given: Settings, engine: sa.Engine, setup_calls: list[str]
) -> None:
    runner.upgrade(given, Chain())
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM app_setting")
        connection.exec_driver_sql('DELETE FROM "user"')
    assert runner.upgrade(given, Chain()).code == Exit.OK
    assert setup_calls == ["called", "called"]
    assert scalars(engine, 'SELECT id FROM "user"') == ["admin"]


def test_wait_gives_up_when_nobody_upgrades(database_url: str) -> None:
    outcome = runner.wait(settings_for(database_url, migration_timeout=0.3), Chain())
    assert (outcome.code, outcome.state) == (Exit.TIMED_OUT, "timed_out")


def test_a_silent_holder_is_not_waited_for_for_ever(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "PULSE_S", 60.0)  # held, but its pulse has stopped
    guard = guards.guard_for(database_url)
    assert guard.take() is not None
    try:
        outcome = runner.upgrade(settings_for(database_url, migration_timeout=0.5), Chain())
        assert outcome.code == Exit.TIMED_OUT
        assert guards.process_name() in outcome.line
    finally:
        guard.release()


def test_a_locked_table_is_tried_again(engine: sa.Engine, given: Settings, folder: Path) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one lock for everything: the guard")
    runner.upgrade(given, Chain())
    body = 'op.execute("SET LOCAL lock_timeout = 200")\nop.add_column_if_missing("job", sa.Column("late2", sa.Text()))'
    chain = add_revision(folder, "aaaa00000001", body)
    reader = engine.connect()
    reader.exec_driver_sql("SELECT * FROM job")
    seen: list[float] = []

    def let_go(seconds: float) -> None:
        seen.append(seconds)
        reader.rollback()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ladder.time, "sleep", let_go)
        assert runner.upgrade(given, chain).code == Exit.OK
    assert len(seen) == 1


def test_an_index_on_a_table_with_rows_is_built_beside_the_work(
    engine: sa.Engine, given: Settings, folder: Path
) -> None:
    runner.upgrade(given, Chain())
    body = 'op.create_index_if_missing("ix_user_role", "user", ["role"])'
    chain = add_revision(folder, "aaaa00000001", body)
    assert runner.upgrade(given, chain).code == Exit.OK
    assert "ix_user_role" in {index["name"] for index in sa.inspect(engine).get_indexes("user")}


def test_a_misspelt_index_is_refused(given: Settings, folder: Path) -> None:
    runner.upgrade(given, Chain())
    chain = add_revision(folder, "aaaa00000001", 'op.create_index_if_missing("ix_x", "user", ["misspelt"])')
    outcome = runner.upgrade(given, chain)
    assert (outcome.code, "misspelt" in outcome.line) == (Exit.REFUSED, True)
