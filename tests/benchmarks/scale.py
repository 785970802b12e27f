"""What one more worker machine gains: one worker process, then two, on the same PostgreSQL and Valkey."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil

from tests.benchmarks.bench import Bench, Ground, RunningProvider
from tests.benchmarks.harness import Figure, benchmark, compared
from tests.benchmarks.polling import asked_at, settings_for

_INTERVAL_S = 1.0  # far shorter than they can keep up with: what is measured is what they can do


@benchmark("scale")
def scale(bench: Bench) -> Iterator[Figure]:
    """Polls per second with more jobs due than anybody can ask for. Each worker stands for a machine with one child."""
    ground = bench.platform("postgresql")
    provider = ground.provider(endless=True, latency_s=0.05)
    ground.set(**settings_for(provider.address, _INTERVAL_S), TICK_S="0.5")
    ground.start("beat")
    seconds = bench.amount(15.0, 1.5)
    rates: list[tuple[float, float]] = []  # polls per second, and how much of the machine was idle meanwhile
    for number in range(1, 3):
        ground.start_worker("--concurrency 1")
        if number == 1:
            ground.seed(bench.options.jobs or bench.amount(20_000, 1500), _INTERVAL_S)
        time.sleep(bench.amount(3.0, 1.0))  # until it is in its stride
        rates.append(_rate(ground, provider, seconds))
    (one, _), (two, idle) = rates
    where = "PostgreSQL"
    yield compared("polls by two workers", where, "/s", ((two,), (one,)), reference_name="one worker")
    yield Figure(what="machine idle with two workers", where=where, value=idle, unit="%")


def _rate(ground: Ground, provider: RunningProvider, seconds: float) -> tuple[float, float]:
    """Polls per second for so long, and the percentage of this machine's processor time that nobody used."""
    began = time.time()
    psutil.cpu_times_percent(None)
    time.sleep(seconds)
    idle = psutil.cpu_times_percent(None).idle
    ended = time.time()
    ground.platform.require_life()
    polls = sum(began <= at < ended for moments in asked_at(provider.address).values() for at in moments)
    return polls / (ended - began), idle
