"""A short storm in every test run; `make chaos` has one of each kind, and the long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.proof import findings
from tests.chaos.storm import Database, Storm

SECONDS, JOBS = 7.0, 16


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("database", "seed"), [pytest.param("sqlite", 1, marks=pytest.mark.chaos), ("postgresql", 2)]
)
def test_nothing_is_lost_and_nothing_doubled(tmp_path: Path, database: Database, seed: int) -> None:
    with Storm(tmp_path, seed, database, JOBS) as storm:
        storm.run(SECONDS)
        wrong, ends = findings(storm)
        assert wrong == [], f"{storm.broken}\n{ends}\n{storm.platform.group.report()}"
        assert len(storm.sent) == JOBS
