"""How many jobs per second the whole API accepts, beside a view that does one INSERT."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from sqlalchemy import func, select, text

from common.models import Job
from tests.benchmarks.bench import LABELS, Bench, Ground, cpu_s
from tests.benchmarks.harness import Figure, Goal, benchmark, compared, percentile, side_by_side
from tests.benchmarks.load import Answers, Load
from tests.benchmarks.services import Database
from tests.infrastructure.children import free_port
from tests.infrastructure.client import Client, Refused
from tests.infrastructure.processes import Process

CLIENTS = 16
BODY = json.dumps({"model": "flux/pro-1.1", "input": {"prompt": "a red fox in snow"}})
_TABLE = "CREATE TABLE bare (id VARCHAR(32) PRIMARY KEY, body TEXT)"  # for tests/benchmarks/bare.py
GOAL = Goal(bound=0.5, at_least=True, of_reference=True)


@benchmark("accept")
def accept(bench: Bench) -> Iterator[Figure]:
    """Both under gunicorn with gevent and two workers, neither with anybody to work on what it takes."""
    for kind in bench.kinds(quick="postgresql"):
        yield from _measure(bench, kind)


def _measure(bench: Bench, kind: Database) -> Iterator[Figure]:
    ground = bench.platform(kind)
    (web,) = ground.start("web")
    bare, bare_url = _start_bare(ground)
    seconds = bench.amount(5.0, 0.6)
    ours = _Side(web, Load(url=f"{ground.platform.url}/v1/jobs", tokens=ground.users(CLIENTS), body=BODY))
    theirs = _Side(bare, Load(url=bare_url, tokens=["none"] * CLIENTS, body=BODY))
    for side in (ours, theirs):
        side.warm_up(seconds / 2)
    rounds = side_by_side(bench.amount(5, 1), lambda: ours.per_s(seconds), lambda: theirs.per_s(seconds))
    written = ground.scalar(select(func.count()).select_from(Job))
    if written != ours.answered:
        raise RuntimeError(f"{ours.answered} jobs were accepted, {written} are in the database")
    where = LABELS[kind]
    yield compared("jobs accepted", where, "/s", rounds, reference_name="bare INSERT", goal=GOAL)
    yield Figure(what="answer, p99", where=where, value=ours.p99_ms, unit="ms", reference=theirs.p99_ms,
                 reference_name="bare INSERT")  # fmt: skip
    yield Figure(what="CPU of web per request", where=where, value=ours.cpu_ms, unit="ms", reference=theirs.cpu_ms,
                 reference_name="bare INSERT")  # fmt: skip


class _Side:
    """One of the two servers, its clients, and what was seen of both."""

    def __init__(self, process: Process, load: Load) -> None:
        self._process, self._load = process, load
        self._latencies: list[float] = []
        self._cpu_s = 0.0
        self.answered = 0

    def warm_up(self, seconds: float) -> None:
        """Let them get going, unmeasured."""
        self.answered += self._run(seconds).count

    def per_s(self, seconds: float) -> float:
        """Measure one round."""
        before = cpu_s(self._process.tree())
        answers = self._run(seconds)
        self._cpu_s += cpu_s(self._process.tree()) - before
        self._latencies += answers.latencies_s
        self.answered += answers.count
        return answers.per_s

    def _run(self, seconds: float) -> Answers:
        return replace(self._load, seconds=seconds).run().require(202)

    @property
    def p99_ms(self) -> float:
        return 1000 * percentile(self._latencies, 0.99)

    @property
    def cpu_ms(self) -> float:
        return 1000 * self._cpu_s / len(self._latencies)


def _start_bare(ground: Ground) -> tuple[Process, str]:
    """The bare view beside the platform's web process, and its address."""
    with ground.engine.begin() as connection:
        connection.execute(text(_TABLE))
    port = free_port()
    workers = ground.platform.group.environment.get("WEB_CONCURRENCY", "2")
    command = (
        f"gunicorn --no-control-socket -k gevent -w {workers} -b 127.0.0.1:{port} tests.benchmarks.bare:app"
    )
    url = f"http://127.0.0.1:{port}/"
    bare = ground.platform.group.start_command("bare", command)
    ground.until(lambda: _answers(url), 30, what="the bare view answers")
    return bare, url


def _answers(url: str) -> bool:
    try:
        return Client(url).ask("GET", "").status == 405
    except Refused:
        return False
