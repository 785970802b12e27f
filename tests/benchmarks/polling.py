"""How many running jobs one worker machine holds: how late it asks for them, and what asking costs."""

from __future__ import annotations

import bisect
import json
import time
import urllib.request
from collections.abc import Iterator

from sqlalchemy import select

from common.models import JobAttempt, JobStep
from tests.benchmarks.bench import LABELS, Bench, Database, Ground, cpu_s, members, memory_mb, own_memory_mb
from tests.benchmarks.harness import Figure, Goal, benchmark, percentile
from tests.benchmarks.seed import AHEAD_S

_SIZES: dict[Database, tuple[int, float]] = {"postgresql": (100_000, 30.0), "sqlite": (10_000, 10.0)}
_QUICK = (400, 2.0)
_LATENCY_S = 0.05  # of the provider's answers
_SEED_S = 600.0
_LOOK_S = 0.5


@benchmark("polling")
def polling(bench: Bench) -> Iterator[Figure]:
    """Kling and Midjourney in batches, Flux and Jimeng one by one, a quarter each; no job ever finishes."""
    for kind in bench.options.databases:
        yield from _measure(bench, kind)


def _measure(bench: Bench, kind: Database) -> Iterator[Figure]:
    jobs, interval_s = _QUICK if bench.options.quick else _SIZES[kind]
    jobs, interval_s = bench.options.jobs or jobs, bench.options.interval_s or interval_s
    ground = bench.platform(kind)
    provider = ground.provider(endless=True, latency_s=_LATENCY_S)
    ground.set(**_settings(provider, interval_s))
    ours = ground.platform.start(*(["worker"] * bench.options.workers), "web", "beat")
    workers = [process for process in ours if process.name == "worker"]
    seeding = ground.platform.group.start_command(
        "seed", f"python -m tests.benchmarks.seed {jobs} {interval_s}"
    )
    if seeding.wait(_SEED_S):
        raise RuntimeError(f"seeding failed: {seeding.output[-1000:]}")
    time.sleep(AHEAD_S + interval_s)  # the first look at each is over
    watch = _Watch(ground)
    worker_tree, our_tree = members(workers), members(ours)
    began, cpu_before, memory = time.time(), cpu_s(worker_tree), 0.0
    rounds = bench.amount(2, 1)
    for _ in range(rounds):
        watch.note_due()
        until = time.monotonic() + interval_s * 1.2
        while (left_s := until - time.monotonic()) > 0:
            memory = max(memory, memory_mb(our_tree))
            time.sleep(min(_LOOK_S, left_s))
    ended, cpu_used = time.time(), cpu_s(worker_tree) - cpu_before
    shared_once = own_memory_mb(our_tree)
    ground.platform.require_life()
    asked = _asked(provider)
    lags = watch.lags(asked)
    polls = sum(began <= at < ended for moments in asked.values() for at in moments)
    where = f"{jobs:,} jobs every {interval_s:g} s, {LABELS[kind]}"
    yield Figure(what="polls", where=where, value=polls / (ended - began), unit="/s",
                 reference=jobs / interval_s, reference_name="due")  # fmt: skip
    yield Figure(what="poll lag, p50", where=where, value=percentile(lags, 0.5), unit="s")
    yield Figure(
        what="poll lag, p99", where=where, value=percentile(lags, 0.99), unit="s", goal=Goal(bound=3.0)
    )
    yield Figure(what="CPU of the workers per poll", where=where, value=1000 * cpu_used / max(1, polls), unit="ms",
                 goal=Goal(bound=0.4))  # fmt: skip
    yield Figure(
        what="CPU of the workers", where=where, value=100 * cpu_used / (ended - began), unit="% of a core"
    )
    yield Figure(
        what="memory of web, worker and beat", where=where, value=memory, unit="MB", goal=Goal(bound=600)
    )
    if shared_once is not None:
        yield Figure(what="the same, shared pages counted once", where=where, value=shared_once, unit="MB")


def _settings(provider: str, interval_s: float) -> dict[str, str]:
    return {
        "POLL_INTERVAL_S": str(interval_s),
        "KLING_BASE_URL": provider, "KLING_API_KEY": "bench",
        "MIDJOURNEY_BASE_URL": provider, "MIDJOURNEY_API_SECRET": "bench",
        "BFL_BASE_URL": provider, "BFL_API_KEY": "bench",
        "JIMENG_BASE_URL": provider, "JIMENG_ACCESS_KEY": "bench", "JIMENG_SECRET_KEY": "bench",
    }  # fmt: skip


class _Watch:
    """Notes when jobs are due, to be compared with when they were asked for."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._due: list[tuple[float, dict[str, float]]] = []  # the moment of looking; due_at by provider_ref

    def note_due(self) -> None:
        """Every job that nobody is working on at this moment."""
        query = select(JobAttempt.provider_ref, JobStep.due_at).join(
            JobAttempt, JobAttempt.id == JobStep.attempt_id
        ).where(JobStep.lease_token.is_(None))  # fmt: skip
        with self._ground.engine.connect().execution_options(reads_only=True) as connection:
            before = time.time()
            self._due.append((before, {str(known): due_at for known, due_at in connection.execute(query)}))

    def lags(self, asked: dict[str, list[float]]) -> list[float]:
        """Seconds from the noted moment to the next look. One that has not come yet counts as if it came now."""
        now = time.time()
        lags = []
        for noted_at, due in self._due:
            for known, due_at in due.items():
                moments = asked.get(known, [])
                place = bisect.bisect_left(moments, noted_at)
                lags.append((moments[place] if place < len(moments) else now) - due_at)
        return lags


def _asked(provider: str) -> dict[str, list[float]]:
    with urllib.request.urlopen(f"{provider}/bench/asked", timeout=60) as reply:
        asked: dict[str, list[float]] = json.load(reply)
    return asked
