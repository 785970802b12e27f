"""The simulated midjourney-proxy, used by our real adapter: what the fact sheet lists, section 12, and its calls."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from common.providers.base import (
    Accepted,
    Failed,
    Handle,
    Media,
    NotAccepted,
    NoVerdict,
    Rejected,
    Reply,
    Running,
    Succeeded,
    Trouble,
    Unknown,
)
from tests.infrastructure.children import wait_until
from tests.simulators.frame import Fault, Stage
from tests.simulators.media import MediaHost, png
from tests.simulators.midjourney import Midjourney
from tests.simulators.midjourney_tasks import Dialect
from tests.simulators.pace import Pace
from tests.simulators.receiver import Receiver
from tests.unit.simulators.customer import Customer

IMAGINE, ACTION = "midjourney/imagine", "midjourney/action"
PICTURE = f"data:image/png;base64,{base64.b64encode(png('sent', 320, 320)).decode()}"
NO_PICTURE = f"data:image/png;base64,{base64.b64encode(b'hello').decode()}"


class Shop:
    """The server with a customer of its own."""

    def __init__(self, midjourney: Midjourney, customer: Customer) -> None:
        self.server, self.customer = midjourney, customer

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """A call with the secret, or with other headers."""
        sent = {"mj-api-secret": self.server.account.key} if headers is None else headers
        return self.customer.ask(method, f"{self.server.url}{path}", body, sent)

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        """The JSON of an answer to a submit, which is always 200."""
        reply = self.ask("POST", f"/mj/submit/{path}", body)
        assert reply.status == 200, reply
        return reply.object()

    def code(self, path: str, **body: Any) -> int:
        return int(self.post(path, **body)["code"])

    def task(self, task_id: str) -> dict[str, Any]:
        return self.ask("GET", f"/mj/task/{task_id}/fetch").object()

    def done(self, task_id: str) -> dict[str, Any]:
        """The task once it is over."""
        wait_until(lambda: self.task(task_id)["status"] in ("SUCCESS", "FAILURE"), every_s=0.02)
        return self.task(task_id)

    def made(self, path: str, **body: Any) -> dict[str, Any]:
        """Submit, and the task once it is over."""
        answer = self.post(path, **body)
        assert answer["code"] in (1, 22), answer
        return self.done(answer["result"])

    def grid(self, prompt: str = "a red fox") -> dict[str, Any]:
        """A finished grid."""
        return self.made("imagine", prompt=prompt)

    def pressed(self, task: dict[str, Any], label: str) -> dict[str, Any]:
        """The answer to a button, by its label or a part of its customId."""
        return self.post("action", taskId=task["id"], customId=button(task, label))


def button(task: dict[str, Any], label: str) -> str:
    return next(
        each["customId"] for each in task["buttons"] if each["label"] == label or label in each["customId"]
    )


@pytest.fixture
def media() -> MediaHost:
    return MediaHost()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def dialect() -> Dialect:
    return "TA"


@pytest.fixture
def shop(media: MediaHost, receiver: Receiver, dialect: Dialect) -> Iterator[Shop]:
    server = Midjourney(media, Pace(0.02, 0.03), dialect=dialect)
    with (
        Stage([media, server, receiver]),
        Customer("midjourney", server.url, {"api_secret": server.account.key}) as customer,
    ):
        yield Shop(server, customer)


both = pytest.mark.parametrize("dialect", ["TA", "NZ"])
only_nz = pytest.mark.parametrize("dialect", ["NZ"])


# ---------------------------------------------------------------- by the adapter


def look_at(shop: Shop, accepted: Accepted, age_s: float) -> Any:
    """One look at a task as if it had been submitted so long ago."""
    shop.server.generations[accepted.provider_ref].made_at = time.time() - age_s
    return shop.customer.poll(IMAGINE, accepted)


@both
def test_from_submit_to_grid(shop: Shop, media: MediaHost, dialect: Dialect) -> None:
    prompt = "a red fox [queue=100] [run=100]"
    accepted = shop.customer.submit(IMAGINE, prompt, aspect_ratio="16:9", mode="relax")
    assert isinstance(accepted, Accepted)
    seen = [look_at(shop, accepted, age_s) for age_s in (20, 80, 102, 120, 130, 180)]
    assert all(isinstance(verdict, Running) for verdict in seen)
    assert [verdict.progress for verdict in seen] == [0, 0, None, 20, 30, 80]
    previews = [verdict.preview_url for verdict in seen]
    assert previews[:4] == [None] * 4
    assert previews[4] != previews[5]
    assert all(media.content(url)[8:12] == b"WEBP" for url in previews[4:])

    verdict = look_at(shop, accepted, 200)
    assert isinstance(verdict, Succeeded)
    (output,) = verdict.outputs
    assert output.url not in previews
    (made,) = shop.server.made(prompt)
    assert made.prompt == f"{prompt} --ar 16:9 --relax"
    assert (made.reference or "").startswith("att_")
    assert made.mode == "RELAX"
    assert made.results == [output.url]
    reply = shop.customer.ask("GET", output.url or "")
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
    with Image.open(BytesIO(reply.body)) as grid:
        assert grid.size == made.size
        assert 1.7 < grid.width / grid.height < 1.85
    labels = [action.label for action in verdict.actions]
    assert {"U1", "U2", "U3", "U4", "V1", "V2", "V3", "V4"} <= set(labels)
    assert media.leaks == []


def test_a_grid_is_its_four_pictures(shop: Shop, media: MediaHost) -> None:
    task = shop.grid()
    with Image.open(BytesIO(media.content(task["imageUrl"]))) as grid:
        assert grid.size == (task["width"], task["height"])
        side = grid.width // 2
        contents = []
        for index, single in enumerate(task["imageUrls"]):
            left, top = index % 2 * side, index // 2 * side
            with Image.open(BytesIO(media.content(single["url"]))) as alone:
                assert alone.size == (side, side)
                contents.append(alone.convert("RGB").tobytes())
            assert grid.crop((left, top, left + side, top + side)).tobytes() == contents[-1]
    assert len(set(contents)) == 4


@both
def test_an_action_enlarges_the_picture_it_names(shop: Shop, media: MediaHost, dialect: Dialect) -> None:
    accepted = shop.customer.submit(IMAGINE, "a red fox")
    grid, _ = shop.customer.follow(IMAGINE, accepted)
    assert isinstance(grid, Succeeded)
    parent = parent_of(accepted, grid)
    pressed = shop.customer.submit(ACTION, "", parent=parent, action="upsample_4")
    assert isinstance(pressed, Accepted)
    verdict, _ = shop.customer.follow(ACTION, pressed)
    assert isinstance(verdict, Succeeded)
    with (
        Image.open(BytesIO(media.content(verdict.outputs[0].url or ""))) as single,
        Image.open(BytesIO(media.content(grid.outputs[0].url or ""))) as whole,
    ):
        corner = whole.crop((whole.width // 2, whole.height // 2, whole.width, whole.height))
        assert single.convert("RGB").tobytes() == corner.tobytes()
    assert shop.server.generations[pressed.provider_ref].action == "UPSCALE"
    called = {"TA": "/mj/submit/action", "NZ": "/mj/submit/change"}[dialect]
    assert shop.server.asked(called)


def parent_of(accepted: Accepted, verdict: Succeeded) -> Handle:
    """A finished job as the engine hands it over to an action."""
    actions = {action.id: action.token for action in verdict.actions}
    return Handle(
        model=IMAGINE, reference="att_p", provider_ref=accepted.provider_ref, memo={"actions": actions}
    )


def test_a_window_is_answered_and_then_it_draws(shop: Shop) -> None:
    accepted = shop.customer.submit(IMAGINE, "a red fox")
    grid, _ = shop.customer.follow(IMAGINE, accepted)
    assert isinstance(grid, Succeeded)
    pressed = shop.customer.submit(ACTION, "", parent=parent_of(accepted, grid), action="upsample_1")
    single, _ = shop.customer.follow(ACTION, pressed)
    assert isinstance(single, Succeeded)
    zoomed = shop.customer.submit(
        ACTION, "a red fox --zoom 1.8", parent=parent_of(pressed, single), action="custom_zoom"
    )
    verdict, _ = shop.customer.follow(ACTION, zoomed)
    assert isinstance(verdict, Succeeded)
    task = shop.server.generations[zoomed.provider_ref]
    assert (task.action, task.prompt) == ("ZOOM", "a red fox --zoom 1.8")
    assert len(shop.server.asked("POST /mj/submit/modal")) == 1


@both
@pytest.mark.parametrize("kind", ["drop_reply", "garbage", "cut"])
def test_a_lost_submit_is_found_by_its_state(shop: Shop, kind: Any, dialect: Dialect) -> None:
    shop.server.misbehave(Fault(kind, "POST /mj/submit/imagine"))
    assert isinstance(shop.customer.submit(IMAGINE, "lost"), Unknown)
    (task,) = shop.server.made("lost")
    assert shop.customer.find(IMAGINE, task.reference) == Accepted(provider_ref=task.id)
    nobody = shop.customer.find(IMAGINE, "att_nobody")
    assert isinstance(nobody, NoVerdict)
    assert nobody.gone


def single_of(shop: Shop) -> Handle:
    """A finished single picture, with the buttons that ask for something."""
    task = shop.done(shop.pressed(shop.grid(), "U1")["result"])
    named = {"custom_zoom": button(task, "Custom Zoom"), "vary_region": button(task, "Vary (Region)")}
    return Handle(model=ACTION, reference="att_p", provider_ref=task["id"], memo={"actions": named})


@pytest.mark.parametrize("kind", ["drop_reply", "garbage", "drop", "answer"])
@pytest.mark.parametrize("lost", ["POST /mj/submit/action", "POST /mj/submit/modal"])
def test_a_lost_window_is_found_and_answered_once(shop: Shop, lost: str, kind: Any) -> None:
    parent = single_of(shop)
    shop.server.misbehave(Fault(kind, lost, status=502))
    verdict = shop.customer.submit(ACTION, "wider --zoom 1.5", parent=parent, action="custom_zoom")
    assert isinstance(verdict, Unknown)
    if lost.endswith("action") and kind in ("drop", "answer"):
        assert len(shop.server.generations) == 2  # it never came to be
        return
    task = list(shop.server.generations.values())[-1]
    assert task.window is (lost.endswith("action") or kind in ("drop", "answer"))
    for _ in range(3):  # between the listing and the answer its turn may have come
        verdict = shop.customer.find(ACTION, task.reference, "wider --zoom 1.5", action="custom_zoom")
        if isinstance(verdict, Accepted):
            break
    assert isinstance(verdict, Accepted)
    assert isinstance(shop.customer.follow(ACTION, verdict)[0], Succeeded)
    assert (task.action, task.prompt) == ("ZOOM", "wider --zoom 1.5")
    assert len(shop.server.generations) == 3


def test_a_lost_window_is_answered_with_the_mask(shop: Shop) -> None:
    parent, mask = single_of(shop), "upl_mask"
    media = {mask: Media(base64=PICTURE.partition(",")[2], content_type="image/png")}
    shop.server.misbehave(Fault("drop", "POST /mj/submit/modal"))
    wanted: dict[str, Any] = {"action": "vary_region", "mask": mask, "media": media}
    assert isinstance(shop.customer.submit(ACTION, "a hat", parent=parent, **wanted), Unknown)
    task = list(shop.server.generations.values())[-1]
    verdict = shop.customer.find(ACTION, task.reference, "a hat", **wanted)
    assert isinstance(verdict, Accepted)
    assert isinstance(shop.customer.follow(ACTION, verdict)[0], Succeeded)
    assert (task.action, task.prompt, task.body["maskBase64"]) == ("INPAINT", "a hat", PICTURE)


def test_an_answered_window_that_waits_for_its_turn_is_not_answered_again(shop: Shop) -> None:
    parent = single_of(shop)
    for number in range(3):
        shop.post("imagine", prompt=f"[run=0.4] {number}")
    accepted = shop.customer.submit(ACTION, "wider", parent=parent, action="custom_zoom")
    assert shop.task(accepted.provider_ref)["status"] == "MODAL"
    assert isinstance(shop.customer.poll(ACTION, accepted), Running)
    assert isinstance(shop.customer.follow(ACTION, accepted)[0], Succeeded)
    assert len(shop.server.asked("POST /mj/submit/modal")) == 1


def test_ta_lists_only_the_latest_hundred(shop: Shop) -> None:
    shop.server.account.at_once = 200
    first = shop.customer.submit(IMAGINE, "first")
    reference = shop.server.generations[first.provider_ref].reference
    for number in range(99):
        shop.post("imagine", prompt=f"{number}")
    assert isinstance(shop.customer.find(IMAGINE, reference), Accepted)
    shop.post("imagine", prompt="one more")
    assert isinstance(shop.customer.find(IMAGINE, reference), NoVerdict)
    shop.server.dialect = "NZ"
    assert isinstance(shop.customer.find(IMAGINE, reference), Accepted)


@both
@pytest.mark.parametrize(
    ("directive", "code", "retryable"),
    [
        ("[moderate-output]", "content_moderated", False),
        ("[fail]", "provider_failed", True),
        ("[timeout]", "provider_failed", True),
        ("--v 99", "invalid_input", False),
    ],
)
def test_how_drawing_fails(shop: Shop, directive: str, code: str, retryable: bool, dialect: Dialect) -> None:
    accepted = shop.customer.submit(IMAGINE, f"a cat {directive}")
    verdict, _ = shop.customer.follow(IMAGINE, accepted)
    assert isinstance(verdict, Failed)
    assert (verdict.code, verdict.retryable) == (code, retryable)
    task = shop.task(accepted.provider_ref)
    assert (task["status"], task["progress"], task["imageUrl"]) == ("FAILURE", "", None)
    assert task["failReason"] == verdict.message
    assert task["finishTime"] >= task["startTime"] >= task["submitTime"]


@pytest.mark.parametrize("prompt", ["[moderate-input] x", "a nude body"])
@only_nz
def test_nz_finds_banned_words_at_once(shop: Shop, prompt: str, dialect: Dialect) -> None:
    verdict = shop.customer.submit(IMAGINE, prompt)
    assert isinstance(verdict, Rejected)
    assert verdict.code == "content_moderated"
    assert shop.server.generations == {}


def test_ta_finds_banned_words_as_soon_as_it_begins(shop: Shop) -> None:
    verdict, _ = shop.customer.made(IMAGINE, "[moderate-input] [run=30] x")
    assert isinstance(verdict, Failed)
    assert verdict.code == "content_moderated"
    assert "Banned prompt" in verdict.message


def test_a_dead_link_and_a_cut_file(shop: Shop) -> None:
    verdict, _ = shop.customer.made(IMAGINE, "[expire] x")
    assert isinstance(verdict, Succeeded)
    assert shop.customer.ask("GET", verdict.outputs[0].url or "").status == 403
    verdict, _ = shop.customer.made(IMAGINE, "[truncate] x")
    assert isinstance(verdict, Succeeded)
    with pytest.raises(Exception, match=r"ContentLength|payload"):
        shop.customer.ask("GET", verdict.outputs[0].url or "")


# ---------------------------------------------------------------- who may come in


@only_nz
def test_nz_refuses_a_wrong_secret_without_a_word(shop: Shop, dialect: Dialect) -> None:
    for headers in ({}, {"mj-api-secret": "wrong"}, {"Authorization": shop.server.account.key}):
        reply = shop.ask("POST", "/mj/submit/imagine", {"prompt": "x"}, headers)
        assert (reply.status, reply.body) == (401, b"")
    with Customer("midjourney", shop.server.url, {"api_secret": "wrong"}) as stranger:
        verdict = stranger.submit(IMAGINE, "x")
    assert isinstance(verdict, NotAccepted)
    assert verdict.trouble is Trouble.CREDENTIALS
    assert shop.server.generations == {}


def test_ta_reads_authorization_first_and_as_it_is(shop: Shop) -> None:
    key = shop.server.account.key
    said = [
        shop.ask("GET", "/mj/task/list", headers=headers)
        for headers in (
            {},
            {"mj-api-secret": "wrong"},
            {"Authorization": f"Bearer {key}"},
            {"Authorization": "wrong", "mj-api-secret": key},
            {"Authorization": key},
            {"Mj-Api-Secret": key},
        )
    ]
    assert [reply.status for reply in said] == [401, 403, 403, 403, 200, 200]
    assert said[0].body
    with Customer("midjourney", shop.server.url, {"api_secret": "wrong"}) as stranger:
        verdict = stranger.submit(IMAGINE, "x")
    assert isinstance(verdict, NotAccepted)
    assert verdict.trouble is Trouble.CREDENTIALS


@both
def test_a_server_may_do_without_a_secret(shop: Shop, dialect: Dialect) -> None:
    shop.server.account.key = ""
    with Customer("midjourney", shop.server.url, {}) as stranger:
        assert isinstance(stranger.submit(IMAGINE, "x"), Accepted)


@pytest.mark.parametrize(
    ("path", "dialects"),
    [
        ("POST /mj/submit/imagine", {"TA", "NZ"}),
        ("POST /mj/submit/change", {"NZ"}),
        ("POST /mj/submit/simple-change", {"NZ"}),
        ("POST /mj/submit/action", {"TA"}),
        ("POST /mj/submit/modal", {"TA"}),
        ("POST /mj/submit/blend", {"TA", "NZ"}),
        ("POST /mj/submit/describe", {"TA", "NZ"}),
        ("POST /mj/submit/shorten", {"TA"}),
        ("POST /mj/task/list-by-condition", {"TA", "NZ"}),
        ("POST /mj/task/list-by-ids", {"TA"}),
        ("GET /mj/task/list", {"TA", "NZ"}),
        ("GET /mj/task/queue", {"NZ"}),
        ("POST /mj-relax/mj/submit/imagine", {"TA"}),
        ("GET /health", {"TA"}),
    ],
)
def test_what_each_dialect_offers(shop: Shop, path: str, dialects: set[str]) -> None:
    spoken: tuple[Dialect, Dialect] = ("TA", "NZ")
    for shop.server.dialect in spoken:
        reply = shop.ask(*path.split(" "), {} if path.startswith("POST") else None)
        known = reply.status != 404 or b'"code"' in reply.body
        assert known == (shop.server.dialect in dialects), reply


# ---------------------------------------------------------------- how a task goes


@both
def test_statuses_and_progress_in_order(shop: Shop, dialect: Dialect) -> None:
    prompt = "slowly [queue=100] [run=100]"
    task_id = shop.post("imagine", prompt=prompt, state="job-42")["result"]
    assert len(task_id) == 16
    assert task_id.isdigit()
    seen: list[dict[str, Any]] = []
    for age_s in (10, 60, 101, 146, 200):
        shop.server.generations[task_id].made_at = time.time() - age_s
        seen.append(shop.task(task_id))
    assert [(task["status"], task["progress"]) for task in seen] == [
        ("NOT_START", "0%"),
        ("SUBMITTED", "0%"),
        ("IN_PROGRESS", "Waiting to start"),
        ("IN_PROGRESS", "46%"),
        ("SUCCESS", "100%"),
    ]
    assert [bool(task["imageUrl"]) for task in seen] == [False, False, False, True, True]
    assert [bool(task["startTime"]) for task in seen] == [False, False, True, True, True]
    assert [bool(task["finishTime"]) for task in seen] == [False, False, False, False, True]
    assert {task["state"] for task in seen} == {"job-42"}
    assert seen[-1]["prompt"] == prompt
    assert seen[-1]["properties"]["finalPrompt"] == f"{prompt} --v 7"
    assert ("buttons" in seen[-1]) == (dialect == "TA")


@both
def test_what_is_not_known(shop: Shop, dialect: Dialect) -> None:
    reply = shop.ask("GET", "/mj/task/1760000000000123/fetch")
    assert (reply.status, reply.body) == (200, b"")
    known = shop.post("imagine", prompt="x")["result"]
    listed = shop.ask("POST", "/mj/task/list-by-condition", {"ids": ["1", known, "2"]}).json()
    assert [task["id"] for task in listed] == [known]
    assert shop.ask("POST", "/mj/task/list-by-condition", {"ids": None}).json() == []
    shop.server.forget()
    verdict = shop.customer.poll(IMAGINE, Accepted(provider_ref=known))
    assert isinstance(verdict, NoVerdict)
    assert verdict.gone
    assert known in shop.server.generations  # it was made all the same


@both
def test_the_same_state_twice_is_two_tasks(shop: Shop, dialect: Dialect) -> None:
    first, second = (shop.post("imagine", prompt="x", state="job-1")["result"] for _ in range(2))
    assert first != second
    assert [task.reference for task in shop.server.made("x")] == ["job-1"] * 2


@both
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("imagine", {}),
        ("imagine", {"prompt": "  "}),
        ("imagine", {"prompt": 7}),
        ("imagine", {"prompt": "x", "base64Array": [NO_PICTURE]}),
        ("imagine", {"prompt": "x", "base64Array": [PICTURE.partition(",")[2]]}),
        ("imagine", {"prompt": "x", "base64": "hello"}),
        ("blend", {"base64Array": [PICTURE]}),
        ("blend", {"base64Array": [PICTURE] * 6}),
        ("blend", {"base64Array": [PICTURE, NO_PICTURE]}),
        ("blend", {"base64Array": [PICTURE, PICTURE], "dimensions": "ROUND"}),
        ("describe", {}),
        ("describe", {"base64": NO_PICTURE}),
    ],
)
def test_bad_input_is_200_and_code_4(shop: Shop, path: str, body: dict[str, Any], dialect: Dialect) -> None:
    assert shop.code(path, **body) == 4
    assert shop.server.generations == {}


def test_ta_bounds_state_and_hook(shop: Shop) -> None:
    assert shop.code("imagine", prompt="x", state="s" * 256) == 4
    assert shop.code("imagine", prompt="x", notifyHook=f"http://h/{'s' * 2000}") == 4
    assert shop.code("imagine", prompt="x", botType="PAINTER") == 4
    assert shop.code("shorten") == 4
    shop.server.dialect = "NZ"
    assert shop.code("imagine", prompt="x", state="s" * 256) == 1


@both
def test_no_json_is_a_bad_request(shop: Shop, dialect: Dialect) -> None:
    headers = {"mj-api-secret": shop.server.account.key}
    assert shop.ask("POST", "/mj/submit/imagine", ["x"], headers).status == 400


@both
def test_three_draw_ten_wait_and_more_are_refused(shop: Shop, dialect: Dialect) -> None:
    answers = [shop.post("imagine", prompt="[run=100] x") for _ in range(14)]
    assert [answer["code"] for answer in answers[:13]] == [1] * 3 + [22] * 10
    assert [answer["properties"]["numberOfQueues"] for answer in answers[3:13]] == list(range(1, 11))
    assert answers[13]["code"] == {"TA": 9, "NZ": 23}[dialect]
    assert answers[13]["result"] is None
    assert len(shop.server.generations) == 13
    verdict = shop.customer.submit(IMAGINE, "no room")
    assert isinstance(verdict, NotAccepted)
    assert verdict.trouble is Trouble.BUSY
    turns = [round(task.held_s / 100) for task in shop.server.generations.values()]
    assert turns == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4]


@both
def test_whoever_waits_draws_when_there_is_a_place(shop: Shop, dialect: Dialect) -> None:
    shop.server.account.at_once = 1
    first = shop.customer.submit(IMAGINE, "[run=0.2] first")
    second = shop.customer.submit(IMAGINE, "[run=0.1] second")
    assert isinstance(second, Accepted)
    before, after = (shop.server.generations[each.provider_ref] for each in (first, second))
    assert after.held_s == pytest.approx(before.done_at - after.made_at, abs=0.05)
    assert after.status == "NOT_START"
    assert isinstance(shop.customer.follow(IMAGINE, second)[0], Succeeded)
    assert before.status == "SUCCESS"


@both
def test_full_on_demand(shop: Shop, dialect: Dialect) -> None:
    verdict = shop.customer.submit(IMAGINE, "[full] x")
    assert isinstance(verdict, NotAccepted)
    assert verdict.trouble is Trouble.BUSY


def test_tas_quotas(shop: Shop) -> None:
    shop.server.account.user_at_once = 1
    shop.customer.submit(IMAGINE, "[run=9] x")
    busy = shop.customer.submit(IMAGINE, "x")
    assert (type(busy), busy.trouble) == (NotAccepted, Trouble.BUSY)
    shop.server.account.balance = 0
    spent = shop.customer.submit(IMAGINE, "x")
    assert (type(spent), spent.trouble) == (NotAccepted, Trouble.BALANCE)
    assert len(shop.server.generations) == 1


@both
def test_without_a_discord_account_nothing_is_drawn(shop: Shop, dialect: Dialect) -> None:
    shop.server.account.is_alive = False
    assert shop.code("imagine", prompt="x") == 3
    verdict = shop.customer.submit(IMAGINE, "x")
    assert (type(verdict), verdict.trouble) == (NotAccepted, Trouble.DOWN)


@pytest.mark.parametrize(
    ("prefix", "modes", "prompt", "mode"),
    [
        ("/mj-turbo", ["RELAX"], "x --fast", "TURBO"),
        ("", ["RELAX"], "x --turbo", "RELAX"),
        ("", [], "x --turbo", "TURBO"),
        ("", [], "x", "FAST"),
    ],
)
def test_what_sets_the_speed(shop: Shop, prefix: str, modes: list[str], prompt: str, mode: str) -> None:
    body = {"prompt": prompt, "accountFilter": {"modes": modes}}
    answer = shop.ask("POST", f"{prefix}/mj/submit/imagine", body).object()
    assert shop.task(answer["result"])["mode"] == mode


# ---------------------------------------------------------------- NZ's changes


@only_nz
def test_nz_looks_at_a_change_in_its_order(shop: Shop, dialect: Dialect) -> None:
    running = shop.post("imagine", prompt="x")["result"]
    shop.server.generations[running].made_at += 60
    assert shop.code("change", taskId="1", action="UPSCALE", index=1) == 3
    assert shop.code("change", taskId=running, action="UPSCALE", index=1) == 4
    assert shop.code("change", taskId=running, action="UPSCALE", index=5) == 4
    assert shop.code("change", taskId=running, action="PAINT", index=1) == 4
    shop.server.generations[running].made_at -= 60
    grid = shop.done(running)
    shop.server.account.is_alive = False
    assert shop.code("change", taskId=running, action="REROLL") == 3
    shop.server.account.is_alive = True
    upscaled = shop.made("change", taskId=grid["id"], action="UPSCALE", index=2, state="mine")
    assert (upscaled["action"], upscaled["state"], upscaled["status"]) == ("UPSCALE", "mine", "SUCCESS")
    assert shop.code("change", taskId=upscaled["id"], action="VARIATION", index=1) == 4
    varied = shop.made("change", taskId=grid["id"], action="VARIATION", index=1)
    assert shop.made("change", taskId=varied["id"], action="REROLL")["action"] == "REROLL"


@only_nz
@pytest.mark.parametrize(
    ("words", "action"), [("U1", "UPSCALE"), ("V4", "VARIATION"), ("R", "REROLL"), ("X1", ""), ("U5", "")]
)
def test_nzs_simple_change(shop: Shop, words: str, action: str, dialect: Dialect) -> None:
    answer = shop.post("simple-change", content=f"{shop.grid()['id']} {words}")
    assert answer["code"] == (1 if action else 4)
    if action:
        assert shop.task(answer["result"])["action"] == action


@only_nz
def test_nzs_documents_say_that_a_second_upscale_is_the_first(shop: Shop, dialect: Dialect) -> None:
    grid = shop.grid()
    shop.server.account.repeats = True
    first = shop.made("change", taskId=grid["id"], action="UPSCALE", index=2)
    parent = Handle(model=IMAGINE, reference="att_p", provider_ref=grid["id"], memo={})
    assert shop.customer.submit(ACTION, "", parent=parent, action="upsample_2") == Accepted(
        provider_ref=first["id"]
    )
    other = shop.customer.submit(ACTION, "", parent=parent, action="upsample_3")
    assert other.provider_ref != first["id"]


# ---------------------------------------------------------------- TA's buttons and windows


def test_a_button_needs_its_task(shop: Shop) -> None:
    body = {"taskId": "1", "customId": "MJ::JOB::upsample::1::x"}
    reply = shop.ask("POST", "/mj/submit/action", body)
    assert (reply.status, reply.object()["code"]) == (404, 3)
    parent = Handle(
        model=IMAGINE, reference="att_p", provider_ref="1", memo={"actions": {"pan_left": "MJ::x"}}
    )
    verdict = shop.customer.submit(ACTION, "", parent=parent, action="pan_left")
    assert isinstance(verdict, Rejected)
    grid = shop.grid()
    assert shop.code("action", taskId=grid["id"], customId="MJ::JOB::upsample::1::other") == 4
    assert shop.code("action", taskId=grid["id"]) == 4


@pytest.mark.parametrize(
    ("label", "action"),
    [
        ("Upscale (Subtle)", "UPSCALE"),
        ("Vary (Strong)", "VARIATION"),
        ("Zoom Out 2x", "OUTPAINT"),
        ("Zoom Out 1.5x", "OUTPAINT"),
        ("pan_left", "PAN"),
        ("pan_down", "PAN"),
    ],
)
def test_buttons_under_one_picture(shop: Shop, media: MediaHost, label: str, action: str) -> None:
    single = shop.done(shop.pressed(shop.grid(), "U1")["result"])
    task = shop.done(shop.pressed(single, label)["result"])
    assert (task["action"], task["parentId"], task["status"]) == (action, single["id"], "SUCCESS")
    assert media.content(task["imageUrl"])[:4] == b"\x89PNG"


def test_animating_makes_films(shop: Shop) -> None:
    single = shop.done(shop.pressed(shop.grid(), "U1")["result"])
    answer = shop.pressed(single, "animate_high")
    verdict, _ = shop.customer.follow(ACTION, Accepted(provider_ref=answer["result"]))
    assert isinstance(verdict, Succeeded)
    assert [output.kind for output in verdict.outputs] == ["video"] * 4
    films = {shop.customer.ask("GET", output.url or "").body for output in verdict.outputs}
    assert len(films) == 4
    assert all(film[4:8] == b"ftyp" for film in films)
    enlarged = shop.done(shop.pressed(shop.task(answer["result"]), "U2")["result"])
    assert len(enlarged["videoUrls"]) == 1


def test_a_region_is_drawn_again_behind_a_mask(shop: Shop) -> None:
    single = shop.done(shop.pressed(shop.grid(), "U1")["result"])
    window = shop.pressed(single, "Vary (Region)")
    assert (window["code"], window["properties"]["finalPrompt"]) == (21, "a red fox --v 7")
    assert shop.task(window["result"])["status"] == "MODAL"
    assert shop.code("modal", taskId=window["result"], prompt="a hat") == 4
    assert shop.code("modal", taskId=window["result"], prompt="a hat", maskBase64=NO_PICTURE) == 4
    task = shop.made("modal", taskId=window["result"], prompt="a hat", maskBase64=PICTURE)
    assert (task["id"], task["action"], task["prompt"]) == (window["result"], "INPAINT", "a hat")
    assert shop.code("modal", taskId=window["result"], prompt="again") == 4
    assert shop.ask("POST", "/mj/submit/modal", {"taskId": "1"}).object()["code"] == 3


def test_remix_asks_for_a_prompt(shop: Shop) -> None:
    grid = shop.grid()
    custom_id = button(grid, "V1")
    assert shop.code("action", taskId=grid["id"], customId=custom_id) == 1
    window = shop.post("action", taskId=grid["id"], customId=custom_id, enableRemix=True)
    assert (window["code"], window["properties"]["remix"]) == (21, True)
    shop.server.account.remix = True
    accepted = Accepted(provider_ref=grid["id"])
    verdict, _ = shop.customer.follow(IMAGINE, accepted)
    assert isinstance(verdict, Succeeded)
    pressed = shop.customer.submit(
        ACTION, "a blue fox", parent=parent_of(accepted, verdict), action="variation_1"
    )
    remixed, _ = shop.customer.follow(ACTION, pressed)
    assert isinstance(remixed, Succeeded)
    assert shop.task(pressed.provider_ref)["prompt"] == "a blue fox"
    assert shop.pressed(grid, "U1")["code"] == 1  # an upscale never asks


def test_partners_upscale_at_once(shop: Shop) -> None:
    grid = shop.grid()
    shop.server.account.is_partner = True
    answer = shop.pressed(grid, "U3")
    assert answer["code"] == 1
    assert shop.task(answer["result"])["status"] == "SUCCESS"


# ---------------------------------------------------------------- the other calls


@both
def test_describe_ends_in_words(shop: Shop, dialect: Dialect) -> None:
    task = shop.made("describe", base64=PICTURE)
    assert len(task["properties"]["finalPrompt"].split("\n\n")) == 4
    assert task["properties"]["finalPrompt"].startswith("1\ufe0f\u20e3 ")
    assert task["imageUrl"] is None
    if dialect == "TA":
        assert shop.made("describe", link="https://example.com/a.png")["status"] == "SUCCESS"
        window = shop.pressed(task, "PicReader::1")
        assert window["code"] == 21
    else:
        assert shop.code("describe", link="https://example.com/a.png") == 4


def test_shorten_ends_in_words(shop: Shop) -> None:
    task = shop.made("shorten", prompt="a very, very long prompt")
    assert (task["action"], task["status"]) == ("SHORTEN", "SUCCESS")
    assert task["properties"]["finalPrompt"]


@both
def test_blend_is_a_grid(shop: Shop, media: MediaHost, dialect: Dialect) -> None:
    task = shop.made("blend", base64Array=[PICTURE, PICTURE], dimensions="PORTRAIT")
    assert task["action"] == "BLEND"
    assert media.content(task["imageUrl"])[:4] == b"\x89PNG"


def test_the_seed_of_a_picture(shop: Shop) -> None:
    grid = shop.grid()
    assert grid["seed"] is None  # Discord is asked for it only when a client asks
    answer = shop.ask("GET", f"/mj/task/{grid['id']}/image-seed").object()
    assert (answer["code"], answer["result"]) == (1, shop.task(grid["id"])["seed"])
    running = shop.post("imagine", prompt="[run=9] x")["result"]
    assert shop.ask("GET", f"/mj/task/{running}/image-seed").object()["code"] == 4
    assert shop.ask("GET", "/mj/task/1/image-seed").object()["code"] == 3


def test_only_an_admin_cancels(shop: Shop) -> None:
    accepted = shop.customer.submit(IMAGINE, "[run=9] x")
    assert not shop.customer.cancel(IMAGINE, accepted)
    assert shop.task(accepted.provider_ref)["status"] != "FAILURE"
    shop.server.account.is_admin = True
    assert shop.customer.cancel(IMAGINE, accepted)
    verdict = shop.customer.poll(IMAGINE, accepted)
    assert isinstance(verdict, Failed)
    assert (verdict.message, verdict.retryable) == ("取消任务", False)


@only_nz
def test_nz_shows_what_waits(shop: Shop, dialect: Dialect) -> None:
    shop.server.account.at_once = 1
    shop.post("imagine", prompt="[queue=0] [run=9] first")
    waiting = shop.post("imagine", prompt="second")["result"]
    wait_until(lambda: len(shop.ask("GET", "/mj/task/queue").json()) == 1)
    assert [task["id"] for task in shop.ask("GET", "/mj/task/queue").json()] == [waiting]


# ---------------------------------------------------------------- notifyHook


def told(receiver: Receiver, path: str) -> list[dict[str, Any]]:
    return [call.json() for call in receiver.asked(f"POST {path}")]


@both
def test_the_hook_is_told_of_every_change(shop: Shop, receiver: Receiver, dialect: Dialect) -> None:
    accepted = shop.customer.submit(IMAGINE, "[queue=0.2] [run=0.3] x", callback_url=f"{receiver.url}/hook")
    shop.customer.follow(IMAGINE, accepted)
    copies = {"TA": 1, "NZ": 2}[dialect]
    wait_until(lambda: [task["status"] for task in told(receiver, "/hook")].count("SUCCESS") == copies)
    bodies = told(receiver, "/hook")
    statuses = [task["status"] for task in bodies]
    order = ["NOT_START", "SUBMITTED", "IN_PROGRESS", "SUCCESS"]
    assert statuses == sorted(statuses, key=order.index)
    assert {"NOT_START", "IN_PROGRESS", "SUCCESS"} <= set(statuses)
    assert len({json.dumps(task) for task in bodies}) >= 4  # also of its progress
    assert len(bodies) <= 30
    assert len({json.dumps(task) for task in bodies if task["status"] == "SUCCESS"}) == 1
    assert {task["id"] for task in bodies} == {accepted.provider_ref}
    assert bodies[-1]["imageUrl"] == shop.task(accepted.provider_ref)["imageUrl"]
    adopted = shop.customer.adapter.adopt(bodies[0], shop.customer.lost(IMAGINE, "x"))
    assert adopted == Accepted(provider_ref=accepted.provider_ref)
    headers = receiver.asked("POST /hook")[0].headers
    assert not any("signature" in name.lower() or name.lower() == "authorization" for name in headers)


def test_a_hook_that_fails_is_not_tried_again(shop: Shop, receiver: Receiver) -> None:
    receiver.misbehave(Fault("answer", times=100, status=500))
    shop.done(shop.post("imagine", prompt="x", notifyHook=f"{receiver.url}/deaf")["result"])
    wait_until(lambda: any(task["status"] == "SUCCESS" for task in told(receiver, "/deaf")))
    ranks = [(task["status"], task["progress"]) for task in told(receiver, "/deaf")]
    assert len(ranks) == len(set(ranks))


def test_a_tasks_hook_wins_over_the_servers(shop: Shop, receiver: Receiver) -> None:
    shop.server.notify_hook = f"{receiver.url}/server"
    shop.post("imagine", prompt="mine", notifyHook=f"{receiver.url}/task")
    shop.post("imagine", prompt="nobody's")
    wait_until(lambda: told(receiver, "/server") and told(receiver, "/task"))
    assert {task["prompt"] for task in told(receiver, "/task")} == {"mine"}
    assert {task["prompt"] for task in told(receiver, "/server")} == {"nobody's"}
