"""`repair`: whatever state the schema is in, a plan, a backup, and every row kept."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from common.settings import Settings
from migrations import backup, repair, runner, verify
from migrations.chain import Chain
from migrations.diagnosis import Plan
from migrations.guard import guard_for
from migrations.outcomes import Exit, Outcome
from tests.infrastructure.environment import ROOT, clean_environment
from tests.migrations.conftest import NO_REDIS, add_revision, settings_for
from tests.migrations.shapes import Shape, shape
from tests.migrations.test_restore import everything
from tests.migrations.test_verify import break_index, do, insert

HEAD = Chain().aim


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def database_url(at_head_url: str) -> str:
    return at_head_url


@pytest.fixture
def whole(engine: sa.Engine) -> Shape:
    """The catalogue as it shall be again; there are rows in the tables."""
    insert(engine, "job", id="job_1", price=0)
    insert(engine, "artifact", id="art_1", job_id="job_1")
    insert(engine, "tool", id="tool_1", access_control={})
    return shape(engine)


def mend(given: Settings, chain: Chain | None = None) -> Outcome:
    chain = chain or Chain()
    return repair.repair(given, chain, repair.plan(given.database_url, chain))


def versions(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return sorted(connection.exec_driver_sql("SELECT version_num FROM wxiai_alembic_version").scalars())


def last_report(engine: sa.Engine) -> Any:
    with engine.connect() as connection:
        return connection.execute(sa.text("SELECT * FROM migration_report ORDER BY id DESC LIMIT 1")).one()


def columns_by_name(found: Shape) -> Shape:
    """A column that was added again stands at the end, and SQLite's own text of a table differs."""
    return {
        table: {**parts, "columns": dict(sorted(parts["columns"].items()))} for table, parts in found.items()
    }


FOREIGN = "UPDATE wxiai_alembic_version SET version_num = 'f0f0f0f0f0f0'"
DAMAGE: dict[str, list[str]] = {
    "an empty version table": ["DELETE FROM wxiai_alembic_version"],
    "no version table": ["DROP TABLE wxiai_alembic_version"],
    "a foreign revision": [FOREIGN],
    "a foreign revision beside ours": ["INSERT INTO wxiai_alembic_version VALUES ('f0f0f0f0f0f0')"],
    "overlapping revisions": ["INSERT INTO wxiai_alembic_version VALUES ('ca81bd47c050')"],
    "too old a revision": ["UPDATE wxiai_alembic_version SET version_num = 'ca81bd47c050'"],
    "a version table of another shape": [
        "DROP TABLE wxiai_alembic_version",
        "CREATE TABLE wxiai_alembic_version (number INTEGER)",
    ],
    "no ledger": ["DROP TABLE migration_ledger"],
    "an incomplete ledger": ["DELETE FROM migration_ledger WHERE revision = 'ca81bd47c050'"],
    "a missing table": ["DROP TABLE webhook_secret"],
    "missing columns": ["ALTER TABLE artifact DROP COLUMN url", "ALTER TABLE job DROP COLUMN output"],
    "a missing column with its index": ["DROP INDEX ix_user_phone", 'ALTER TABLE "user" DROP COLUMN phone'],
    "a missing index": ["DROP INDEX ix_job_parent_id"],
    "a half-applied revision": [
        "DROP TABLE webhook_delivery",
        "DROP TABLE webhook_secret",
        "UPDATE wxiai_alembic_version SET version_num = 'merge_heads_final'",
    ],
    "everything at once": [
        FOREIGN,
        "DELETE FROM migration_ledger",
        "DROP TABLE webhook_delivery",
        "ALTER TABLE artifact DROP COLUMN url",
        "DROP INDEX ix_job_parent_id",
        "CREATE TABLE _alembic_tmp_job (id TEXT)",
    ],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_it_ends_whole_with_every_row(damage: str, given: Settings, engine: sa.Engine, whole: Shape) -> None:
    rows = everything(engine)
    do(engine, *DAMAGE[damage])
    outcome = mend(given)
    assert (outcome.code, outcome.state) == (Exit.OK, "repaired"), outcome.line  # `verify` included
    assert columns_by_name(shape(engine)) == columns_by_name(whole)
    assert versions(engine) == [HEAD]
    after = everything(engine)
    assert {name: len(after[name]) for name in rows} == {name: len(rows[name]) for name in rows}
    assert runner.upgrade(given, Chain()).line == f"current: {HEAD}"
    report = last_report(engine)
    assert (report.rung, report.verdict, report.id) == ("repair", "ok", outcome.report)


def test_a_whole_database_is_left_alone(given: Settings, engine: sa.Engine, whole: Shape) -> None:
    assert repair.plan(given.database_url, Chain()) == Plan(
        repair.plan(given.database_url, Chain()).state, [], []
    )
    before = everything(engine)
    outcome = repair.nothing_to_do(given, Chain())
    assert (outcome.code, outcome.state) == (Exit.OK, "whole")
    assert everything(engine) == before


def test_planning_changes_nothing(given: Settings, engine: sa.Engine, whole: Shape) -> None:
    do(engine, *DAMAGE["everything at once"])
    before = shape(engine), versions(engine)
    kinds = [step.kind for step in repair.plan(given.database_url, Chain()).steps]
    assert kinds == ["drop leftover", "forget revision", "run chain", "add table", "add column", "add index"]
    assert (shape(engine), versions(engine)) == before


def test_an_empty_database(given: Settings, engine: sa.Engine, whole: Shape) -> None:
    if engine.dialect.name == "postgresql":
        do(engine, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    else:
        Path(engine.url.database or "").unlink()
    outcome = mend(given)
    assert outcome.code == Exit.OK, outcome.line
    assert columns_by_name(shape(engine)) == columns_by_name(whole)


def test_a_backup_is_made_first(given: Settings, engine: sa.Engine) -> None:
    do(engine, "DROP TABLE webhook_secret")
    mend(given.model_copy(update={"migration_backup": "auto"}))
    [made] = backup.folder(given).iterdir()
    assert last_report(engine).backup == str(made)


def test_a_backup_that_fails_stops_it(given: Settings, engine: sa.Engine) -> None:
    do(engine, "DROP TABLE webhook_secret")
    backup.folder(given).parent.mkdir(exist_ok=True)
    backup.folder(given).write_text("in the way")
    outcome = mend(given.model_copy(update={"migration_backup": "auto"}))
    assert (outcome.code, "the backup failed" in outcome.line) == (Exit.FAILED, True)
    assert not sa.inspect(engine).has_table("webhook_secret")


def test_tools_stay_private_when_their_access_control_was_lost(given: Settings, engine: sa.Engine) -> None:
    insert(engine, "tool", id="tool_1", access_control={})
    do(engine, "ALTER TABLE tool DROP COLUMN access_control")
    assert mend(given).code == Exit.OK
    with engine.connect() as connection:
        text = connection.exec_driver_sql("SELECT CAST(access_control AS TEXT) FROM tool").scalar()
    assert text == "{}"


def test_a_value_that_nobody_knows_is_not_invented(given: Settings, engine: sa.Engine, whole: Shape) -> None:
    """The rest is repaired, the version stays what it was, and it is said what to do."""
    do(
        engine,
        "ALTER TABLE job DROP COLUMN price",
        "DROP TABLE webhook_secret",
        "DROP INDEX ix_job_parent_id",
    )
    plan = repair.plan(given.database_url, Chain())
    assert any(line.startswith("job.price is missing and must have a value") for line in plan.left)
    outcome = repair.repair(given, Chain(), plan)
    assert (outcome.code, outcome.state) == (Exit.FAILED, "incomplete")
    assert "missing column: job.price" in outcome.line
    inspector = sa.inspect(engine)
    assert inspector.has_table("webhook_secret")
    assert "ix_job_parent_id" in {index["name"] for index in inspector.get_indexes("job")}
    assert versions(engine) == [HEAD]
    assert last_report(engine).verdict == "degraded"


def test_a_database_of_a_later_release_keeps_its_revision(
    given: Settings, engine: sa.Engine, folder: Path
) -> None:
    runner.upgrade(given, add_revision(folder, "aaaa00000001", "pass"))
    do(engine, "ALTER TABLE artifact DROP COLUMN url", "DROP TABLE webhook_secret")
    outcome = mend(given)
    assert outcome.code == Exit.OK, outcome.line
    assert versions(engine) == ["aaaa00000001"]


def test_an_edited_revision_is_run_again_and_accepted(
    given: Settings, engine: sa.Engine, folder: Path
) -> None:
    path = folder / "versions" / "ef6fab585ac1_add_user_phone_column.py"
    path.write_text(path.read_text().replace("    op.create_index", '    op.add_column_if_missing("user", '
                    'sa.Column("added_later", sa.Text()))\n    op.create_index', 1))  # fmt: skip
    outcome = mend(given, Chain(folder))
    assert outcome.code == Exit.OK, outcome.line
    assert "added_later" in {column["name"] for column in sa.inspect(engine).get_columns("user")}


def test_a_chain_that_cannot_be_loaded(given: Settings, engine: sa.Engine, folder: Path) -> None:
    (folder / "versions" / "broken.py").write_text("import nowhere_to_be_found")
    do(engine, "DROP TABLE webhook_secret")
    outcome = mend(given, Chain(folder))
    assert (outcome.code, outcome.state) == (Exit.FAILED, "incomplete")
    assert "nowhere_to_be_found" in outcome.line
    assert sa.inspect(engine).has_table("webhook_secret")
    assert versions(engine) == [HEAD]


def test_an_index_that_duplicates_forbid(given: Settings, engine: sa.Engine) -> None:
    do(engine, "DROP INDEX ix_user_phone")
    for number in (1, 2):
        insert(engine, "user", id=f"u{number}", phone="the same", api_key=None)
    outcome = mend(given)
    assert (outcome.code, "missing index: ix_user_phone on user (phone)" in outcome.line) == (
        Exit.FAILED,
        True,
    )
    found = {item.kind for item in verify.verify(given.database_url, Chain()).findings}
    assert found == {"missing index"}  # and not an invalid one that the attempt left


# ---------------------------------------------------------------- leftovers


def test_a_leftover_that_has_the_only_rows_becomes_the_table(given: Settings, engine: sa.Engine) -> None:
    insert(engine, "catalog_model", id="odd/one")
    before = everything(engine)["catalog_model"]
    do(engine, "ALTER TABLE catalog_model RENAME TO _alembic_tmp_catalog_model")
    assert mend(given).code == Exit.OK
    assert everything(engine)["catalog_model"] == before


def test_leftovers_that_are_not_ours_or_have_more_rows_are_left(given: Settings, engine: sa.Engine) -> None:
    do(
        engine,
        "CREATE TABLE _alembic_tmp_chat (id TEXT)",
        "CREATE TABLE _alembic_tmp_job (id TEXT)",
        "INSERT INTO _alembic_tmp_job VALUES ('only here')",
    )
    plan = repair.plan(given.database_url, Chain())
    assert plan.steps == []
    assert plan.left == [
        "the table _alembic_tmp_chat: its owner is another program",
        "the table _alembic_tmp_job: it has rows that job lacks",
    ]


def test_an_invalid_index_of_ours_is_removed(postgres_at_head: str) -> None:
    engine, given = sa.create_engine(postgres_at_head, poolclass=sa.NullPool), settings_for(postgres_at_head)
    break_index(engine)
    outcome = mend(given)
    assert outcome.code == Exit.OK, outcome.line
    assert "ix_user_email" not in {index["name"] for index in sa.inspect(engine).get_indexes("user")}


# ---------------------------------------------------------------- others


def test_what_was_not_shown_is_not_done(given: Settings, engine: sa.Engine) -> None:
    do(engine, "DROP TABLE webhook_secret")
    shown = repair.plan(given.database_url, Chain())
    do(engine, FOREIGN)
    outcome = repair.repair(given, Chain(), shown)
    assert (outcome.code, outcome.state) == (Exit.FAILED, "changed")
    assert not sa.inspect(engine).has_table("webhook_secret")


def test_an_upgrade_under_way_is_not_disturbed(given: Settings, engine: sa.Engine) -> None:
    do(engine, "DROP TABLE webhook_secret")
    guard = guard_for(given.database_url)
    assert guard.take() is not None
    try:
        outcome = mend(given.model_copy(update={"migration_timeout": 0.3}))
        assert (outcome.code, outcome.state) == (Exit.TIMED_OUT, "timed_out")
    finally:
        guard.release()


def test_with_redis_the_lease_is_given_back(given: Settings, engine: sa.Engine, valkey_url: str) -> None:
    import redis

    do(engine, "DROP TABLE webhook_secret")
    assert mend(given.model_copy(update={"redis_url": valkey_url})).code == Exit.OK
    with redis.Redis.from_url(valkey_url) as client:
        assert client.keys("*") == []


# ---------------------------------------------------------------- the command


def start(url: str, *arguments: str, cwd: Path, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "migrations", "repair", *arguments],
        cwd=cwd, env=clean_environment({"DATABASE_URL": url, "REDIS_URL": NO_REDIS, "PYTHONPATH": str(ROOT)}),
        stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_without_a_terminal_it_needs_yes(sqlite_at_head: str, tmp_path: Path) -> None:
    engine = sa.create_engine(sqlite_at_head, poolclass=sa.NullPool)
    do(engine, "DROP TABLE webhook_secret")
    asked = start(sqlite_at_head, cwd=tmp_path)
    output, error = asked.communicate(timeout=60)
    assert (asked.returncode, "create the table webhook_secret" in output) == (1, True), output + error
    assert "nothing was done: --yes does it" in error
    planned = start(sqlite_at_head, "--json", cwd=tmp_path)
    assert json.loads(planned.communicate(timeout=60)[0])["outcome"]["state"] == "planned"
    assert not sa.inspect(engine).has_table("webhook_secret")
    done = start(sqlite_at_head, "--yes", "--json", cwd=tmp_path)
    told = json.loads(done.communicate(timeout=60)[0])
    assert (done.returncode, told["outcome"]["state"], told["plan"][-1]["kind"]) == (
        0,
        "repaired",
        "add table",
    )
    again = start(sqlite_at_head, "--yes", cwd=tmp_path)
    assert again.communicate(timeout=60)[0].startswith("there is nothing to repair")
    assert again.returncode == 0


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1)])
def test_on_a_terminal_it_asks(answer: str, code: int, sqlite_at_head: str, tmp_path: Path) -> None:
    engine = sa.create_engine(sqlite_at_head, poolclass=sa.NullPool)
    do(engine, "DROP TABLE webhook_secret")
    ours, theirs = pty.openpty()
    try:
        process = start(sqlite_at_head, cwd=tmp_path, stdin=theirs)
        os.write(ours, f"{answer}\n".encode())
        output, error = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == code, error
    assert "Do this?" in output
    assert sa.inspect(engine).has_table("webhook_secret") == (answer == "y")
