"""What a benchmark is given: services, platforms and processes of its own, and how much it should do."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil
from sqlalchemy import Engine

from common.db import build_engine
from common.settings import Settings
from tests.benchmarks.services import Database, Services
from tests.infrastructure.children import StartError, tail, tree
from tests.infrastructure.platform import Platform
from tests.infrastructure.processes import Process

LABELS: Mapping[Database, str] = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
T = TypeVar("T")
_MB = 1024 * 1024
_SEED_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says. None and empty: the benchmark decides, by `quick`."""

    quick: bool = False
    databases: tuple[Database, ...] = ()
    jobs: int | None = None
    interval_s: float | None = None
    workers: int = 1


class Bench:
    """Everything started through it ends with it."""

    def __init__(self, services: Services, folder: Path, options: Options) -> None:
        self.services, self.folder, self.options = services, folder, options
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def amount(self, usual: T, quick: T) -> T:
        """How much of something: less in a quick run."""
        return quick if self.options.quick else usual

    def kinds(self, *, quick: Database) -> tuple[Database, ...]:
        """On which databases to measure: those that were asked for, else all, and in a quick run only one."""
        return self.options.databases or ((quick,) if self.options.quick else tuple(LABELS))

    def platform(self, kind: Database, *, released: bool = True) -> Ground:
        """A platform on a new database, with none of its processes started."""
        url = self.services.database(kind, released=released)
        self._stack.callback(self.services.forget, url)
        ground = Ground(self.folder / f"{kind}-{secrets.token_hex(4)}", url, self.services)
        self._stack.enter_context(ground.platform)
        self._stack.callback(ground.platform.group.kill9)  # nothing of it is needed any more
        self._stack.callback(ground.engine.dispose)
        if self.options.quick:
            ground.set(WEB_CONCURRENCY="1")
        return ground

    def database_processes(self, kind: Database) -> list[psutil.Process]:
        """The server's processes; SQLite has none."""
        return tree(self.services.postgres.pid) if kind == "postgresql" else []


class Ground:
    """One platform with what a benchmark needs beside it."""

    def __init__(self, folder: Path, url: str, services: Services) -> None:
        folder.mkdir(parents=True)
        services.valkey.flush()
        self.folder = folder
        environment = {
            "ALLOW_PRIVATE_ADDRESSES": "true",
            "RATE_LIMIT_SUBMITS": "1000000/second",
            "MIGRATION_BACKUP": "off",
        }
        self.platform = Platform(
            folder, database_url=url, redis_url=services.valkey.url, environment=environment
        )
        self.platform.admin.token = services.released.admin_token
        settings = Settings(database_url=url, _env_file=None)  # type: ignore[call-arg]
        self.engine: Engine = build_engine(settings.database_url)

    def set(self, **settings: str) -> None:
        """More environment for processes that are started from now on."""
        self.platform.group.environment.update(settings)

    def start(self, *names: str) -> list[Process]:
        """As `Platform.start`; workers have their children when this returns."""
        started = self.platform.start(*names)
        for worker in (process for process in started if process.name == "worker"):
            self._until_it_works(worker)
        return started

    def start_worker(self, arguments: str) -> Process:
        """One more worker, with these arguments behind its command."""
        worker = self.platform.group.start("worker", arguments=arguments)
        self._until_it_works(worker)
        return worker

    def _until_it_works(self, worker: Process) -> None:
        self.until(worker.children, 60, what="the worker has children")

    def users(self, count: int) -> list[str]:
        """The tokens of so many new users with more credits than they can spend."""
        return [self.platform.user(credits=1_000_000_000).token for _ in range(count)]

    def provider(self, *, endless: bool = False, latency_s: float = 0.0) -> RunningProvider:
        """A new provider in a process of its own."""
        file = self.folder / f"provider-{secrets.token_hex(4)}"
        arguments = f"{file} --folder {self.folder} --latency {latency_s}" + " --endless" * endless
        process = self.platform.group.start_command(
            "provider", f"python -m tests.benchmarks.provider {arguments}"
        )
        self.until(file.exists, 30, what="the provider serves")
        return RunningProvider(file.read_text(), process)

    def seed(self, jobs: int, interval_s: float) -> None:
        """So many running jobs that fall due within the next interval, without submitting them."""
        command = f"python -m tests.benchmarks.seed {jobs} {interval_s}"
        seeding = self.platform.group.start_command("seed", command)
        if seeding.wait(_SEED_S):
            raise StartError(f"seeding failed: {tail(seeding.log)}")

    def scalar(self, query: Any) -> Any:
        """One value out of the database."""
        with self.engine.connect().execution_options(reads_only=True) as connection:
            return connection.scalar(query)

    def until(self, condition: Callable[[], T], timeout_s: float, *, what: str) -> T:
        """The first true value of `condition`. StartError when a process ends meanwhile, TimeoutError with the logs."""

        def look() -> T:
            self.platform.require_life()
            return condition()

        return self.platform.group.wait_until(look, timeout_s, what=what)


@dataclass(frozen=True, slots=True)
class RunningProvider:
    """Where it is, and what runs it."""

    address: str
    process: Process


# ---------------------------------------------------------------- watching processes


def members(processes: Iterable[Process]) -> list[psutil.Process]:
    """These processes and their descendants."""
    return [member for process in processes for member in process.tree()]


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Seconds of processor time used so far by whole trees of processes, also by members that are gone."""
    used = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # then its parent has taken its time over
            used += sum(process.cpu_times()[:4])  # its own and that of children which have ended
    return used


def memory_mb(processes: Iterable[psutil.Process]) -> float:
    """Their resident memory, as `ps` would add it up: pages that they share count for each."""
    return sum(_resident(process) for process in processes) / _MB


def own_memory_mb(processes: Iterable[psutil.Process]) -> float | None:
    """What they occupy together, a shared page counted once. None where the system does not tell."""
    try:
        return sum(process.memory_full_info().pss for process in processes) / _MB
    except (AttributeError, psutil.Error):
        return None


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
