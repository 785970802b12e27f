"""Exactly what goes over the wire: method, URL, headers and body of every call to Jimeng."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from common.providers.base import Accepted
from tests.unit.providers.fakes import (
    CALLBACK,
    PICTURE_URL,
    UPLOAD,
    UPLOAD_BASE64,
    UPLOAD_URL,
    FakeHttp,
    adapter,
    handle,
    poll,
    reply,
    run,
    sent,
    submission,
    submit,
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
    _, body = jimeng_sent("jimeng/image-to-image", input={"image": UPLOAD})
    assert (body["binary_data_base64"], "image_urls" in body) == ([UPLOAD_BASE64], False)


@pytest.mark.parametrize("req_key", ["jimeng_t2i_v40", "jimeng_seedream46_cvtob"])
def test_4_x_gets_addresses_of_its_reference_pictures_and_nothing_else(req_key: str) -> None:
    wanted = {"req_key": req_key, "images": [UPLOAD, PICTURE_URL]}
    assert adapter("jimeng").only_addresses("jimeng/text-to-image", wanted)
    _, body = jimeng_sent("jimeng/text-to-image", input=wanted)
    assert body["image_urls"] == [UPLOAD_URL, PICTURE_URL]
    assert not {"images", "binary_data_base64"} & set(body)
    assert not adapter("jimeng").only_addresses("jimeng/image-to-image", {"image": UPLOAD})


def test_a_film_from_a_picture_may_come_as_bytes() -> None:
    done = {"status": "done", "binary_data_base64": [UPLOAD_BASE64], "image_urls": None}
    verdict = poll("jimeng", "jimeng/image-to-video", reply(200, {"code": 10000, "data": done}))
    assert [output.kind for output in verdict.outputs] == ["video"]


def test_4_6_counts_closeness_otherwise_and_takes_more_pictures() -> None:
    wanted = {"req_key": "jimeng_seedream46_cvtob", "scale": 0.5, "images": [PICTURE_URL] * 14}
    _, body = jimeng_sent("jimeng/text-to-image", input=wanted)
    assert (body["req_key"], body["scale"], len(body["image_urls"])) == ("jimeng_seedream46_cvtob", 50, 14)
    assert body["callback_url"] == CALLBACK
    assert jimeng_sent("jimeng/text-to-image", input={**wanted, "scale": 0})[1]["scale"] == 1


def test_the_mask_is_the_second_picture() -> None:
    mask = "https://pictures.example/mask.png"
    _, body = jimeng_sent("jimeng/inpaint", input={"mask": mask, "seed": 7.0})
    assert body == {"req_key": "jimeng_image2image_dream_inpaint", "prompt": "a red fox", "seed": 7,
                    "image_urls": [PICTURE_URL, mask]}  # fmt: skip


def test_a_picture_is_enlarged_without_a_prompt() -> None:
    _, body = jimeng_sent("jimeng/upscale", input={"resolution": "8k", "scale": 30})
    assert body == {"req_key": "jimeng_i2i_seed3_tilesr_cvtob", "resolution": "8k", "scale": 30,
                    "image_urls": [PICTURE_URL]}  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "more"),
    [
        ({}, {"aspect_ratio": "16:9"}),
        ({"image": PICTURE_URL, "duration_s": 10}, {"image_urls": [PICTURE_URL]}),
    ],
)
def test_the_pro_film_is_of_words_or_of_a_first_frame(wanted: dict[str, Any], more: dict[str, Any]) -> None:
    _, body = jimeng_sent("jimeng/video-pro", input=wanted)
    frames = 24 * wanted.get("duration_s", 5) + 1
    expected = {"req_key": "jimeng_ti2v_v30_pro", "prompt": "a red fox", "seed": -1, "frames": frames}
    assert body == {**expected, **more}


def test_of_a_group_only_what_was_made_is_charged() -> None:
    made = reply(200, {"code": 10000, "data": {"task_id": "t"}, "message": "Success"})
    group = submit("jimeng", "jimeng/text-to-image", made, input={"force_single": False})
    assert group.memo == {"req_key": "jimeng_t2i_v40", "most": 15}
    one = submit("jimeng", "jimeng/text-to-image", made)
    assert one.memo == {"req_key": "jimeng_t2i_v40"}
    urls = [f"https://p9.byteimg.com/{number}.png" for number in range(4)]
    done = reply(200, {"code": 10000, "data": {"status": "done", "image_urls": urls}, "message": "Success"})
    assert poll("jimeng", "jimeng/text-to-image", done, **group.memo).share == (4, 15)
    assert poll("jimeng", "jimeng/text-to-image", done, **one.memo).share is None


CALLED = {"code": 10000, "task_id": "73", "message": "Success", "data": {"image_urls": ["https://x/1.png"]}}


@pytest.mark.parametrize(
    ("wanted", "memo"),
    [
        ({}, {"req_key": "jimeng_t2i_v40"}),
        ({"req_key": "jimeng_seedream46_cvtob"}, {"req_key": "jimeng_seedream46_cvtob"}),
        ({"force_single": False}, {"req_key": "jimeng_t2i_v40", "most": 15}),
        ({"images": [PICTURE_URL]}, {"req_key": "jimeng_t2i_v40"}),
    ],
)
def test_a_callback_reveals_a_lost_task_which_is_remembered_as_an_answer_would_be(
    wanted: dict[str, Any], memo: dict[str, Any]
) -> None:
    """A callback says no req_key, without which the task is not found (section A4)."""
    asked = submission("jimeng/text-to-image", input=wanted)
    revealed = adapter("jimeng").adopt(CALLED, replace(asked, media={}))
    assert revealed == Accepted(provider_ref="73", memo=memo)
    answer = reply(200, {"code": 10000, "data": {"task_id": "73"}})
    assert run(adapter("jimeng").submit(FakeHttp(answer), asked)) == revealed
    failed = {"code": 50215, "task_id": 73, "data": {"resp_data": ""}}  # also of this the poll decides
    assert adapter("jimeng").adopt(failed, asked) == revealed


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("jimeng/text-to-image", {"req_key": "jimeng_t2i_v31"}),
        ("jimeng/text-to-video", {}),
        ("jimeng/inpaint", {}),
    ],
)
def test_who_does_not_call_back_reveals_nothing(model: str, wanted: dict[str, Any]) -> None:
    assert adapter("jimeng").adopt(CALLED, submission(model, input=wanted)) is None


@pytest.mark.parametrize("body", [{}, {"task_id": "73"}, {"code": 10000}, {"code": 10000, "task_id": [73]}])
def test_what_is_no_callback_of_jimengs_reveals_nothing(body: dict[str, Any]) -> None:
    assert adapter("jimeng").adopt(body, submission("jimeng/text-to-image")) is None
