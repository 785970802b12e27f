"""Every provider takes a job and hangs up before it has said so. It is found or given up, never asked for again."""

from __future__ import annotations

from sqlalchemy import select

from common.db import build_engine
from common.models import JobEvent
from tests.simulators.frame import Fault, Simulator
from tests.stories.conftest import Installation
from tests.stories.test_a_job_at_each_provider import assert_stored, entries

# Who can be asked, or tells it in a callback, and who never can. Both Flux APIs serve the last model.
FOUND = {
    "kling": ("kling/text-to-video", "POST /v1/videos/text2video"),
    "midjourney": ("midjourney/imagine", "POST /mj/submit/imagine"),
    "fal": ("flux/schnell", "POST /fal-ai/flux/schnell"),
}
LOST = {
    "jimeng": ("jimeng/text-to-image", "CVSync2AsyncSubmitTask"),
    "bfl": ("flux/pro-1.1", "POST /v1/flux-pro-1.1"),
}
CREDITS = 1000


def happened(installation: Installation, job_id: str) -> list[str]:
    """What the job's timeline is made of, beside its rows."""
    engine = build_engine(installation.platform.group.environment["DATABASE_URL"])
    try:
        with engine.connect() as connection:
            query = select(JobEvent.kind).where(JobEvent.job_id == job_id).order_by(JobEvent.id)
            return list(connection.scalars(query))
    finally:
        engine.dispose()


def creating_calls(simulator: Simulator, prompt: str) -> int:
    """Only those hold the prompt."""
    return sum(prompt.encode() in call.body for call in list(simulator.calls))


def test_a_reply_that_is_lost_after_the_job_was_taken(installation: Installation) -> None:
    user, world = installation.user(credits=CREDITS), installation.world
    simulators = {simulator.name: simulator for simulator in world.providers}
    prompts = {name: f"unsaid by {name} to {user.token[-8:]} [run=3]" for name in FOUND | LOST}
    ids = {}
    for name, (model, creates) in (FOUND | LOST).items():
        simulators[name].misbehave(Fault("drop_reply", creates))
        if name == "bfl":  # the idle one of both is chosen
            user.until(ids["fal"], lambda job: job["attempts"] == 1)
        ids[name] = user.submit(model, prompts[name])["id"]

    jobs = {name: user.ended(job_id, 60) for name, job_id in ids.items()}
    spent = 0
    for name, job in jobs.items():
        price = job["cost"]["held"]
        found = name in FOUND
        assert (job["status"], (job["error"] or {}).get("code")) == (
            ("succeeded", None) if found else ("failed", "submit_unknown")
        ), (name, job)
        assert job["attempts"] == 1, name
        assert creating_calls(simulators[name], prompts[name]) == 1, name
        assert world.submits(prompts[name]) == 1, name
        assert job["cost"]["charged"] == (price if found else 0), name
        assert entries(user, ids[name]) == [
            ("hold", -price, price),
            ("capture", 0, -price) if found else ("release", price, -price),
        ]
        assert happened(installation, ids[name]) == ["submit_unknown", *["adopted"] * found], name
        if found:
            assert_stored(installation, job)
            spent += price
    assert user.credits() == (CREDITS - spent, 0)
