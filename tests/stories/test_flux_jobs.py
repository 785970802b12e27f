"""Flux's jobs from pictures, at both of its APIs, over HTTP."""

from __future__ import annotations

import base64

from tests.simulators.media import png
from tests.stories.conftest import Installation


def test_a_blackened_picture_costs_nothing_and_spoils_no_other(installation: Installation) -> None:
    user = installation.user(credits=100)
    wanted = {"prompt": "three foxes [moderate-output=1]", "n": 3}
    job = user.ended(user.post("/v1/jobs", {"model": "flux/schnell", "input": wanted})["id"])
    assert (job["status"], len(job["artifacts"]), job["cost"]["charged"]) == ("succeeded", 2, 10)
    assert user.credits() == (90, 0)


def test_pictures_are_filled_changed_and_brought_together(installation: Installation) -> None:
    user, world = installation.user(), installation.world
    address = world.media.publish("hat.png", "image/png", lambda: png("a hat", 512, 512))
    inline = base64.b64encode(png("a fox", 512, 512)).decode()
    wanted = {
        "flux/fill": {"prompt": "snow", "image": inline, "mask": address},  # BFL alone
        "flux/dev-image-to-image": {"prompt": "as an oil painting", "image": address},  # fal alone
        "flux/kontext-pro": {"prompt": "make it blue", "image": inline},
        "flux/kontext-multi": {"prompt": "the fox with the hat", "images": [inline, address]},
        "flux/2-pro": {"prompt": "the fox and the hat", "images": [inline, address]},
        "flux/2-klein-4b": {"prompt": "quick"},
    }
    asked = {
        model: user.post("/v1/jobs", {"model": model, "input": given}) for model, given in wanted.items()
    }
    held = {model: job["cost"]["held"] for model, job in asked.items()}
    assert (held["flux/2-pro"], held["flux/2-klein-4b"], held["flux/kontext-multi"]) == (30 + 2 * 15, 14, 30)
    ended = {model: user.ended(job["id"], 40) for model, job in asked.items()}
    assert {model: job["error"] for model, job in ended.items() if job["status"] != "succeeded"} == {}
    filled = [call for call in world.bfl.asked("POST /v1/flux-pro-1.0-fill") if call.status == 200]
    body = filled[-1].json()
    changed = [call for call in world.fal.asked("POST /fal-ai/flux/dev/image-to-image") if call.status == 200]
    assert changed[-1].json()["image_url"] == address  # fal fetches it itself
    assert base64.b64decode(body["image"]) == png("a fox", 512, 512)
    assert base64.b64decode(body["mask"]) == png("a hat", 512, 512)
