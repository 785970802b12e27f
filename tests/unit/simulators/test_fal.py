"""The simulated fal, used by our real adapter: what the fact sheet lists, section 13, one test each."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from PIL import Image

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
from tests.simulators.fal import Fal, signature
from tests.simulators.frame import Call, Fault, Stage
from tests.simulators.media import MediaHost
from tests.simulators.pace import Pace
from tests.simulators.receiver import Receiver
from tests.unit.simulators.customer import Customer

PRO = "flux/pro-1.1"
PATH = "fal-ai/flux-pro/v1.1"
APP = "fal-ai/flux-pro"


@pytest.fixture
def media() -> MediaHost:
    return MediaHost()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def fal(media: MediaHost, receiver: Receiver) -> Iterator[Fal]:
    simulator = Fal(media, Pace(0.05, 0.1))
    with Stage([media, simulator, receiver]):
        yield simulator


@pytest.fixture
def customer(fal: Fal) -> Iterator[Customer]:
    with Customer("fal", fal.url, {"key": fal.account.key}) as customer:
        yield customer


def key(fal: Fal) -> dict[str, str]:
    return {"Authorization": f"Key {fal.account.key}"}


def ask(customer: Customer, fal: Fal, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    reply = customer.ask(method, f"{fal.url}/{path}", body, key(fal))
    return reply.status, reply.json()


def hooks(receiver: Receiver, count: int) -> list[Call]:
    return wait_until(lambda: len(receiver.calls) >= count and list(receiver.calls), 5)


def test_from_submit_to_picture(customer: Customer, fal: Fal, media: MediaHost) -> None:
    accepted = customer.submit(PRO, "a red fox [run=0.6]", seed=7)
    assert isinstance(accepted, Accepted)
    verdict, before = customer.follow(PRO, accepted)
    assert isinstance(verdict, Succeeded)
    assert any(isinstance(seen, Running) for seen in before)
    (output,) = verdict.outputs
    assert (output.width, output.height, output.content_type) == (1024, 768, "image/jpeg")
    (made,) = fal.made("a red fox [run=0.6]")
    assert made.seed == 7
    reply = customer.ask("GET", output.url or "")
    assert reply.status == 200
    assert reply.body == media.content(output.url or "")
    assert media.leaks == []


def test_several_pictures_are_several(customer: Customer, media: MediaHost) -> None:
    verdict, _ = customer.made("flux/schnell", "four", n=4)
    assert isinstance(verdict, Succeeded)
    assert len({media.content(output.url or "") for output in verdict.outputs}) == 4


@pytest.mark.parametrize("model", ["flux/pro-1.1-ultra", "flux/dev", "flux/schnell", "flux/2-pro"])
def test_all_models_of_our_adapter(customer: Customer, model: str) -> None:
    assert isinstance(customer.made(model, "x")[0], Succeeded)


def test_wrong_key(fal: Fal) -> None:
    with Customer("fal", fal.url, {"key": "wrong"}) as stranger:
        verdict = stranger.submit(PRO, "x")
        assert isinstance(verdict, NotAccepted)
        assert verdict.trouble is Trouble.CREDENTIALS
        assert stranger.ask("POST", f"{fal.url}/{PATH}", {"prompt": "x"}).status == 401
        assert stranger.ask("GET", f"{fal.url}/{APP}/requests/x/status").status == 401
    assert fal.generations == {}


def test_status_is_under_owner_and_app_only(customer: Customer, fal: Fal) -> None:
    request_id = customer.submit(PRO, "x").provider_ref
    assert ask(customer, fal, "GET", f"{APP}/requests/{request_id}/status")[0] == 202
    reply = customer.ask("GET", f"{fal.url}/{PATH}/requests/{request_id}/status", headers=key(fal))
    assert reply.status == 405
    assert ask(customer, fal, "GET", f"fal-ai/flux/requests/{request_id}/status")[0] == 404


def test_urls_of_the_answer_lead_there(customer: Customer, fal: Fal) -> None:
    status, told = ask(customer, fal, "POST", PATH, {"prompt": "x"})
    assert (status, told["status"], told["queue_position"]) == (200, "IN_QUEUE", 0)
    base = f"{fal.url}/{APP}/requests/{told['request_id']}"
    assert told["response_url"] == base
    assert told["status_url"] == f"{base}/status"
    assert told["cancel_url"] == f"{base}/cancel"


def test_202_then_200(customer: Customer, fal: Fal) -> None:
    request_id = customer.submit(PRO, "[queue=30] [run=30] x").provider_ref
    path = f"{APP}/requests/{request_id}/status"
    seen: list[tuple[int, str]] = []
    made = fal.generations[request_id]
    for age_s in (0.0, 31.0, 31.0):
        made.made_at -= age_s
        status, told = ask(customer, fal, "GET", path)
        seen.append((status, told["status"]))
    assert seen == [(202, "IN_QUEUE"), (202, "IN_PROGRESS"), (200, "COMPLETED")]
    assert told["metrics"] == {"inference_time": 30.0}
    assert "error" not in told


def test_result_too_early(customer: Customer, fal: Fal) -> None:
    request_id = customer.submit(PRO, "[run=5] x").provider_ref
    status, told = ask(customer, fal, "GET", f"{APP}/requests/{request_id}")
    assert (status, told["detail"]) == (400, "Request is still in progress")


def test_bad_body_is_accepted_and_fails_in_the_result(customer: Customer, fal: Fal) -> None:
    """Also the types that BFL has are wrong here."""
    body = {"safety_tolerance": 2, "image_size": {"width": -1, "height": 5}, "num_images": 9}
    status, told = ask(customer, fal, "POST", PATH, body)
    assert status == 200
    path = f"{APP}/requests/{told['request_id']}"
    told = wait_until(lambda: completed(customer, fal, path), 5)
    assert "error" not in told
    status, told = ask(customer, fal, "GET", path)
    assert status == 422
    assert {problem["loc"][1] for problem in told["detail"]} == {
        "prompt", "safety_tolerance", "image_size", "num_images",
    }  # fmt: skip
    assert {"loc", "msg", "type", "url"} <= told["detail"][0].keys()


def completed(customer: Customer, fal: Fal, path: str) -> Any:
    status, told = ask(customer, fal, "GET", f"{path}/status")
    return told if status == 200 else None


@pytest.mark.parametrize(
    ("model", "directive", "code", "message", "told"),
    [
        (PRO, "moderate-input", "content_moderated", "HTTP 422: prompt: The content", None),
        (PRO, "moderate-output", "content_moderated", "The safety checker blocked", None),
        ("flux/2-pro", "moderate-output", "content_moderated", "HTTP 422", None),
        (PRO, "fail", "provider_failed", "HTTP 500: Internal server error", "runner_server_error"),
    ],
)
def test_bad_ends(
    customer: Customer, fal: Fal, model: str, directive: str, code: str, message: str, told: str | None
) -> None:
    verdict, _ = customer.made(model, f"[{directive}] x")
    assert isinstance(verdict, Failed)
    assert verdict.code == code
    assert verdict.message.startswith(message)
    (made,) = fal.generations.values()
    assert ask(customer, fal, "GET", f"{made.app}/requests/{made.id}/status")[1].get("error_type") == told


def test_a_blocked_picture_is_black(customer: Customer, fal: Fal, media: MediaHost) -> None:
    customer.made(PRO, "[moderate-output] x")
    (made,) = fal.generations.values()
    assert made.outcome is not None
    assert made.outcome.body["has_nsfw_concepts"] == [True]
    picture = Image.open(io.BytesIO(media.content((made.results or [""])[0])))
    assert (picture.size, picture.getextrema()) == ((1024, 768), ((0, 0),) * 3)


def test_of_several_pictures_only_the_blocked_ones_are_missing(customer: Customer, media: MediaHost) -> None:
    verdict, _ = customer.made("flux/schnell", "[moderate-output=1] x", n=3)
    assert isinstance(verdict, Succeeded)
    assert (len(verdict.outputs), verdict.share) == (2, (2, 3))
    for output in verdict.outputs:
        picture = Image.open(io.BytesIO(media.content(output.url or "")))
        assert picture.getextrema() != ((0, 0),) * 3
    verdict, _ = customer.made("flux/schnell", "[moderate-output] x", n=3)
    assert isinstance(verdict, Failed)
    assert verdict.code == "content_moderated"


def test_locked_account_can_still_be_polled(customer: Customer, fal: Fal) -> None:
    accepted = customer.submit(PRO, "x")
    fal.account.balance = 0.0
    verdict = customer.submit(PRO, "y")
    assert isinstance(verdict, NotAccepted)
    assert verdict.trouble is Trouble.BALANCE
    assert "User is locked" in verdict.message
    assert isinstance(customer.follow(PRO, accepted)[0], Succeeded)
    assert fal.made("y") == []


def test_pictures_are_paid(customer: Customer, fal: Fal) -> None:
    fal.account.balance = 1.0
    customer.made("flux/schnell", "x", n=2)
    customer.made("flux/schnell", "[fail] x", n=2)
    assert fal.account.balance == pytest.approx(1.0 - 2 * 0.003)


def test_unknown_model(customer: Customer, fal: Fal) -> None:
    assert ask(customer, fal, "POST", "fal-ai/flux-9", {"prompt": "x"})[0] == 404


# ---------------------------------------------------------------- webhooks


def verified(fal: Fal, customer: Customer, call: Call) -> bool:
    """As our users would check it: with the key that the service publishes."""
    (jwk,) = customer.ask("GET", f"{fal.url}/.well-known/jwks.json").object()["keys"]
    public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(jwk["x"] + "="))
    parts = [call.headers[f"x-fal-webhook-{name}"] for name in ("request-id", "user-id", "timestamp")]
    message = "\n".join([*parts, hashlib.sha256(call.body).hexdigest()])
    public.verify(bytes.fromhex(call.headers["x-fal-webhook-signature"]), message.encode())
    return True


def test_signed_webhook(customer: Customer, fal: Fal, receiver: Receiver, media: MediaHost) -> None:
    accepted = customer.submit(PRO, "x", callback_url=f"{receiver.url}/hook?attempt=1")
    (call,) = hooks(receiver, 1)
    assert call.path == "/hook?attempt=1"
    assert verified(fal, customer, call)
    told = call.json()
    assert (told["request_id"], told["status"]) == (accepted.provider_ref, "OK")
    assert media.content(told["payload"]["images"][0]["url"])
    verdict = customer.poll(PRO, accepted)
    assert isinstance(verdict, Succeeded)
    assert verdict.outputs[0].url == told["payload"]["images"][0]["url"]


def test_golden_webhook_signature() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    body = b'{"request_id":"req-1","gateway_request_id":"req-1","status":"OK","payload":{"images":[]}}'
    assert signature(private, "req-1", "user-1", "1700000000", body) == (
        "43f36802717fd0e4fffa066b226ecaea60ab9f5c53a27a450a733d0c47e04c20"
        "75824e61e0b2f3d839e5d4d151f900deb359f0a31aff241576d091efce28ca0a"
    )


def test_webhook_of_a_failure(customer: Customer, receiver: Receiver) -> None:
    customer.submit(PRO, "[moderate-input]", callback_url=f"{receiver.url}/hook")
    told = hooks(receiver, 1)[0].json()
    assert (told["status"], told["error"]) == ("ERROR", "Invalid status code: 422")
    assert told["payload"]["detail"][0]["type"] == "content_policy_violation"


def test_webhook_is_repeated_until_it_is_taken(customer: Customer, fal: Fal, receiver: Receiver) -> None:
    fal.hook_delays_s = (0.02, 0.02, 0.02, 0.02)
    receiver.misbehave(Fault("answer", times=1, status=500))
    receiver.misbehave(Fault("drop", times=1))
    customer.submit(PRO, "x", callback_url=f"{receiver.url}/hook")
    calls = hooks(receiver, 3)
    assert [call.status for call in calls] == [500, None, 204]
    assert len({call.body for call in calls}) == 1
    assert fal.made("x")[0].hooked == 3


def test_webhook_is_given_up(customer: Customer, fal: Fal, receiver: Receiver) -> None:
    fal.hook_delays_s = (0.01, 0.01)
    receiver.misbehave(Fault("answer", times=100, status=410))
    customer.submit(PRO, "x", callback_url=f"{receiver.url}/hook")
    hooks(receiver, 3)
    other = customer.submit(PRO, "y", callback_url=f"{receiver.url}/other")
    wait_until(lambda: receiver.asked("/other"), 5)
    assert fal.made("x")[0].hooked == 3
    assert isinstance(other, Accepted)


def test_duplicate_webhooks(customer: Customer, fal: Fal, receiver: Receiver) -> None:
    fal.hook_copies = 2
    customer.submit(PRO, "x", callback_url=f"{receiver.url}/hook")
    first, second = hooks(receiver, 2)
    assert first.body == second.body


def test_webhook_without_payload(customer: Customer, fal: Fal, receiver: Receiver) -> None:
    fal.hook_payload = False
    customer.submit(PRO, "x", callback_url=f"{receiver.url}/hook")
    told = hooks(receiver, 1)[0].json()
    assert (told["status"], told["payload"]) == ("OK", None)
    assert told["payload_error"]


def test_a_lost_answer_reveals_itself_by_its_webhook(
    customer: Customer, fal: Fal, receiver: Receiver
) -> None:
    fal.misbehave(Fault("drop_reply", "POST /fal-ai"))
    lost = customer.submit(PRO, "lost", callback_url=f"{receiver.url}/callbacks/t0ken")
    assert isinstance(lost, Unknown)
    adopted = customer.adapter.adopt(hooks(receiver, 1)[0].json(), customer.lost(PRO, "lost"))
    assert adopted is not None
    assert [made.id for made in fal.made("lost")] == [adopted.provider_ref]
    assert isinstance(customer.poll(PRO, adopted), Succeeded)


# ---------------------------------------------------------------- the ends of results and requests


@pytest.mark.parametrize(("age_s", "is_there"), [(3590, True), (3610, False)])
def test_results_last_an_hour(customer: Customer, fal: Fal, age_s: float, is_there: bool) -> None:
    accepted = customer.submit(PRO, "x")
    fal.generations[accepted.provider_ref].made_at -= age_s
    verdict = customer.poll(PRO, accepted)
    assert isinstance(verdict, Succeeded if is_there else NoVerdict)
    if isinstance(verdict, NoVerdict):
        assert verdict.gone


@pytest.mark.parametrize(("age_s", "status"), [(350, 200), (370, 404)])
def test_large_results_last_six_minutes(customer: Customer, fal: Fal, age_s: float, status: int) -> None:
    _, told = ask(customer, fal, "POST", PATH, {"prompt": "x", "sync_mode": True})
    fal.generations[told["request_id"]].made_at -= age_s
    found, body = ask(customer, fal, "GET", f"{APP}/requests/{told['request_id']}")
    assert found == status
    if status == 200:
        assert body["images"][0]["url"].startswith("data:image/jpeg;base64,/9j/")


def test_cancel_in_the_queue(customer: Customer, fal: Fal) -> None:
    accepted = customer.submit(PRO, "[queue=30] x")
    assert customer.cancel(PRO, accepted) is True
    verdict = customer.poll(PRO, accepted)
    assert isinstance(verdict, Failed)
    assert "HTTP 499" in verdict.message
    path = f"{APP}/requests/{accepted.provider_ref}"
    assert ask(customer, fal, "GET", f"{path}/status")[1]["error_type"] == "client_cancelled"


def test_cancel_while_it_runs_stops_nothing(customer: Customer, fal: Fal) -> None:
    accepted = customer.submit(PRO, "[queue=0] [run=30] x")
    path = f"{APP}/requests/{accepted.provider_ref}/cancel"
    assert ask(customer, fal, "PUT", path) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert customer.cancel(PRO, accepted) is False
    assert isinstance(customer.poll(PRO, accepted), Running)
    fal.generations[accepted.provider_ref].made_at -= 30
    assert isinstance(customer.poll(PRO, accepted), Succeeded)


def test_cancel_when_done_or_unknown(customer: Customer, fal: Fal) -> None:
    accepted = customer.submit(PRO, "x")
    customer.follow(PRO, accepted)
    assert customer.cancel(PRO, accepted) is False
    path = f"{APP}/requests/{accepted.provider_ref}/cancel"
    assert ask(customer, fal, "PUT", path) == (400, {"status": "ALREADY_COMPLETED"})
    assert ask(customer, fal, "PUT", f"{APP}/requests/x/cancel") == (404, {"status": "NOT_FOUND"})


# ---------------------------------------------------------------- the queue


def test_more_than_the_runners_wait(customer: Customer, fal: Fal) -> None:
    fal.account.at_once = 2
    accepted = [customer.submit(PRO, f"[queue=0] [run=30] {number}") for number in range(4)]
    statuses = [ask(customer, fal, "GET", f"{APP}/requests/{one.provider_ref}/status")[1] for one in accepted]
    assert [told["status"] for told in statuses] == ["IN_PROGRESS"] * 2 + ["IN_QUEUE"] * 2
    assert [told.get("queue_position") for told in statuses[2:]] == [0, 1]
    waits = [fal.generations[one.provider_ref].held_s for one in accepted]
    assert waits[:2] == [0, 0]
    assert all(25 < wait_s <= 30 for wait_s in waits[2:])


def test_longest_queue(customer: Customer, fal: Fal) -> None:
    customer.submit(PRO, "[queue=30] x")
    status, _ = ask(customer, fal, "POST", f"{PATH}?fal_max_queue_length=1", {"prompt": "y"})
    assert status == 429
    assert fal.made("y") == []
