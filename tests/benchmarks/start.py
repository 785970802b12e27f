"""What the start-up check costs while the schema is current, and that a crowd of processes upgrades once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from sqlalchemy import text

from tests.benchmarks.bench import LABELS, Bench, Ground
from tests.benchmarks.harness import Figure, Goal, benchmark, compared, side_by_side
from tests.benchmarks.services import Database
from tests.infrastructure.environment import clean_environment

_IMPORT = "import web.wsgi"
_CHECK = f"{_IMPORT}; from common.gate import require_schema; require_schema()"
_GOAL = Goal(bound=1.3, of_reference=True)
_LONGEST_S = 120.0


@benchmark("start")
def start(bench: Bench) -> Iterator[Figure]:
    """Whole processes, from the command to their end."""
    for kind in bench.kinds(quick="sqlite"):
        ground = bench.platform(kind)
        rounds = bench.amount(11, 1)

        def timed(*command: str, at: Ground = ground) -> float:
            return _timed_ms(at, *command)

        checked = side_by_side(rounds, lambda: timed("-c", _CHECK), lambda: timed("-c", _IMPORT))
        yield compared(
            "import and check", LABELS[kind], "ms", checked, reference_name="import alone", goal=_GOAL
        )
        upgraded = side_by_side(
            rounds, lambda: timed("-m", "migrations", "upgrade"), lambda: timed("-c", _IMPORT)
        )
        yield compared(
            "`migrations upgrade`, nothing to do",
            LABELS[kind],
            "ms",
            upgraded,
            reference_name="import",
            goal=_GOAL,
        )
        yield _crowd(bench, kind)


def _crowd(bench: Bench, kind: Database) -> Figure:
    """How many of many processes that start at once on an empty database upgrade it: one."""
    count = bench.amount(50, 3)
    ground = bench.platform(kind, released=False)
    running = [_start(ground, "-m", "migrations", "upgrade") for _ in range(count)]
    codes = {process.wait(_LONGEST_S) for process in running}
    if codes != {0}:
        raise RuntimeError(f"upgrades exited with {sorted(codes)}")
    upgrades = ground.scalar(text("SELECT count(*) FROM migration_report"))
    return Figure(
        what=f"upgrades by {count} processes at once", where=LABELS[kind], value=upgrades, goal=Goal(bound=1)
    )


def _timed_ms(ground: Ground, *arguments: str) -> float:
    began = time.perf_counter()
    code = _start(ground, *arguments).wait(_LONGEST_S)
    if code:
        raise RuntimeError(f"python {' '.join(arguments)} exited {code}")
    return 1000 * (time.perf_counter() - began)


def _start(ground: Ground, *arguments: str) -> subprocess.Popen[bytes]:
    group = ground.platform.group
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=group.cwd, env=clean_environment(group.environment),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
