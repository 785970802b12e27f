"""Kling's jobs that go on from another job, over HTTP: the film is extended, and speaks."""

from __future__ import annotations

from typing import Any

from tests.infrastructure.client import Client
from tests.stories.conftest import Installation


def done(user: Client, model: str, wanted: dict[str, Any], **fields: Any) -> Any:
    """A job that has succeeded."""
    job = user.ended(user.post("/v1/jobs", {"model": model, "input": wanted, **fields})["id"])
    assert job["status"] == "succeeded", job["error"]
    (artifact,) = job["artifacts"]
    assert artifact["content_type"] == "video/mp4"
    return job


def test_a_film_is_extended_twice_and_then_another_speaks(installation: Installation) -> None:
    user, kling = installation.user(), installation.world.kling
    mark = user.token[-8:]
    first = done(user, "kling/text-to-video", {"prompt": f"first {mark}"})
    second = done(user, "kling/extend", {"prompt": f"second {mark}"}, parent_id=first["id"])
    done(user, "kling/extend", {"prompt": f"third {mark}"}, parent_id=second["id"])
    done(user, "kling/lip-sync", {"text": f"said {mark}", "voice_id": "v"}, parent_id=first["id"])
    films = {name: kling.made(f"{name} {mark}")[0] for name in ("first", "second", "third", "said")}
    assert films["second"].parent == films["said"].parent == films["first"].films[0]
    assert films["third"].parent == films["second"].films[0]


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
