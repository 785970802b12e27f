"""What has happened to a job, in order: put together from the rows that prove it, nothing is written for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.models import Artifact, Job, JobAttempt, JobEvent, LedgerEntry, WebhookDelivery
from common.words import Delivery


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened to a job."""

    at: datetime
    kind: str
    message: str | None = None
    attempt: int | None = None  # its number
    data: dict[str, Any] = field(default_factory=dict)


def of_job(session: Session, job: Job) -> list[Moment]:
    """Acceptance, attempts and what their providers said, results, credits, webhooks and the end; the oldest first."""
    told = [
        *_acceptance_and_end(job),
        *_attempts(_rows(session, JobAttempt, job.id)),
        *_notes(_rows(session, JobEvent, job.id)),
        *_results(_rows(session, Artifact, job.id)),
        *_credits(_rows(session, LedgerEntry, job.id)),
        *_webhooks(_rows(session, WebhookDelivery, job.id)),
    ]
    return sorted(
        told, key=lambda moment: moment.at
    )  # stable: what comes first here comes first of one instant


def _rows(session: Session, model: Any, job_id: str) -> list[Any]:
    return list(session.scalars(select(model).where(model.job_id == job_id).order_by(model.id)))


def _acceptance_and_end(job: Job) -> Iterator[Moment]:
    yield Moment(job.created_at, "accepted")
    if job.finished_at is not None:
        error = job.error or {}
        data = {"code": error["code"]} if error else {}
        yield Moment(job.finished_at, str(job.status), error.get("message"), data=data)


def _attempts(attempts: Iterable[JobAttempt]) -> Iterator[Moment]:
    for row in attempts:
        yield Moment(row.created_at, "attempt_started", attempt=row.number)
        if row.sent_at is not None:
            yield Moment(row.sent_at, "attempt_sent", attempt=row.number)
        if row.answered_at is not None:
            said = row.error_message if row.ended_at is None else None
            data = {"code": row.error_code} if row.error_code and row.ended_at is None else {}
            yield Moment(row.answered_at, f"attempt_{row.outcome}", said, row.number, data)
        if row.ended_at is not None and row.error_code is None:
            results = {"results": len(row.outputs or [])}
            yield Moment(row.ended_at, "generation_succeeded", None, row.number, results)
        elif row.ended_at is not None:
            code = {"code": row.error_code}
            yield Moment(row.ended_at, "generation_failed", row.error_message, row.number, code)


def _notes(events: Iterable[JobEvent]) -> Iterator[Moment]:
    return (Moment(row.created_at, row.kind, row.detail) for row in events)


def _results(artifacts: Iterable[Artifact]) -> Iterator[Moment]:
    for row in artifacts:
        yield Moment(row.created_at, "result_stored", data={"artifact_id": row.id, "bytes": row.bytes})


def _credits(entries: Iterable[LedgerEntry]) -> Iterator[Moment]:
    for row in entries:
        yield Moment(row.created_at, f"credits_{row.kind}", row.note, data={"amount": row.amount})


def _webhooks(deliveries: Iterable[WebhookDelivery]) -> Iterator[Moment]:
    for row in deliveries:
        data = {"webhook_id": row.id, "type": row.type, "url": row.url, "tries": row.tries}
        yield Moment(row.created_at, "webhook_owed", data=data)
        if row.delivered_at is not None:
            yield Moment(row.delivered_at, "webhook_delivered", data=data)
        elif row.last_error is not None:
            given_up = row.status == Delivery.FAILED
            kind = "webhook_failed" if given_up else "webhook_delayed"
            yield Moment(row.tried_at or row.created_at, kind, row.last_error, data=data)
