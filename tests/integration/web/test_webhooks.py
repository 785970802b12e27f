"""Webhooks: endpoints as the openai SDK manages them, and deliveries to a receiver that has its whims.

What a worker does is done here by its own flow, one round at a time.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from flask import Flask
from openai import InvalidWebhookSignatureError, OpenAI
from sqlalchemy import func, select, update
from standardwebhooks import Webhook, WebhookVerificationError

from common import clock
from common.db import reading, transaction
from common.db.compat import SchemaDrift
from common.models import WebhookDelivery, WebhookEndpoint, WebhookSecret
from common.services import jobs, sweep, webhook_endpoints, webhooks
from common.services.jobs import NewJob
from common.services.users import Actor
from common.services.webhooks import Places
from common.settings import settings
from common.words import Delivery, Role
from tests.infrastructure.children import wait_until
from tests.infrastructure.inside import configured
from tests.infrastructure.valkey import Valkey
from tests.integration.web.api import Api
from tests.integration.web.jobs import BODY, fail, succeed
from tests.simulators.frame import Call, Fault, Stage
from tests.simulators.receiver import Receiver
from web import schemas
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


NEVER = [
    "https://u:p@example.com/", "https://u@example.com/", "http://a..b/", f"http://{'a' * 64}.com/", "http://./",
    "http://0177.0.0.1/", "http://2130706433/", "http://127.1/", "http://%00/", "http://[v1.abc]/", "ftp://a/",
]  # fmt: skip
INSIDE = ["http://[64:ff9b::7f00:1]/", "http://192.0.0.192", "http://[::ffff:127.0.0.1]/", "http://10.0.0.1/"]


@pytest.mark.parametrize("url", [*NEVER, *INSIDE])
def test_what_can_never_be_reached_is_refused_at_every_door(
    user: Api, url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = endpoint(user, receiver)
    tool = user.ask("POST", "/v1/tools", {"name": "fox", **BODY}).json["id"]
    if url in INSIDE:
        public = settings().model_copy(update={"allow_private_addresses": False})
        monkeypatch.setattr(schemas, "settings", lambda: public)
    for path, body, param in (
        ("/v1/webhook_endpoints", {"url": url}, "url"),
        (f"/v1/webhook_endpoints/{made['id']}", {"url": url}, "url"),
        ("/v1/jobs", {**BODY, "webhook_url": url}, "webhook_url"),
        (f"/v1/tools/{tool}/run", {"webhook_url": url}, "webhook_url"),
        ("/v1/schedules", {"interval_s": 60, "job": {**BODY, "webhook_url": url}}, "job.webhook_url"),
    ):
        refused = user.ask("POST", path, body)
        assert (refused.status, refused.json["error"]["param"]) == (422, param), path
    told = user.ask("POST", "/mj/submit/imagine", {"prompt": "a fox", "notifyHook": url})
    assert told.json["code"] not in (1, 22)


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


PICTURE = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(300_000)).decode()


def test_pictures_given_inline_are_only_named(user: Api, receiver: Receiver) -> None:
    endpoint(user, receiver)
    given = [PICTURE, PICTURE.partition(",")[2]]
    ids = [
        user.post("/v1/jobs", {"model": "flux/kontext-pro", "input": {"prompt": "night", "image": picture}})[
            "id"
        ]
        for picture in given
    ]
    for job_id in ids:
        user.post(f"/v1/jobs/{job_id}/cancel", {})
    deliver()
    assert len(receiver.calls) == 2
    for call in receiver.calls:
        told = call.json()["data"]
        picture = given[ids.index(told["id"])]
        assert told["input"] == {"prompt": "night", "image": f"{picture[:64]}… ({len(picture)} characters)"}
        assert len(call.body) < 3000
        assert user.get(f"/v1/jobs/{told['id']}")["input"]["image"] == picture


def test_one_claim_holds_no_more_than_there_is_memory_for(
    user: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MOST_BYTES", 500_000)
    endpoint(user, receiver)
    for _ in range(4):
        body = {"model": "flux/kontext-pro", "input": {"prompt": "night", "image": PICTURE}}
        user.post(f"/v1/jobs/{user.post('/v1/jobs', body)['id']}/cancel", {})
    assert [deliver(), deliver(), deliver()] == [2, 2, 0]
    assert len({call.json()["data"]["id"] for call in receiver.calls}) == 4


def test_a_schema_that_changes_meanwhile_ends_no_delivery(
    user: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint(user, receiver)
    ended_job(user)

    def drifts(*_: Any) -> Any:
        raise SchemaDrift

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(webhooks, "told_job_object", drifts)
        with pytest.raises(SchemaDrift):
            deliver()
    assert deliver() == 1
    assert [each["status"] for each in user.get("/v1/webhook_deliveries")["data"]] == ["delivered"]


def test_a_secret_that_cannot_be_read_is_its_own_receivers_trouble(
    user: Api, other: Api, receiver: Receiver
) -> None:
    ill, well = endpoint(user, receiver, "/ill"), endpoint(other, receiver, "/well")
    for each in (user, other):
        ended_job(each)
    ended_job(user, webhook_url=f"{receiver.url}/own")
    with transaction() as session:
        webhook_endpoints.own_secret(session, user.user_id)  # made at first use
        session.execute(update(WebhookEndpoint).where(WebhookEndpoint.id == ill["id"]).values(secret="?"))
        session.execute(update(WebhookSecret).where(WebhookSecret.user_id == user.user_id).values(secret="?"))
    deliver()
    assert [call.path for call in receiver.calls] == ["/well"]
    deliveries = user.get("/v1/webhook_deliveries")["data"]
    assert {(each["status"], each["tries"]) for each in deliveries} == {("failed", 0)}
    assert all("SECRET_KEY" in each["error"] for each in deliveries)
    assert len(deliveries) == 3
    (shown,) = user.get("/v1/webhook_endpoints")["data"]
    assert (shown["id"], shown["signing_secret_hint"]) == (ill["id"], None)
    assert user.ask("GET", "/v1/webhook_secret").status == 409
    secret = user.post(f"/v1/webhook_endpoints/{ill['id']}/rotate_secret", {
        "keep_old_secret_active_for_24_hours": True,
    })["signing_secret"]  # fmt: skip
    user.ask("POST", f"/v1/webhook_deliveries/{deliveries[-1]['id']}/replay")
    assert deliver() == 1
    assert verified(secret, receiver.calls[-1])
    assert row(well["id"]).failures == 0


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


def test_a_date_to_wait_for_is_understood(user: Api, receiver: Receiver) -> None:
    endpoint(user, receiver)
    for asked, expected in (
        (format_datetime(clock.now() + timedelta(hours=2), usegmt=True), 7200.0),
        (format_datetime(clock.now() + timedelta(days=3), usegmt=True), 86_400.0),
        ("\u00b2", 0.2),
        ("soon", 0.2),
    ):
        header = asked if asked.isascii() else asked.encode().decode("latin-1")
        receiver.misbehave(Fault("answer", times=1, status=503, headers={"Retry-After": header}))
        job_id = ended_job(user)
        assert deliver() == 1
        with reading() as session:
            delivery = session.scalars(select(WebhookDelivery).where(WebhookDelivery.job_id == job_id)).one()
        assert delivery.tries == 1
        assert expected - 10 < delivery.due_at - clock.epoch() <= expected + 1
        with transaction() as session:
            session.execute(update(WebhookDelivery).values(status=Delivery.FAILED))
            session.execute(update(WebhookEndpoint).values(failures=0))


def test_what_is_owed_moves_with_the_endpoint(user: Api, receiver: Receiver) -> None:
    made = endpoint(user, receiver, "/old")
    receiver.misbehave(Fault("answer", match="/old", times=10, status=410))
    ended_job(user)
    with transaction() as session:
        (parcel,) = webhooks.due(session, 10)  # under way to the old address
    ended_job(user)
    user.post(f"/v1/webhook_endpoints/{made['id']}", {"url": f"{receiver.url}/new"})
    with transaction() as session:
        webhooks.refused(session, parcel, "the receiver answered 410", status=410, retry_after_s=None)
    assert (row(made["id"]).enabled, row(made["id"]).failures) == (True, 0)
    wait_until(lambda: deliver() or True, 5, what="one round")
    wait_until(lambda: len(receiver.asked("/new")) == 2 or deliver() < 0, 5, what="both are told")
    assert not receiver.asked("/old")
    delivered = user.get("/v1/webhook_deliveries")["data"]
    assert {(each["status"], each["url"]) for each in delivered} == {("delivered", f"{receiver.url}/new")}


def test_the_old_address_neither_pauses_nor_forgives_the_new_one(user: Api, receiver: Receiver) -> None:
    made = endpoint(user, receiver, "/old")
    for _ in range(3):
        ended_job(user)
    with transaction() as session:
        parcels = webhooks.due(session, 10)
    user.post(f"/v1/webhook_endpoints/{made['id']}", {"url": f"{receiver.url}/new"})
    with transaction() as session:
        webhooks.refused(session, parcels[0], "no answer", status=None, retry_after_s=None)
    assert row(made["id"]).failures == 0
    with transaction() as session:
        session.execute(update(WebhookEndpoint).where(WebhookEndpoint.id == made["id"]).values(failures=3))
        webhooks.delivered(session, parcels[1], status=204)
    assert row(made["id"]).failures == 3


def test_a_host_that_is_none_uses_up_its_tries(user: Api, receiver: Receiver) -> None:
    made = endpoint(user, receiver)
    with transaction() as session:  # as it was taken before hosts were looked at
        session.execute(
            update(WebhookEndpoint).where(WebhookEndpoint.id == made["id"]).values(url="https://a..b/hook")
        )
    ended_job(user)
    (delivery,) = deliver_until_closed(user)
    assert (delivery["status"], delivery["tries"]) == ("failed", 3)
    assert "not a valid name" in delivery["error"]


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
        parcels = webhooks.due(session, 10, Places(receivers=Counter({slow["id"]: 20})))
    assert [Deliver().lane(parcel) for parcel in parcels] == [quick["id"]]


def owe_many(user: Api, endpoint_: Any, count: int) -> None:
    """So many samples that are due, each as of a job's end."""
    with transaction() as session:
        for _ in range(count):
            made = webhooks._delivery(
                user.user_id, "job.failed", endpoint_["url"], endpoint_id=endpoint_["id"], job_id="job_x",
                data={},
            )  # fmt: skip
            made.due_at -= 5
            session.add(made)


def test_four_slow_receivers_with_hundreds_of_events_delay_no_other(
    user: Api, other: Api, receiver: Receiver
) -> None:
    for number in range(4):
        owe_many(user, endpoint(user, receiver, f"/slow{number}"), 200)
    receiver.misbehave(Fault("slow", match="/slow", times=1000, seconds=3.0))
    for each in (user, other):
        owe_many(each, endpoint(each, receiver, f"/quick/{each.user_id}"), 1)
    began = time.monotonic()

    async def work() -> Counter[str]:
        flow, stopping, wanted = Deliver(), False, asyncio.Event()
        flow.start(lambda: stopping, wanted.set)
        while len(receiver.asked("/quick")) < 2 and time.monotonic() - began < 10:
            await flow.fill()
            await asyncio.sleep(0.05)
        held = Counter(flow._lanes)
        stopping = True
        await flow.close(5)
        await http.shared().close()
        await asyncio.sleep(0.1)  # connections say good-bye in the loop's next rounds
        return held

    held = asyncio.run(work())
    assert len(receiver.asked("/quick")) == 2
    assert time.monotonic() - began < 2.5  # before any of the slow ones has answered
    assert sorted(held.values())[-4:] == [20, 20, 20, 20]


def test_what_a_user_has_no_place_for_follows_as_soon_as_there_is_one(user: Api, receiver: Receiver) -> None:
    for number in range(10):
        owe_many(user, endpoint(user, receiver, f"/{number}"), 15)
    receiver.misbehave(Fault("slow", times=1000, seconds=0.3))
    most, began = 0, time.monotonic()

    async def work() -> None:
        nonlocal most
        flow, stopping, wanted = Deliver(), False, asyncio.Event()
        flow.start(lambda: stopping, wanted.set)
        wanted.set()
        while len(receiver.calls) < 150 and time.monotonic() - began < 8:
            if wanted.is_set():  # nothing else tells it to look again
                wanted.clear()
                await flow.fill()
                most = max(most, flow.in_flight)
            await asyncio.sleep(0.02)
        stopping = True
        await flow.close(5)
        await http.shared().close()
        await asyncio.sleep(0.1)  # connections say good-bye in the loop's next rounds

    asyncio.run(work())
    assert most == 100
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 150


def test_no_user_can_have_all_places() -> None:
    places = Places(most=200, per_receiver=20)
    for user_id in "abc":
        for number in range(30):
            for _ in range(20):
                places.take(f"{user_id}{number}", user_id)
    assert [places.users[user_id] for user_id in "abc"] == [100, 50, 25]
    assert set(places.full_users()) == set("abc")
    assert places.take("d0", "d")
    assert max(places.receivers.values()) == 20


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
    worker = Thread(target=lambda: wait_until(deliver, 10, what="the sample is sent"))
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


@pytest.mark.parametrize(
    "since", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", 0, "0", "1790000000", "2026-11-24"]
)
def test_what_is_no_moment_is_refused(user: Api, receiver: Receiver, since: Any) -> None:
    made = endpoint(user, receiver)
    refused = user.ask("POST", f"/v1/webhook_endpoints/{made['id']}/replay", {"since": since})
    assert (refused.status, refused.json["error"]["param"]) == (422, "since")


def test_what_is_told_of_a_deleted_job_is_not_sent_again(user: Api, receiver: Receiver) -> None:
    made = endpoint(user, receiver)
    deleted, kept = ended_job(user), ended_job(user)
    deliver()
    assert user.ask("DELETE", f"/v1/jobs/{deleted}").status in (200, 204)
    (delivery,) = user.get(f"/v1/webhook_deliveries?job_id={deleted}")["data"]
    refused = user.ask("POST", f"/v1/webhook_deliveries/{delivery['id']}/replay")
    assert (refused.status, "deleted" in refused.json["error"]["message"]) == (409, True)
    body = {"since": "2026-01-01T00:00:00Z", "delivered": True}
    assert user.post(f"/v1/webhook_endpoints/{made['id']}/replay", body)["count"] == 1
    assert deliver() == 1
    assert receiver.calls[-1].json()["data"]["id"] == kept


def test_a_deleted_endpoint_is_told_nothing_more(user: Api, receiver: Receiver) -> None:
    made = endpoint(user, receiver)
    ended_job(user)
    user.ask("DELETE", f"/v1/webhook_endpoints/{made['id']}")
    assert deliver() == 0
    (delivery,) = user.get("/v1/webhook_deliveries")["data"]
    assert (delivery["status"], delivery["tries"]) == ("failed", 0)
    assert user.ask("POST", f"/v1/webhook_deliveries/{delivery['id']}/replay").status == 409
