"""Jimeng's films and pictures that are made from pictures, over HTTP."""

from __future__ import annotations

import base64

from tests.simulators.media import png
from tests.stories.conftest import Installation


def test_a_film_and_a_picture_from_pictures(installation: Installation) -> None:
    user, media = installation.user(), installation.world.media
    inline = f"data:image/png;base64,{base64.b64encode(png('a fox', 512, 512)).decode()}"
    address = media.publish("hat.png", "image/png", lambda: png("a hat", 512, 512))
    film = {"prompt": "the fox runs", "image": inline, "tail_image": address, "resolution": "1080p"}
    asked = [
        user.post("/v1/jobs", {"model": "jimeng/image-to-video", "input": film}),
        user.post(
            "/v1/jobs", {"model": "jimeng/image-to-image", "input": {"prompt": "red", "image": address}}
        ),
    ]
    ended = [user.ended(job["id"]) for job in asked]
    assert [job["status"] for job in ended] == ["succeeded", "succeeded"], [job["error"] for job in ended]
    assert [job["artifacts"][0]["kind"] for job in ended] == ["video", "image"]
