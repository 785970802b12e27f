"""How long a job waits between its acceptance and the call to its provider, in a system that does nothing else."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

from tests.benchmarks.bench import LABELS, Bench, Ground
from tests.benchmarks.harness import Figure, Goal, benchmark, percentile
from tests.benchmarks.load import NUMBER, Load
from tests.benchmarks.services import Database

_BODY = json.dumps({"model": "flux/pro-1.1", "input": {"prompt": f"hop {NUMBER}"}})


@benchmark("hop")
def hop(bench: Bench) -> Iterator[Figure]:
    """One job at a time, at moments that have nothing to do with the ticks. None of them ever finishes."""
    for kind in bench.kinds(quick="sqlite"):
        waits = _measure(bench, kind)
        for name, part, goal_ms in (("p50", 0.5, 50), ("p99", 0.99, 250)):
            yield Figure(
                what=f"accepted → provider called, {name}", where=LABELS[kind],
                value=1000 * percentile(waits, part), unit="ms", goal=Goal(bound=goal_ms),
            )  # fmt: skip


def _measure(bench: Bench, kind: Database) -> list[float]:
    """Seconds from each answer of the API to the provider's noticing."""
    ground = bench.platform(kind)
    provider = ground.provider(endless=True).address
    ground.set(
        BFL_BASE_URL=provider, BFL_API_KEY="bench", BFL_MAX_CONCURRENCY="100000", POLL_INTERVAL_S="3600"
    )
    ground.start()
    (token,) = ground.users(1)
    url = f"{ground.platform.url}/v1/jobs"
    count = bench.amount(300, 10)
    load = Load(url=url, tokens=[token], body=_BODY, most=count, seconds=count, pause_s=0.15)
    for warm_up in (True, False):
        answers = (replace(load, most=2) if warm_up else load).run().require(202)
        submitted = _submitted(ground, provider, answers.count)
    return [submitted[f"hop {number}"] - at for number, at in answers.answered_at.items()]


def _submitted(ground: Ground, provider: str, count: int) -> dict[str, float]:
    """When the provider got each prompt, once it got so many."""

    def told() -> dict[str, float]:
        with urllib.request.urlopen(f"{provider}/bench/submitted", timeout=5) as reply:
            known: dict[str, float] = json.load(reply)
        return known if len(known) >= count else {}

    return ground.until(told, 15, what="all jobs are submitted")
