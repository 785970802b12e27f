"""`make chaos`: a long storm on each database. ARGS='--seed 7 --minutes 10 --jobs 500 --database postgresql'."""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import get_args

from tests.chaos.proof import findings
from tests.chaos.storm import Database, Storm
from tests.infrastructure.environment import isolate


def main() -> int:
    """Returns 1 if any promise was broken."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--database", choices=get_args(Database), action="append")
    given = parser.parse_args()
    isolate()
    runs = [_run(given, database) for database in given.database or get_args(Database)]
    return int(any(runs))


def _run(given: argparse.Namespace, database: Database) -> int:
    folder = Path(tempfile.mkdtemp(prefix="wxiai-chaos-"))
    print(
        f"seed {given.seed}, {database}: {given.jobs} jobs in {given.minutes:g} minutes (logs: {folder}/logs)"
    )
    began = time.monotonic()
    with Storm(folder, given.seed, database, given.jobs) as storm:
        storm.run(given.minutes * 60)
        wrong, ends = findings(storm)
        broken = ", ".join(f"{name} {count}" for name, count in storm.broken.most_common())
    print(f"broken: {broken}")
    print(f"jobs: {', '.join(f'{end} {count}' for end, count in ends.most_common())}")
    print("\n".join(wrong) or f"nothing lost, nothing doubled ({time.monotonic() - began:.0f} s)")
    return len(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
