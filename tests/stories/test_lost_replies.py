"""Every provider takes a job and hangs up before it has said so. It is found or given up, never asked for again."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from sqlalchemy import select

from common.db import build_engine
from common.models import JobEvent
from tests.infrastructure.client import Client
from tests.simulators.frame import Fault, Simulator
from tests.simulators.media import png
from tests.stories.conftest import Installation
from tests.stories.test_a_job_at_each_provider import assert_stored, entries

# Who can be asked, or tells it in a callback, and who never can. Both Flux APIs serve the last model.
FOUND = {
    "kling": ("kling/text-to-video", "POST /v1/videos/text2video"),
    "midjourney": ("midjourney/imagine", "POST /mj/submit/imagine"),
    "fal": ("flux/schnell", "POST /fal-ai/flux/schnell"),
    "jimeng": ("jimeng/text-to-image", "CVSync2AsyncSubmitTask"),
}
LOST = {
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


def test_jimengs_films_do_not_call_back(installation: Installation) -> None:
    user, jimeng = installation.user(credits=CREDITS), installation.world.jimeng
    jimeng.misbehave(Fault("drop_reply", "CVSync2AsyncSubmitTask"))
    prompt = f"unsaid film {user.token[-8:]}"
    job = user.ended(user.submit("jimeng/text-to-video", prompt)["id"], 60)
    assert (job["status"], job["error"]["code"], job["attempts"]) == ("failed", "submit_unknown", 1)
    assert creating_calls(jimeng, prompt) == 1
    assert user.credits() == (CREDITS, 0)


def test_a_group_that_is_taken_over_costs_what_was_made(installation: Installation) -> None:
    """What a callback does not say, the version asked for and that it may be several, is remembered all the same."""
    user, jimeng = installation.user(credits=CREDITS), installation.world.jimeng
    jimeng.misbehave(Fault("drop_reply", "CVSync2AsyncSubmitTask"))
    wanted = {
        "prompt": f"unsaid group {user.token[-8:]} [run=2]",
        "force_single": False,
        "req_key": "jimeng_seedream46_cvtob",
    }
    job = user.ended(user.post("/v1/jobs", {"model": "jimeng/text-to-image", "input": wanted})["id"], 60)
    assert (job["status"], len(job["artifacts"]), job["attempts"]) == ("succeeded", 4, 1), job["error"]
    assert happened(installation, job["id"]) == ["submit_unknown", "adopted"]
    assert job["cost"] == {"held": 150, "charged": 40}


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        ("drop_reply", "POST /mj/submit/action"),  # by a callback it says that it asks
        ("answer", "POST /mj/submit/modal"),
        ("drop_reply", "POST /mj/submit/modal"),
    ],
)
def test_a_window_whose_answer_is_lost_is_answered_once_more(
    installation: Installation, kind: Any, lost: str
) -> None:
    user, server = installation.user(credits=CREDITS), installation.world.midjourney
    mark = user.token[-8:]
    grid = user.ended(user.submit("midjourney/imagine", f"a fox for {mark}")["id"])
    single = follow(user, grid, {"action": "upsample_1"})
    assert single["status"] == "succeeded", single["error"]
    server.misbehave(Fault(kind, lost, status=502))
    mask = f"data:image/png;base64,{base64.b64encode(png(f'mask {mark}')).decode()}"
    wanted = {"action": "vary_region", "prompt": f"a hat for {mark} --turbo", "mask": mask, "split": True}
    job = follow(user, single, wanted)
    assert (job["status"], job["attempts"]) == ("succeeded", 1), job["error"]
    assert happened(installation, job["id"]) == ["submit_unknown", "adopted"]
    assert len(job["artifacts"]) == 4
    (task,) = server.made(f"a hat for {mark}")
    assert (task.action, task.body["maskBase64"], task.mode) == ("INPAINT", mask, "FAST")
    assert job["output"] == {"seed": int(task.seed)}


def follow(user: Client, parent: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """An action on a finished job, once it is over."""
    asked = {"model": "midjourney/action", "parent_id": parent["id"], "input": wanted}
    return user.ended(user.post("/v1/jobs", asked)["id"], 60)
