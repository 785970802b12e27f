"""How many jobs per second the whole API accepts, beside a view that does one INSERT."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from sqlalchemy import func, select, text

from common.models import Job
from tests.benchmarks.bench import LABELS, Bench, Database, Ground
from tests.benchmarks.harness import Figure, Goal, benchmark, compared, percentile, side_by_side
from tests.benchmarks.load import Load
from tests.infrastructure.children import free_port
from tests.infrastructure.client import Client, Refused

CLIENTS = 16
BODY = json.dumps({"model": "flux/pro-1.1", "input": {"prompt": "a red fox in snow"}})
_TABLE = "CREATE TABLE bare (id VARCHAR(32) PRIMARY KEY, body TEXT)"  # for tests/benchmarks/bare.py
GOAL = Goal(bound=0.5, at_least=True, of_reference=True)


@benchmark("accept")
def accept(bench: Bench) -> Iterator[Figure]:
    """Both under gunicorn with gevent and two workers, neither with anybody to work on what it takes."""
    for kind in bench.options.databases:
        yield from _measure(bench, kind)


def _measure(bench: Bench, kind: Database) -> Iterator[Figure]:
    ground = bench.platform(kind)
    ground.platform.start("web")
    bare_url = _start_bare(ground)
    seconds = bench.amount(5, 1)
    ours = Load(
        url=f"{ground.platform.url}/v1/jobs", tokens=ground.users(CLIENTS), body=BODY, seconds=seconds
    )
    bare = Load(url=bare_url, tokens=["none"] * CLIENTS, body=BODY, seconds=seconds)
    latencies: list[float] = []
    accepted = 0

    def ask_ours() -> float:
        nonlocal accepted
        answers = ours.run().require(202)
        latencies.extend(answers.latencies_s)
        accepted += answers.count
        return answers.per_s

    for load in (ours, bare):  # until both are warm
        accepted += replace(load, seconds=bench.amount(2, 0.3)).run().count * (load is ours)
    rounds = side_by_side(bench.amount(5, 1), ask_ours, lambda: bare.run().require(202).per_s)
    written = ground.scalar(select(func.count()).select_from(Job))
    if written != accepted:
        raise RuntimeError(f"{accepted} jobs were accepted, {written} are in the database")
    yield compared(f"jobs accepted, {LABELS[kind]}", "/s", rounds, reference_name="bare INSERT", goal=GOAL)
    yield Figure(what=f"accepting, p99, {LABELS[kind]}", value=1000 * percentile(latencies, 0.99), unit="ms")


def _start_bare(ground: Ground) -> str:
    """The bare view beside the platform's web process; its address."""
    with ground.engine.begin() as connection:
        connection.execute(text(_TABLE))
    port = free_port()
    command = f"gunicorn --no-control-socket -k gevent -w 2 -b 127.0.0.1:{port} tests.benchmarks.bare:app"
    url = f"http://127.0.0.1:{port}/"
    ground.platform.group.start_command("bare", command)
    ground.until(lambda: _answers(url), 30, what="the bare view answers")
    return url


def _answers(url: str) -> bool:
    try:
        return Client(url).ask("GET", "").status == 405
    except Refused:
        return False
