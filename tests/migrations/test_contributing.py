"""What CONTRIBUTING.md tells to do is done here, word for word, in a copy of the project."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.infrastructure.environment import ROOT
from tests.migrations.test_new import USERS, add_line, columns
from tests.migrations.trees import copy_rooms, migrations

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
RECIPE = TEXT[TEXT.index("## Add a column") : TEXT.index("## Add a provider")]


def recipe() -> tuple[Path, str, list[list[str]]]:
    """The model's file, the line to add, and the arguments of every `python -m migrations`."""
    file = re.search(r"in `(common/models/\w+\.py)`", RECIPE)
    line = re.search(r"```python\n\s*(.+)\n", RECIPE)
    assert file is not None
    assert line is not None
    commands = re.findall(r"\.venv/bin/python -m migrations (.+)", RECIPE)
    return Path(file[1]), line[1], [shlex.split(command) for command in commands]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which the recipe was followed as far as it needs no database."""
    tree = copy_rooms(tmp_path_factory.mktemp("contribution") / "tree")
    file, line, commands = recipe()
    assert file == USERS
    add_line(tree, f"    {line}\n")
    for command in commands[:2]:
        done = migrations(tree, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    return tree


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgres", marks=pytest.mark.chaos)])
def test_a_column_is_planned_and_added(database: str, tree: Path, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue(f"{database}_at_head")
    commands = recipe()[2]
    assert [command[0] for command in commands] == ["new", "lint", "plan", "upgrade"]
    told = [migrations(tree, *command, DATABASE_URL=url, MIGRATION_BACKUP="off") for command in commands[2:]]
    assert [done.returncode for done in told] == [0, 0], told
    assert "ADD COLUMN nickname VARCHAR(64)" in told[0].stdout
    assert "nickname" in columns(url, "user")
