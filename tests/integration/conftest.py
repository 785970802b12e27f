"""What every test inside one process needs."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _as_loud_as_before() -> Iterator[None]:
    """Commands make their process quiet."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
