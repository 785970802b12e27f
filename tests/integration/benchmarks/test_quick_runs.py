"""Every benchmark for a second or two: that it measures something, not how much."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.bench import Bench, Options
from tests.benchmarks.polling import settings_for
from tests.benchmarks.services import Database, Services
from tests.infrastructure.environment import ROOT, clean_environment

Figures = dict[str, dict[str, Any]]


def test_a_quick_run_of_one(tmp_path: Path) -> None:
    _check_hop(_quick_run(tmp_path, "hop")["hop"])


@pytest.mark.chaos
def test_a_quick_run_of_the_others(tmp_path: Path) -> None:
    found = _quick_run(tmp_path, "accept", "start", "polling", "throughput", "scale", "storing", "viewers")
    _check_accept(found["accept"])
    _check_start(found["start"])
    _check_polling(found["polling"])
    _check_throughput(found["throughput"])
    _check_scale(found["scale"])
    _check_storing(found["storing"])
    _check_viewers(found["viewers"])


def _quick_run(tmp_path: Path, *names: str) -> dict[str, Figures]:
    written = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *names, "--quick", "--json", str(written)],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr

    return {
        name: {figure["what"]: figure for figure in figures}
        for name, figures in json.loads(written.read_text())["benchmarks"].items()
    }


def _check_accept(figures: Figures) -> None:
    assert figures["jobs accepted"]["value"] > 1
    assert figures["jobs accepted"]["reference"] > 1
    assert figures["CPU of web per request"]["value"] > figures["CPU of web per request"]["reference"] > 0


def _check_viewers(figures: Figures) -> None:
    assert 0 < figures["told → all viewers know, p99"]["value"] < 5
    assert figures["web memory with viewers"]["ratio"] > 0.9


def _check_start(figures: Figures) -> None:
    assert figures["import and check"]["value"] > 50
    assert 0.2 < figures["`migrations upgrade`, nothing to do"]["ratio"] < 5
    assert figures["upgrades by 3 processes at once"]["value"] == 1


def _check_hop(figures: Figures) -> None:
    half, most = (figures[f"accepted → provider called, {part}"]["value"] for part in ("p50", "p99"))
    assert -100 < half <= most < 5000


def _check_throughput(figures: Figures) -> None:
    assert figures["jobs end to end"]["value"] > 0.5
    assert figures["jobs end to end"]["reference"] > 0.5


def _check_polling(figures: Figures) -> None:
    assert 0.2 < figures["polls"]["ratio"] < 1.5
    assert figures["poll lag, p50"]["value"] <= figures["poll lag, p99"]["value"]
    assert figures["CPU of the workers per poll"]["value"] > 0
    assert figures["memory of web, worker and beat"]["value"] > 100


def _check_storing(figures: Figures) -> None:
    assert figures["memory above idle, storing 64 MB"]["value"] < 64
    assert figures["from the request to the stored video"]["value"] > 1


def _check_scale(figures: Figures) -> None:
    assert figures["polls by two workers"]["value"] > 10
    assert figures["polls by two workers"]["reference"] > 10


@pytest.mark.chaos
@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_the_seeded_jobs_are_ones_that_the_platform_could_have_made(kind: Database, tmp_path: Path) -> None:
    with Services(tmp_path) as services, Bench(services, tmp_path, Options(quick=True)) as bench:
        ground = bench.platform(kind)
        ground.set(**settings_for("http://127.0.0.1:1", 30.0))
        ground.seed(40, 30.0)
        ground.platform.command("ledger", "verify")  # raises with what it found
        ground.platform.command("doctor")
