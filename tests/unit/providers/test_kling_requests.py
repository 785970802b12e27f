"""Exactly what goes over the wire: method, URL, headers and body of every call to Kling."""

from __future__ import annotations

from typing import Any

import jwt
import pytest

from common.providers.base import (
    Handle,
    NotAccepted,
    NotSent,
    NoVerdict,
    Trouble,
    Unanswered,
)
from tests.unit.providers.fakes import (
    BASES,
    CALLBACK,
    NOW,
    REFERENCE,
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
    like(verdict, NotAccepted, trouble=Trouble.CREDENTIALS, message="API key", retry_after_s=1.0)


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
