"""What chain, ledger and version table do not agree on is named and explained, by `status` and by `verify`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import sqlalchemy as sa

from common.settings import Settings
from migrations import runner, status, verify
from migrations.chain import Chain
from migrations.outcomes import Exit
from tests.migrations.conftest import add_revision
from tests.migrations.test_verify import do

HEAD = Chain().aim
PARENT = Chain().script.get_revision(HEAD).down_revision


@pytest.fixture
def database_url(at_head_url: str) -> str:
    return at_head_url


def remarks(given: Settings, chain: Chain) -> dict[str, str]:
    """By kind; `verify` must call every fault one, and both must use the same words."""
    shown = status.status(given.database_url, chain)
    told = {remark["kind"]: remark["line"] for remark in shown.remarks}
    found = verify.verify(given.database_url, chain)
    faults = {item.line for item in found.findings} | set(found.notes)
    assert set(told.values()) <= faults
    assert all(any(line in text for text in shown.lines()) for line in told.values())
    assert found.is_clean == (not told or set(told) == {"ahead"})
    return told


def test_nothing_to_remark(given: Settings) -> None:
    assert remarks(given, Chain()) == {}


def test_every_revision_has_its_checksum(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT revision, checksum FROM migration_ledger").all()
    wanted = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in Chain().files.items()}
    assert {name: checksum for name, checksum in rows} == wanted


def test_an_edited_released_file(given: Settings, folder: Path) -> None:
    path = folder / "versions" / "ef6fab585ac1_add_user_phone_column.py"
    path.write_text(path.read_text() + "\n# changed\n")
    told = remarks(given, Chain(folder))
    assert told.keys() == {"edited"}
    assert told["edited"].startswith("the file of ef6fab585ac1 is not the one that was applied on 2")
    assert runner.upgrade(given, Chain(folder)).code == Exit.OK  # it is served all the same


def test_a_database_of_a_later_release(given: Settings, folder: Path) -> None:
    runner.upgrade(given, add_revision(folder, "aaaa00000001", "pass"))
    told = remarks(given, Chain())
    assert told.keys() == {"ahead"}
    assert told["ahead"].startswith("aaaa00000001 was applied on 2")


def test_a_foreign_revision(given: Settings, engine: sa.Engine) -> None:
    do(engine, "UPDATE wxiai_alembic_version SET version_num = 'f0f0f0f0f0f0'")
    told = remarks(given, Chain())
    assert told.keys() == {"foreign"}
    assert "names f0f0f0f0f0f0, which is neither in this code nor in the ledger" in told["foreign"]


def test_a_version_table_of_another_shape(given: Settings, engine: sa.Engine) -> None:
    do(engine, "DROP TABLE wxiai_alembic_version", "CREATE TABLE wxiai_alembic_version (number INTEGER)")
    assert "has another shape" in remarks(given, Chain())["foreign"]
    outcome = runner.upgrade(given, Chain())
    assert (outcome.code, outcome.state) == (Exit.REFUSED, "foreign")
    assert "the shape of wxiai_alembic_version" in outcome.line


def test_a_release_of_another_branch(given: Settings, folder: Path) -> None:
    runner.upgrade(given, add_revision(folder, "aaaa00000001", "pass"))
    (folder / "versions" / "aaaa00000001_test.py").unlink()
    sibling = add_revision(folder, "bbbb00000001", "pass")
    told = remarks(given, sibling)
    assert told.keys() == {"diverged"}
    assert "and bbbb00000001 never was: deploy a release that has both" in told["diverged"]
    assert runner.upgrade(given, sibling).code == Exit.REFUSED


def test_a_missing_file_in_the_middle(given: Settings, folder: Path) -> None:
    (folder / "versions" / "ca81bd47c050_add_config_table.py").unlink()
    told = remarks(given, Chain(folder))
    assert told.keys() == {"broken chain", "missing file"}
    assert told["missing file"].startswith("ca81bd47c050 was applied on 2")
    assert "its file is gone" in told["missing file"]


def test_a_missing_file_that_was_written_out_of_the_chain(given: Settings, folder: Path) -> None:
    [path] = folder.glob(f"versions/{HEAD}_*.py")
    add_revision(folder, "aaaa00000001", "pass")
    assert runner.upgrade(given, Chain(folder)).code == Exit.OK
    path.unlink()
    later = folder / "versions" / "aaaa00000001_test.py"
    rewritten = later.read_text().replace(f"down_revision = '{HEAD}'", f"down_revision = {PARENT!r}")
    later.write_text(
        f"{rewritten}\n"
    )  # another size: within one second Python would take its cached bytecode
    told = remarks(given, Chain(folder))
    assert told.keys() == {"missing file", "edited"}
    assert told["missing file"].startswith(f"{HEAD} was applied on 2")


def test_a_revision_that_nobody_wrote_down(given: Settings, engine: sa.Engine) -> None:
    do(engine, "DELETE FROM migration_ledger WHERE revision = 'ef6fab585ac1'")
    assert remarks(given, Chain()) == {
        "unrecorded": "ef6fab585ac1 is behind the database's revision, but the ledger has no line for it"
    }


@pytest.mark.parametrize("how", ["DELETE FROM job", "TRUNCATE job CASCADE", "DROP TABLE job CASCADE"])
def test_a_revision_that_loses_rows_never_commits(
    how: str, given: Settings, engine: sa.Engine, folder: Path
) -> None:
    if engine.dialect.name == "sqlite":
        how = how.replace("TRUNCATE", "DELETE FROM").replace(" CASCADE", "")
    do(
        engine,
        "INSERT INTO job (id, user_id, status, provider, model, action, input, metadata, priority, price,"
        " progress, actions, attempts, late, deadline_at, created_at) VALUES ('j1', 'u', 'failed', 'p', 'm', 'a',"
        " '{}', '{}', 0, 0, 0, '[]', 0, false, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)",
    )
    add_revision(folder, "aaaa00000001", f"op.execute({how!r})")
    outcome = runner.upgrade(given.model_copy(update={"enable_fallback_create": True}), Chain(folder))
    assert (outcome.code, outcome.line) == (Exit.FAILED, "failed: rows were lost: job: 1 → 0")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT id FROM job").scalars().all() == ["j1"]
        assert connection.exec_driver_sql("SELECT version_num FROM wxiai_alembic_version").scalar() == HEAD


def test_rows_that_a_revision_moves_are_not_lost(given: Settings, engine: sa.Engine, folder: Path) -> None:
    body = """
rows = op.get_bind().execute(sa.text('SELECT * FROM "auth"')).mappings().all()
op.execute('DELETE FROM "auth"')
auth = sa.table("auth", *map(sa.column, rows[0]))
op.bulk_insert(auth, [dict(row) for row in rows])
"""
    assert runner.upgrade(given, add_revision(folder, "aaaa00000001", body)).code == Exit.OK
