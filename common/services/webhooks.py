"""The outbox: what receivers are told, committed together with what happened, sent until they take it."""

from __future__ import annotations

import base64
import json
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from standardwebhooks import Webhook

from common import clock
from common.crypto import seal, unseal
from common.ids import new_id
from common.models import Artifact, Job, WebhookDelivery, WebhookEndpoint, WebhookSecret
from common.services.presentation import job_object
from common.settings import settings
from common.words import Status

PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"
_GONE = 410  # the receiver says that nothing shall be sent here any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One delivery that this worker may try now: signed and ready to be posted."""

    id: str
    token: str
    tries: int
    url: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        """The row's id."""
        return self.id


def owe(session: Session, job_id: str, user_id: str, status: Status, webhook_url: str | None) -> int:
    """Write one delivery per receiver of this job's end: its own URL, and the user's endpoints that listen.

    Returns how many."""
    kind = f"job.{status}"
    endpoints = session.execute(
        select(WebhookEndpoint.id, WebhookEndpoint.url, WebhookEndpoint.event_types).where(
            WebhookEndpoint.user_id == user_id, WebhookEndpoint.enabled
        )
    )
    receivers = [(row.id, row.url) for row in endpoints if not row.event_types or kind in row.event_types]
    if webhook_url:
        receivers.append((None, webhook_url))
    session.add_all(
        WebhookDelivery(
            id=new_id("evt"),
            job_id=job_id,
            user_id=user_id,
            endpoint_id=endpoint_id,
            url=url,
            type=kind,
            status=PENDING,
            due_at=clock.epoch() + settings().webhook_schedule_s[0],
            tries=0,
            created_at=clock.now(),
        )
        for endpoint_id, url in receivers
    )
    return len(receivers)


def due(session: Session, limit: int) -> list[Parcel]:
    """Claim deliveries that are due; the lease is their next due time, as with jobs."""
    now = clock.epoch()
    picked = (
        select(WebhookDelivery.id)
        .where(WebhookDelivery.status == PENDING, WebhookDelivery.due_at <= now)
        .order_by(WebhookDelivery.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = session.scalars(
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(picked))
        .values(due_at=now + settings().lease_s, lease_token=secrets.token_hex(8))
        .returning(WebhookDelivery)
        .execution_options(synchronize_session=False)
    ).all()
    return [_parcel(session, row) for row in rows]


def _parcel(session: Session, delivery: WebhookDelivery) -> Parcel:
    """The event as the receiver gets it, signed as Standard Webhooks says."""
    job = session.get_one(Job, delivery.job_id)
    results = session.scalars(
        select(Artifact).where(Artifact.job_id == job.id).order_by(Artifact.number)
    ).all()
    event = {
        "id": delivery.id,
        "object": "event",
        "type": delivery.type,
        "created_at": int(delivery.created_at.timestamp()),
        "data": job_object(job, list(results)),
    }
    body = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    moment = clock.now()
    signature = Webhook(secret_of(session, delivery.user_id)).sign(delivery.id, moment, body)
    return Parcel(
        id=delivery.id,
        token=delivery.lease_token or "",
        tries=delivery.tries,
        url=delivery.url,
        headers={
            "Content-Type": "application/json",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(moment.timestamp())),
            "webhook-signature": signature,
        },
        body=body.encode(),
    )


def secret_of(session: Session, user_id: str) -> str:
    """The `whsec_…` that signs this user's per-job webhooks; made at first use."""
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    fresh = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    row = {"user_id": user_id, "secret": seal({"secret": fresh}), "created_at": clock.now()}
    session.execute(dialect.insert(WebhookSecret).values(row).on_conflict_do_nothing())
    return unseal(session.get_one(WebhookSecret, user_id).secret)["secret"]


def renew(session: Session, parcels: Sequence[Parcel]) -> None:
    """Hold these deliveries for another lease, as far as they are still held."""
    for parcel in parcels:
        _update(session, parcel, due_at=clock.epoch() + settings().lease_s)


def put_back(session: Session, parcels: Sequence[Parcel]) -> None:
    """Let another worker try these at once."""
    for parcel in parcels:
        _update(session, parcel, due_at=clock.epoch(), lease_token=None)


def delivered(session: Session, parcel: Parcel) -> None:
    """The receiver took it."""
    _close(
        session, parcel, status=DELIVERED, delivered_at=clock.now(), tries=parcel.tries + 1, last_error=None
    )


def refused(
    session: Session, parcel: Parcel, error: str, *, status: int | None, retry_after_s: float | None
) -> None:
    """It was not taken: try again by the schedule, or give up at its end or when told to."""
    tries = parcel.tries + 1
    schedule = settings().webhook_schedule_s
    if tries >= len(schedule) or status == _GONE:
        _close(session, parcel, status=FAILED, tries=tries, last_error=error[:500])
        return
    delay = max(schedule[tries] * random.uniform(1.0, 1.1), retry_after_s or 0.0)  # noqa: S311
    _close(session, parcel, tries=tries, last_error=error[:500], due_at=clock.epoch() + delay)


def _close(session: Session, parcel: Parcel, **values: object) -> None:
    _update(session, parcel, lease_token=None, **values)


def _update(session: Session, parcel: Parcel, **values: object) -> None:
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == parcel.id, WebhookDelivery.lease_token == parcel.token)
        .values(values)
    )


def next_due(session: Session) -> float | None:
    """When the next delivery falls due (epoch seconds), or None."""
    query = select(WebhookDelivery.due_at).where(
        WebhookDelivery.status == PENDING, WebhookDelivery.due_at > clock.epoch()
    )
    return session.scalar(query.order_by(WebhookDelivery.due_at).limit(1))
