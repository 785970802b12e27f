"""The simulated BFL, used by our real adapter: what the fact sheet lists, section 10, one test each."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from common.providers.base import (
    Accepted,
    Failed,
    NotAccepted,
    NoVerdict,
    Running,
    Succeeded,
    Trouble,
    Unknown,
)
from tests.infrastructure.children import wait_until
from tests.simulators.bfl import Bfl, signature
from tests.simulators.frame import Fault, Stage
from tests.simulators.media import MediaHost, png
from tests.simulators.pace import Pace
from tests.simulators.receiver import Receiver
from tests.unit.simulators.customer import Customer

PRO = "flux/pro-1.1"


@pytest.fixture
def media() -> MediaHost:
    return MediaHost()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def bfl(media: MediaHost, receiver: Receiver) -> Iterator[Bfl]:
    simulator = Bfl(media, Pace(0.05, 0.1), settle_s=0.02)
    with Stage([media, simulator, receiver]):
        yield simulator


@pytest.fixture
def customer(bfl: Bfl) -> Iterator[Customer]:
    with Customer("bfl", bfl.url, {"api_key": bfl.account.key}) as customer:
        yield customer


def key(bfl: Bfl) -> dict[str, str]:
    return {"x-key": bfl.account.key}


def post(customer: Customer, bfl: Bfl, body: object, model: str = "flux-pro-1.1") -> tuple[int, dict]:
    reply = customer.ask("POST", f"{bfl.url}/v1/{model}", body, key(bfl))
    return reply.status, reply.object()


def test_from_submit_to_picture(customer: Customer, bfl: Bfl, media: MediaHost) -> None:
    accepted = customer.submit(PRO, "a red fox [run=0.6]", seed=7)
    assert isinstance(accepted, Accepted)
    assert accepted.cost == "4"
    verdict, before = customer.follow(PRO, accepted)
    assert isinstance(verdict, Succeeded)
    running = [seen for seen in before if isinstance(seen, Running)]
    assert running
    assert running[-1].progress is not None
    (output,) = verdict.outputs
    (made,) = bfl.made("a red fox [run=0.6]")
    assert (made.size, made.seed) == ((1024, 768), 7)
    reply = customer.ask("GET", output.url or "")
    assert (reply.status, reply.headers["content-type"]) == (200, "image/jpeg")
    assert reply.body == media.content(output.url or "")
    assert reply.body[:2] == b"\xff\xd8"
    assert media.leaks == []


def test_every_picture_is_another(customer: Customer, media: MediaHost) -> None:
    verdicts = [customer.made(PRO, "the same", seed=1, output_format="png")[0] for _ in range(2)]
    contents = {
        media.content(verdict.outputs[0].url or "") for verdict in verdicts if isinstance(verdict, Succeeded)
    }
    assert len(contents) == 2


def test_wrong_key(bfl: Bfl) -> None:
    with Customer("bfl", bfl.url, {"api_key": "wrong"}) as stranger:
        verdict = stranger.submit(PRO, "x")
        assert isinstance(verdict, NotAccepted)
        assert verdict.trouble is Trouble.CREDENTIALS
        assert "403" in verdict.message
        assert stranger.ask("GET", f"{bfl.url}/v1/credits").status == 403
    assert bfl.generations == {}


def test_only_the_region_that_has_a_task_knows_it(customer: Customer, bfl: Bfl) -> None:
    accepted = customer.submit(PRO, "x")
    task = accepted.provider_ref
    own = bfl.generations[task].region
    assert accepted.memo["polling_url"] == f"{bfl.regional_url(own)}/v1/get_result?id={task}"
    customer.follow(PRO, accepted)
    other = {"eu": "us", "us": "eu"}[own]
    said = {
        url: customer.ask("GET", f"{url}/v1/get_result?id={task}", headers=key(bfl)).object()["status"]
        for url in (bfl.url, bfl.regional_url(own), bfl.regional_url(other))
    }
    assert list(said.values()) == ["Task not found", "Ready", "Task not found"]


def test_a_submit_to_a_region_stays_there(customer: Customer, bfl: Bfl) -> None:
    for _ in range(3):
        customer.ask("POST", f"{bfl.regional_url('us')}/v1/flux-dev", {"prompt": "x"}, key(bfl))
    assert {made.region for made in bfl.generations.values()} == {"us"}


def test_not_found_right_after_the_submit(customer: Customer, bfl: Bfl) -> None:
    bfl.settle_s = 30
    accepted = customer.submit(PRO, "x")
    url = accepted.memo["polling_url"]
    looks = [customer.ask("GET", url, headers=key(bfl)) for _ in range(2)]
    assert {look.object()["status"] for look in looks} == {"Task not found"}
    assert {look.status for look in looks} == {404, 200}
    verdict = customer.poll(PRO, accepted)
    assert isinstance(verdict, NoVerdict)
    assert verdict.gone
    bfl.generations[accepted.provider_ref].made_at -= 31
    assert isinstance(customer.poll(PRO, accepted), Succeeded)


def test_webhook_changes_the_answer_and_is_called(customer: Customer, bfl: Bfl, receiver: Receiver) -> None:
    body = {"prompt": "hook", "webhook_url": f"{receiver.url}/hook", "webhook_secret": "whsecret"}
    status, told = post(customer, bfl, body)
    assert status == 200
    assert "polling_url" not in told
    assert (told["status"], told["webhook_url"]) == ("Pending", f"{receiver.url}/hook")
    call = wait_until(lambda: receiver.asked("POST /hook"), 5)[0]
    assert call.json()["id"] == told["id"]
    assert call.json()["status"] == "Ready"
    assert call.json()["result"]["sample"].startswith("http://")
    assert call.headers["x-bfl-signature"] == signature("whsecret", call.body)
    (made,) = bfl.made("hook")
    assert made.hooked == 1


def test_webhook_of_a_failure(customer: Customer, bfl: Bfl, receiver: Receiver) -> None:
    post(customer, bfl, {"prompt": "[fail]", "webhook_url": f"{receiver.url}/hook"})
    call = wait_until(lambda: receiver.asked("POST /hook"), 5)[0]
    assert call.json()["status"] == "Error"
    assert "x-bfl-signature" not in call.headers


def test_golden_webhook_signature() -> None:
    known = "sha256=32099db55f1d9a85263cf35822a3971843f8f094948834a8a5d044c01dc73cba"
    assert signature("whsecret", b'{"id":"abc","status":"Ready"}') == known


@pytest.mark.parametrize(
    ("model", "body", "fields"),
    [
        ("flux-pro-1.1", {"width": 100}, ["width"]),
        ("flux-pro-1.1", {"width": 1000}, ["width"]),
        ("flux-pro-1.1", {"safety_tolerance": 9, "height": 2000}, ["height", "safety_tolerance"]),
        ("flux-pro-1.1", {"safety_tolerance": "2"}, ["safety_tolerance"]),
        ("flux-pro-1.1", {"output_format": "gif"}, ["output_format"]),
        ("flux-dev", {"steps": 51}, ["steps"]),
        ("flux-2-pro", {}, ["prompt"]),
        ("flux-2-pro", {"prompt": "x", "safety_tolerance": 6}, ["safety_tolerance"]),
        ("flux-2-pro", {"prompt": "x", "width": 32, "height": 64}, ["width"]),
        ("flux-2-pro", {"prompt": "x", "width": 4096, "height": 2048}, ["width"]),
        ("flux-pro-1.1-ultra", {"aspect_ratio": "wide"}, ["aspect_ratio"]),
        ("flux-pro-1.1", {"webhook_url": "not a url"}, ["webhook_url"]),
    ],
)  # fmt: skip
def test_bad_input(customer: Customer, bfl: Bfl, model: str, body: dict, fields: list[str]) -> None:
    status, told = post(customer, bfl, body, model)
    assert status == 422
    assert sorted(problem["loc"][1] for problem in told["detail"]) == fields
    assert all(problem["msg"] and problem["type"] for problem in told["detail"])
    assert bfl.generations == {}


def test_pictures_are_looked_at(customer: Customer, bfl: Bfl) -> None:
    good = base64.b64encode(png("in")).decode()
    body = {"prompt": "x", "input_image": good, "input_image_2": "https://example.com/a.png"}
    assert post(customer, bfl, body, "flux-kontext-pro")[0] == 200
    status, told = post(customer, bfl, {"prompt": "x", "input_image_3": good[:100]}, "flux-kontext-pro")
    assert (status, told["detail"]) == (400, "Could not decode input_image_3")


def test_credits_run_out(customer: Customer, bfl: Bfl) -> None:
    bfl.account.balance = 7.0
    assert isinstance(customer.submit(PRO, "x"), Accepted)
    assert customer.ask("GET", f"{bfl.url}/v1/credits", headers=key(bfl)).json() == {"credits": 3.0}
    verdict = customer.submit(PRO, "y")
    assert isinstance(verdict, NotAccepted)
    assert verdict.trouble is Trouble.BALANCE
    assert bfl.made("y") == []


def test_the_twenty_fifth_active_task(customer: Customer, bfl: Bfl) -> None:
    accepted = [customer.submit(PRO, f"[run=30] {number}") for number in range(24)]
    verdict = customer.submit(PRO, "one more")
    assert isinstance(verdict, NotAccepted)
    assert verdict.trouble is Trouble.BUSY
    assert bfl.made("one more") == []
    bfl.generations[accepted[-1].provider_ref].made_at -= 31
    assert isinstance(customer.submit(PRO, "room again"), Accepted)


@pytest.mark.parametrize(
    ("directive", "status", "code"),
    [
        ("moderate-input", "Request Moderated", "content_moderated"),
        ("moderate-output", "Content Moderated: Derivative Works Filter", "content_moderated"),
        ("fail", "Error: internal", "provider_failed"),
    ],
)
def test_bad_ends(customer: Customer, directive: str, status: str, code: str) -> None:
    verdict, _ = customer.made(PRO, f"[{directive}] x")
    assert isinstance(verdict, Failed)
    assert verdict.code == code
    assert verdict.message.startswith(status)


@pytest.mark.parametrize(
    ("age_s", "prompt", "status"), [(595, "x", 200), (605, "x", 403), (1, "[expire]", 403)]
)
def test_the_sample_dies_in_time(
    customer: Customer, bfl: Bfl, age_s: float, prompt: str, status: int
) -> None:
    accepted = customer.submit(PRO, prompt)
    bfl.generations[accepted.provider_ref].made_at -= age_s
    verdict = customer.poll(PRO, accepted)
    assert isinstance(verdict, Succeeded)
    assert customer.ask("GET", verdict.outputs[0].url or "").status == status


def test_a_key_that_leaks_is_noticed(customer: Customer, bfl: Bfl, media: MediaHost) -> None:
    verdict, _ = customer.made(PRO, "x")
    assert isinstance(verdict, Succeeded)
    reply = customer.ask("GET", verdict.outputs[0].url or "", headers=key(bfl))
    assert reply.status == 400
    assert len(media.leaks) == 1


def test_a_busy_moment_while_polling(customer: Customer, bfl: Bfl) -> None:
    accepted = customer.submit(PRO, "x")
    fault = bfl.misbehave(Fault("answer", "get_result", status=503, body=b"upstream busy"))
    verdict, before = customer.follow(PRO, accepted)
    assert fault.met == 1
    assert isinstance(before[0], NoVerdict)
    assert isinstance(verdict, Succeeded)


def test_a_lost_answer_has_made_a_task(customer: Customer, bfl: Bfl) -> None:
    bfl.misbehave(Fault("drop_reply", "POST /v1/flux-pro-1.1"))
    assert isinstance(customer.submit(PRO, "lost"), Unknown)
    assert len(bfl.made("lost")) == 1


@pytest.mark.parametrize("model", ["flux/pro-1.1-ultra", "flux/dev", "flux/2-pro"])
def test_all_models_of_our_adapter(customer: Customer, bfl: Bfl, model: str) -> None:
    verdict, _ = customer.made(model, "x")
    assert isinstance(verdict, Succeeded)
    (made,) = bfl.made("x")
    if model == "flux/pro-1.1-ultra":
        assert made.size == (2720, 1536)


def test_unknown_model(customer: Customer, bfl: Bfl) -> None:
    assert post(customer, bfl, {"prompt": "x"}, "flux-9") == (404, {"detail": "Not Found"})


def test_no_json(customer: Customer, bfl: Bfl) -> None:
    reply = customer.ask("POST", f"{bfl.url}/v1/flux-dev", json.loads('"text"'), key(bfl))
    assert reply.status == 422
