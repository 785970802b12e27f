"""The objects that users see, in answers and in webhooks alike. Values only; nothing is read from tables here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.clock import iso, iso_epoch
from common.models import (
    ApiToken,
    Artifact,
    Job,
    LedgerEntry,
    Schedule,
    Upload,
    User,
    WebhookDelivery,
    WebhookEndpoint,
)
from common.services import webhook_endpoints
from common.services.acceptance import AcceptedJob
from common.settings import settings
from common.storage import storage
from common.words import Delivery, EventType

_LONGEST_TEXT = 32_000  # characters: a prompt; what is longer is a picture in base64
_HEAD = 64  # characters that are shown of it
WINDOW = "midjourney_window"  # in the metadata of a job that answers one: what its client knows it by


def job_object(job: Job | AcceptedJob, artifacts: list[Artifact]) -> dict[str, Any]:
    """A job as the API shows it (DESIGN section 6)."""
    base = f"{settings().public_url}/v1/jobs/{job.id}"
    return {
        "id": job.id,
        "object": "job",
        "status": job.status,
        "provider": job.provider,
        "model": job.model,
        "action": job.action,
        "input": job.input,
        "progress": job.progress,
        "preview_url": job.preview_url,
        "parent_id": job.parent_id,
        "artifacts": [artifact_object(artifact) for artifact in artifacts],
        "actions": job.actions or [],
        "output": job.output,
        "error": job.error,
        "cost": {"held": job.price, "charged": job.charged},
        "metadata": _metadata(job),
        "attempts": job.attempts,
        "late": bool(job.late),
        "created_at": iso(job.created_at),
        "submitted_at": iso(job.submitted_at),
        "finished_at": iso(job.finished_at),
        "urls": {"self": base, "events": f"{base}/events", "cancel": f"{base}/cancel"},
    }


def told_job_object(job: Job, artifacts: list[Artifact]) -> dict[str, Any]:
    """A job as events tell it: what was given inline is only named, by its beginning and its length."""
    return {**job_object(job, artifacts), "input": _in_brief(job.input)}


def _in_brief(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _in_brief(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_in_brief(inner) for inner in value]
    if not isinstance(value, str) or len(value) <= (_HEAD if value.startswith("data:") else _LONGEST_TEXT):
        return value
    return f"{value[:_HEAD]}… ({len(value)} characters)"


def _metadata(job: Job | AcceptedJob) -> dict[str, Any]:
    """What the user gave, without what a dialect remembers there for itself."""
    kept = job.metadata_ or {}
    return {name: value for name, value in kept.items() if name != WINDOW} if job.dialect else kept


def artifact_object(artifact: Artifact) -> dict[str, Any]:
    """A stored result; its URL is made anew on every read, so a signed one is never kept.

    One without a key was taken over from a legacy program: it stays where that put it, and only its URL is known.
    """
    return {
        "id": artifact.id,
        "kind": artifact.kind,
        "url": storage().read_url(artifact.key) if artifact.key else artifact.url,
        "thumbnail_url": storage().read_url(artifact.thumbnail_key) if artifact.thumbnail_key else None,
        "content_type": artifact.content_type,
        "bytes": artifact.bytes,
        "width": artifact.width,
        "height": artifact.height,
        "duration_s": artifact.duration_s,
        "sha256": artifact.sha256,
    }


def upload_object(upload: Upload) -> dict[str, Any]:
    """What a user has brought; its URL is made anew on every read."""
    return {
        "id": upload.id,
        "object": "upload",
        "name": upload.name,
        "kind": upload.kind,
        "content_type": upload.content_type,
        "bytes": upload.bytes,
        "width": upload.width,
        "height": upload.height,
        "duration_s": upload.duration_s,
        "sha256": upload.sha256,
        "url": storage().read_url(upload.key),
        "created_at": iso(upload.created_at),
    }


def entry_object(entry: LedgerEntry) -> dict[str, Any]:
    """A line of credit history."""
    return {
        "id": entry.id,
        "object": "ledger_entry",
        "kind": entry.kind,
        "amount": entry.amount,
        "available_delta": entry.available_delta,
        "held_delta": entry.held_delta,
        "available_after": entry.available_after,
        "held_after": entry.held_after,
        "job_id": entry.job_id,
        "note": entry.note,
        "created_at": iso(entry.created_at),
    }


def user_object(user: User) -> dict[str, Any]:
    """Someone who may use the platform."""
    return {
        "id": user.id,
        "object": "user",
        "email": user.email or "",  # Open WebUI 0.9 and later may know none
        "name": user.name or "",
        "role": user.role or "pending",
        "created_at": iso_epoch(user.created_at or 0),
    }


def managed_user_object(user: User, weights: Mapping[str, int]) -> dict[str, Any]:
    """The same for administrators, with the weight of the user's turns (1 where `weights` has none)."""
    return {**user_object(user), "weight": weights.get(user.id, 1)}


def token_object(token: ApiToken) -> dict[str, Any]:
    """A token, without its secret."""
    shown = {"id": token.id, "object": "token", "name": token.name, "created_at": iso(token.created_at)}
    return {**shown, "rate_limit": token.rate_limit} if token.rate_limit else shown


def endpoint_object(endpoint: WebhookEndpoint) -> dict[str, Any]:
    """A webhook endpoint in the shape of OpenAI's API, with how it is doing."""
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "name": endpoint.name or "",
        "url": endpoint.url,
        "event_types": endpoint.event_types or list(EventType),
        "enabled": endpoint.enabled,
        "disabled_reason": endpoint.disabled_reason,
        "failures": endpoint.failures or 0,
        "paused_until": iso_epoch(endpoint.paused_until) if endpoint.paused_until else None,
        "signing_secret_hint": webhook_endpoints.hint(endpoint),
        "created_at": int(endpoint.created_at.timestamp()),
        "updated_at": int((endpoint.updated_at or endpoint.created_at).timestamp()),
    }


def delivery_object(delivery: WebhookDelivery) -> dict[str, Any]:
    """What was or is to be sent to a receiver, and how that went."""
    is_waiting = delivery.status == Delivery.PENDING
    return {
        "id": delivery.id,
        "object": "webhook_delivery",
        "type": delivery.type,
        "status": delivery.status,
        "job_id": delivery.job_id or None,
        "endpoint_id": delivery.endpoint_id,
        "url": delivery.url,
        "tries": delivery.tries,
        "response_status": delivery.response_status,
        "error": delivery.last_error,
        "created_at": iso(delivery.created_at),
        "tried_at": iso(delivery.tried_at),
        "delivered_at": iso(delivery.delivered_at),
        "next_try_at": iso_epoch(delivery.due_at) if is_waiting else None,
    }


def schedule_object(schedule: Schedule, next_runs: Sequence[float]) -> dict[str, Any]:
    """A job by the clock, and when it is due next (epoch seconds)."""
    return {
        "id": schedule.id,
        "object": "schedule",
        "name": schedule.name,
        "cron": schedule.cron,
        "interval_s": schedule.interval_s,
        "timezone": schedule.timezone,
        "job": schedule.job,
        "enabled": schedule.enabled,
        "catch_up": schedule.catch_up,
        "next_runs": [iso_epoch(moment) for moment in next_runs],
        "last_run_at": iso_epoch(schedule.last_at) if schedule.last_at else None,
        "last_job_id": schedule.last_job_id,
        "last_error": schedule.last_error,
        "runs": schedule.runs,
        "created_at": iso(schedule.created_at),
        "updated_at": iso(schedule.updated_at),
    }
