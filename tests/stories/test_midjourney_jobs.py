"""Midjourney's jobs from pictures and its jobs that end in words, over HTTP."""

from __future__ import annotations

import base64

from tests.simulators.media import png
from tests.stories.conftest import Installation


def test_pictures_are_blended_and_described(installation: Installation) -> None:
    user, media = installation.user(), installation.world.media
    inline = base64.b64encode(png("a fox")).decode()
    address = media.publish("hat.png", "image/png", lambda: png("a hat"))
    blend = user.post("/v1/jobs", {"model": "midjourney/blend", "input": {"images": [inline, address]}})
    words = user.post("/v1/jobs", {"model": "midjourney/describe", "input": {"image": address}})
    gone = f"{media.url}/files/gone/hat.png"
    broken = user.post("/v1/jobs", {"model": "midjourney/describe", "input": {"image": gone}})

    blend = user.ended(blend["id"])
    assert (blend["status"], len(blend["artifacts"])) == ("succeeded", 1), blend["error"]
    words = user.ended(words["id"])
    assert (words["status"], words["artifacts"]) == ("succeeded", []), words["error"]
    assert len(words["output"]["prompts"]) == 4
    broken = user.ended(broken["id"])
    assert (broken["status"], broken["error"]["code"], broken["cost"]["charged"]) == (
        "failed",
        "invalid_input",
        0,
    )


def test_a_grid_as_four_pictures(installation: Installation) -> None:
    user = installation.user()
    wanted = {"prompt": "four seasons", "split": True}
    job = user.ended(user.post("/v1/jobs", {"model": "midjourney/imagine", "input": wanted})["id"])
    assert job["status"] == "succeeded", job["error"]
    assert len({artifact["sha256"] for artifact in job["artifacts"]}) == 4
    assert len({(artifact["width"], artifact["height"]) for artifact in job["artifacts"]}) == 1
    assert {action["id"] for action in job["actions"]} >= {"upsample_1", "reroll"}
