"""Exactly what goes over the wire: method, URL, headers and body of every call to Kling."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jwt
import pytest

from common.providers.base import (
    Handle,
    Media,
    NotAccepted,
    NotSent,
    NoVerdict,
    Rejected,
    Trouble,
    Unanswered,
)
from common.providers.kling_models import PATHS
from tests.unit.providers.fakes import (
    BASES,
    CALLBACK,
    NOW,
    REFERENCE,
    UPLOAD_BASE64,
    FakeHttp,
    RoutedHttp,
    Sent,
    adapter,
    handle,
    like,
    reply,
    run,
    sent,
    submission,
)

KLING = BASES["kling"]
BEARER = {"Authorization": "Bearer kling-api-k3y"}


def test_a_legacy_video() -> None:
    camera = {"type": "simple", "config": {"pan": 5}}
    wanted = {
        "negative_prompt": "dogs",
        "cfg_scale": 0.7,
        "mode": "pro",
        "duration_s": 10,
        "camera_control": camera,
    }
    assert sent("kling", "kling/text-to-video", input=wanted) == Sent(
        "POST",
        f"{KLING}/v1/videos/text2video",
        BEARER,
        {
            "prompt": "a red fox",
            "negative_prompt": "dogs",
            "model_name": "kling-v1-6",
            "mode": "pro",
            "duration": "10",
            "aspect_ratio": "16:9",
            "cfg_scale": 0.7,
            "camera_control": camera,
            "callback_url": CALLBACK,
            "external_task_id": REFERENCE,
        },
        None,
    )


def test_duration_is_a_string_even_for_five_point_zero() -> None:
    assert sent("kling", "kling/text-to-video", input={"duration_s": 5.0}).json["duration"] == "5"


def test_kling_images() -> None:
    request = sent("kling", "kling/image", input={"n": 3})
    assert request.url == f"{KLING}/v1/images/generations"
    assert request.json == {
        "prompt": "a red fox",
        "model_name": "kling-v3",
        "resolution": "1k",
        "n": 3,
        "aspect_ratio": "16:9",
        "callback_url": CALLBACK,
        "external_task_id": REFERENCE,
    }


@pytest.mark.parametrize("model_name", ["kling-3.0", "kling-3.0-turbo", "kling-2.6"])
def test_a_new_video(model_name: str) -> None:
    wanted = {"model_name": model_name, "mode": "pro", "duration_s": 10, "sound": "on"}
    request = sent("kling", "kling/text-to-video", input=wanted)
    assert request == Sent(
        "POST",
        f"{KLING}/text-to-video/{model_name}",
        BEARER,
        {
            "prompt": "a red fox",
            "settings": {"resolution": "1080p", "aspect_ratio": "16:9", "duration": 10, "audio": "native"},
            "options": {"callback_url": CALLBACK, "external_task_id": REFERENCE},
        },
        None,
    )


def test_the_new_api_needs_an_api_key() -> None:
    wanted = submission("kling/text-to-video", input={"model_name": "kling-3.0"})
    verdict = run(adapter("kling-jwt").submit(FakeHttp(), wanted))
    like(verdict, NotAccepted, trouble=Trouble.MODEL, message="API key")


def test_a_pair_of_keys_becomes_a_token_per_request() -> None:
    http = FakeHttp(reply(500))
    run(adapter("kling-jwt").submit(http, submission("kling/text-to-video")))
    token = http.sent[0].headers["Authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims == {"iss": "ak_example", "exp": int(NOW) + 1800, "nbf": int(NOW) - 5}


def test_the_api_key_wins() -> None:
    both = {"access_key": "ak_example", "secret_key": "sk_example", "api_key": "the-key"}
    http = FakeHttp(reply(500))
    run(adapter("kling", secrets=both).submit(http, submission("kling/text-to-video")))
    assert http.sent[0].headers["Authorization"] == "Bearer the-key"


def done(ref: str, *, new: bool = False) -> dict[str, Any]:
    if new:
        return {"id": ref, "status": "processing"}
    return {"task_id": ref, "task_status": "processing"}


def kling_poll(http: FakeHttp, *handles: Handle) -> dict[str, str]:
    seen = run(adapter("kling").poll(http, handles))
    return {ref: type(verdict).__name__ for ref, verdict in seen.items()}


def test_a_few_legacy_tasks_are_looked_at_one_by_one() -> None:
    http = FakeHttp(*(reply(200, {"code": 0, "data": done(ref)}) for ref in "abc"))
    seen = kling_poll(http, *(handle("kling/text-to-video", ref) for ref in "abc"))
    assert seen == dict.fromkeys("abc", "Running")
    assert [(request.method, request.url) for request in http.sent] == [
        ("GET", f"{KLING}/v1/videos/text2video/{ref}") for ref in "abc"
    ]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/videos/image2video", "/v1/videos/image2video/a"),
        ("/v1/videos/lip-sync", "/v1/videos/lip-sync/a"),
        ("/v1/images/editing/expand", "/v1/images/editing/expand/a"),
        ("/v1/account/keys", "/v1/videos/text2video/a"),  # no path of a task
        (None, "/v1/videos/text2video/a"),
    ],
)
def test_a_legacy_task_is_looked_at_where_it_was_made(path: str | None, asked: str) -> None:
    http = FakeHttp(reply(200, {"code": 0, "data": done("a")}))
    assert kling_poll(http, handle("kling/text-to-video", "a", path=path)) == {"a": "Running"}
    assert http.sent[0].url == KLING + asked


def test_many_legacy_tasks_are_looked_for_on_the_page_first() -> None:
    page = reply(200, {"code": 0, "data": [done(ref) for ref in "abcd"]})
    http = FakeHttp(page, reply(200, {"code": 0, "data": done("e")}))
    seen = kling_poll(http, *(handle("kling/image", ref, path="/v1/images/generations") for ref in "abcde"))
    assert seen == dict.fromkeys("abcde", "Running")
    assert [request.url for request in http.sent] == [
        f"{KLING}/v1/images/generations?pageNum=1&pageSize=500",
        f"{KLING}/v1/images/generations/e",
    ]


def test_what_the_page_leaves_open_is_looked_at_alone() -> None:
    tasks = [done("a"), done("b"), done("c"), {"task_id": "d", "task_status": "succeed"}]
    http = FakeHttp(reply(200, {"code": 0, "data": tasks}), reply(200, {"code": 0, "data": done("d")}))
    assert kling_poll(http, *(handle("kling/image", ref) for ref in "abcd"))["d"] == "Running"


def test_a_page_in_trouble_is_not_followed_by_single_looks() -> None:
    http = FakeHttp(reply(429, {"code": 1302, "message": "slow down"}))
    seen = run(adapter("kling").poll(http, [handle("kling/image", ref) for ref in "abcd"]))
    assert [verdict.retry_after_s for verdict in seen.values()] == [1.0] * 4


def test_a_server_without_pages_is_asked_singly() -> None:
    http = FakeHttp(
        reply(404, {"code": 1202}), *(reply(200, {"code": 0, "data": done(ref)}) for ref in "abcd")
    )
    assert kling_poll(http, *(handle("kling/image", ref) for ref in "abcd")) == dict.fromkeys(
        "abcd", "Running"
    )


def test_new_tasks_are_looked_at_together() -> None:
    http = FakeHttp(reply(200, {"code": 0, "data": [done("b", new=True), done("a", new=True)]}))
    handles = [handle("kling/text-to-video", ref, path="/tasks") for ref in ("a", "b", "lost")]
    seen = run(adapter("kling").poll(http, handles))
    assert [request.url for request in http.sent] == [f"{KLING}/tasks?task_ids=a,b,lost"]
    like(seen["lost"], NoVerdict, gone=True)
    assert type(seen["a"]).__name__ == type(seen["b"]).__name__ == "Running"


def test_one_unknown_new_task_hides_no_other() -> None:
    unknown = reply(404, {"code": 1203, "message": "no such task"})
    http = FakeHttp(unknown, reply(200, {"code": 0, "data": [done("a", new=True)]}), unknown)
    handles = [handle("kling/text-to-video", ref, path="/tasks") for ref in ("a", "lost")]
    seen = run(adapter("kling").poll(http, handles))
    assert type(seen["a"]).__name__ == "Running"
    like(seen["lost"], NoVerdict, gone=True)


@pytest.mark.parametrize("trouble", [reply(500), NotSent("refused"), Unanswered("late")])
def test_both_generations_in_one_poll(trouble: Any) -> None:
    handles = [handle("kling/text-to-video", "a"), handle("kling/text-to-video", "b", path="/tasks")]
    old, new = (
        reply(200, {"code": 0, "data": done("a")}),
        reply(200, {"code": 0, "data": [done("b", new=True)]}),
    )
    assert kling_poll(RoutedHttp(text2video=old, task_ids=new), *handles) == {"a": "Running", "b": "Running"}
    assert kling_poll(RoutedHttp(text2video=old, task_ids=trouble), *handles) == {
        "a": "Running",
        "b": "NoVerdict",
    }
    assert kling_poll(RoutedHttp(text2video=trouble, task_ids=new), *handles) == {
        "a": "NoVerdict",
        "b": "Running",
    }


@pytest.mark.parametrize(
    ("model_name", "url", "data", "memo"),
    [
        ("kling-v1-6", f"/v1/videos/text2video/{REFERENCE}",
         {"task_id": "87", "task_info": {"external_task_id": REFERENCE}}, {"path": "/v1/videos/text2video"}),
        ("kling-3.0", f"/tasks?external_task_ids={REFERENCE}",
         [{"id": "98", "external_id": REFERENCE}], {"path": "/tasks"}),
    ],
)  # fmt: skip
def test_kling_is_asked_by_external_id(model_name: str, url: str, data: Any, memo: dict[str, Any]) -> None:
    wanted = submission("kling/text-to-video", input={"model_name": model_name})
    http = FakeHttp(reply(200, {"code": 0, "data": data}))
    found = run(adapter("kling").find(http, wanted))
    assert found.provider_ref in ("87", "98")
    assert found.memo == memo
    assert http.sent[0].url == KLING + url

    for answer in (reply(404, {"code": 1203}), reply(200, {"code": 0, "data": []})):
        like(run(adapter("kling").find(FakeHttp(answer), wanted)), NoVerdict, gone=True)
    like(run(adapter("kling").find(FakeHttp(reply(500, {"code": 5000})), wanted)), NoVerdict, gone=False)


def test_somebody_elses_task_is_not_adopted() -> None:
    answer = reply(200, {"code": 0, "data": {"task_id": "1", "task_info": {"external_task_id": "att_other"}}})
    found = run(adapter("kling").find(FakeHttp(answer), submission("kling/text-to-video")))
    like(found, NoVerdict, gone=True)


# ---------------------------------------------------------------- from pictures, and from what was made before

URL = "https://pictures.example/fox.png"
OTHER = "https://pictures.example/hat.png"
HOOKS = {"callback_url": CALLBACK, "external_task_id": REFERENCE}
VIDEO_DEFAULTS = {"model_name": "kling-v1-6", "mode": "std", "duration": "5"}
LINE = [{"x": 1, "y": 2}, {"x": 3, "y": 4}]
MASKS = [{"mask": OTHER, "trajectories": LINE}]


@pytest.mark.parametrize(
    ("model", "wanted", "path", "body"),
    [
        ("image-to-video", {"tail_image": OTHER, "prompt": "run"}, "/v1/videos/image2video",
         {**VIDEO_DEFAULTS, "image": URL, "image_tail": OTHER, "prompt": "run"}),
        ("image-to-video", {"mask": OTHER, "dynamic_masks": MASKS}, "/v1/videos/image2video",
         {**VIDEO_DEFAULTS, "image": URL, "static_mask": OTHER, "dynamic_masks": MASKS}),
        ("image-to-video",
         {"model_name": "kling-v3", "duration_s": 5, "sound": "on", "multi_shot": True, "shot_type": "customize",
          "multi_prompt": [{"prompt": "it wakes", "duration_s": 2}, {"prompt": "it runs", "duration_s": 3.0}],
          "voice_list": [{"voice_id": "82"}]},
         "/v1/videos/image2video",
         {**VIDEO_DEFAULTS, "model_name": "kling-v3", "image": URL, "sound": "on", "multi_shot": True,
          "shot_type": "customize",
          "multi_prompt": [{"index": 1, "prompt": "it wakes", "duration": "2"},
                           {"index": 2, "prompt": "it runs", "duration": "3"}],
          "voice_list": [{"voice_id": "82"}]}),
        ("text-to-video",
         {"model_name": "kling-v3", "multi_shot": True, "shot_type": "intelligence"}, "/v1/videos/text2video",
         {**VIDEO_DEFAULTS, "model_name": "kling-v3", "prompt": "a red fox", "aspect_ratio": "16:9",
          "multi_shot": True, "shot_type": "intelligence"}),
        ("multi-image-to-video", {"images": [URL, OTHER]}, "/v1/videos/multi-image2video",
         {**VIDEO_DEFAULTS, "prompt": "a red fox", "aspect_ratio": "16:9",
          "image_list": [{"image": URL}, {"image": OTHER}]}),
        ("extend", {"prompt": "and on"}, "/v1/videos/video-extend", {"prompt": "and on", "video_id": "v-1"}),
        ("lip-sync", {"text": "hello", "voice_id": "v", "voice_language": "en", "voice_speed": 1.2},
         "/v1/videos/lip-sync",
         {"input": {"video_id": "v-1", "mode": "text2video", "text": "hello", "voice_id": "v",
                    "voice_language": "en", "voice_speed": 1.2}}),
        ("lip-sync", {"video": "https://x/v.mp4", "audio": "https://x/a.mp3"}, "/v1/videos/lip-sync",
         {"input": {"video_url": "https://x/v.mp4", "mode": "audio2video", "audio_type": "url",
                    "audio_url": "https://x/a.mp3"}}),
        ("effects", {"effect_scene": "squish", "duration_s": 10}, "/v1/videos/effects",
         {"effect_scene": "squish", "input": {"image": URL, "duration": "10"}}),
        ("effects", {"effect_scene": "hug", "images": [URL, OTHER], "model_name": "kling-v1-6", "mode": "pro"},
         "/v1/videos/effects",
         {"effect_scene": "hug", "input": {"model_name": "kling-v1-6", "mode": "pro", "images": [URL, OTHER],
                                           "duration": "5"}}),
        ("image", {"image": URL, "image_reference": "face", "image_fidelity": 0.4, "human_fidelity": 0.6, "n": 2},
         "/v1/images/generations",
         {"prompt": "a red fox", "model_name": "kling-v3", "resolution": "1k", "n": 2, "aspect_ratio": "16:9",
          "image": URL, "image_reference": "face", "image_fidelity": 0.4, "human_fidelity": 0.6}),
        ("image-expand", {"up_expansion_ratio": 0, "prompt": "sky"}, "/v1/images/editing/expand",
         {"image": URL, "up_expansion_ratio": 0, "down_expansion_ratio": 2, "left_expansion_ratio": 2,
          "right_expansion_ratio": 2, "prompt": "sky", "n": 1}),
        ("multi-image-to-image", {"images": [URL, OTHER], "scene_image": OTHER, "style_image": URL},
         "/v1/images/multi-image2image",
         {"subject_image_list": [{"subject_image": URL}, {"subject_image": OTHER}], "scene_image": OTHER,
          "style_image": URL, "model_name": "kling-v2", "n": 1, "aspect_ratio": "16:9"}),
        ("virtual-try-on", {"cloth_image": OTHER, "watermark_info": {"enabled": True}},
         "/v1/images/kolors-virtual-try-on",
         {"human_image": URL, "cloth_image": OTHER, "model_name": "kolors-virtual-try-on-v1-5",
          "watermark_info": {"enabled": True}}),
    ],
)  # fmt: skip
def test_a_body_of_the_legacy_api(
    model: str, wanted: dict[str, Any], path: str, body: dict[str, Any]
) -> None:
    request = sent("kling", f"kling/{model}", input=wanted)
    assert (request.method, request.url, request.headers) == ("POST", KLING + path, BEARER)
    assert request.json == {**body, **HOOKS}


def test_the_last_picture_goes_alone() -> None:
    http = FakeHttp(reply(500))
    wanted = submission("kling/image-to-video")
    alone = {**{name: value for name, value in wanted.input.items() if name != "image"}, "tail_image": OTHER}
    media = {OTHER: Media(url=OTHER)}
    run(adapter("kling").submit(http, replace(wanted, input=alone, media=media)))
    assert http.sent[0].json == {**VIDEO_DEFAULTS, "image_tail": OTHER, **HOOKS}


@pytest.mark.parametrize("duration_s", [4, 15])
def test_shots_that_are_not_paid_for_are_refused_before_anything_is_sent(duration_s: int) -> None:
    shots = [{"prompt": "it wakes", "duration_s": 2}, {"prompt": "it runs", "duration_s": 3}]
    wanted = {"model_name": "kling-v3", "multi_shot": True, "shot_type": "customize", "multi_prompt": shots}
    asked = submission("kling/text-to-video", input={**wanted, "duration_s": duration_s})
    like(run(adapter("kling").submit(FakeHttp(), asked)), Rejected, code="invalid_input", asked=False)


def test_bytes_go_without_the_prefix_of_a_data_url() -> None:
    areas = [{"mask": "upl_01kb3", "trajectories": LINE}, {"mask": OTHER, "trajectories": LINE}]
    moving = sent("kling", "kling/image-to-video", input={"dynamic_masks": areas}).json
    assert moving["image"] == UPLOAD_BASE64  # all or none have addresses
    assert moving["dynamic_masks"] == [{"mask": UPLOAD_BASE64, "trajectories": LINE}] * 2
    wanted = {"image": "upl_01kb3", "tail_image": URL}
    body = sent("kling", "kling/image-to-video", input=wanted).json
    assert (body["image"], body["image_tail"]) == (UPLOAD_BASE64, UPLOAD_BASE64)
    new = sent("kling", "kling/image-to-video", input={**wanted, "model_name": "kling-3.0"}).json
    assert [content["url"] for content in new["contents"]] == [UPLOAD_BASE64, UPLOAD_BASE64]


@pytest.mark.parametrize("model_name", ["kling-3.0", "kling-3.0-turbo"])
def test_a_new_video_from_a_picture(model_name: str) -> None:
    tail = {"tail_image": OTHER} if model_name == "kling-3.0" else {}
    wanted = {"model_name": model_name, "prompt": "run", "mode": "pro", "duration_s": 7, **tail}
    request = sent("kling", "kling/image-to-video", input=wanted)
    assert request.url == f"{KLING}/image-to-video/{model_name}"
    assert request.json == {
        "contents": [
            {"type": "prompt", "text": "run"},
            {"type": "first_frame", "url": URL},
            *({"type": "last_frame", "url": url} for url in tail.values()),
        ],
        "settings": {"resolution": "1080p", "duration": 7, "audio": "off"},
        "options": HOOKS,
    }


@pytest.mark.parametrize("model", ["kling/extend", "kling/lip-sync"])
@pytest.mark.parametrize("parent", [None, handle("kling/text-to-video", "870", path="/v1/videos/text2video")])
def test_a_parent_without_a_known_video_is_refused_before_anything_is_sent(
    model: str, parent: Handle | None
) -> None:
    verdict = run(adapter("kling").submit(FakeHttp(), submission(model, parent=parent)))
    like(verdict, Rejected, code="invalid_input", message="no id of the parent's video")


@pytest.mark.parametrize(("model", "path"), PATHS.items())
def test_every_kind_is_asked_about_where_it_was_made(model: str, path: str) -> None:
    made = reply(200, {"code": 0, "data": {"task_id": "87", "task_status": "submitted"}})
    accepted = run(adapter("kling").submit(FakeHttp(made), submission(model)))
    assert accepted.memo == {"path": path}
    for asked in (handle(model, "87", **accepted.memo), handle(model, "87")):  # old rows remember no path
        http = FakeHttp(reply(200, {"code": 0, "data": done("87")}))
        assert kling_poll(http, asked) == {"87": "Running"}
        assert http.sent[0].url == f"{KLING}{path}/87"
    http = FakeHttp(reply(200, {"code": 0, "data": {"task_id": "87"}}))
    assert run(adapter("kling").find(http, submission(model))).memo == {"path": path}
    assert http.sent[0].url == f"{KLING}{path}/{REFERENCE}"


def test_a_new_video_from_a_picture_is_looked_for_among_the_new() -> None:
    wanted = submission("kling/image-to-video", input={"model_name": "kling-3.0"})
    http = FakeHttp(reply(200, {"code": 0, "data": [{"id": "98", "external_id": REFERENCE}]}))
    assert run(adapter("kling").find(http, wanted)).memo == {"path": "/tasks"}
    assert http.sent[0].url == f"{KLING}/tasks?external_task_ids={REFERENCE}"
