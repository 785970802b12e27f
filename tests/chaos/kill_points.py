"""Jobs at all providers at once, and their worker's death at one boundary of one step; then what must be true."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from common.words import Step
from tests.chaos.doom import ENVIRONMENT, Boundary, Doom, hold, met
from tests.infrastructure.children import wait_until
from tests.infrastructure.client import Client
from tests.infrastructure.platform import Platform
from tests.infrastructure.processes import Process, read_procfile
from tests.infrastructure.valkey import Valkey
from tests.simulators.frame import Fault, Stage
from tests.simulators.receiver import Receiver
from tests.simulators.world import World

CREDITS = 1000
# A job for fal first: it has one slot, so that the other Flux model, which both could take, goes to BFL.
MODELS = {
    "fal": "flux/schnell",
    "bfl": "flux/pro-1.1",
    "midjourney": "midjourney/imagine",
    "kling": "kling/text-to-video",
    "jimeng": "jimeng/text-to-image",
}
CREATES = {
    "fal": "POST /fal-ai/flux/schnell",
    "bfl": "POST /v1/flux-pro-1.1",
    "midjourney": "POST /mj/submit/imagine",
    "kling": "POST /v1/videos/text2video",
    "jimeng": "CVSync2AsyncSubmitTask",
}
TELL = frozenset(
    {"fal", "midjourney", "kling", "jimeng"}
)  # when asked, or in a callback, that they have a lost submit
STOP = frozenset({"fal", "midjourney"})  # when asked to, while the job waits in their queue
SETTINGS = {
    "LEASE_S": "2",
    "RECONCILE_WINDOW_S": "3",
    "POLL_INTERVAL_S": "0.3",
    "TICK_S": "0.5",
    "SWEEP_S": "1",
    "FAL_MAX_CONCURRENCY": "1",
}
_STRIKES_S, _ENDS_S = 30.0, 60.0
_SENT = (Boundary.ANSWERED, Boundary.RECORDING)  # of a submit: the provider has it, and we do not know
_TWICE = (Boundary.ANSWERED, Boundary.RECORDING)  # of a delivery: it has arrived, and is sent again


@dataclass(frozen=True)
class Point:
    """Where to die. `run_s`: how long the providers work, so that the first look finds it done or not. `cancels`: it
    is while the providers are asked to stop, for which all users have asked."""

    step: Step
    boundary: Boundary
    whole: bool = False
    run_s: float = 0.0
    cancels: bool = False

    def __str__(self) -> str:
        who = "worker" if self.whole else "child"
        return f"{self.step} {self.boundary} {who}{' running' * (self.run_s > 0)}{' cancel' * self.cancels}"

    def submits(self) -> int:
        """How often each provider has been asked in the end."""
        return 0 if self.boundary is Boundary.SENT else 1

    def attempts(self) -> int:
        """What was provably not sent is tried again."""
        again = self.step is Step.SUBMIT and self.boundary in (Boundary.CLAIMED, Boundary.SENDING)
        return 2 if again else 1

    def end(self, provider: str) -> tuple[str, str | None]:
        """The job's status and error."""
        if self.cancels:
            return "canceled", "canceled"
        return ("failed", "submit_unknown") if self._is_lost(provider) else ("succeeded", None)

    def _is_lost(self, provider: str) -> bool:
        """Whether nobody can ever know what this provider has done."""
        if self.boundary is Boundary.SENT:
            return True
        asked = self.step is Step.RECONCILE or (self.step is Step.SUBMIT and self.boundary in _SENT)
        return asked and provider not in TELL

    def deliveries(self) -> int:
        """How often each receiver is told."""
        return 2 if self.step is Step.DELIVER and self.boundary in _TWICE else 1


def every_point(*, whole: bool) -> list[Point]:
    """Every boundary of every step. Those that cost accounts their good name are not next to each other."""
    common = (
        Boundary.CLAIMING, Boundary.CLAIMED, Boundary.ANSWERED, Boundary.RECORDING, Boundary.RECORDED,
    )  # fmt: skip
    submit = [*common, Boundary.SENDING, Boundary.SENT]
    stored = [*common, Boundary.FETCHED, Boundary.PUT, Boundary.THUMBNAIL]
    points = [Point(Step.SUBMIT, boundary, whole) for boundary in submit]
    points += [Point(Step.POLL, Boundary.RECORDING, whole, run_s=3.0)]
    points += [Point(Step.POLL, Boundary.RECORDED, whole, run_s=3.0)]
    for boundary in stored:
        points.append(Point(Step.STORE, boundary, whole))
        if boundary in common:
            points += [Point(step, boundary, whole) for step in (Step.RECONCILE, Step.POLL, Step.DELIVER)]
    # At the end: what the providers go on with is still watched, which would be in the way of others.
    cancel = (Boundary.CLAIMED, Boundary.ANSWERED, Boundary.RECORDING, Boundary.RECORDED)
    return points + [Point(Step.POLL, boundary, whole, cancels=True) for boundary in cancel]


class DoomedPlatform:
    """A platform whose worker dies where a play wants it. Its one process of the pool has all work in hand."""

    def __init__(self, folder: Path, database_url: str, *, storage: str) -> None:
        self._folder, self._database_url, self._storage = folder, database_url, storage
        self._doom = folder / "doom.json"
        self._played = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.world = stack.enter_context(World(at_once=24))
            self.receiver = Receiver()
            stack.enter_context(Stage([self.receiver]))
            self.world.midjourney.account.is_admin = True  # who may cancel
            valkey = stack.enter_context(Valkey(self._folder / "valkey"))
            self.platform = stack.enter_context(self._install(valkey))
            self.platform.release()
            self.platform.start("web", "beat")
            self._worker = self._start_worker()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def _install(self, valkey: Valkey) -> Platform:
        world = self.world.environment(storage="cos" if self._storage == "cos" else "local")
        return Platform(
            self._folder,
            database_url=self._database_url,
            redis_url=valkey.url,
            environment={**world, **SETTINGS, ENVIRONMENT: str(self._doom)},
        )

    def _start_worker(self) -> Process:
        command = read_procfile()["worker"].replace("workers.app", "tests.chaos.doomed")
        return self.platform.group.start_command("worker", f"{command} --concurrency=1")

    # ------------------------------------------------------------ one play

    def play(self, point: Point) -> list[str]:
        """A job at each provider, one death, and every promise that was broken then, a line each."""
        self._played += 1
        hold(self._doom).touch()
        user = self.platform.user(credits=CREDITS)
        if point.step is Step.RECONCILE:
            for provider in self.world.providers:
                provider.misbehave(Fault("drop_reply", CREATES[provider.name]))
        ids = self._submit(user, point)
        if not point.cancels:
            self._write_doom(point)
            hold(self._doom).unlink()  # all of them are found at once
        else:
            hold(self._doom).unlink()
            for job_id in ids.values():
                user.until(job_id, lambda job: job["status"] == "running")
            self._write_doom(point)
            with ThreadPoolExecutor(len(ids)) as together:  # each is answered once its provider was asked
                list(together.map(lambda job_id: user.post(f"/v1/jobs/{job_id}/cancel", None), ids.values()))
        try:
            wait_until(met(self._doom).exists, _STRIKES_S, what=f"death at {point}")
        except TimeoutError as error:
            self._doom.unlink()
            return [f"{error}\n{self.platform.group.report()}"]
        met(self._doom).unlink()
        if point.whole:
            self._worker.wait()
            self._worker = self._start_worker()
        return self._wrong(point, user, ids)

    def _submit(self, user: Client, point: Point) -> dict[str, str]:
        pace = f"[queue={30 if point.cancels else 0}] [run={point.run_s}]"
        return {
            provider: user.submit(
                model,
                f"{point} at {provider} {self._played} {pace}",
                webhook_url=f"{self.receiver.url}/{self._played}/{provider}",
            )["id"]
            for provider, model in MODELS.items()
        }

    def _write_doom(self, point: Point) -> None:
        Doom(point.step, point.boundary, len(MODELS), point.whole, point.cancels, self._played).write(
            self._doom
        )

    # ------------------------------------------------------------ what must be true

    def _wrong(self, point: Point, user: Client, ids: Mapping[str, str]) -> list[str]:
        jobs = {provider: user.ended(job_id, _ENDS_S) for provider, job_id in ids.items()}
        if point.cancels:  # who was charged before the provider was seen to have stopped gets that back
            for provider in STOP:
                jobs[provider] = user.until(
                    ids[provider], lambda job: job["cost"]["charged"] == 0, _ENDS_S, what=f"{point} is free"
                )
        wrong = [
            f"{point}, {provider}: {line}"
            for provider, job in jobs.items()
            for line in self._about(point, user, provider, job)
        ]
        spent = sum(job["cost"]["charged"] or 0 for job in jobs.values())
        if user.credits() != (CREDITS - spent, 0):
            wrong.append(f"{point}: balance {user.credits()}, spent {spent}")
        return wrong

    def _about(self, point: Point, user: Client, provider: str, job: Mapping[str, Any]) -> Iterable[str]:
        prompt = job["input"]["prompt"]
        if (job["status"], (job["error"] or {}).get("code")) != point.end(provider):
            yield f"{job['status']} {job['error']}, wanted {point.end(provider)}"
        if job["attempts"] != point.attempts():
            yield f"{job['attempts']} attempts, wanted {point.attempts()}"
        yield from self._about_provider(point, provider, prompt)
        yield from self._about_credits(point, user, provider, job)
        if job["status"] == "succeeded":
            made = [hashlib.sha256(content).hexdigest() for content in self.world.made_for(prompt)]
            if not made or [artifact["sha256"] for artifact in job["artifacts"]] != made:
                yield f"{len(job['artifacts'])} artifacts of {len(made)}, or other bytes"
        yield from self._about_webhook(point, provider)

    def _about_provider(self, point: Point, provider: str, prompt: str) -> Iterable[str]:
        """Only creating calls hold the prompt."""
        asked = Counter(
            simulator.name
            for simulator in self.world.providers
            for call in list(simulator.calls)
            if prompt.encode() in call.body
        )
        if asked != Counter({provider: point.submits()}):
            yield f"creating calls {dict(asked)}, wanted {point.submits()} at {provider}"
        if self.world.submits(prompt) != point.submits():
            yield f"made {self.world.submits(prompt)} times, wanted {point.submits()}"

    def _about_credits(
        self, point: Point, user: Client, provider: str, job: Mapping[str, Any]
    ) -> Iterable[str]:
        """Exactly one settlement, of the whole price or of nothing; and what was charged too early is given back."""
        entries = user.get("/v1/credits/ledger")["data"]
        kinds = [entry["kind"] for entry in reversed(entries) if entry["job_id"] == job["id"]]
        costs = job["status"] == "succeeded" or (point.cancels and provider not in STOP)
        allowed = [["hold", "capture"]] if costs else [["hold", "release"]]
        if point.cancels and not costs:
            allowed.append(["hold", "capture", "refund"])
        if kinds not in allowed:
            yield f"ledger {kinds}"
        if job["cost"]["charged"] != (job["cost"]["held"] if costs else 0):
            yield f"cost {job['cost']}"

    def _about_webhook(self, point: Point, provider: str) -> Iterable[str]:
        """The same event, once; or twice where nobody could know that it had arrived."""
        path = f"/{self._played}/{provider}"
        end = time.monotonic() + _STRIKES_S
        while len(told := self._told(path)) < point.deliveries() and time.monotonic() < end:
            time.sleep(0.05)
        if len(told) != point.deliveries() or len(set(told)) != 1:
            yield f"webhook came {len(told)} times with {len(set(told))} ids, wanted {point.deliveries()}"

    def _told(self, path: str) -> list[str]:
        return [call.headers["webhook-id"] for call in self.receiver.asked(f"POST {path}")]
