"""Jimeng's films and pictures that are made from pictures, over HTTP."""

from __future__ import annotations

import base64
import urllib.request

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


def test_4_x_gets_a_picture_that_came_as_bytes_by_an_address(installation: Installation) -> None:
    user, jimeng = installation.user(), installation.world.jimeng
    fox, words = png(f"fox {user.token[-8:]}", 512, 512), f"the fox in spring {user.token[-8:]}"
    given = {"prompt": words, "images": [base64.b64encode(fox).decode()]}
    job = user.ended(user.post("/v1/jobs", {"model": "jimeng/text-to-image", "input": given})["id"])
    assert (job["status"], job["input"]) == ("succeeded", given), job["error"]
    (task,) = jimeng.made(words)
    (url,) = task.body["image_urls"]
    with urllib.request.urlopen(url, timeout=10) as reply:
        assert reply.read() == fox
    assert user.get("/v1/uploads")["data"] == [], "what is lent is nobody's upload"


def test_a_group_costs_what_was_made_and_bad_luck_is_tried_again(installation: Installation) -> None:
    user = installation.user(credits=1000)
    several = {"prompt": "a fox in four seasons", "force_single": False}
    group = user.post("/v1/jobs", {"model": "jimeng/text-to-image", "input": several})
    assert (group["cost"]["held"], user.credits()) == (150, (850, 150))
    group = user.ended(group["id"])
    assert (group["status"], len(group["artifacts"]), group["cost"]["charged"]) == ("succeeded", 4, 40)
    unlucky = user.ended(user.submit("jimeng/text-to-image", "never let through [moderate-output]")["id"], 30)
    assert (unlucky["status"], unlucky["error"]["code"], unlucky["attempts"]) == (
        "failed",
        "content_moderated",
        3,
    )
    assert user.credits() == (960, 0)


def test_what_breaks_at_jimeng_ends_soon_and_costs_nothing(installation: Installation) -> None:
    user = installation.user(credits=100)
    broken = user.ended(user.submit("jimeng/text-to-image", "a fox [break]")["id"], 30)
    assert (broken["status"], broken["error"]["code"], broken["error"]["retryable"]) == (
        "failed",
        "provider_failed",
        True,
    )
    assert user.credits() == (100, 0)
