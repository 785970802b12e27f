"""Exactly what goes over the wire: method, URL, headers and body of every call to Jimeng."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.providers.fakes import (
    CALLBACK,
    PICTURE_URL,
    UPLOAD,
    UPLOAD_BASE64,
    FakeHttp,
    adapter,
    handle,
    poll,
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


@pytest.mark.parametrize(
    ("wanted", "req_key", "pictures"),
    [
        ({}, "jimeng_i2v_first_v30", {"image_urls": [PICTURE_URL]}),
        ({"resolution": "1080p"}, "jimeng_i2v_first_v30_1080", {"image_urls": [PICTURE_URL]}),
        ({"image": UPLOAD}, "jimeng_i2v_first_v30", {"binary_data_base64": [UPLOAD_BASE64]}),
        ({"tail_image": f"{PICTURE_URL}?2"}, "jimeng_i2v_first_tail_v30",
         {"image_urls": [PICTURE_URL, f"{PICTURE_URL}?2"]}),
        ({"tail_image": UPLOAD, "resolution": "1080p"}, "jimeng_i2v_first_tail_v30_1080",
         {"binary_data_base64": [UPLOAD_BASE64, UPLOAD_BASE64]}),
    ],
)  # fmt: skip
def test_jimeng_films_from_pictures(wanted: dict[str, Any], req_key: str, pictures: dict[str, Any]) -> None:
    _, body = jimeng_sent("jimeng/image-to-video", input={**wanted, "duration_s": 10})
    assert body == {"req_key": req_key, "prompt": "a red fox", "seed": -1, "frames": 241, **pictures}


def test_jimeng_pictures_from_pictures() -> None:
    _, body = jimeng_sent(
        "jimeng/image-to-image", input={"scale": 0.7, "seed": 7, "width": 512, "height": 2016}
    )
    assert body == {
        "req_key": "jimeng_i2i_v30", "prompt": "a red fox", "scale": 0.7, "seed": 7, "width": 512, "height": 2016,
        "image_urls": [PICTURE_URL],
    }  # fmt: skip
    _, body = jimeng_sent("jimeng/text-to-image", input={"images": [UPLOAD, PICTURE_URL]})
    assert body["binary_data_base64"] == [UPLOAD_BASE64, UPLOAD_BASE64]
    assert "images" not in body


def test_a_film_from_a_picture_may_come_as_bytes() -> None:
    done = {"status": "done", "binary_data_base64": [UPLOAD_BASE64], "image_urls": None}
    verdict = poll("jimeng", "jimeng/image-to-video", reply(200, {"code": 10000, "data": done}))
    assert [output.kind for output in verdict.outputs] == ["video"]
