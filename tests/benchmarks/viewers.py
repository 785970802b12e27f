"""How many may watch jobs live: what they cost while nothing happens, and how soon all of them know what does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import text

from common import live
from common.db import transaction
from tests.benchmarks.bench import LABELS, Bench, Ground, members, memory_mb, own_memory_mb
from tests.benchmarks.harness import Figure, Goal, benchmark, percentile
from tests.benchmarks.services import Database
from tests.infrastructure.client import Client
from tests.infrastructure.inside import configured
from tests.infrastructure.processes import Process

_JOBS = 100
_AT_ONCE = 50  # streams that are being opened
_OPEN_S, _HEARD_S = 60.0, 30.0
_LATE_S = 15.0  # PostgreSQL's processes report what they have done by then
_BODY = {"model": "flux/pro-1.1", "input": {"prompt": "a picture that many wait for"}}


@benchmark("viewers")
def viewers(bench: Bench) -> Iterator[Figure]:
    """All watch from one machine; nobody works on the jobs, but their progress is told as workers tell it."""
    for kind in bench.kinds(quick="sqlite"):
        yield from asyncio.run(_measure(bench, kind))


async def _measure(bench: Bench, kind: Database) -> list[Figure]:
    ground = bench.platform(kind)
    web = ground.start("web")
    user = Client(ground.platform.url, ground.users(1)[0])
    jobs = [str(user.post("/v1/jobs", _BODY)["id"]) for _ in range(bench.amount(_JOBS, 5))]
    count = bench.amount(2000, 50)
    idle_mb = _memory_mb(web)
    watched = _Watched(user, [jobs[number % len(jobs)] for number in range(count)])
    await watched.open()
    watching_mb = _memory_mb(web)
    await asyncio.sleep(bench.amount(_LATE_S, 0.0))
    queries = await _queries_per_s(ground, kind, bench.amount(30.0, 1.0))
    delays = await _delays(ground, jobs, watched, bench.amount(20, 2))
    await watched.close()
    where = f"{LABELS[kind]}, {count} viewers"
    figures = [
        Figure(what="told → all viewers know, p99", where=where, value=percentile(delays, 0.99), unit="s",
               goal=Goal(bound=1.0)),
        Figure(what="told → all viewers know, slowest", where=where, value=max(delays), unit="s"),
        Figure(what="web memory with viewers", where=where, value=watching_mb, unit="MB", reference=idle_mb,
               reference_name="without viewers"),
    ]  # fmt: skip
    if queries is not None:
        figures.append(Figure(what="transactions per s while all watch", where=where, value=queries, unit="1/s",
                              goal=Goal(bound=1.0)))  # fmt: skip
    return figures


def _memory_mb(web: Sequence[Process]) -> float:
    processes = members(web)
    return own_memory_mb(processes) or memory_mb(processes)


async def _queries_per_s(ground: Ground, kind: Database, seconds: float) -> float | None:
    """Transactions of all connections to the database while nothing happens, without the two that ask for them."""
    if kind != "postgresql":
        return None
    query = text(
        "SELECT pg_stat_clear_snapshot(), xact_commit FROM pg_stat_database WHERE datname = current_database()"
    )

    def committed() -> int:
        with ground.engine.connect() as connection:
            return int(connection.execute(query).one().xact_commit)

    before = await asyncio.to_thread(committed)
    await asyncio.sleep(seconds)
    return max(0, await asyncio.to_thread(committed) - before - 1) / seconds


# ---------------------------------------------------------------- viewers


@dataclass
class _Watched:
    """Viewers, each of one job, and when each of them heard of what progress."""

    user: Client
    jobs: Sequence[str]  # one for each viewer
    heard: dict[int, list[float]] = field(default_factory=dict)  # by progress, the moments
    _opened: int = 0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def open(self) -> None:
        """Returns when every viewer has got its first event."""
        turns = asyncio.Semaphore(_AT_ONCE)
        self._tasks = [asyncio.create_task(self._view(job_id, turns)) for job_id in self.jobs]
        await self._until(lambda: self._opened == len(self.jobs), _OPEN_S, "all streams are open")

    async def close(self) -> None:
        """Hang up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until_heard(self, progress: int) -> list[float]:
        """When each viewer has heard of it, once all have."""
        await self._until(
            lambda: len(self.heard.get(progress, ())) == len(self.jobs), _HEARD_S, "all viewers know"
        )
        return self.heard[progress]

    async def _view(self, job_id: str, turns: asyncio.Semaphore) -> None:
        host, _, port = self.user.url.removeprefix("http://").partition(":")
        async with turns:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(
                f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {host}\r\n"
                f"Authorization: Bearer {self.user.token}\r\n\r\n".encode()
            )
            await self._next(reader)
            self._opened += 1
        try:
            while True:
                progress = await self._next(reader)
                self.heard.setdefault(progress, []).append(time.time())
        finally:
            writer.close()

    @staticmethod
    async def _next(reader: asyncio.StreamReader) -> int:
        while line := await reader.readline():
            if line.startswith(b"data: "):
                return int(json.loads(line.removeprefix(b"data: "))["progress"])
        raise ConnectionError("a stream has ended")

    async def _until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            broken = [task for task in self._tasks if task.done()]
            if broken or time.monotonic() > end:
                why = broken[0].exception() if broken else "time is up"
                raise TimeoutError(f"not in {timeout_s:g} s: {what} ({why})")
            await asyncio.sleep(0.01)


async def _delays(ground: Ground, jobs: Sequence[str], watched: _Watched, rounds: int) -> list[float]:
    """Seconds from each commit to each viewer's knowing."""
    settings = {
        name: ground.platform.group.environment[name] for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY")
    }
    delays: list[float] = []
    with configured(settings):
        for progress in range(1, rounds + 1):
            with transaction() as session:
                for job_id in jobs:
                    live.tell(session, job_id, progress=progress)
            told_at = time.time()
            delays += [heard - told_at for heard in await watched.until_heard(progress)]
            await asyncio.sleep(0.2)
    return delays
