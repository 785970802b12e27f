"""Exactly what goes over the wire: method, URL, headers and body of every call to Jimeng."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.providers.fakes import (
    CALLBACK,
    FakeHttp,
    adapter,
    handle,
    reply,
    run,
    sent,
)


def jimeng_sent(model: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    request = sent("jimeng", model, **fields)
    assert request.json is None
    assert request.body is not None
    return request.url, json.loads(request.body)


SUBMIT_URL = "https://visual.volcengineapi.com/?Action=CVSync2AsyncSubmitTask&Version=2022-08-31"
POLL_URL = "https://visual.volcengineapi.com/?Action=CVSync2AsyncGetResult&Version=2022-08-31"


@pytest.mark.parametrize(
    ("wanted", "body"),
    [
        ({}, {"req_key": "jimeng_t2i_v40", "force_single": True, "callback_url": CALLBACK, "return_url": True}),
        ({"size": 4194304, "scale": 0.5, "force_single": False},
         {"req_key": "jimeng_t2i_v40", "size": 4194304, "scale": 0.5, "force_single": False,
          "callback_url": CALLBACK, "return_url": True}),
        ({"req_key": "jimeng_t2i_v31", "seed": 5, "width": 1328, "height": 1328, "use_pre_llm": False},
         {"req_key": "jimeng_t2i_v31", "seed": 5, "width": 1328, "height": 1328, "use_pre_llm": False}),
        ({"req_key": "jimeng_t2i_v30"}, {"req_key": "jimeng_t2i_v30"}),
    ],
)  # fmt: skip
def test_jimeng_images(wanted: dict[str, Any], body: dict[str, Any]) -> None:
    assert jimeng_sent("jimeng/text-to-image", input=wanted) == (SUBMIT_URL, {"prompt": "a red fox", **body})


@pytest.mark.parametrize(
    ("wanted", "req_key", "frames"),
    [({}, "jimeng_t2v_v30", 121), ({"resolution": "1080p", "duration_s": 10}, "jimeng_t2v_v30_1080p", 241)],
)
def test_jimeng_videos(wanted: dict[str, Any], req_key: str, frames: int) -> None:
    assert jimeng_sent("jimeng/text-to-video", input={"seed": -1, **wanted}) == (
        SUBMIT_URL,
        {"req_key": req_key, "prompt": "a red fox", "seed": -1, "frames": frames, "aspect_ratio": "16:9"},
    )


def test_jimeng_is_polled_with_the_key_of_its_submit() -> None:
    http = FakeHttp(reply(500))
    run(adapter("jimeng").poll(http, [handle("jimeng/text-to-video", "7", req_key="jimeng_t2v_v30_1080p")]))
    assert http.sent[0].url == POLL_URL
    assert http.sent[0].body == (
        b'{"req_key":"jimeng_t2v_v30_1080p","task_id":"7","req_json":"{\\"return_url\\":true}"}'
    )
