"""Exactly what goes over the wire: method, URL, headers and body of every call to Midjourney."""

from __future__ import annotations

from typing import Any

import pytest

from common.providers.base import (
    Accepted,
    Handle,
    NotAccepted,
    NotSent,
    NoVerdict,
    Rejected,
    Succeeded,
    Trouble,
    Unanswered,
    Unknown,
)
from tests.unit.providers.fakes import (
    CALLBACK,
    PICTURE_URL,
    REFERENCE,
    UPLOAD,
    UPLOAD_BASE64,
    FakeHttp,
    Sent,
    adapter,
    handle,
    like,
    poll,
    reply,
    run,
    sent,
    submission,
)

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


def test_a_dash_in_prose_stays() -> None:
    request = sent("midjourney", "midjourney/imagine", input={"prompt": "breakfast – fast food — fast"})
    assert request.json["prompt"] == "breakfast – fast food — fast --fast"


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
        (reply(200, {"code": 1}), (Accepted, {"provider_ref": "200"})),
        (reply(500), (Unknown, {})),  # the task exists, but may be asking still: to be found and answered
        (reply(500, {"code": 1, "result": "200"}), (Unknown, {})),
        (Unanswered("x"), (Unknown, {})),
        (reply(200, {"code": 4, "description": "bad prompt"}), (Rejected, {"code": "invalid_input"})),
        (reply(200, {"code": 23, "description": "队列已满"}), (NotAccepted, {"trouble": Trouble.BUSY})),
    ],
)
def test_a_window_is_confirmed(answer: Any, expected: tuple[type, dict[str, Any]]) -> None:
    http = FakeHttp(WINDOW, answer)
    parent = Handle(model="midjourney/imagine", reference="att_p", provider_ref="1760000000000100",
                    memo={"actions": {"custom_zoom": "MJ::CustomZoom::8f"}})  # fmt: skip
    wanted = submission(
        "midjourney/action", input={"action": "custom_zoom", "prompt": "a dog"}, parent=parent
    )
    like(run(adapter("midjourney").submit(http, wanted)), expected[0], **expected[1])
    assert http.sent[1].url == "http://proxy.example:8080/mj/submit/modal"
    assert http.sent[1].json == {"taskId": "200", "prompt": "a dog", **HOOKS}


def test_a_window_proposes_its_own_prompt() -> None:
    http = FakeHttp(WINDOW, reply(500))
    run(adapter("midjourney").submit(http, submission("midjourney/action")))
    assert http.sent[1].json["prompt"] == "a cat --v 7"


@pytest.mark.parametrize(
    ("given", "proposed", "written"),
    [
        ("a dog --zoom 2 --turbo", "a cat", "a dog --zoom 2"),
        ("a dog —relax --v 7", "a cat", "a dog --v 7"),
        ("--turbo", "a cat --v 7", "a cat --v 7"),
        (None, "a cat --turbo --v 7", "a cat --v 7"),  # the parent's: an action has one price
    ],
)
def test_a_windows_prompt_chooses_no_speed(given: str | None, proposed: str, written: str) -> None:
    window = {"code": 21, "result": "200", "properties": {"finalPrompt": proposed, "remix": True}}
    http = FakeHttp(reply(200, window), reply(500))
    of = parent(custom_zoom="MJ::CustomZoom::8f")
    wanted = {"action": "custom_zoom", **({"prompt": given} if given else {})}
    run(adapter("midjourney").submit(http, submission("midjourney/action", input=wanted, parent=of)))
    assert http.sent[1].json["prompt"] == written


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


ASKS = {**MINE, "status": "MODAL", "prompt": "a cat", "properties": {"finalPrompt": "a cat --v 7"}}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (reply(200, {"code": 1, "result": "7"}), (Accepted, {"provider_ref": "7", "memo": {"split": True}})),
        (
            reply(200, {"code": 4}),
            (NoVerdict, {"gone": False}),
        ),  # answered meanwhile, or a no: the next look tells
        (reply(200, {"code": 9, "description": "队列已满"}), (NoVerdict, {"gone": False})),
        (reply(502), (NoVerdict, {"gone": False})),
        (Unanswered("x"), (NoVerdict, {"gone": False})),
    ],
)
def test_a_found_task_that_still_asks_is_adopted_once_it_is_answered(
    answer: Any, expected: tuple[type, dict[str, Any]]
) -> None:
    http = FakeHttp(reply(200, [OTHER, ASKS]), answer)
    lost = submission("midjourney/action", input={"split": True})
    like(run(adapter("midjourney").find(http, lost)), expected[0], **expected[1])
    assert http.sent[1].url == "http://proxy.example:8080/mj/submit/modal"
    assert http.sent[1].json == {"taskId": "7", "prompt": "a cat --v 7", **HOOKS}


def test_a_found_task_that_asks_for_a_mask_is_answered_with_it() -> None:
    wanted = {"action": "vary_region", "prompt": "a hat", "mask": UPLOAD}
    taken = reply(200, {"code": 1, "result": "7"})
    http = FakeHttp(reply(200, [ASKS]), taken)
    found = run(adapter("midjourney").find(http, submission("midjourney/action", input=wanted)))
    like(found, Accepted, provider_ref="7")
    assert http.sent[1].json == {**HOOKS, "taskId": "7", "prompt": "a hat", "maskBase64": PICTURE_DATA}
    without = submission("midjourney/action", input=wanted, media={})  # it could not be had this time
    http = FakeHttp(reply(200, [ASKS]))
    like(run(adapter("midjourney").find(http, without)), NoVerdict, gone=False, message="mask")
    http = FakeHttp(reply(200, [{**ASKS, "status": "IN_PROGRESS"}]))
    like(run(adapter("midjourney").find(http, without)), Accepted, provider_ref="7")


def test_a_window_is_not_answered_by_a_look() -> None:
    """TA shows a task as MODAL also while it waits in the queue; to answer again would queue it again."""
    http = FakeHttp(reply(200, [{"id": "ref-1", "status": "MODAL"}]))
    seen = run(adapter("midjourney").poll(http, [handle("midjourney/action")]))
    assert type(seen["ref-1"]).__name__ == "Running"
    assert len(http.sent) == 1


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
    made, lost = adapter("midjourney"), submission("midjourney/action", input={"split": True})
    called = {"id": "7", "status": "IN_PROGRESS"}
    assert made.adopt(called, submission("midjourney/imagine")) == Accepted(provider_ref="7")
    assert made.adopt(called, lost) == Accepted(provider_ref="7", memo={"split": True})
    assert made.adopt({"id": "7", "status": "MODAL"}, lost) is None  # it asks: find() answers
    assert made.adopt({"id": "7"}, lost) is None


# ---------------------------------------------------------------- pictures and prompts

PICTURE_DATA = f"data:image/png;base64,{UPLOAD_BASE64}"


def test_imagine_with_reference_pictures() -> None:
    request = sent("midjourney", "midjourney/imagine", input={"images": [PICTURE_URL, UPLOAD]})
    assert request.json["base64Array"] == [PICTURE_DATA, PICTURE_DATA]


@pytest.mark.parametrize(
    ("ratio", "dimensions"), [("2:3", "PORTRAIT"), ("1:1", "SQUARE"), ("3:2", "LANDSCAPE")]
)
def test_blend(ratio: str, dimensions: str) -> None:
    request = sent(
        "midjourney", "midjourney/blend", input={"aspect_ratio": ratio, "bot_type": "NIJI_JOURNEY"}
    )
    assert request.url.endswith("/mj/submit/blend")
    assert request.json == {
        **HOOKS, "base64Array": [PICTURE_DATA, PICTURE_DATA], "dimensions": dimensions, "botType": "NIJI_JOURNEY",
    }  # fmt: skip


def test_describe_and_shorten() -> None:
    request = sent("midjourney", "midjourney/describe")
    assert (request.url[-19:], request.json) == ("/mj/submit/describe", {**HOOKS, "base64": PICTURE_DATA})
    request = sent("midjourney", "midjourney/shorten")
    assert (request.url[-18:], request.json) == ("/mj/submit/shorten", {**HOOKS, "prompt": "a red fox"})


@pytest.mark.parametrize("model", ["midjourney/describe", "midjourney/shorten"])
@pytest.mark.parametrize(
    ("final", "prompts"),
    [
        ("1\ufe0f\u20e3 a fox --ar 1:1\n\n2\ufe0f\u20e3 red fur", ["a fox --ar 1:1", "red fur"]),
        ("1\u20e3 a fox", ["a fox"]),
        ("Here you go:\n1\ufe0f\u20e3 a fox\n2\ufe0f\u20e3 red fur", ["a fox", "red fur"]),
        ("a fox in the snow", ["a fox in the snow"]),
    ],
)
def test_what_is_found_in_words(model: str, final: str, prompts: list[str]) -> None:
    task = {
        "id": "ref-1",
        "status": "SUCCESS",
        "imageUrl": "https://x/in.png",
        "properties": {"finalPrompt": final},
    }
    like(poll("midjourney", model, reply(200, [task])), Succeeded, outputs=(), output={"prompts": prompts})


def test_words_that_are_missing_are_no_verdict() -> None:
    task = {
        "id": "ref-1",
        "status": "SUCCESS",
        "imageUrl": "https://x/in.png",
        "prompt": "mine",
        "properties": {},
    }
    like(poll("midjourney", "midjourney/describe", reply(200, [task])), NoVerdict, gone=False)


REGION = "MJ::Inpaint::1::8f::SOLO"


def test_a_region_is_painted_again_under_a_mask() -> None:
    of = parent(vary_region=REGION)
    wanted = {"action": "vary_region", "prompt": "a hat", "mask": UPLOAD}
    http = FakeHttp(WINDOW, reply(200, {"code": 1, "description": "ok", "result": "200"}))
    verdict = run(
        adapter("midjourney").submit(http, submission("midjourney/action", input=wanted, parent=of))
    )
    like(verdict, Accepted, provider_ref="200")
    assert http.sent[0].json["customId"] == REGION
    assert http.sent[1].json == {**HOOKS, "taskId": "200", "prompt": "a hat", "maskBase64": PICTURE_DATA}


def test_a_region_without_a_mask_is_refused_without_a_call() -> None:
    of, wanted = parent(vary_region=REGION), {"action": "vary_region", "prompt": "a hat"}
    verdict = run(
        adapter("midjourney").submit(FakeHttp(), submission("midjourney/action", input=wanted, parent=of))
    )
    like(verdict, Rejected, code="invalid_input", message="mask")


@pytest.mark.parametrize(
    ("given", "of", "says"),
    [
        ({"mask": UPLOAD}, {"upsample_1": "MJ::JOB::upsample::1::8f"}, "takes no `mask`"),
        ({"prompt": "a dog"}, {"upsample_1": "MJ::JOB::upsample::1::8f"}, "takes no `prompt`"),
        ({"prompt": "a dog"}, {"upsample_1": "U1"}, "takes no `prompt`"),
    ],
)
def test_what_an_action_has_no_use_for_is_refused_without_a_call(
    given: dict[str, Any], of: dict[str, str], says: str
) -> None:
    parent = Handle(model="midjourney/imagine", reference="att_p", provider_ref="1", memo={"actions": of})
    http = FakeHttp()
    wanted = submission("midjourney/action", input={"action": "upsample_1", **given}, parent=parent)
    like(run(adapter("midjourney").submit(http, wanted)), Rejected, code="invalid_input", message=says)
    assert http.sent == []


# ---------------------------------------------------------------- four instead of a grid

BUTTONS = [{"customId": f"MJ::JOB::upsample::{n}::8f", "label": f"U{n}"} for n in range(1, 5)]
GRID = "https://cdn.discordapp.com/attachments/1/2/final.png"


def finished_grid(split: bool, **fields: Any) -> Any:
    task = {
        "id": "ref-1",
        "action": "IMAGINE",
        "status": "SUCCESS",
        "imageUrl": GRID,
        "buttons": BUTTONS,
        **fields,
    }
    memo = {"split": True} if split else {}
    return poll("midjourney", "midjourney/imagine", reply(200, [task]), reply(404), **memo)  # no seed is told


def test_a_job_that_wants_four_pictures_says_so_at_every_look() -> None:
    taken = reply(200, {"code": 1, "result": "200"})
    for model in ("midjourney/imagine", "midjourney/blend", "midjourney/action"):
        made = run(adapter("midjourney").submit(FakeHttp(taken), submission(model, input={"split": True})))
        assert made.memo == {"split": True}
    assert run(adapter("midjourney").submit(FakeHttp(taken), submission("midjourney/imagine"))).memo == {}


def test_four_pictures_are_taken_apart_where_the_server_has_them_so() -> None:
    apart = [{"url": f"https://cdn.midjourney.com/x/0_{n}.png"} for n in range(4)]
    urls = [output.url for output in finished_grid(True, imageUrls=apart).outputs]
    assert urls == [each["url"] for each in apart]
    assert [output.url for output in finished_grid(False, imageUrls=apart).outputs] == [GRID]


@pytest.mark.parametrize("apart", [[], [{"url": GRID}] * 4, [{"url": "https://x.example/1.png"}]])
def test_otherwise_the_grid_is_cut(apart: list[Any]) -> None:
    outputs = finished_grid(True, imageUrls=apart).outputs
    assert [(output.url, output.tile) for output in outputs] == [(GRID, n) for n in range(1, 5)]


def test_what_is_no_grid_is_not_cut() -> None:
    buttons = [{"customId": "MJ::JOB::upsample_v6r1_2x_subtle::1::8f::SOLO", "label": "Upscale (Subtle)"}]
    assert [output.tile for output in finished_grid(True, buttons=buttons).outputs] == [None]


@pytest.mark.parametrize(
    ("said", "output"), [("4021", {"seed": 4021}), ("", None), (None, None), ("x", None)]
)
def test_a_seed_is_told_where_the_server_tells_it(said: Any, output: Any) -> None:
    assert finished_grid(False, seed=said).output == output


def looked_at(model: str, answer: Any, **fields: Any) -> tuple[Any, list[str]]:
    """The verdict on a finished task, whose seed is asked for with this answer, and what was called."""
    task = {"id": "a/b", "status": "SUCCESS", "imageUrl": GRID, "buttons": BUTTONS, **fields}
    http = FakeHttp(reply(200, [task]), answer)
    seen = run(adapter("midjourney").poll(http, [handle(model, "a/b")]))
    return seen["a/b"], [f"{call.method} {call.url.partition('/mj')[2]}" for call in http.sent]


LOOK, SEED = "POST /task/list-by-condition", "GET /task/a%2Fb/image-seed"


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (reply(200, {"code": 1, "description": "成功", "result": "4021"}), {"seed": 4021}),
        (reply(200, {"code": 9, "description": "请配置私聊频道"}), None),
        (reply(200, {"code": 1, "result": "soon"}), None),
        (reply(200, {"code": 1, "result": ["4021"]}), None),
        (reply(200, b"<html>"), None),
        (reply(404, {"code": 3}), None),
        (reply(500, {"code": 1, "result": "4021"}), None),
        (Unanswered("60 s"), None),
        (NotSent("refused"), None),
    ],
)
def test_a_seed_that_is_not_told_is_asked_for_once_and_never_matters(answer: Any, output: Any) -> None:
    verdict, calls = looked_at("midjourney/imagine", answer)
    like(verdict, Succeeded, output=output)
    assert [each.url for each in verdict.outputs] == [GRID]
    assert calls == [LOOK, SEED]


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("midjourney/imagine", {"seed": "7"}),  # told
        ("midjourney/imagine", {"buttons": [], "action": "IMAGINE"}),  # NZ has no such call
        ("midjourney/action", {"imageUrl": None, "videoUrls": [{"url": "https://x/1.mp4"}]}),
        ("midjourney/describe", {"properties": {"finalPrompt": "a fox"}}),
    ],
)
def test_who_has_no_seed_to_tell_is_not_asked(model: str, fields: dict[str, Any]) -> None:
    verdict, calls = looked_at(model, NotSent("never"), **fields)
    assert isinstance(verdict, Succeeded)
    assert calls == [LOOK]


def test_the_seeds_of_one_look_wait_for_each_other_not_for_their_like() -> None:
    """Whatever one picture's seed does, the other tasks of the same look keep their verdicts."""
    tasks = [{"id": name, "status": "SUCCESS", "imageUrl": GRID, "buttons": BUTTONS} for name in "ab"]
    running = {"id": "c", "status": "IN_PROGRESS", "progress": "9%"}
    http = FakeHttp(reply(200, [*tasks, running]), Unanswered("late"), reply(200, {"code": 1, "result": "5"}))
    seen = run(adapter("midjourney").poll(http, [handle("midjourney/imagine", name) for name in "abc"]))
    assert [type(seen[name]).__name__ for name in "abc"] == ["Succeeded", "Succeeded", "Running"]
    assert sorted(str(seen[name].output) for name in "ab") == ["None", "{'seed': 5}"]
