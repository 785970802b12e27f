"""`plan`: what an upgrade would do, told beforehand, and nothing done."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from common.settings import Settings
from migrations.chain import Chain
from migrations.plan import Lock, Plan, plan
from tests.migrations.conftest import add_revision, settings_for
from tests.migrations.test_verify import do, insert

OLD = "ef6fab585ac1"


@pytest.fixture
def database_url(at_head_url: str) -> str:
    return at_head_url


@pytest.fixture
def behind(engine: sa.Engine) -> sa.Engine:
    """A database some revisions back, which lacks what they make."""
    do(
        engine,
        "ALTER TABLE artifact DROP COLUMN url",
        "DROP INDEX ix_job_step_waiting",
        f"UPDATE wxiai_alembic_version SET version_num = '{OLD}'",
    )
    return engine


def facts(engine: sa.Engine) -> object:
    """What a change would show in: SQLite's file, PostgreSQL's relations and some rows."""
    if engine.dialect.name == "sqlite":
        return Path(engine.url.database or "").read_bytes()
    relations = (
        "SELECT relname, relfilenode, relnatts FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    )
    rows = [f"SELECT * FROM {name}" for name in ("job", "migration_report", "wxiai_alembic_version")]
    with engine.connect() as connection:
        return [sorted(map(repr, connection.exec_driver_sql(query))) for query in (relations, *rows)]


def statements(found: Plan) -> dict[str, list[str]]:
    """The SQL of each revision that has any."""
    return {step.revision: [each.sql for each in step.statements] for step in found.steps if step.statements}


def test_it_shows_the_sql_and_changes_nothing(given: Settings, behind: sa.Engine) -> None:
    before = facts(behind)
    found = plan(given, Chain())
    assert facts(behind) == before
    assert (found.state, found.error) == ("behind", None)
    assert [step.revision for step in found.steps] == [script.revision for script in Chain().pending([OLD])]
    made = statements(found)
    assert made.keys() == {"abc123def456", "5b1d9e7c2a48"}
    assert made["abc123def456"] == ["ALTER TABLE artifact ADD COLUMN url TEXT"]
    assert made["5b1d9e7c2a48"][0].startswith("CREATE INDEX ix_job_step_waiting ON job_step (")
    assert "merge_heads_final, merge heads final\n  nothing to do" in "\n".join(found.lines())


def test_it_shows_the_locks_of_postgresql(given: Settings, behind: sa.Engine) -> None:
    locks = {lock for step in plan(given, Chain()).steps for each in step.statements for lock in each.locks}
    if behind.dialect.name == "sqlite":
        assert locks == set()
    else:
        assert locks == {
            Lock("artifact", "AccessExclusiveLock", "reads and writes"),
            Lock("job_step", "ShareLock", "writes"),
        }


def test_an_index_beside_the_work_is_shown_and_not_built(given: Settings, folder: Path) -> None:
    """On PostgreSQL it cannot be tried in a transaction."""
    chain = add_revision(
        folder, "aaaa00000001", 'op.create_index_if_missing("ix_user_role", "user", ["role"])'
    )
    [statement] = plan(given, chain).steps[0].statements
    if given.is_sqlite:
        assert statement.ms is not None
    else:
        assert statement.sql == 'CREATE INDEX CONCURRENTLY ix_user_role ON "user" (role)'
        assert statement.ms is None
        assert [(lock.table, lock.mode) for lock in statement.locks] == [("user", "ShareUpdateExclusiveLock")]
    assert plan(given, chain).error is None


BAD = {
    "op.execute('ALTER TABLE nowhere ADD COLUMN a TEXT')": "aaaa00000002_test.py:17: ",
    "raise ValueError('no luck')": "aaaa00000002_test.py:17: ValueError: no luck",
    "op.add_column_if_missing('job', sa.Column('id', sa.Integer()))": "job.id is VARCHAR(length=32)",
    "op.execute('DELETE FROM job')": "rows were lost: job: 1 → 0",
}


@pytest.mark.parametrize("body", BAD)
def test_an_upgrade_that_would_fail(body: str, given: Settings, engine: sa.Engine, folder: Path) -> None:
    insert(engine, "job", id="job_1", price=0)
    before = facts(engine)
    add_revision(folder, "aaaa00000001", 'op.add_column_if_missing("job", sa.Column("good", sa.Text()))')
    add_revision(folder, "aaaa00000002", body)
    found = plan(given, add_revision(folder, "aaaa00000003", "pass"))
    assert found.error is not None
    assert found.error.startswith("would fail: ")
    assert BAD[body] in found.error
    assert [step.revision for step in found.steps] == ["aaaa00000001", "aaaa00000002"]
    assert facts(engine) == before


def test_a_table_in_use_is_no_failure_of_the_upgrade(
    postgres_at_head: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = settings_for(postgres_at_head)
    chain = add_revision(folder, "aaaa00000001", 'op.add_column_if_missing("job", sa.Column("a", sa.Text()))')
    with sa.create_engine(given.database_url, poolclass=sa.NullPool).connect() as reader:
        reader.exec_driver_sql("SELECT 'secret' FROM job WHERE price > 12345")
        told = plan(given, chain).error
        pid = reader.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    assert told == (
        "not tried to the end, another session is in the way: "
        "LockNotAvailable: canceling statement due to lock timeout"
    )
    [line] = [line for line in caplog.messages if line.startswith("waiting for")]
    assert line.startswith(f"waiting for process {pid} of the database (no name), idle in transaction for ")
    assert "secret" not in line


def test_current_foreign_and_broken(given: Settings, engine: sa.Engine, folder: Path) -> None:
    assert plan(given, Chain()).lines() == ["current: nothing is pending"]
    do(engine, "UPDATE wxiai_alembic_version SET version_num = 'f0f0f0f0f0f0'")
    foreign = plan(given, Chain())
    assert foreign.lines() == [
        "refused: nobody knows the revision f0f0f0f0f0f0; see `python -m migrations repair`"
    ]
    (folder / "versions" / "broken.py").write_text("import nowhere_to_be_found")
    assert "nowhere_to_be_found" in str(plan(given, Chain(folder)).error)
