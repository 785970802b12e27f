"""A client of midjourney-proxy servers from its first prompt to an upscaled picture, told by its notifyHook."""

from __future__ import annotations

from typing import Any

from tests.infrastructure.children import wait_until
from tests.infrastructure.client import Client
from tests.simulators.frame import Stage
from tests.simulators.receiver import Receiver
from tests.stories.conftest import Installation


def until_done(user: Client, task_id: str) -> Any:
    """The task, once it has ended."""

    def ended() -> Any:
        task = user.get(f"/mj/task/{task_id}/fetch")
        return task if task["status"] in ("SUCCESS", "FAILURE") else None

    return wait_until(ended, 30, what="the task is done")


def whole_story(receiver: Receiver) -> list[Any]:
    """What the hook was told, if that was all."""
    told = [call.json() for call in receiver.asked("/hook")]
    return told if told and told[-1]["status"] == "SUCCESS" else []


def test_from_a_prompt_to_one_picture_of_four(installation: Installation) -> None:
    user, receiver = installation.user(), Receiver()
    with Stage([receiver]):
        body = {"prompt": "a lighthouse --fast", "state": "order 7", "notifyHook": f"{receiver.url}/hook"}
        grid = until_done(user, user.post("/mj/submit/imagine", body)["result"])
        assert (grid["status"], grid["state"], grid["progress"]) == ("SUCCESS", "order 7", "100%"), grid[
            "failReason"
        ]
        assert grid["imageUrl"]
        told = wait_until(lambda: whole_story(receiver), 10, what="the hook is told of the end")
        assert told[-1] == grid
        assert {task["status"] for task in told[:-1]} == {"IN_PROGRESS"}
    button = next(each for each in grid["buttons"] if each["label"] == "U2")
    pressed = user.post("/mj/submit/action", {"taskId": grid["id"], "customId": button["customId"]})
    one = until_done(user, pressed["result"])
    assert (one["status"], one["action"], one["parentId"]) == ("SUCCESS", "UPSCALE", grid["id"]), one[
        "failReason"
    ]
    assert one["imageUrl"] != grid["imageUrl"]
