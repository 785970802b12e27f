"""Every benchmark for a few seconds: that it measures something, not how much."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.bench import Bench, Database, Options
from tests.infrastructure.environment import ROOT, clean_environment

Figures = dict[str, dict[str, Any]]


def run(name: str, folder: Path) -> Figures:
    """The figures of `python -m tests.benchmarks NAME --quick`, by what they are about."""
    written = folder / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", name, "--quick", "--json", str(written)],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return {figure["what"]: figure for figure in json.loads(written.read_text())["benchmarks"][name]}


def test_accept(tmp_path: Path) -> None:
    figures = run("accept", tmp_path)
    assert figures["jobs accepted"]["value"] > 1
    assert figures["jobs accepted"]["reference"] > figures["jobs accepted"]["value"]
    assert figures["CPU of web per request"]["value"] > figures["CPU of web per request"]["reference"] > 0


def test_start(tmp_path: Path) -> None:
    figures = run("start", tmp_path)
    assert figures["import and check"]["value"] > 50
    assert 0.2 < figures["`migrations upgrade`, nothing to do"]["ratio"] < 5
    assert figures["upgrades by 3 processes at once"]["value"] == 1


def test_hop(tmp_path: Path) -> None:
    figures = run("hop", tmp_path)
    half, most = (figures[f"accepted → provider called, {part}"]["value"] for part in ("p50", "p99"))
    assert -100 < half <= most < 5000


def test_throughput(tmp_path: Path) -> None:
    jobs = run("throughput", tmp_path)["jobs end to end"]
    assert jobs["value"] > 0.5
    assert jobs["reference"] > 0.5


def test_polling(tmp_path: Path) -> None:
    figures = run("polling", tmp_path)
    assert 0.2 < figures["polls"]["ratio"] < 1.2
    assert figures["poll lag, p50"]["value"] <= figures["poll lag, p99"]["value"]
    assert figures["CPU of the workers per poll"]["value"] > 0
    assert figures["memory of web, worker and beat"]["value"] > 100


def test_storing(tmp_path: Path) -> None:
    figures = run("storing", tmp_path)
    assert figures["memory above idle, storing 64 MB"]["value"] < 64
    assert figures["from the request to the stored video"]["value"] > 1


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_the_seeded_jobs_are_ones_that_the_platform_could_have_made(kind: Database, tmp_path: Path) -> None:
    with Bench(tmp_path, Options(quick=True), print) as bench:
        ground = bench.platform(kind)
        ground.set(
            KLING_API_KEY="x", BFL_API_KEY="x", JIMENG_ACCESS_KEY="x", JIMENG_SECRET_KEY="x",
            MIDJOURNEY_BASE_URL="http://127.0.0.1:1",
        )  # fmt: skip
        ground.seed(40, 30.0)
        assert ground.platform.command("ledger", "verify")
        assert ground.platform.command("doctor")
