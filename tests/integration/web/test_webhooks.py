"""Webhooks: endpoints as the openai SDK manages them, and deliveries to a receiver that has its whims.

What a worker does is done here by its own flow, one round at a time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from openai import InvalidWebhookSignatureError, OpenAI
from sqlalchemy import func, select, update
from standardwebhooks import Webhook, WebhookVerificationError

from common import clock
from common.db import reading, transaction
from common.models import WebhookDelivery, WebhookEndpoint
from common.services import jobs, sweep, webhook_endpoints, webhooks
from common.services.jobs import NewJob
from common.services.users import Actor
from common.settings import settings
from common.words import Delivery, Role
from tests.infrastructure.children import wait_until
from tests.infrastructure.inside import configured
from tests.infrastructure.valkey import Valkey
from tests.integration.web.api import Api
from tests.integration.web.jobs import BODY, fail, succeed
from tests.simulators.frame import Call, Fault, Stage
from tests.simulators.receiver import Receiver
from web.app import create_app
from workers import http
from workers.steps.deliver import Deliver

SCHEDULE = "0,0.2,0.4"


@pytest.fixture(scope="module")
def app(released_url: str, valkey_server: Valkey, media: Path) -> Iterator[Flask]:
    """The application, which may send to this machine, and tries three times within a second."""
    environment = {
        "DATABASE_URL": released_url,
        "REDIS_URL": valkey_server.url,
        "SECRET_KEY": "a secret for tests",
        "MEDIA_DIR": str(media),
        "ALLOW_PRIVATE_ADDRESSES": "true",
        "WEBHOOK_SCHEDULE_S": SCHEDULE,
        "LEASE_S": "0.3",
    }
    with configured(environment):
        http.shared.cache_clear()
        yield create_app()
        http.shared.cache_clear()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Somebody who wants to be told."""
    made = Receiver()
    with Stage([made]):
        yield made


@pytest.fixture(autouse=True)
def _nothing_owed(app: Flask) -> Iterator[None]:
    """What a test leaves in the outbox is not the next one's."""
    yield
    with transaction() as session:
        session.execute(update(WebhookDelivery).values(status=Delivery.FAILED))


def endpoint(user: Api, receiver: Receiver, path: str = "/hook", **more: Any) -> Any:
    """A new endpoint of the user's."""
    return user.post("/v1/webhook_endpoints", {"url": f"{receiver.url}{path}", "name": "mine", **more})


def ended_job(user: Api, **more: Any) -> str:
    """A job of the user's that has succeeded."""
    job_id = str(user.post("/v1/jobs", {**BODY, **more})["id"])
    succeed(job_id)
    return job_id


def deliver() -> int:
    """One round of a worker: what is due is claimed, sent and written down; how much that was."""

    async def once() -> int:
        flow = Deliver()
        parcels = await flow.claim(100, frozenset())
        answers = await asyncio.gather(*(flow.ask([parcel]) for parcel in parcels))
        await flow.record([pair for answered in answers for pair in answered])
        await http.shared().close()
        return len(parcels)

    return asyncio.run(once())


def deliver_until_closed(user: Api, rounds: int = 3) -> list[Any]:
    """As many rounds as it takes, at their times; the user's deliveries, newest first."""
    for _ in range(rounds):
        wait_until(deliver, 5, what="something is due")
    return list(user.get("/v1/webhook_deliveries")["data"])


def verified(secret: str, call: Call) -> Any:
    """The event, whose signature is right."""
    return Webhook(secret).verify(call.body, {name.lower(): value for name, value in call.headers.items()})


def row(endpoint_id: str) -> WebhookEndpoint:
    """The endpoint as it is kept."""
    with reading() as session:
        return session.get_one(WebhookEndpoint, endpoint_id)


# ---------------------------------------------------------------- endpoints


def test_an_endpoint_is_made_shown_changed_and_deleted(user: Api, other: Api, receiver: Receiver) -> None:
    made = user.ask(
        "POST", "/v1/webhook_endpoints", {"url": receiver.url, "name": "a", "event_types": ["job.failed"]}
    )
    assert made.status == 201
    secret = made.json["signing_secret"]
    path = f"/v1/webhook_endpoints/{made.json['id']}"
    shown = user.get(path)
    assert shown == {name: value for name, value in made.json.items() if name != "signing_secret"}
    assert secret not in str(shown)
    assert secret.endswith(shown["signing_secret_hint"][-4:])
    assert (shown["event_types"], shown["enabled"], shown["failures"]) == (["job.failed"], True, 0)
    for method, body in (("GET", None), ("POST", {"name": "b"}), ("DELETE", None)):
        assert other.ask(method, path, body).status == 404
    changed = user.post(path, {"name": "b", "event_types": ["job.succeeded", "job.succeeded"]})
    assert (changed["name"], changed["url"], changed["event_types"]) == ("b", receiver.url, ["job.succeeded"])
    gone = user.ask("DELETE", path)
    assert gone.json == {"id": shown["id"], "object": "webhook_endpoint.deleted", "deleted": True}
    assert user.ask("GET", path).status == 404


def test_the_list_is_newest_first_with_a_cursor(user: Api, receiver: Receiver) -> None:
    made = [endpoint(user, receiver, f"/{number}")["id"] for number in range(3)]
    first = user.get("/v1/webhook_endpoints?limit=2")
    assert [each["id"] for each in first["data"]] == made[:0:-1]
    assert first["has_more"]
    rest = user.get(f"/v1/webhook_endpoints?limit=2&after={first['next']}")
    assert [each["id"] for each in rest["data"]] == made[:1]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "x"}, "url"),
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "https://example.com", "event_types": ["batch.completed"]}, "event_types.0"),
        ({"url": "https://example.com", "event_types": []}, "event_types"),
        ({"url": "https://example.com", "secret": "mine"}, "secret"),
        ({"url": "https://example.com", "name": 5}, "name"),
    ],
)
def test_bad_endpoints_are_refused(user: Api, body: Any, param: str) -> None:
    refused = user.ask("POST", "/v1/webhook_endpoints", body)
    assert (refused.status, refused.json["error"]["param"]) == (422, param)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3", "[::1]", "localhost", "169.254.169.254"])
def test_plainly_private_receivers_are_refused(user: Api, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    public = settings().model_copy(update={"allow_private_addresses": False})
    monkeypatch.setattr(webhook_endpoints, "settings", lambda: public)
    refused = user.ask("POST", "/v1/webhook_endpoints", {"url": f"http://{host}/hook"})
    assert (refused.status, refused.json["error"]["param"]) == (422, "url")
    refused = user.ask("POST", "/v1/jobs", {**BODY, "webhook_url": f"http://{host}/hook"})
    assert (refused.status, refused.json["error"]["param"]) == (422, "webhook_url")


def test_there_is_a_limit(user: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_endpoints, "MOST_ENDPOINTS", 1)
    endpoint(user, receiver)
    assert user.ask("POST", "/v1/webhook_endpoints", {"url": receiver.url}).status == 409


def test_what_can_be_told(user: Api) -> None:
    told = user.get("/v1/webhook_event_types")
    assert told["data"] == ["job.succeeded", "job.failed", "job.canceled", "video.completed", "video.failed"]


# ---------------------------------------------------------------- what is sent


def test_whoever_listens_is_told_once_and_can_prove_it(user: Api, other: Api, receiver: Receiver) -> None:
    made = endpoint(user, receiver, "/all")
    endpoint(user, receiver, "/failures", event_types=["job.failed"])
    endpoint(other, receiver, "/other")
    job_id = ended_job(user, webhook_url=f"{receiver.url}/own")
    assert deliver() == 2
    (call,) = receiver.asked("/all")
    event = verified(made["signing_secret"], call)
    assert (event["type"], event["object"], event["data"]["id"]) == ("job.succeeded", "event", job_id)
    assert event["data"] == user.get(f"/v1/jobs/{job_id}")
    assert call.headers["webhook-id"] == event["id"]
    (own,) = receiver.asked("/own")
    assert verified(user.get("/v1/webhook_secret")["secret"], own)["data"]["id"] == job_id
    assert {each.path for each in receiver.calls} == {"/all", "/own"}
    sent = user.get(f"/v1/webhook_deliveries?job_id={job_id}&status=delivered")["data"]
    assert {(each["tries"], each["response_status"], each["error"]) for each in sent} == {(1, 204, None)}
    assert other.get("/v1/webhook_deliveries")["data"] == []
    kinds = [moment["kind"] for moment in user.get(f"/v1/jobs/{job_id}/timeline")["data"]]
    assert kinds.count("webhook_owed") == kinds.count("webhook_delivered") == 2


def test_failures_and_cancels_are_told_too(user: Api, receiver: Receiver) -> None:
    endpoint(user, receiver, event_types=["job.failed", "job.canceled"])
    fail(user.post("/v1/jobs", BODY)["id"])
    user.post(f"/v1/jobs/{user.post('/v1/jobs', BODY)['id']}/cancel", {})
    ended_job(user)
    deliver()
    told = [(call.json()["type"], call.json()["data"]["status"]) for call in receiver.calls]
    assert sorted(told) == [("job.canceled", "canceled"), ("job.failed", "failed")]


def test_videos_of_the_openai_dialect_are_told_in_its_words(user: Api, receiver: Receiver) -> None:
    made = endpoint(user, receiver, event_types=["video.completed"])
    actor = Actor(user.user_id, user.email, "", Role.USER)
    for dialect in (None, "openai"):
        new = NewJob(model="kling/text-to-video", input={"prompt": "rain"}, dialect=dialect)
        with transaction() as session:
            job, _ = jobs.accept(session, actor, new)
        succeed(job.id)
    assert deliver() == 1
    event = verified(made["signing_secret"], receiver.calls[0])
    assert (event["type"], event["data"]) == ("video.completed", {"id": job.id})
    with OpenAI(api_key="none", webhook_secret=made["signing_secret"]) as client:
        unwrapped: Any = client.webhooks.unwrap(receiver.calls[0].body, receiver.calls[0].headers)
        assert (unwrapped.type, unwrapped.data.id) == ("video.completed", job.id)
        with pytest.raises(InvalidWebhookSignatureError):
            client.webhooks.unwrap(b"{}", receiver.calls[0].headers)


def test_a_new_secret_and_the_old_one_both_sign_for_a_day(user: Api, receiver: Receiver) -> None:
    made = endpoint(user, receiver)
    path = f"/v1/webhook_endpoints/{made['id']}/rotate_secret"
    rotated = user.post(path, {"keep_old_secret_active_for_24_hours": True})
    ended_job(user)
    deliver()
    for secret in (made["signing_secret"], rotated["signing_secret"]):
        assert verified(secret, receiver.calls[0])
    newest = user.post(path, {})["signing_secret"]
    ended_job(user)
    deliver()
    assert verified(newest, receiver.calls[1])
    with pytest.raises(WebhookVerificationError):
        verified(rotated["signing_secret"], receiver.calls[1])


def test_the_users_own_secret_rotates_as_well(user: Api, receiver: Receiver) -> None:
    old = user.get("/v1/webhook_secret")["secret"]
    new = user.ask("POST", "/v1/webhook_secret/rotate").json["secret"]
    assert new not in ("", old)
    assert user.get("/v1/webhook_secret")["secret"] == new
    ended_job(user, webhook_url=receiver.url)
    deliver()
    assert verified(new, receiver.calls[0])


# ---------------------------------------------------------------- receivers with whims


def test_it_is_tried_again_with_the_same_id(user: Api, receiver: Receiver) -> None:
    endpoint(user, receiver)
    receiver.misbehave(Fault("answer", times=1, status=500))
    receiver.misbehave(Fault("drop", times=1))
    ended_job(user)
    (delivery,) = deliver_until_closed(user)
    assert (delivery["status"], delivery["tries"]) == ("delivered", 3)
    assert {call.headers["webhook-id"] for call in receiver.calls} == {delivery["id"]}
    assert len(receiver.calls) == 3


def test_at_the_schedules_end_it_has_failed_and_can_be_sent_again(user: Api, receiver: Receiver) -> None:
    endpoint(user, receiver)
    receiver.misbehave(Fault("answer", times=3, status=503))
    ended_job(user)
    (delivery,) = deliver_until_closed(user)
    assert (delivery["status"], delivery["tries"], delivery["response_status"]) == ("failed", 3, 503)
    again = user.ask("POST", f"/v1/webhook_deliveries/{delivery['id']}/replay")
    assert (again.status, again.json["status"]) == (202, "pending")
    assert user.ask("POST", f"/v1/webhook_deliveries/{delivery['id']}/replay").status == 409
    assert deliver() == 1
    assert user.get(f"/v1/webhook_deliveries/{delivery['id']}")["status"] == "delivered"
    assert receiver.calls[-1].headers["webhook-id"] == delivery["id"]


def test_what_a_receiver_asks_to_wait_is_waited(user: Api, receiver: Receiver) -> None:
    endpoint(user, receiver)
    receiver.misbehave(Fault("answer", times=1, status=429, headers={"Retry-After": "3600"}))
    ended_job(user)
    deliver()
    with reading() as session:
        due_at = session.scalar(
            select(func.max(WebhookDelivery.due_at)).where(WebhookDelivery.user_id == user.user_id)
        )
    assert due_at is not None
    assert 3500 < due_at - clock.epoch() <= 3600


def test_gone_is_gone(user: Api, receiver: Receiver) -> None:
    made = endpoint(user, receiver)
    receiver.misbehave(Fault("answer", times=1, status=410))
    ended_job(user)
    deliver()
    ended_job(user)
    assert deliver() == 0
    shown = user.get(f"/v1/webhook_endpoints/{made['id']}")
    assert (shown["enabled"], "410" in shown["disabled_reason"]) == (False, True)
    assert (
        user.ask("POST", f"/v1/webhook_endpoints/{made['id']}/test", {"event_type": "job.failed"}).status
        == 409
    )
    user.post(f"/v1/webhook_endpoints/{made['id']}", {"enabled": True})
    ended_job(user)
    assert deliver() == 1


def test_redirects_are_not_followed(user: Api, receiver: Receiver) -> None:
    endpoint(user, receiver)
    receiver.misbehave(
        Fault("answer", times=1, status=307, headers={"Location": f"{receiver.url}/elsewhere"})
    )
    ended_job(user)
    deliver()
    assert [call.path for call in receiver.calls] == ["/hook"]
    (delivery,) = user.get("/v1/webhook_deliveries")["data"]
    assert (delivery["status"], delivery["response_status"]) == ("pending", 307)


def test_names_that_lead_to_private_addresses_are_refused(
    user: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint(user, receiver)
    ended_job(user)
    guarded = http.AioHttp(allow_private=False)
    monkeypatch.setattr("workers.steps.deliver.shared", lambda: guarded)
    deliver()
    assert not receiver.calls
    (delivery,) = user.get("/v1/webhook_deliveries")["data"]
    assert (delivery["response_status"], delivery["tries"]) == (None, 1)
    assert "only public ones" in delivery["error"]


def test_an_endpoint_that_fails_often_is_left_alone_for_a_while(
    user: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_endpoints, "FAILURES", 2)
    monkeypatch.setattr(webhook_endpoints, "_PAUSE_S", 1.0)
    made, well = endpoint(user, receiver, "/ill"), endpoint(user, receiver, "/well")
    receiver.misbehave(Fault("answer", match="/ill", times=2, status=500))
    ended_job(user)
    deliver()
    ended_job(user)
    deliver()
    assert (row(made["id"]).failures, row(well["id"]).failures) == (2, 0)
    assert user.get(f"/v1/webhook_endpoints/{made['id']}")["paused_until"] is not None
    ended_job(user)
    deliver()
    assert (len(receiver.asked("/ill")), len(receiver.asked("/well"))) == (2, 3)
    wait_until(deliver, 5, what="it is tried again")
    wait_until(lambda: deliver() == 0, 5, what="all is sent")
    assert row(made["id"]).failures == 0
    delivered = user.get(f"/v1/webhook_deliveries?endpoint_id={made['id']}&status=delivered")["data"]
    assert len(delivered) == 3


def test_a_receiver_that_is_full_leaves_room_to_the_others(user: Api, receiver: Receiver) -> None:
    slow, quick = endpoint(user, receiver, "/slow"), endpoint(user, receiver, "/quick")
    ended_job(user)
    with transaction() as session:
        parcels = webhooks.due(session, 10, frozenset({slow["id"]}))
    assert [Deliver().lane(parcel) for parcel in parcels] == [quick["id"]]


def test_a_delivery_whose_worker_died_is_sent_again_as_the_same(user: Api, receiver: Receiver) -> None:
    endpoint(user, receiver)
    ended_job(user)
    with transaction() as session:
        (parcel,) = webhooks.due(session, 10)
    assert wait_until(deliver, 5, what="its lease has run out") == 1
    assert receiver.calls[0].headers["webhook-id"] == parcel.id
    with transaction() as session:  # the dead one was only slow
        webhooks.refused(session, parcel, "no answer", status=None, retry_after_s=None)
    (delivery,) = user.get("/v1/webhook_deliveries")["data"]
    assert (delivery["status"], delivery["tries"]) == ("delivered", 1)


def test_what_nobody_takes_in_its_time_is_closed(user: Api, receiver: Receiver) -> None:
    endpoint(user, receiver)
    ended_job(user)
    with transaction() as session:
        session.execute(update(WebhookDelivery).values(gives_up_at=clock.epoch() - 1))
    for part in sweep.PARTS:
        with transaction() as session:
            part(session)
    (delivery,) = user.get("/v1/webhook_deliveries")["data"]
    assert delivery["status"] == "failed"
    assert deliver() == 0


# ---------------------------------------------------------------- by hand


def test_a_sample_is_sent_and_its_answer_told(user: Api, receiver: Receiver) -> None:
    made = endpoint(user, receiver)
    receiver.misbehave(Fault("answer", times=1, status=418))
    worker = threading.Thread(target=lambda: wait_until(deliver, 10, what="the sample is sent"))
    worker.start()
    told = user.post(f"/v1/webhook_endpoints/{made['id']}/test", {"event_type": "job.succeeded"})
    worker.join()
    assert (told["status_code"], told["success"], told["webhook_endpoint_id"]) == (418, True, made["id"])
    assert verified(made["signing_secret"], receiver.calls[0])["type"] == "job.succeeded"
    assert row(made["id"]).failures == 0
    assert deliver() == 0


def test_what_was_not_taken_since_is_sent_again(user: Api, receiver: Receiver) -> None:
    made = endpoint(user, receiver)
    receiver.misbehave(Fault("answer", times=3, status=500))
    ended_job(user)
    deliver_until_closed(user)
    ended_job(user)
    deliver()
    path = f"/v1/webhook_endpoints/{made['id']}/replay"
    assert user.post(path, {"since": "2026-01-01T00:00:00Z"})["count"] == 1
    assert deliver() == 1
    assert user.post(path, {"since": "2026-01-01T00:00:00Z", "delivered": True})["count"] == 2
    assert user.post(path, {"since": "2099-01-01T00:00:00Z", "delivered": True})["count"] == 0
    assert user.ask("POST", path, {"since": "yesterday"}).status == 422


def test_a_deleted_endpoint_is_told_nothing_more(user: Api, receiver: Receiver) -> None:
    made = endpoint(user, receiver)
    ended_job(user)
    user.ask("DELETE", f"/v1/webhook_endpoints/{made['id']}")
    assert deliver() == 0
    (delivery,) = user.get("/v1/webhook_deliveries")["data"]
    assert (delivery["status"], delivery["tries"]) == ("failed", 0)
    assert user.ask("POST", f"/v1/webhook_deliveries/{delivery['id']}/replay").status == 409
