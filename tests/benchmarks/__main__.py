"""`python -m tests.benchmarks [names…]`: run them, print a table, write bench.json.

Exit code 0 also where a goal is missed, unless --strict says otherwise; 1 where a benchmark could not be run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from rich.console import Console

# Imported for what they register.
from tests.benchmarks import accept, compat, hop, polling, scale, start, storing, throughput, viewers  # noqa: F401
from tests.benchmarks.bench import LABELS, Bench, Options
from tests.benchmarks.harness import BENCHMARKS, Figure
from tests.benchmarks.report import as_json, machine, table
from tests.benchmarks.services import Services
from tests.infrastructure.environment import ROOT, isolate

_BUSY = 0.3  # processes per core that want to run before we do


def main() -> int:
    """Returns the exit code."""
    given = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    isolate()
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    on = machine()
    if on["load"] > _BUSY * on["cores"]:
        console.print(f"this machine is busy (load {on['load']:g}): figures will be worse than they could be")
    found: dict[str, list[Figure]] = {}
    failed: dict[str, str] = {}
    options = Options(
        quick=given.quick, databases=tuple(given.database or ()), jobs=given.jobs,
        interval_s=given.interval, workers=given.workers,
    )  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="wxiai-bench-"))
    try:
        with Services(folder) as services:
            for name in given.names or BENCHMARKS:
                console.print(f"{name} …", end=" ")
                began = time.monotonic()
                found[name] = []
                error = _run(name, Bench(services, folder / name, options), found[name])
                if error is not None:
                    failed[name] = error
                console.print(f"{error or 'done'} ({time.monotonic() - began:.0f} s)")
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    finally:
        given.json.write_text(json.dumps(as_json(on, found, failed), indent=1) + "\n")
        if given.keep:
            console.print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    console.print(table(found))
    missed = any(figure.verdict == "missed" for figures in found.values() for figure in figures)
    return 1 if failed or (missed and given.strict) else 0


def _run(name: str, bench: Bench, into: list[Figure]) -> str | None:
    """Run one benchmark; what went wrong, if anything did. Its figures so far are kept in any case."""
    try:
        with bench:
            for figure in BENCHMARKS[name](bench):
                into.append(figure)  # as they come: those before an error are kept
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which ones (all: {' '.join(BENCHMARKS)})", metavar="name")
    parser.add_argument(
        "--quick", action="store_true", help="a few seconds each: whether they work, not figures"
    )
    parser.add_argument("--strict", action="store_true", help="exit 1 where a goal is missed")
    parser.add_argument(
        "--database", action="append", choices=list(LABELS), help="only this one (again: both)"
    )
    parser.add_argument(
        "--json", type=Path, default=ROOT / "bench.json", help="where the figures are written"
    )
    parser.add_argument("--keep", action="store_true", help="leave logs and databases in place")
    parser.add_argument("--jobs", type=int, help="polling, scale: how many are running")
    parser.add_argument("--interval", type=float, help="polling: seconds between two looks at a job")
    parser.add_argument("--workers", type=int, default=1, help="polling: worker processes")
    given = parser.parse_args()
    unknown = sorted(set(given.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)} (there are: {' '.join(BENCHMARKS)})")
    return given


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
