"""A platform under load while a seeded storm breaks everything around it and in it."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from tests.infrastructure.client import Client, Refused
from tests.infrastructure.platform import Platform
from tests.infrastructure.postgres import Postgres
from tests.infrastructure.valkey import Valkey
from tests.simulators.frame import Fault, Simulator
from tests.simulators.world import World

Database = Literal["sqlite", "postgresql"]
CREDITS = 1_000_000
SETTINGS = {"LEASE_S": "4", "RECONCILE_WINDOW_S": "8", "POLL_INTERVAL_S": "0.5", "SWEEP_S": "1"}
MODELS = ("midjourney/imagine", "kling/text-to-video", "jimeng/text-to-image", "flux/pro-1.1", "flux/dev")
PATIENCE_S = 60.0  # of a client that is not let in
_PAUSES_S = (0.2, 1.5)


@dataclass
class Sent:
    """A job that the API has accepted."""

    id: str
    prompt: str
    model: str


@dataclass
class Storm:
    """Everything that is needed for one run. `seed` decides what breaks and when; the load has its own pace."""

    folder: Path
    seed: int
    database: Database
    jobs: int
    say: Callable[[str], None] = lambda line: None
    sent: list[Sent] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._chance = random.Random(self.seed)
        self._stack = ExitStack()
        with self._stack as stack:
            self.world = stack.enter_context(World(at_once=40))
            self.valkey = stack.enter_context(Valkey(self.folder / "valkey"))
            self.postgres = (
                stack.enter_context(Postgres(durable=True)) if self.database == "postgresql" else None
            )
            self.platform = stack.enter_context(self._install())
            self.platform.release()
            self.platform.start()
            self.platform.start("worker", "beat")
            self.user = self.platform.user(credits=CREDITS)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _install(self) -> Platform:
        url = self.postgres.create_database() if self.postgres else f"sqlite:///{self.folder}/webui.db"
        return Platform(
            self.folder,
            database_url=url,
            redis_url=self.valkey.url,
            environment={**self.world.environment(storage="cos"), **SETTINGS},
        )

    # ------------------------------------------------------------ load

    def run(self, seconds: float) -> None:
        """Submit the jobs over that time while things break; return when all are accepted and all is well again."""
        loading = threading.Thread(target=self._load, args=(seconds,), name="load", daemon=True)
        loading.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            name, act = self._chance.choice(self._acts())
            self.broken[name] += 1
            self.say(f"{name}")
            act()
            time.sleep(self._chance.uniform(*_PAUSES_S))
        self.mend()
        loading.join(PATIENCE_S)
        if loading.is_alive():
            raise TimeoutError(
                f"{len(self.sent)} of {self.jobs} jobs were accepted {PATIENCE_S:g} s after the storm"
            )

    def _load(self, seconds: float) -> None:
        began = time.monotonic()
        for number in range(self.jobs):
            model = MODELS[number % len(MODELS)]
            prompt = f"storm {self.seed} job {number}"
            try:
                self.sent.append(Sent(self._submit(model, prompt), prompt, model))
            except Refused as error:
                self.refused.append(str(error))
            next_at = began + (number + 1) * seconds / self.jobs  # after a time of no answers it catches up
            time.sleep(max(0.0, next_at - time.monotonic()))

    def _submit(self, model: str, prompt: str) -> str:
        """As a good client: the same key until there is an answer."""
        end = time.monotonic() + PATIENCE_S
        while True:
            with suppress(Refused, ValueError):
                answer = self.user.ask(
                    "POST",
                    "/v1/jobs",
                    {"model": model, "input": {"prompt": prompt}},
                    {"Idempotency-Key": prompt.replace(" ", "-")},
                )
                if answer.status == 202:
                    return str(answer.json["id"])
            if time.monotonic() > end:
                raise Refused(prompt)
            time.sleep(0.3)

    # ------------------------------------------------------------ what breaks

    def _acts(self) -> list[tuple[str, Callable[[], None]]]:
        acts: list[tuple[str, Callable[[], None]]] = [
            ("worker killed", lambda: self._kill("worker")),
            ("worker killed", lambda: self._kill("worker")),
            ("beat killed", lambda: self._kill("beat")),
            ("web killed", lambda: self._kill("web")),
            ("worker frozen", self._freeze),
            ("valkey killed", self._restart_valkey),
            ("valkey paused", self._pause_valkey),
            ("valkey flushed", self.valkey.flush),
            *[("provider misbehaves", self._misbehave)] * 6,
        ]
        if self.postgres is not None:
            acts += [("database killed", self._restart_database), ("database paused", self._pause_database)]
        return acts

    def _kill(self, name: str) -> None:
        alive = [
            process
            for process in self.platform.group.processes
            if process.name == name and process.is_running
        ]
        if alive:
            self._chance.choice(alive).kill9()
        self.platform.group.start(name)

    def _freeze(self) -> None:
        """Longer than a lease: whoever wakes up has lost it."""
        alive = [
            process
            for process in self.platform.group.processes
            if process.name == "worker" and process.is_running
        ]
        frozen = self._chance.choice(alive)
        frozen.pause()
        time.sleep(float(SETTINGS["LEASE_S"]) + 1)
        frozen.resume()

    def _restart_valkey(self) -> None:
        self.valkey.kill9()
        time.sleep(self._chance.uniform(0.1, 2.0))
        self.valkey.start()

    def _pause_valkey(self) -> None:
        self.valkey.pause()
        time.sleep(self._chance.uniform(0.5, 3.0))
        self.valkey.resume()

    def _restart_database(self) -> None:
        assert self.postgres is not None
        self.postgres.kill9()
        time.sleep(self._chance.uniform(0.1, 1.0))
        self.postgres.start()

    def _pause_database(self) -> None:
        assert self.postgres is not None
        self.postgres.pause()
        time.sleep(self._chance.uniform(0.5, 2.0))
        self.postgres.resume()

    def _misbehave(self) -> None:
        """One kind of trouble at one service, for the next few calls."""
        simulators: tuple[Simulator, ...] = (*self.world.providers, self.world.cos, self.world.media)
        simulator = self._chance.choice(simulators)
        times = self._chance.randint(1, 4)
        fault = self._chance.choice(
            (
                Fault("drop_reply", times=times),
                Fault("drop", times=times),
                Fault("hang_reply", times=1),
                Fault("hang", times=1),
                Fault("slow", times=times, seconds=self._chance.uniform(0.5, 6.0)),
                Fault("answer", times=times, status=429, headers={"Retry-After": "1"}),
                Fault("answer", times=times, status=500),
                Fault("answer", times=times, status=503),
                Fault("garbage", times=times),
            )
        )
        self.broken[f"{simulator.name}: {fault.kind}"] += 1
        simulator.misbehave(fault)

    def mend(self) -> None:
        """Everything well again, and every process there."""
        self.world.behave()
        for name in ("web", "worker", "beat"):
            if not any(
                process.name == name and process.is_running for process in self.platform.group.processes
            ):
                self.platform.group.start(name)
        self.platform.group.wait_until(self._answers, 60, what="the API answers again")

    def _answers(self) -> bool:
        with suppress(Refused):
            return Client(self.platform.url).ask("GET", "/readyz").status == 200
        return False
