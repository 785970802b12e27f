"""Tests that share something dear run in one process, or each process makes it again."""

from __future__ import annotations

import os

import pytest


@pytest.mark.xdist_group("together")
def test_pytest_xdist_knows_the_groups(request: pytest.FixtureRequest) -> None:
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    assert request.node.nodeid.endswith("@together") == is_worker
