"""The chain as files: ids, order, rungs, and the rules that every revision keeps."""

from __future__ import annotations

import ast
import io
import sys
from pathlib import Path

import pytest
from alembic import command

from common.db import schema
from migrations.chain import MERGE_POINT, Chain
from tests.migrations.conftest import AFTER_MERGE, add_revision, without_merge

FILES = [Path(script.path) for script in Chain().revisions]


def test_the_known_ids_are_there_in_order() -> None:
    chain = Chain()
    known = ["7e5b5dc7342b", "ca81bd47c050", "70c7b727736e", "ef6fab585ac1", MERGE_POINT]
    order = [script.revision for script in chain.revisions]
    assert [revision for revision in order if revision in known] == known
    merge = chain.script.get_revision(MERGE_POINT)
    assert set(merge.down_revision) == {"24e8f9a7b1c2", "abc123def456"}


def test_the_head_is_single_and_named_in_a_file() -> None:
    assert Chain().heads == (schema.head(),)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_revisions_import_only_alembic_and_sqlalchemy(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in names}
    assert roots <= {"alembic", "sqlalchemy"} | set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_downgrades_drop_nothing_and_say_why(path: Path) -> None:
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    downgrade = next(node for node in functions if node.name == "downgrade")
    assert ast.get_docstring(downgrade)
    assert len(downgrade.body) == 1


def test_file_names_begin_with_the_id() -> None:
    for script in Chain().revisions:
        assert Path(script.path).stem.startswith(script.revision)


def test_rungs_pass_through_the_merge_point_once() -> None:
    chain = Chain()
    assert [rung.target for rung in chain.rungs(())] == [MERGE_POINT, "heads"]
    assert [rung.target for rung in chain.rungs(("24e8f9a7b1c2", "abc123def456"))] == [MERGE_POINT, "heads"]
    assert [rung.target for rung in chain.rungs((MERGE_POINT,))] == ["heads"]
    assert [rung.name for rung in chain.rungs(chain.heads)] == ["head"]


def test_rungs_without_a_merge_point_go_to_both_heads(folder: Path) -> None:
    chain = without_merge(folder)
    assert [(rung.name, rung.target) for rung in chain.rungs(())] == [("heads", "heads")]


def test_a_chain_that_cannot_be_loaded_says_why(folder: Path) -> None:
    (folder / "versions" / "broken.py").write_text("import nowhere_to_be_found")
    chain = Chain(folder)
    assert chain.broken is not None
    assert "nowhere_to_be_found" in chain.broken
    assert chain.heads == (schema.head(),)


def test_pending_lists_what_is_not_behind(folder: Path) -> None:
    chain = add_revision(folder, "aaaa00000001", "pass")
    pending = [script.revision for script in chain.pending((MERGE_POINT,))]
    assert pending == [*AFTER_MERGE, "aaaa00000001"]


@pytest.mark.parametrize("url", ["sqlite:///x.db", "postgresql://nobody@nowhere/x"])
def test_sql_can_be_printed_without_a_database(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.settings import settings

    monkeypatch.setenv("DATABASE_URL", url)
    settings.cache_clear()
    chain, output = Chain(), io.StringIO()
    chain.config.output_buffer = output
    try:
        command.upgrade(chain.config, "heads", sql=True)
    finally:
        settings.cache_clear()
    sql = output.getvalue()
    assert "CREATE TABLE IF NOT EXISTS app_setting" in sql
    assert ("ADD COLUMN IF NOT EXISTS phone" in sql) == url.startswith("postgresql")
    assert "wxiai_alembic_version" in sql
