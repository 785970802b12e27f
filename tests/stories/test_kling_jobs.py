"""Kling's jobs that go on from another job, over HTTP: the film is extended, and speaks."""

from __future__ import annotations

import base64
from typing import Any

from tests.infrastructure.client import Client
from tests.simulators.media import png
from tests.stories.conftest import Installation


def start(user: Client, model: str, wanted: dict[str, Any], **fields: Any) -> str:
    """The id of a new job."""
    return str(user.post("/v1/jobs", {"model": model, "input": wanted, **fields})["id"])


def films(user: Client, *jobs: str) -> None:
    """Each of these jobs ends with a stored film."""
    for job_id in jobs:
        job = user.ended(job_id)
        assert job["status"] == "succeeded", job["error"]
        assert [artifact["content_type"] for artifact in job["artifacts"]] == ["video/mp4"]


def test_a_film_goes_on_and_speaks(installation: Installation) -> None:
    user, kling = installation.user(), installation.world.kling
    mark = user.token[-8:]
    first = start(user, "kling/text-to-video", {"prompt": f"first {mark}"})
    films(user, first)
    longer = start(user, "kling/extend", {"prompt": f"longer {mark}"}, parent_id=first)
    spoken = start(user, "kling/lip-sync", {"text": f"spoken {mark}", "voice_id": "v"}, parent_id=first)
    films(user, longer, spoken)
    (made,) = kling.made(f"first {mark}")
    assert [kling.made(f"{name} {mark}")[0].parent for name in ("longer", "spoken")] == made.films * 2


def test_pictures_reach_it_as_bare_base64(installation: Installation) -> None:
    user, kling = installation.user(), installation.world.kling
    mark = user.token[-8:]
    picture = base64.b64encode(png(mark, 320, 320)).decode()
    wanted = {"image": f"data:image/png;base64,{picture}", "tail_image": picture}
    jobs = {
        version: start(
            user, "kling/image-to-video", {**wanted, "prompt": f"{version} {mark}", "model_name": version}
        )
        for version in ("kling-v2-6", "kling-3.0")
    }
    films(user, *jobs.values())
    legacy, new = (kling.made(f"{version} {mark}")[0].body for version in jobs)
    assert (legacy["image"], legacy["image_tail"]) == (picture, picture)
    assert [content["url"] for content in new["contents"][1:]] == [picture, picture]


def test_a_film_of_several_shots_and_one_that_moves_under_masks(installation: Installation) -> None:
    user, kling = installation.user(credits=1000), installation.world.kling
    mark = user.token[-8:]
    picture, mask = (base64.b64encode(png(f"{name} {mark}", 320, 320)).decode() for name in "pm")
    upload = user.post("/v1/uploads", png(f"u {mark}", 320, 320))["id"]
    line = [{"x": 1, "y": 2}, {"x": 30, "y": 40}]
    shots = [{"prompt": "a fox wakes", "duration_s": 3}, {"prompt": "it runs", "duration_s": 4}]
    cut = {"model_name": "kling-v3", "multi_shot": True, "shot_type": "customize", "multi_prompt": shots}
    wanted = {
        "cut": {**cut, "duration_s": 7, "tail_image": picture},
        "moved": {
            "image": picture,
            "dynamic_masks": [
                {"mask": f"data:image/png;base64,{mask}", "trajectories": line},
                {"mask": upload, "trajectories": line},
            ],
        },
    }
    jobs = [
        start(user, "kling/image-to-video", {**each, "prompt": f"{name} {mark}"})
        for name, each in wanted.items()
    ]
    short = {**cut, "duration_s": 3, "tail_image": picture, "prompt": f"short {mark}"}
    unpaid = user.ended(start(user, "kling/image-to-video", short))
    films(user, *jobs)
    several, moved = (kling.made(f"{name} {mark}")[0].body for name in wanted)
    assert [shot["duration"] for shot in several["multi_prompt"]] == ["3", "4"]
    assert "image" not in several
    sent = [area["mask"] for area in moved["dynamic_masks"]]
    assert sent == [mask, base64.b64encode(png(f"u {mark}", 320, 320)).decode()]
    assert (unpaid["status"], unpaid["error"]["code"]) == ("failed", "invalid_input")
    assert user.credits() == (1000 - 70 - 50, 0)


def test_what_has_no_parent_or_the_wrong_one_is_refused(installation: Installation) -> None:
    user = installation.user()
    picture = user.ended(user.submit("kling/image", f"a hat {user.token[-8:]}")["id"])
    speech = {"text": "hello", "voice_id": "v"}
    for model, wanted, parent_id, param in (
        ("kling/extend", {}, None, "parent_id"),
        ("kling/extend", {}, picture["id"], "parent_id"),
        ("kling/lip-sync", speech, None, "parent_id"),
        ("kling/lip-sync", {**speech, "video": "https://x.example/v.mp4"}, picture["id"], "input.video"),
    ):
        answer = user.ask("POST", "/v1/jobs", {"model": model, "input": wanted, "parent_id": parent_id})
        assert (answer.status, answer.json["error"]["param"]) == (422, param), answer.body
    assert user.credits()[1] == 0
