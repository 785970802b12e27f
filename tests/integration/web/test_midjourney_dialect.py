"""Clients of midjourney-proxy servers: their calls, their codes, their task object. No worker is there."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, select, update

from common.db import reading, transaction
from common.models import IdempotencyKey, Job, WebhookDelivery
from common.providers.base import Running
from common.services import lifecycle, midjourney_tasks, webhooks
from common.services.claims import Claim
from common.words import ErrorCode, Status, Step
from tests.integration.web.api import Api
from tests.integration.web.conftest import MakeUser
from tests.integration.web.jobs import attempt, jobs_of, succeed

PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
BUTTONS = ("upsample_1", "upsample_4", "variation_2", "reroll", "high_variation", "custom_zoom", "vary_region",
           "zoom_out_2x", "zoom_out_1_5x", "make_square", "pan_left", "upscale_4x")  # fmt: skip


def submit(user: Api, call: str, body: dict[str, Any]) -> Any:
    """What `/mj/submit/<call>` answers."""
    return user.post(f"/mj/submit/{call}", body)


def finished(user: Api) -> str:
    """A grid of the user's that is done, with all its buttons."""
    task_id = str(submit(user, "imagine", {"prompt": "a red fox"})["result"])
    attempt(task_id)
    with transaction() as session:
        actions = [{"id": name, "label": name} for name in BUTTONS]
        session.execute(update(Job).where(Job.id == task_id).values(actions=actions))
    succeed(task_id)
    return task_id


def task(user: Api, task_id: str) -> Any:
    """What `/mj/task/<id>/fetch` answers."""
    return user.get(f"/mj/task/{task_id}/fetch")


def last(user: Api) -> Job:
    """The user's newest job."""
    return jobs_of(user)[-1]


# ---------------------------------------------------------------- submits


def test_an_imagine_becomes_a_job(user: Api) -> None:
    said = submit(user, "imagine", {
        "prompt": "a red fox --ar 16:9 --turbo", "base64Array": [PIXEL], "botType": "niji", "state": "mine",
        "notifyHook": "https://example.com/hook", "accountFilter": {"instanceId": "x", "modes": ["RELAX"]},
        "unknown": True,
    })  # fmt: skip
    job = last(user)
    assert said == {"code": 1, "description": "Submit success", "result": job.id, "properties": {}}
    assert (job.model, job.dialect, job.webhook_url) == (
        "midjourney/imagine",
        "midjourney",
        "https://example.com/hook",
    )
    assert job.input == {
        "prompt": "a red fox --ar 16:9",
        "images": [PIXEL],
        "mode": "relax",
        "bot_type": "NIJI_JOURNEY",
    }
    shown = task(user, job.id)
    assert (shown["status"], shown["action"], shown["progress"], shown["state"]) == (
        "NOT_START",
        "IMAGINE",
        "0%",
        "mine",
    )
    assert shown["submitTime"] == int(job.created_at.timestamp() * 1000)
    assert (shown["finishTime"], shown["imageUrl"], shown["failReason"], shown["buttons"]) == (
        None,
        None,
        None,
        [],
    )


@pytest.mark.parametrize(
    ("path", "prompt", "modes", "expected"),
    [
        ("/mj", "x", None, None),
        ("/mj", "x --relax", None, "relax"),
        ("/mj", "x --relax", ["TURBO"], "turbo"),
        ("/mj-fast/mj", "x --relax", ["TURBO"], "fast"),
        ("/mj-relax/mj", "x", None, "relax"),
        ("/mj", "x —relax", None, "relax"),
        ("/mj", "–Fast x", None, "fast"),
    ],
)
def test_what_chooses_the_speed(user: Api, path: str, prompt: str, modes: Any, expected: str | None) -> None:
    user.post(
        f"{path}/submit/imagine", {"prompt": prompt, "accountFilter": {"modes": modes} if modes else None}
    )
    assert (last(user).input.get("mode"), last(user).input["prompt"]) == (expected, "x")


@pytest.mark.parametrize("prompt", ["breakfast – fast food", "a car — fast and red", "slow—fast", "a–fast"])
def test_a_dash_in_prose_chooses_nothing(user: Api, prompt: str) -> None:
    user.post("/mj/submit/imagine", {"prompt": prompt})
    assert last(user).input == {"prompt": prompt}


@pytest.mark.parametrize(
    ("call", "body", "model", "given"),
    [
        ("blend", {"base64Array": [PIXEL, PIXEL], "dimensions": "PORTRAIT"}, "midjourney/blend",
         {"images": [PIXEL, PIXEL], "aspect_ratio": "2:3"}),
        ("describe", {"base64": PIXEL}, "midjourney/describe", {"image": PIXEL}),
        ("describe", {"link": "https://example.com/1.png"}, "midjourney/describe",
         {"image": "https://example.com/1.png"}),
        ("shorten", {"prompt": "a long story", "botType": "mj"}, "midjourney/shorten",
         {"prompt": "a long story", "bot_type": "MID_JOURNEY"}),
    ],
)  # fmt: skip
def test_the_other_beginnings(user: Api, call: str, body: Any, model: str, given: Any) -> None:
    assert submit(user, call, body)["code"] == 1
    assert (last(user).model, last(user).input) == (model, given)


@pytest.mark.parametrize(
    ("call", "body", "action"),
    [
        ("change", {"action": "UPSCALE", "index": 1}, "upsample_1"),
        ("change", {"action": "VARIATION", "index": "2"}, "variation_2"),
        ("change", {"action": "REROLL"}, "reroll"),
        ("simple-change", {"content": "{} U4"}, "upsample_4"),
        ("simple-change", {"content": "{} R"}, "reroll"),
    ],
)
def test_the_older_familys_follow_ups(user: Api, call: str, body: dict[str, Any], action: str) -> None:
    parent = finished(user)
    wanted = {"content": body["content"].format(parent)} if "content" in body else {"taskId": parent, **body}
    assert submit(user, call, wanted)["code"] == 1
    assert (last(user).parent_id, last(user).input) == (parent, {"action": action})


def test_buttons_are_pressed_by_their_custom_id(user: Api) -> None:
    parent = finished(user)
    buttons = {each["label"]: each["customId"] for each in task(user, parent)["buttons"]}
    assert "upsample::1" in buttons["upsample_1"]
    for name in BUTTONS:
        said = submit(user, "action", {"taskId": parent, "customId": buttons[name], "enableRemix": True})
        if name in midjourney_tasks.WINDOWS:
            assert (said["code"], said["properties"]["finalPrompt"]) == (21, "a red fox")
        else:
            assert (said["code"], last(user).input) == (1, {"action": name})


def test_a_window_waits_for_its_answer_and_goes_on_as_the_job(user: Api, other: Api) -> None:
    parent = finished(user)
    pressed = midjourney_tasks.custom_id(parent, "vary_region")
    window = submit(user, "action", {"taskId": parent, "customId": pressed})["result"]
    before = len(jobs_of(user))
    assert (task(user, window)["status"], task(user, window)["id"]) == ("MODAL", window)
    assert task(other, window) is None
    answer = {"taskId": window, "prompt": "a hat", "maskBase64": PIXEL}
    assert submit(user, "modal", answer) == {**submit(user, "modal", answer), "result": window}
    assert len(jobs_of(user)) == before + 1
    assert last(user).input == {"action": "vary_region", "prompt": "a hat", "mask": PIXEL}
    assert (task(user, window)["status"], task(user, window)["id"]) == ("NOT_START", window)
    assert submit(user, "modal", {**answer, "prompt": "a coat"})["code"] == 4
    assert submit(user, "modal", {**answer, "taskId": "job_x-y"})["code"] == 3


def pressed_window(user: Api) -> str:
    """A window that waits for its answer."""
    parent = finished(user)
    pressed = midjourney_tasks.custom_id(parent, "custom_zoom")
    return str(submit(user, "action", {"taskId": parent, "customId": pressed})["result"])


def test_a_window_keeps_its_job_for_as_long_as_there_is_one(user: Api) -> None:
    window = pressed_window(user)
    answer = {"taskId": window, "prompt": "a fox --zoom 2", "state": "mine"}
    assert submit(user, "modal", answer)["result"] == window
    with transaction() as session:  # which sweeping does after a day
        session.execute(delete(IdempotencyKey).where(IdempotencyKey.user_id == user.user_id))
    job, credits = last(user), user.credits()
    assert (task(user, window)["id"], task(user, window)["status"]) == (window, "NOT_START")
    assert submit(user, "modal", answer)["code"] == 1
    assert submit(user, "modal", {**answer, "prompt": "a wolf"})["code"] == 4
    assert (last(user).id, user.credits()) == (job.id, credits)
    assert user.ask("POST", f"/mj/task/{window}/cancel").status == 200
    assert user.ask("DELETE", f"/v1/jobs/{job.id}").status == 204
    assert task(user, window)["status"] == "MODAL"
    assert submit(user, "modal", answer)["code"] == 1
    assert last(user).id != job.id


def test_an_answered_window_has_one_id_everywhere(user: Api) -> None:
    window = pressed_window(user)
    submit(user, "modal", {"taskId": window, "prompt": "x", "state": "mine", **HOOK})
    job = last(user)
    attempt(job.id)
    looked(job.id, 40)
    assert take(window)["id"] == window
    assert [task(user, each)["id"] for each in (window, job.id)] == [window, window]
    assert user.get("/mj/task/list")[0]["id"] == window
    listed = user.post("/mj/task/list-by-condition", {"ids": [window, job.id]})
    assert [each["id"] for each in listed] == [window]
    with transaction() as session:
        session.execute(
            update(Job).where(Job.id == job.id).values(actions=[{"id": "custom_zoom", "label": "Zoom"}])
        )
    succeed(job.id)
    assert take(window)["id"] == window
    button = task(user, window)["buttons"][0]["customId"]
    following = submit(user, "action", {"taskId": window, "customId": button})
    assert (following["code"], task(user, following["result"])["parentId"]) == (21, window)


def test_what_windows_remember_is_not_the_users_metadata(user: Api) -> None:
    submit(user, "modal", {"taskId": pressed_window(user), "prompt": "x", "state": "mine"})
    assert user.job(last(user).id)["metadata"] == {"state": "mine"}
    own = {"midjourney_window": "job_x", "state": "y"}
    job = user.post("/v1/jobs", {"model": "midjourney/imagine", "input": {"prompt": "x"}, "metadata": own})
    assert job["metadata"] == own
    assert task(user, job["id"])["id"] == job["id"]


@pytest.mark.parametrize(
    ("call", "body", "code"),
    [
        ("imagine", {}, 4),
        ("imagine", {"prompt": ""}, 4),
        ("imagine", {"prompt": "x", "base64Array": ["not a picture!"]}, 4),
        ("imagine", {"prompt": "x", "notifyHook": "ftp://x"}, 4),
        ("blend", {"base64Array": [PIXEL]}, 4),
        ("blend", {"base64Array": [PIXEL, PIXEL], "dimensions": "ROUND"}, 4),
        ("describe", {}, 4),
        ("change", {"taskId": "job_nobodys", "action": "UPSCALE", "index": 1}, 3),
        ("change", {"taskId": "x", "action": "PAINT"}, 4),
        ("change", {"taskId": "x", "action": "UPSCALE"}, 4),
        ("change", {"taskId": "x", "action": "UPSCALE", "index": 5}, 4),
        ("simple-change", {"content": "U1"}, 4),
        ("action", {"taskId": "x", "customId": "MJ::JOB::upsample::1::8f00"}, 4),
        ("action", {"taskId": "x", "customId": "MJ::JOB::upsample::1::job_x"}, 3),
    ],
)
def test_what_is_refused_has_a_code(user: Api, call: str, body: Any, code: int) -> None:
    said = submit(user, call, body)
    assert (said["code"], said["result"]) == (code, None)
    assert said["description"]
    assert jobs_of(user) == []


def test_a_button_that_the_task_does_not_have(user: Api) -> None:
    parent = finished(user)
    other_button = midjourney_tasks.custom_id(parent, "upsample_3")
    assert submit(user, "action", {"taskId": parent, "customId": other_button})["code"] == 4
    assert submit(user, "change", {"taskId": parent, "action": "UPSCALE", "index": 3})["code"] == 4


def test_too_few_credits_look_like_a_spent_quota(make_user: MakeUser) -> None:
    said = submit(make_user(1), "imagine", {"prompt": "x"})
    assert (said["code"], "额度" in said["description"]) == (4, True)


def test_others_tasks_are_not_found(user: Api, other: Api) -> None:
    parent = finished(user)
    assert submit(other, "change", {"taskId": parent, "action": "REROLL"})["code"] == 3
    assert task(other, parent) is None


def test_the_secret_may_come_as_such_servers_want_it(app: Flask, user: Api, nobody: Api) -> None:
    headers = {"mj-api-secret": user.token}
    assert nobody.ask("POST", "/mj/submit/imagine", {"prompt": "x"}, headers).json["code"] == 1
    refused = nobody.ask("POST", "/mj/submit/imagine", {"prompt": "x"}, {"mj-api-secret": "wrong"})
    assert refused.status == 401


@pytest.mark.parametrize(
    "wanted", [[], ["FAST", 1], {"modes": "FAST"}, {"modes": [None]}, {"modes": [["FAST"]]}]
)
def test_a_filter_that_is_none_is_refused(user: Api, wanted: Any) -> None:
    said = submit(user, "imagine", {"prompt": "x", "accountFilter": wanted})
    assert (said["code"], "accountFilter" in said["description"]) == (4, True)


def test_there_is_no_other_speed(user: Api) -> None:
    assert user.ask("POST", "/mj-warp/mj/submit/imagine", {"prompt": "x"}).status == 404
    assert user.ask("GET", "/mj-warp/mj/task/list").status == 404


# ---------------------------------------------------------------- what a notifyHook is told

HOOK = {"notifyHook": "https://example.com/hook"}


def looked(task_id: str, percent: int) -> None:
    """A worker has looked at the running task."""
    claim = Claim(job_id=task_id, token="none", step=Step.POLL, model="midjourney/imagine", account_id="none",
                  attempt_id="none", failures=0, refusals=0, cancel_requested=False, finished=False)  # fmt: skip
    with transaction() as session:
        lifecycle.still_running(session, [(claim, Running(progress=percent))])


def owed(task_id: str) -> list[tuple[str, str]]:
    """Type and status of what the hook has been told or will be."""
    with reading() as session:
        query = select(WebhookDelivery).where(WebhookDelivery.job_id == task_id).order_by(WebhookDelivery.id)
        return [(each.type, each.status) for each in session.scalars(query)]


def take(task_id: str) -> Any:
    """The hook takes what it is sent; the body."""
    with transaction() as session:
        (parcel,) = [each for each in webhooks.due(session, 1000) if task_id.encode() in each.body]
        webhooks.delivered(session, parcel, status=200)
    return json.loads(parcel.body)


def test_a_hook_is_told_of_progress_and_of_the_end(user: Api) -> None:
    task_id = submit(user, "imagine", {"prompt": "x", **HOOK})["result"]
    attempt(task_id)
    looked(task_id, 40)
    assert owed(task_id) == [("task.progress", "pending")]
    told = take(task_id)
    assert (told["id"], told["status"], told["progress"]) == (task_id, "IN_PROGRESS", "40%")
    looked(task_id, 40)
    assert owed(task_id) == [("task.progress", "delivered")]
    looked(task_id, 50)
    looked(task_id, 60)
    assert owed(task_id) == [("task.progress", "pending")]
    succeed(task_id)
    assert owed(task_id) == [("task.progress", "failed"), ("job.succeeded", "pending")]
    assert take(task_id)["status"] == "SUCCESS"
    assert [each["type"] for each in user.get("/v1/webhook_deliveries")["data"]] == ["job.succeeded"]


def test_progress_that_a_hook_does_not_take_is_not_told_again(user: Api) -> None:
    task_id = submit(user, "imagine", {"prompt": "x", **HOOK})["result"]
    attempt(task_id)
    looked(task_id, 40)
    with transaction() as session:
        (parcel,) = [each for each in webhooks.due(session, 1000) if task_id.encode() in each.body]
        webhooks.refused(session, parcel, "the receiver answered 500", status=500, retry_after_s=None)
    assert owed(task_id) == [("task.progress", "failed")]


def test_only_a_hook_is_told_of_progress(user: Api) -> None:
    task_id = submit(user, "imagine", {"prompt": "x"})["result"]
    attempt(task_id)
    looked(task_id, 40)
    assert owed(task_id) == []


# ---------------------------------------------------------------- tasks


def test_how_a_job_looks_on_its_way(user: Api) -> None:
    task_id = submit(user, "imagine", {"prompt": "a red fox"})["result"]
    attempt(task_id)
    with transaction() as session:
        session.execute(
            update(Job).where(Job.id == task_id).values(progress=46, preview_url="https://e.com/p.webp")
        )
    shown = task(user, task_id)
    assert (shown["status"], shown["progress"], shown["imageUrl"]) == (
        "IN_PROGRESS",
        "46%",
        "https://e.com/p.webp",
    )
    succeed(task_id)
    shown = task(user, task_id)
    assert (shown["status"], shown["progress"]) == ("SUCCESS", "100%")
    assert shown["imageUrl"].endswith("1.png")
    assert shown["finishTime"] >= shown["submitTime"]


def test_a_failure_has_a_reason(user: Api) -> None:
    task_id = submit(user, "imagine", {"prompt": "x"})["result"]
    with transaction() as session:
        lifecycle.finish(
            session, task_id, Status.FAILED, spent=0, code=ErrorCode.CONTENT_MODERATED, message="Banned."
        )
    shown = task(user, task_id)
    assert (shown["status"], shown["failReason"], shown["progress"]) == ("FAILURE", "Banned.", "")


def test_found_prompts_stand_behind_keycaps(user: Api) -> None:
    task_id = submit(user, "describe", {"base64": PIXEL})["result"]
    with transaction() as session:
        session.execute(
            update(Job).where(Job.id == task_id).values(output={"prompts": ["a fox", "an animal"]})
        )
        lifecycle.finish(session, task_id, Status.SUCCEEDED, spent=None)
    assert task(user, task_id)["properties"]["finalPrompt"] == "1️⃣ a fox\n\n2️⃣ an animal"


def test_lists_leave_out_what_is_not_there(user: Api, other: Api) -> None:
    mine = [submit(user, "imagine", {"prompt": str(number)})["result"] for number in range(3)]
    theirs = submit(other, "imagine", {"prompt": "x"})["result"]
    user.post("/v1/jobs", {"model": "flux/pro-1.1", "input": {"prompt": "x"}})
    found = user.post("/mj/task/list-by-condition", {"ids": [mine[2], mine[0], theirs, "job_unknown"]})
    assert {each["id"] for each in found} == {mine[0], mine[2]}
    assert user.post("/mj/task/list-by-condition", {}) == []
    assert [each["id"] for each in user.get("/mj/task/list")] == mine[::-1]


def test_a_thousand_tasks_are_asked_for_at_once(user: Api) -> None:
    mine = [submit(user, "imagine", {"prompt": str(number)})["result"] for number in range(2)]
    ids = [mine[0], *(f"job_{number}" for number in range(998)), mine[1]]
    assert [each["id"] for each in user.post("/mj/task/list-by-condition", {"ids": ids})] == mine
    assert user.ask("POST", "/mj/task/list-by-condition", {"ids": [*ids, "x"]}).status == 422


def test_no_pictures_are_read_to_show_tasks(user: Api) -> None:
    picture = PIXEL[:-4] + "A" * 4_000_000
    for number in range(3):
        submit(user, "imagine", {"prompt": f"fox {number}", "base64Array": [picture]})
    ids = [job.id for job in jobs_of(user)]
    tracemalloc.start()
    try:
        shown = user.post("/mj/task/list-by-condition", {"ids": ids})
        listed = user.get("/mj/task/list")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert {each["prompt"] for each in shown} == {each["prompt"] for each in listed} == {
        "fox 0", "fox 1", "fox 2"
    }  # fmt: skip
    assert most < 2_000_000


def test_a_task_is_canceled(user: Api) -> None:
    task_id = submit(user, "imagine", {"prompt": "x"})["result"]
    assert user.ask("POST", f"/mj/task/{task_id}/cancel").status == 200
    assert task(user, task_id)["status"] == "FAILURE"
    assert user.ask("POST", f"/mj/task/{task_id}/cancel").status == 409
    assert user.ask("POST", "/mj/task/job_unknown/cancel").status == 404
