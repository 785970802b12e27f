"""Copies of the project's rooms that a test may change, and the commands run in them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.infrastructure.environment import ROOT, clean_environment

ROOMS = ("common", "web", "workers", "migrations")


def copy_rooms(folder: Path) -> Path:
    """What goes into the image, and the rules it is held to."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python …` in that tree."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=clean_environment(environment),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def migrations(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m migrations …` in that tree."""
    return run(tree, "-m", "migrations", *arguments, **{"REDIS_URL": "redis://127.0.0.1:1/0", **environment})
