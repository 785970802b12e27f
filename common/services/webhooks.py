"""The outbox: what receivers are told, committed together with what happened."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from common import clock
from common.ids import new_id
from common.models import WebhookDelivery, WebhookEndpoint
from common.words import Status


def owe(session: Session, job_id: str, user_id: str, status: Status, webhook_url: str | None) -> None:
    """Write one delivery per receiver of this job's end: its own URL, and the user's endpoints that listen."""
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
            status="pending",
            due_at=clock.epoch(),
            tries=0,
            created_at=clock.now(),
        )
        for endpoint_id, url in receivers
    )
