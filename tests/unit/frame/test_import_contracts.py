"""The import rules bite: a planted violation of each fails `lint-imports`, by the name of the contract."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infrastructure.environment import ROOT, clean_environment

ROOMS = ("common", "web", "workers", "migrations")

VIOLATIONS = [
    ("web/app.py", "import workers.tasks", "Rooms do not know each other; all may know common"),
    ("common/clock.py", "import web.app", "Rooms do not know each other; all may know common"),
    ("common/models/__init__.py", "import common.services.credits", "Common is layered"),
    ("common/utils.py", "", "Common is layered"),
    ("workers/http.py", "import workers.engine", "Workers are layered"),
    ("workers/helpers.py", "", "Workers are layered"),
    ("common/providers/base.py", "import common.db", "Providers are pure"),
    ("common/providers/base.py", "import sqlalchemy", "Providers are pure"),
    ("workers/tasks.py", "import common.models", "Only services touch tables"),
    ("web/app.py", "from common.models import jobs", "Only services touch tables"),
    ("migrations/versions/planted.py", "import common.words", "Migrations are frozen in time"),
    ("web/app.py", "import celery", "Web nudges, it never names a task or calls a provider"),
    ("common/clock.py", "import flask", "Common serves any door"),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the rooms and their rules."""
    copy = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", copy)
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo"]
    return subprocess.run(
        command, cwd=tree, env=clean_environment(), capture_output=True, text=True, check=False, timeout=60
    )


def broken(report: str) -> set[str]:
    return {line.removesuffix(" BROKEN") for line in report.splitlines() if line.endswith(" BROKEN")}


def test_the_tree_keeps_all_contracts(tree: Path) -> None:
    done = lint(tree)
    assert done.returncode == 0, done.stdout
    assert "BROKEN" not in done.stdout


@pytest.mark.parametrize(("path", "line", "contract"), VIOLATIONS)
def test_a_violation_breaks_its_contract(tree: Path, path: str, line: str, contract: str) -> None:
    planted = tree / path
    before = planted.read_text() if planted.exists() else None
    planted.write_text(f"{before or ''}\n{line}\n")
    try:
        done = lint(tree)
    finally:
        if before is None:
            planted.unlink()
        else:
            planted.write_text(before)
    assert done.returncode != 0
    assert contract in broken(done.stdout), done.stdout
