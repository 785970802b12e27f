"""How many running jobs one worker machine holds: how late it asks for them, and what asking costs."""

from __future__ import annotations

import bisect
import json
import time
import urllib.request
from collections.abc import Callable, Iterator

import psutil
from sqlalchemy import select

from common.models import JobAttempt, JobStep
from tests.benchmarks.bench import LABELS, Bench, Ground, cpu_s, members, memory_mb, own_memory_mb
from tests.benchmarks.harness import Figure, Goal, benchmark, percentile
from tests.benchmarks.services import Database

_SIZES: dict[Database, tuple[int, float]] = {"postgresql": (100_000, 30.0), "sqlite": (10_000, 10.0)}
_QUICK = (300, 1.5)
_LATENCY_S = 0.05  # of the provider's answers
_LOOK_S = 0.5


@benchmark("polling")
def polling(bench: Bench) -> Iterator[Figure]:
    """Kling and Midjourney in batches, Flux and Jimeng one by one, a quarter each; no job ever finishes."""
    for kind in bench.kinds(quick="postgresql"):
        yield from _measure(bench, kind)


def _measure(bench: Bench, kind: Database) -> Iterator[Figure]:
    jobs, interval_s = _QUICK if bench.options.quick else _SIZES[kind]
    jobs, interval_s = bench.options.jobs or jobs, bench.options.interval_s or interval_s
    ground = bench.platform(kind)
    provider = ground.provider(endless=True, latency_s=_LATENCY_S)
    ground.set(**settings_for(provider.address, interval_s))
    ours = ground.start(*(["worker"] * bench.options.workers), "web", "beat")
    ground.seed(jobs, interval_s)
    time.sleep(1.2 * interval_s)  # then the first look at each is over
    watch = _Watch(ground)
    meter = _Meter(
        ours=lambda: members(ours),
        workers=lambda: members(process for process in ours if process.name == "worker"),
        database=lambda: bench.database_processes(kind),
        provider=lambda: members([provider.process]),
    )
    for _ in range(bench.amount(2, 1)):
        watch.note_due()
        meter.look_for(1.2 * interval_s)
    meter.stop()
    ground.platform.require_life()
    asked = asked_at(provider.address)
    where = f"{jobs:,} jobs every {interval_s:g} s, {LABELS[kind]}"
    yield from _punctuality(where, jobs / interval_s, meter.count(asked) / meter.took_s, watch.lags(asked))
    yield from _costs(where, meter, meter.count(asked))


def _punctuality(where: str, due: float, polls: float, lags: list[float]) -> Iterator[Figure]:
    yield Figure(what="polls", where=where, value=polls, unit="/s", reference=due, reference_name="due")
    yield Figure(what="poll lag, p50", where=where, value=percentile(lags, 0.5), unit="s")
    yield Figure(
        what="poll lag, p99", where=where, value=percentile(lags, 0.99), unit="s", goal=Goal(bound=3)
    )


def _costs(where: str, meter: _Meter, polls: int) -> Iterator[Figure]:
    per_poll = 1000 * meter.cpu_s["workers"] / max(1, polls)
    yield Figure(
        what="CPU of the workers per poll", where=where, value=per_poll, unit="ms", goal=Goal(bound=0.4)
    )
    for name in ("workers", "database", "provider"):
        share = 100 * meter.cpu_s[name] / meter.took_s
        yield Figure(what=f"CPU of the {name}", where=where, value=share, unit="% of a core")
    yield Figure(
        what="memory of web, worker and beat",
        where=where,
        value=meter.most_mb,
        unit="MB",
        goal=Goal(bound=600),
    )
    if meter.shared_once_mb is not None:
        yield Figure(
            what="the same, shared pages counted once", where=where, value=meter.shared_once_mb, unit="MB"
        )


class _Meter:
    """Processor time of groups of processes, and the memory of `ours`, from its making to `stop`."""

    def __init__(self, **groups: Callable[[], list[psutil.Process]]) -> None:
        self._groups = groups
        self._before = {name: cpu_s(group()) for name, group in groups.items()}
        self.began_at = self.ended_at = time.time()
        self.cpu_s: dict[str, float] = {}
        self.most_mb = 0.0
        self.shared_once_mb: float | None = None

    def look_for(self, seconds: float) -> None:
        """Look at the memory now and then, for so long."""
        ours = self._groups["ours"]()
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            self.most_mb = max(self.most_mb, memory_mb(ours))
            time.sleep(min(_LOOK_S, left_s))

    def stop(self) -> None:
        """Add up what was used."""
        self.ended_at = time.time()
        self.cpu_s = {name: cpu_s(group()) - self._before[name] for name, group in self._groups.items()}
        self.shared_once_mb = own_memory_mb(self._groups["ours"]())

    @property
    def took_s(self) -> float:
        return self.ended_at - self.began_at

    def count(self, asked: dict[str, list[float]]) -> int:
        """How often the provider was asked meanwhile."""
        return sum(self.began_at <= at < self.ended_at for moments in asked.values() for at in moments)


def settings_for(provider: str, interval_s: float) -> dict[str, str]:
    """Accounts at that provider that may have any number of jobs."""
    limits = {f"{name}_MAX_CONCURRENCY": "1000000" for name in ("KLING", "MIDJOURNEY", "BFL", "JIMENG")}
    return limits | {
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


def asked_at(provider: str) -> dict[str, list[float]]:
    """When the provider was asked for each job."""
    with urllib.request.urlopen(f"{provider}/bench/asked", timeout=60) as reply:
        asked: dict[str, list[float]] = json.load(reply)
    return asked
