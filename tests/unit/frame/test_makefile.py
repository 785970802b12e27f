"""`make` explains itself, and says in one line what is wrong with the machine."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.infrastructure.environment import ROOT, clean_environment

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A bare clone, as far as the Makefile looks at it."""
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt", "tests/infrastructure/openai-2.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make(clone: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in clean_environment().items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=clone, env=clean | environment, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip


def python(clone: Path, version: str, *, venv: bool) -> str:
    """A command that passes for a Python of that version."""
    too_old = int(tuple(map(int, version.split("."))) < (3, 11))
    script = clone / "fake-python"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in -V) echo Python {version};; *version_info*) exit {too_old};;'
        f" *ensurepip*) exit {int(not venv)};; esac\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What was said, without make's own last words."""
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    return lines[-1] if lines and lines[0].startswith("installing") else "\n".join(lines)


def test_help_names_every_target(clone: Path) -> None:
    done = make(clone)
    assert done.returncode == 0
    names = [line.split()[1] for line in done.stdout.splitlines()]
    assert names == ["help", "run", "test", "check", "bench", "chaos", "fix", "clean"]
    assert not (clone / ".venv").exists()


def test_an_old_python(clone: Path) -> None:
    done = make(clone, "test", f"PYTHON={python(clone, '3.9.2', venv=True)}")
    assert complaint(done).startswith("Python 3.9.2 is too old: Python 3.11 or newer is needed")


def test_a_python_without_venv(clone: Path) -> None:
    done = make(clone, "test", f"PYTHON={python(clone, '3.12.1', venv=False)}")
    assert complaint(done).startswith("Python 3.12.1 has no venv: install it")


def test_no_python(clone: Path) -> None:
    assert complaint(make(clone, "test", "PYTHON=python-none")).startswith("python-none is missing")


def test_no_package_index(clone: Path) -> None:
    done = make(clone, "test", PIP_NO_INDEX="1", PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull)
    said = complaint(done)
    assert said.startswith("could not install the dependencies: ERROR: Could not find a version"), done.stderr
    assert "\n" not in said
    assert not (clone / ".venv" / "installed").exists()


def test_ci_runs_check_and_test_and_nothing_else() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert commands[0] == "set -euo pipefail"
    assert commands[2:] == ["make check", "make test"]
