"""A worker dies at a boundary of a step, with the work of every provider in its hands.

A few in every test run; `python -m pytest -m chaos` plays all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from common.words import Step
from tests.chaos.doom import Boundary
from tests.chaos.kill_points import DoomedPlatform, Point, every_point
from tests.chaos.proof import commands
from tests.infrastructure.postgres import Postgres

SOME = [
    Point(Step.SUBMIT, Boundary.SENT, whole=True),
    Point(Step.POLL, Boundary.RECORDING),
    Point(Step.STORE, Boundary.PUT),
    Point(Step.DELIVER, Boundary.ANSWERED, whole=True),
]


@pytest.mark.timeout(240)  # some seconds a point on a machine of its own
def test_a_worker_that_dies_in_any_step(tmp_path: Path) -> None:
    with DoomedPlatform(tmp_path, f"sqlite:///{tmp_path}/webui.db", storage="local") as doomed:
        wrong = [line for point in SOME for line in doomed.play(point)]
        wrong += commands(doomed.platform, ("doctor",))  # which verifies the ledger, too
        assert wrong == [], doomed.platform.group.report()


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("whole", [False, True], ids=["child", "worker"])
@pytest.mark.parametrize("kind", ["small", "large"])
def test_a_worker_that_dies_anywhere(
    tmp_path: Path, kind: str, whole: bool, request: pytest.FixtureRequest
) -> None:
    """Small: SQLite and local storage. Large: PostgreSQL and COS."""
    if kind == "large":
        server: Postgres = request.getfixturevalue("postgres_server")
        url, storage = server.create_database(), "cos"
    else:
        url, storage = f"sqlite:///{tmp_path}/webui.db", "local"
    with DoomedPlatform(tmp_path, url, storage=storage) as doomed:
        wrong = [line for point in every_point(whole=whole) for line in doomed.play(point)]
        assert wrong + commands(doomed.platform) == [], doomed.platform.group.report()
