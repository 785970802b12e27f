"""Exactly what goes over the wire: method, URL, headers and body of every call."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest

from common.providers.base import (
    Accepted,
    Handle,
    NotAccepted,
    NotSent,
    NoVerdict,
    Rejected,
    Trouble,
    Unanswered,
)
from common.providers.registry import MODELS
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
    submission,
)


def sent(name: str, model: str, **fields: Any) -> Sent:
    """The one request of a submit."""
    http = FakeHttp(reply(500))
    run(adapter(name).submit(http, submission(model, **fields)))
    return http.sent[0]


# ---------------------------------------------------------------- midjourney

MJ = {"mj-api-secret": "mj-s3cret"}
HOOKS = {"state": REFERENCE, "notifyHook": CALLBACK}


def test_imagine() -> None:
    wanted = {"prompt": "a cat --v 7", "negative_prompt": "dogs", "aspect_ratio": "16:9", "seed": 7, "mode": "relax",
              "bot_type": "NIJI_JOURNEY"}  # fmt: skip
    assert sent("midjourney", "midjourney/imagine", input=wanted) == Sent(
        "POST",
        "http://proxy.example:8080/mj/submit/imagine",
        MJ,
        {"prompt": "a cat --v 7 --no dogs --ar 16:9 --seed 7 --relax", "botType": "NIJI_JOURNEY", **HOOKS},
        None,
    )


@pytest.mark.parametrize("flag", ["--turbo", "—turbo", "--TURBO", " -- turbo"])
def test_the_mode_that_is_paid_is_the_mode_that_runs(flag: str) -> None:
    wanted = {"prompt": f"a cat {flag} --v 7", "negative_prompt": f"dogs {flag}", "mode": "relax"}
    request = sent("midjourney", "midjourney/imagine", input=wanted)
    assert request.json["prompt"] == "a cat --v 7 --no dogs --relax"


@pytest.mark.parametrize("base", ["http://h:1", "http://h:1/", "http://h:1/mj", "http://h:1/mj/"])
def test_a_base_url_may_end_in_mj(base: str) -> None:
    http = FakeHttp(reply(500))
    run(adapter("midjourney", base_url=base, secrets={}).submit(http, submission("midjourney/imagine")))
    assert http.sent[0].url == "http://h:1/mj/submit/imagine"
    assert http.sent[0].headers == {}  # a server may run without a secret


def test_without_a_callback_none_is_sent() -> None:
    request = sent("midjourney", "midjourney/imagine", callback_url=None)
    assert request.json == {"prompt": "a red fox --fast", "state": REFERENCE}


def parent(**actions: str) -> Handle:
    return Handle(
        model="midjourney/imagine", reference="att_p", provider_ref="100", memo={"actions": actions}
    )


def test_an_action_presses_the_parents_button() -> None:
    assert sent("midjourney", "midjourney/action") == Sent(
        "POST",
        "http://proxy.example:8080/mj/submit/action",
        MJ,
        {"taskId": "1760000000000100", "customId": "MJ::JOB::upsample::1::8f", **HOOKS},
        None,
    )


@pytest.mark.parametrize(
    ("action", "token", "change"),
    [
        ("upsample_2", "U2", {"action": "UPSCALE", "index": 2}),
        ("variation_4", "V4", {"action": "VARIATION", "index": 4}),
        ("reroll", "R", {"action": "REROLL"}),
        ("upsample_3", None, {"action": "UPSCALE", "index": 3}),
    ],
)
def test_without_buttons_an_action_is_a_change(
    action: str, token: str | None, change: dict[str, Any]
) -> None:
    offered = parent(**({action: token} if token else {}))
    request = sent("midjourney", "midjourney/action", input={"action": action}, parent=offered)
    assert request.url == "http://proxy.example:8080/mj/submit/change"
    assert request.json == {"taskId": "100", **change, **HOOKS}


@pytest.mark.parametrize(
    ("action", "of"), [("pan_left", parent()), ("upsample_9", parent()), ("reroll", None)]
)
def test_an_action_that_nobody_offers_is_refused_without_a_call(action: str, of: Handle | None) -> None:
    work = adapter("midjourney").submit(
        FakeHttp(), submission("midjourney/action", input={"action": action}, parent=of)
    )
    like(run(work), Rejected, code="invalid_input")


WINDOW = reply(200, {"code": 21, "description": "Waiting for window confirm", "result": "200",
                     "properties": {"finalPrompt": "a cat --v 7", "remix": True}})  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (reply(200, {"code": 1, "result": "200"}), (Accepted, {"provider_ref": "200"})),
        (reply(200, {"code": 22, "result": "200"}), (Accepted, {"provider_ref": "200"})),
        (reply(500), (Accepted, {"provider_ref": "200"})),  # the task exists: polling will tell
        (Unanswered("x"), (Accepted, {"provider_ref": "200"})),
        (reply(200, {"code": 4, "description": "bad prompt"}), (Rejected, {"code": "invalid_input"})),
        (reply(200, {"code": 23, "description": "队列已满"}), (NotAccepted, {"trouble": Trouble.BUSY})),
    ],
)
def test_a_window_is_confirmed(answer: Any, expected: tuple[type, dict[str, Any]]) -> None:
    http = FakeHttp(WINDOW, answer)
    wanted = submission("midjourney/action", input={"prompt": "a dog"})
    like(run(adapter("midjourney").submit(http, wanted)), expected[0], **expected[1])
    assert http.sent[1].url == "http://proxy.example:8080/mj/submit/modal"
    assert http.sent[1].json == {"taskId": "200", "prompt": "a dog", **HOOKS}


def test_a_window_proposes_its_own_prompt() -> None:
    http = FakeHttp(WINDOW, reply(500))
    run(adapter("midjourney").submit(http, submission("midjourney/action")))
    assert http.sent[1].json["prompt"] == "a cat --v 7"


def test_midjourney_polls_all_at_once() -> None:
    http = FakeHttp(reply(200, [{"id": "b", "status": "SUBMITTED"}, {"id": "a", "status": "NOT_START"}]))
    handles = [handle("midjourney/imagine", ref) for ref in ("a", "b", "lost")]
    seen = run(adapter("midjourney").poll(http, handles))
    assert http.sent == [
        Sent(
            "POST",
            "http://proxy.example:8080/mj/task/list-by-condition",
            MJ,
            {"ids": ["a", "b", "lost"]},
            None,
        )
    ]
    assert [type(seen[ref]).__name__ for ref in ("a", "b")] == ["Running", "Running"]
    like(seen["lost"], NoVerdict, gone=True)


MINE, OTHER = {"id": "7", "state": REFERENCE}, {"id": "8", "state": "att_other"}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([reply(200, [OTHER, MINE])], (Accepted, {"provider_ref": "7"})),
        ([reply(200, [OTHER]), reply(200, [MINE])], (Accepted, {"provider_ref": "7"})),
        ([reply(200, [OTHER]), reply(404)], (NoVerdict, {"gone": True})),  # TA has no /task/queue
        ([reply(500), reply(200, [])], (NoVerdict, {"gone": False})),
        ([reply(401), reply(401)], (NoVerdict, {"gone": False})),
    ],
)
def test_midjourney_is_asked_by_state(answers: list[Any], expected: tuple[type, dict[str, Any]]) -> None:
    http = FakeHttp(*answers)
    like(run(adapter("midjourney").find(http, submission("midjourney/imagine"))), expected[0], **expected[1])
    asked = [request.url.removeprefix("http://proxy.example:8080/mj") for request in http.sent]
    assert asked == ["/task/list", "/task/queue"][: len(answers)]


@pytest.mark.parametrize(
    "answer", [reply(200, {"code": 1, "result": "7"}), reply(200, {"code": 4}), Unanswered("x")]
)
def test_a_found_task_that_still_asks_is_answered(answer: Any) -> None:
    asks = {**MINE, "status": "MODAL", "prompt": "a cat", "properties": {"finalPrompt": "a cat --v 7"}}
    http = FakeHttp(reply(200, [OTHER, asks]), answer)
    like(run(adapter("midjourney").find(http, submission("midjourney/action"))), Accepted, provider_ref="7")
    assert http.sent[1].url == "http://proxy.example:8080/mj/submit/modal"
    assert http.sent[1].json == {"taskId": "7", "prompt": "a cat --v 7", **HOOKS}


@pytest.mark.parametrize(
    ("answer", "confirmed"),
    [(reply(200), True), (reply(200, {"code": 1}), True), (reply(200, b"<html>"), False), (reply(400, b"no"), False),
     (reply(404), False), (reply(200, {"code": 4}), False)],
)  # fmt: skip
def test_midjourney_cancels_where_the_server_says_so(answer: Any, confirmed: bool) -> None:
    http = FakeHttp(answer)
    assert run(adapter("midjourney").cancel(http, handle("midjourney/imagine", "a/b"))) is confirmed
    assert (http.sent[0].method, http.sent[0].url) == (
        "POST",
        "http://proxy.example:8080/mj/task/a%2Fb/cancel",
    )


def test_midjourneys_hook_reveals_a_lost_task() -> None:
    made = adapter("midjourney")
    assert made.adopt({"id": "7", "status": "IN_PROGRESS"}) == Accepted(provider_ref="7")
    assert made.adopt({"id": "7"}) is None


# ---------------------------------------------------------------- kling

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


# ---------------------------------------------------------------- jimeng


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


# ---------------------------------------------------------------- flux


@pytest.mark.parametrize(
    ("model", "wanted", "path", "body"),
    [
        ("flux/pro-1.1", {"seed": 42, "width": 512, "height": 768, "output_format": "png"}, "/v1/flux-pro-1.1",
         {"seed": 42, "width": 512, "height": 768, "output_format": "png", "prompt_upsampling": False,
          "safety_tolerance": 2}),
        ("flux/pro-1.1", {"aspect_ratio": "1:1"}, "/v1/flux-pro-1.1",
         {"width": 1024, "height": 1024, "output_format": "jpeg", "prompt_upsampling": False, "safety_tolerance": 2}),
        ("flux/pro-1.1-ultra", {"raw": True, "aspect_ratio": "21:9"}, "/v1/flux-pro-1.1-ultra",
         {"raw": True, "aspect_ratio": "21:9", "output_format": "jpeg", "prompt_upsampling": False,
          "safety_tolerance": 2}),
        ("flux/dev", {"guidance": 4.5}, "/v1/flux-dev",
         {"width": 1024, "height": 768, "steps": 28, "guidance": 4.5, "output_format": "jpeg"}),
        ("flux/2-pro", {"safety_tolerance": 0}, "/v1/flux-2-pro",
         {"width": 1024, "height": 768, "safety_tolerance": 0, "output_format": "jpeg"}),
    ],
)  # fmt: skip
def test_bfl_bodies(model: str, wanted: dict[str, Any], path: str, body: dict[str, Any]) -> None:
    assert sent("bfl", model, input=wanted) == Sent(
        "POST", f"https://api.bfl.ai{path}", {"x-key": "bfl-k3y"}, {"prompt": "a red fox", **body}, None
    )


@pytest.mark.parametrize(
    ("base", "is_sent"),
    [("https://api.bfl.ai", False), ("https://api.eu.bfl.ai", True), ("https://api.us1.bfl.ai", True),
     ("http://127.0.0.1:9000", False), ("https://gateway.bfl.ai", False)],
)  # fmt: skip
def test_a_webhook_goes_to_regional_hosts_only(base: str, is_sent: bool) -> None:
    http, made = FakeHttp(reply(500)), adapter("bfl", base_url=base)
    run(made.submit(http, submission("flux/dev")))
    assert ("webhook_url" in http.sent[0].json) is is_sent
    assert made.finds_by_callback is is_sent


@pytest.mark.parametrize(
    ("base", "told", "asked"),
    [
        ("https://api.bfl.ai", "https://api.eu1.bfl.ai/v1/get_result?id=1", "told"),
        ("https://api.bfl.ai", "https://gateway.bfl.ai/x", "told"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9001/poll?id=1", "told"),
        ("http://127.0.0.1:9000", "http://localhost:9001/poll?id=1", "told"),
        ("http://flux.internal:80", "http://flux.internal:81/poll", "told"),
        ("https://api.bfl.ai", "http://api.eu1.bfl.ai/v1/get_result?id=1", "own"),
        ("https://api.bfl.ai", "https://bfl.ai.evil.example/x", "own"),
        ("https://api.bfl.ai", "https://evilbfl.ai/x", "own"),
        ("https://api.bfl.ai", "https://api.bfl.ai@evil.example/x", "own"),
        ("https://api.bfl.ai", "https://evil.example\\@api.bfl.ai/x", "own"),
        ("https://api.bfl.ai", "https://169.254.169.254/latest", "own"),
        ("https://api.bfl.ai", "http://127.0.0.1/x", "own"),
        ("https://api.bfl.ai", "https://[::1/x", "own"),
        ("https://api.bfl.ai", "https://api.bfl.ai:99999/x", "own"),
        ("https://api.bfl.ai", "file:///etc/passwd", "own"),
        ("https://api.bfl.ai", 7, "own"),
        ("https://api.bfl.ai", None, "own"),
    ],
)
def test_bfl_is_polled_where_it_says_unless_the_key_would_leak(base: str, told: Any, asked: str) -> None:
    made = adapter("bfl", base_url=base)
    verdict = run(
        made.submit(FakeHttp(reply(200, {"id": "a/1", "polling_url": told})), submission("flux/dev"))
    )
    assert verdict.memo == ({"polling_url": told} if asked == "told" else {})
    for memo in (verdict.memo, {"polling_url": told}):  # the memo is checked again: it lay in a database
        http = FakeHttp(reply(500))
        run(made.poll(http, [Handle(model="flux/dev", reference="r", provider_ref="a/1", memo=memo)]))
        expected = told if asked == "told" else f"{base}/v1/get_result?id=a%2F1"
        assert http.sent == [Sent("GET", expected, {"x-key": "bfl-k3y"}, None, None)]


@pytest.mark.parametrize(
    ("model", "wanted", "path", "body"),
    [
        ("flux/schnell", {"n": 3}, "fal-ai/flux/schnell",
         {"image_size": {"width": 1024, "height": 768}, "num_images": 3, "num_inference_steps": 4,
          "output_format": "jpeg"}),
        ("flux/dev", {"guidance": 4.5, "aspect_ratio": "9:16"}, "fal-ai/flux/dev",
         {"image_size": {"width": 768, "height": 1344}, "num_inference_steps": 28, "guidance_scale": 4.5,
          "output_format": "jpeg"}),
        ("flux/pro-1.1", {"seed": 42, "safety_tolerance": 5, "prompt_upsampling": True}, "fal-ai/flux-pro/v1.1",
         {"image_size": {"width": 1024, "height": 768}, "seed": 42, "safety_tolerance": "5", "enhance_prompt": True,
          "output_format": "jpeg"}),
        ("flux/pro-1.1-ultra", {"raw": True}, "fal-ai/flux-pro/v1.1-ultra",
         {"aspect_ratio": "16:9", "raw": True, "safety_tolerance": "2", "enhance_prompt": False,
          "output_format": "jpeg"}),
        ("flux/2-pro", {"safety_tolerance": 0, "output_format": "png"}, "fal-ai/flux-2-pro",
         {"image_size": {"width": 1024, "height": 768}, "safety_tolerance": "1", "output_format": "png"}),
    ],
)  # fmt: skip
def test_fal_bodies(model: str, wanted: dict[str, Any], path: str, body: dict[str, Any]) -> None:
    hook = "?fal_webhook=https%3A%2F%2Fapi.example.com%2Fcallbacks%2Ft0ken"
    assert sent("fal", model, input=wanted) == Sent(
        "POST",
        f"https://queue.fal.run/{path}{hook}",
        {"Authorization": "Key fal-id:fal-s3cret"},
        {"prompt": "a red fox", **body},
        None,
    )
    assert sent("fal", model, callback_url=None).url == f"https://queue.fal.run/{path}"


FAL = "https://queue.fal.run/fal-ai/flux-pro/requests/80e7"


@pytest.mark.parametrize(
    ("base", "told", "trusted"),
    [
        ("https://queue.fal.run", "https://queue.fal.run/fal-ai/flux-pro/requests/80e7/status", True),
        ("https://queue.fal.run", "https://queue.falrun.com/x/status", True),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/x/status", True),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9001/x/status", False),
        ("https://queue.fal.run", "http://queue.fal.run/x/status", False),
        ("https://queue.fal.run", "https://fal.run.evil.example/x", False),
        ("https://queue.fal.run", None, False),
    ],
)
def test_fal_is_polled_where_it_says_unless_the_key_would_leak(base: str, told: Any, trusted: bool) -> None:
    made = adapter("fal", base_url=base)
    accepted = run(
        made.submit(
            FakeHttp(reply(200, {"request_id": "80e7", "status_url": told})), submission("flux/pro-1.1")
        )
    )
    assert accepted.memo == ({"status_url": told} if trusted else {})
    http = FakeHttp(reply(500))
    run(
        made.poll(
            http, [Handle(model="flux/pro-1.1", reference="r", provider_ref="80e7", memo=accepted.memo)]
        )
    )
    built = f"{base}/fal-ai/flux-pro/requests/80e7/status"  # owner and app only
    assert http.sent == [
        Sent("GET", told if trusted else built, {"Authorization": "Key fal-id:fal-s3cret"}, None, None)
    ]


def test_a_completed_request_is_fetched_always() -> None:
    http = FakeHttp(reply(200, {"status": "COMPLETED", "error": "x"}), reply(500))
    run(adapter("fal").poll(http, [handle("flux/pro-1.1", "80e7")]))
    assert [request.url for request in http.sent] == [f"{FAL}/status", FAL]


@pytest.mark.parametrize(
    ("status", "word", "confirmed"),
    [(200, "OK", True), (202, "CANCELLATION_REQUESTED", False), (400, "ALREADY_COMPLETED", False),
     (404, "NOT_FOUND", False)],
)  # fmt: skip
def test_fal_confirms_a_cancel_only_in_the_queue(status: int, word: str, confirmed: bool) -> None:
    http = FakeHttp(reply(status, {"status": word}))
    assert run(adapter("fal").cancel(http, handle("flux/pro-1.1", "80e7"))) is confirmed
    assert (http.sent[0].method, http.sent[0].url) == ("PUT", f"{FAL}/cancel")


@pytest.mark.parametrize("name", ["fal", "midjourney"])
@pytest.mark.parametrize(
    "answer", [reply(500), reply(503, {"status": "OK"}), reply(429), Unanswered("x"), NotSent("x")]
)
def test_who_does_not_answer_a_cancel_may_be_asked_again(name: str, answer: Any) -> None:
    made = adapter(name)
    like(run(made.cancel(FakeHttp(answer), handle(made.models[0], "80e7"))), NoVerdict)


def test_fals_webhook_reveals_a_lost_request() -> None:
    made = adapter("fal")
    assert made.adopt({"request_id": "80e7-x", "status": "OK"}) == Accepted(provider_ref="80e7-x")
    for lie in ({}, {"request_id": "../../x"}, {"request_id": 7.5}, {"request_id": "a" * 101}):
        assert made.adopt(lie) is None


@pytest.mark.parametrize("name", ["kling", "jimeng"])
def test_who_cannot_be_canceled_or_adopted(name: str) -> None:
    made = adapter(name)
    assert run(made.cancel(FakeHttp(), handle(made.models[0]))) is False
    assert made.adopt({"id": "1", "status": "x", "task_id": "1"}) is None


def test_every_model_can_be_submitted_with_its_required_fields_only() -> None:
    for model, spec in MODELS.items():
        bare = submission(model).input
        wanted = {name: bare[name] for name in spec.input_schema["required"]}
        for name in ("midjourney", "kling", "jimeng", "bfl", "fal"):
            if model in adapter(name).models:
                http = FakeHttp(reply(500))
                from_api = submission(model)
                run(adapter(name).submit(http, type(from_api)(
                    model=model, input=wanted, reference="r", callback_url=None, parent=from_api.parent)))  # fmt: skip
                assert len(http.sent) == 1
