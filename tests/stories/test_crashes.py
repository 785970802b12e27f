"""A worker dies without a warning in the middle of every step. One submit, one settlement, and every job ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.infrastructure.client import Client
from tests.simulators.frame import Fault, Simulator
from tests.stories.conftest import Installation

MakeInstallation = Callable[..., Installation]


@dataclass
class Scene:
    """One job, and the request during which its worker dies."""

    name: str
    model: str
    simulator: Simulator
    fault: Fault
    ends: str = "succeeded"
    error: str | None = None
    submits: int = 1

    @property
    def prompt(self) -> str:
        return f"dies {self.name}"


def scenes(installation: Installation) -> list[Scene]:
    world = installation.world
    found = [
        Scene("before the provider did anything", "kling/text-to-video", world.kling,
              Fault("hang", "POST /v1/videos/text2video"), "failed", "submit_unknown", 0),
        Scene("before Midjourney's answer was read", "midjourney/imagine", world.midjourney,
              Fault("hang_reply", "POST /mj/submit/imagine")),
        Scene("while it looks", "jimeng/text-to-image", world.jimeng, Fault("hang", "CVSync2AsyncGetResult")),
        Scene("while it fetches the result", "flux/dev", world.media, Fault("hang", "GET /files/")),
    ]  # fmt: skip
    if installation.kind == "large":
        found.append(
            Scene("before COS's answer was read", "flux/schnell", world.cos, Fault("hang_reply", "PUT /"))
        )
    return found


def submit_and_catch(installation: Installation, user: Client, scene: Scene) -> str:
    """Submit the job and return once a worker hangs in that very request."""
    job = user.submit(scene.model, scene.prompt)
    scene.simulator.misbehave(scene.fault)
    installation.platform.group.wait_until(lambda: scene.fault.met, 20, what=scene.name)
    return str(job["id"])


def test_a_worker_that_dies_in_any_step(own: MakeInstallation) -> None:
    installation = own()
    platform = installation.platform
    user = installation.user(credits=10_000)
    played = scenes(installation)
    ids = {scene.name: submit_and_catch(installation, user, scene) for scene in played}
    worker = next(process for process in platform.group.processes if process.name == "worker")
    worker.kill9()
    platform.start("worker")

    spent = 0
    for scene in played:
        job = user.ended(ids[scene.name], 60)
        assert job["status"] == scene.ends, (scene.name, job)
        assert (job["error"] or {}).get("code") == scene.error, (scene.name, job)
        assert installation.world.submits(scene.prompt) == scene.submits, scene.name
        spent += job["cost"]["charged"]
    assert user.credits() == (10_000 - spent, 0)
    assert "error" not in platform.command("ledger", "verify")
