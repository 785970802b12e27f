"""The outbox: what receivers are told, committed together with what happened, sent until they take it."""

from __future__ import annotations

import json
import logging
import random
import secrets
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Row, Select, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from standardwebhooks import Webhook

from common import clock, queue
from common.crypto import CannotDecrypt
from common.db import after_commit
from common.errors import Conflict, NotFound, Unavailable
from common.ids import new_id
from common.models import Artifact, Job, WebhookDelivery, WebhookEndpoint
from common.providers.registry import MODELS
from common.services import midjourney_tasks, webhook_endpoints
from common.services.presentation import told_job_object
from common.services.users import Actor
from common.settings import settings
from common.words import TERMINAL, Delivery, EventType, Status, Step

log = logging.getLogger(__name__)

_GONE = 410  # the receiver says that nothing shall be sent here any more
_SHORTEST_DELAY_S = 0.1
_GRACE_S = 7200.0  # beyond the schedule's end, for receivers that were left alone meanwhile
_GIVING_UP = 500  # deliveries at once
_LOOKED_AT, _LOOKS = 200, 10  # due deliveries at a time, and how often in one claim
MOST_BYTES = 16 * 1024 * 1024  # of bodies and of inputs read for them, in one claim
PROGRESS = "task.progress"  # no event: what a notifyHook is told meanwhile
_HAS_HOOK = (
    Job.dialect == midjourney_tasks.DIALECT, Job.webhook_url.is_not(None), Job.status.not_in(TERMINAL),
)  # fmt: skip
_OF_VIDEOS = {
    Status.SUCCEEDED: EventType.VIDEO_COMPLETED, Status.FAILED: EventType.VIDEO_FAILED,
    Status.CANCELED: EventType.VIDEO_FAILED,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A job that has ended, as far as its receivers are concerned."""

    id: str
    user_id: str
    model: str
    status: Status
    webhook_url: str | None
    dialect: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One delivery that this worker may try now: signed and ready to be posted."""

    id: str
    token: str
    tries: int
    user_id: str
    endpoint_id: str | None
    receiver: str
    is_tried_once: bool
    url: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        """The row's id."""
        return self.id


@dataclass(slots=True, kw_only=True)
class Places:
    """Who has how many of a worker's places.

    A receiver has `per_receiver` at most; a user has half of what others leave, so that some are always left.
    """

    most: int = 200
    per_receiver: int = 20
    receivers: Counter[str] = field(default_factory=Counter)
    users: Counter[str] = field(default_factory=Counter)

    def take(self, receiver: str, user_id: str) -> bool:
        """Give one of them away, if there is one for these two."""
        if self._receiver_is_full(receiver) or self._user_is_full(user_id):
            return False
        self.receivers[receiver] += 1
        self.users[user_id] += 1
        return True

    def full_receivers(self) -> list[str]:
        """Those that must wait."""
        return [receiver for receiver in self.receivers if self._receiver_is_full(receiver)]

    def full_users(self) -> list[str]:
        """Those whose receivers must wait."""
        return [user_id for user_id in self.users if self._user_is_full(user_id)]

    def _receiver_is_full(self, receiver: str) -> bool:
        return self.receivers[receiver] >= self.per_receiver

    def _user_is_full(self, user_id: str) -> bool:
        own = self.users[user_id]
        return own >= (self.most - self.users.total() + own + 1) // 2


class _CannotBeTold(Exception):
    """There is nothing to send, or nothing to sign it with; the message is for the delivery's log."""


# ---------------------------------------------------------------- owing


def owe(session: Session, job: Ended) -> int:
    """Write one delivery per receiver of this job's end: its own URL, and the user's endpoints that listen.

    Returns how many."""
    if job.dialect == midjourney_tasks.DIALECT and job.webhook_url:
        _overtake(session, job.id)
    told = [EventType(f"job.{job.status}"), *_of_video(job)]
    endpoints = session.execute(
        select(WebhookEndpoint.id, WebhookEndpoint.url, WebhookEndpoint.event_types).where(
            WebhookEndpoint.user_id == job.user_id, WebhookEndpoint.enabled
        )
    )
    owed = [
        _delivery(job.user_id, kind, row.url, endpoint_id=row.id, job_id=job.id)
        for row in endpoints
        for kind in told
        if not row.event_types or kind in row.event_types
    ]
    if job.webhook_url:
        owed.append(_delivery(job.user_id, told[0], job.webhook_url, job_id=job.id))
    session.add_all(owed)
    return len(owed)


def not_known_yet(session: Session, news: Mapping[str, tuple[int | None, str | None]]) -> list[str]:
    """Which of these jobs have a notifyHook and rows that do not know this progress and preview yet."""
    rows = session.execute(select(Job.id, Job.progress, Job.preview_url).where(Job.id.in_(news), *_HAS_HOOK))
    return [
        row.id
        for row in rows
        if (news[row.id][0] or 0) > row.progress or (news[row.id][1] or row.preview_url) != row.preview_url
    ]


def owe_progress(session: Session, job_ids: Collection[str]) -> int:
    """Owe the notifyHooks of those of these jobs that have one what is known by now; how many there are.

    A job has one such delivery, which tells the task as it is when it is sent: many changes may come as one. It is
    tried once, as such servers do (fact sheet midjourney_proxy.md, section 8).
    """
    hooked = session.execute(
        select(Job.id, Job.user_id, Job.webhook_url).where(Job.id.in_(job_ids), *_HAS_HOOK)
    ).all()
    if not hooked:
        return 0
    owed = session.scalars(
        update(WebhookDelivery)
        .where(WebhookDelivery.job_id.in_([job.id for job in hooked]), WebhookDelivery.type == PROGRESS)
        .values(_anew())
        .returning(WebhookDelivery.job_id)
        .execution_options(synchronize_session=False)
    ).all()
    session.add_all(
        _delivery(job.user_id, PROGRESS, job.webhook_url, job_id=job.id)
        for job in hooked
        if job.id not in owed
    )
    return len(hooked)


def _overtake(session: Session, job_id: str) -> None:
    """Tell nobody of progress who is about to be told of the end."""
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.job_id == job_id, WebhookDelivery.type == PROGRESS)
        .where(WebhookDelivery.status == Delivery.PENDING)
        .values(status=Delivery.FAILED, last_error="The task has ended.", lease_token=None)
    )


def _of_video(job: Ended) -> list[EventType]:
    """What clients of the OpenAI dialect listen for."""
    spec = MODELS.get(job.model)
    return [_OF_VIDEOS[job.status]] if job.dialect == "openai" and spec and spec.kind == "video" else []


def _delivery(
    user_id: str, kind: str, url: str, *, endpoint_id: str | None = None, job_id: str = "", data: Any = None
) -> WebhookDelivery:  # fmt: skip
    if kind in _OF_VIDEOS.values() and job_id:
        data = {"id": job_id}
    schedule = settings().webhook_schedule_s
    return WebhookDelivery(
        id=new_id("evt"),
        job_id=job_id,
        user_id=user_id,
        endpoint_id=endpoint_id,
        receiver=endpoint_id or (urlsplit(url).hostname or "")[:255],
        url=url,
        type=kind,
        data=data,
        status=Delivery.PENDING,
        due_at=clock.epoch() + (schedule[0] if job_id else 0.0),
        gives_up_at=_gives_up_at(),
        tries=0,
        created_at=clock.now(),
    )


def _gives_up_at() -> float:
    return clock.epoch() + max(settings().webhook_schedule_s) + _GRACE_S


def test(session: Session, actor: Actor, endpoint_id: str, kind: EventType) -> str:
    """Owe an endpoint a sample of such an event, to be tried once and at once; the delivery's id.

    Raises NotFound, and Conflict for an endpoint that is switched off.
    """
    endpoint = webhook_endpoints.get(session, actor, endpoint_id)
    if not endpoint.enabled:
        raise Conflict("This endpoint is switched off.")
    made = _delivery(actor.user_id, kind, endpoint.url, endpoint_id=endpoint.id, data=_sample(kind))
    session.add(made)
    after_commit(session, lambda: queue.nudge(Step.DELIVER))
    return made.id


def _sample(kind: EventType) -> dict[str, Any]:
    told, _, status = kind.partition(".")
    named = {"id": new_id(told if told == "job" else "vid")}
    return (
        {**named, "object": "job", "status": status, "metadata": {"test": True}} if told == "job" else named
    )


# ---------------------------------------------------------------- sending


def due(session: Session, limit: int, places: Places | None = None) -> list[Parcel]:
    """Claim deliveries that are due, as far as there are `places`; the lease is their next due time, as with jobs.

    One that cannot be told is closed, and no other's concern.
    """
    now = clock.epoch()
    picked = _picked(session, now, limit, places or Places())
    if not picked:
        return []
    rows = session.scalars(
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(picked))
        .values(due_at=now + settings().lease_s, lease_token=secrets.token_hex(8))
        .returning(WebhookDelivery)
        .execution_options(synchronize_session=False)
    ).all()
    return _parcels(session, sorted(rows, key=lambda row: picked.index(row.id)))


def _picked(session: Session, now: float, limit: int, places: Places) -> list[str]:
    """The ids, oldest first and locked, of what may be sent: whoever is full leaves the rest to others.

    What was looked at once is not looked at again: who was full then still is.
    """
    picked: list[str] = []
    last: Row[Any] | None = None
    for _ in range(_LOOKS):
        rows = session.execute(_waiting(now, places, last)).all()
        for row in rows:
            if len(picked) < limit and places.take(row.receiver, row.user_id):
                picked.append(row.id)
        if len(picked) >= limit or len(rows) < _LOOKED_AT:
            break
        last = rows[-1]
    return picked


def _waiting(now: float, places: Places, last: Row[Any] | None) -> Any:
    receiver = func.coalesce(WebhookDelivery.receiver, "")
    query = (
        select(
            WebhookDelivery.id, WebhookDelivery.due_at, receiver.label("receiver"), WebhookDelivery.user_id
        )
        .outerjoin(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(WebhookDelivery.status == Delivery.PENDING, WebhookDelivery.due_at <= now)
        .where(webhook_endpoints.can_be_tried(now))
        .order_by(WebhookDelivery.due_at, WebhookDelivery.id)
        .limit(_LOOKED_AT)
        .with_for_update(skip_locked=True, of=WebhookDelivery)
    )
    if full := places.full_receivers():
        query = query.where(receiver.not_in(full))
    if full := places.full_users():
        query = query.where(WebhookDelivery.user_id.not_in(full))
    if last is not None:
        query = query.where(
            WebhookDelivery.due_at >= last.due_at,
            or_(WebhookDelivery.due_at > last.due_at, WebhookDelivery.id > last.id),
        )
    return query


def _parcels(session: Session, deliveries: Sequence[WebhookDelivery]) -> list[Parcel]:
    """What can be built of these with the memory there is; the rest is put back."""
    parcels: list[Parcel] = []
    jobs: dict[str, Job] = {}  # receivers of one job are mostly told together
    for number, delivery in enumerate(deliveries):
        held = sum(len(parcel.body) for parcel in parcels) + sum(_length(job.input) for job in jobs.values())
        if held > MOST_BYTES:
            _put_back(session, deliveries[number:])
            break
        try:
            parcels.append(_parcel(session, delivery, jobs))
        except (SQLAlchemyError, Unavailable):  # the database's trouble, which passes
            raise
        except Exception as error:
            _fail(session, delivery, error)
    return parcels


def _put_back(session: Session, deliveries: Sequence[WebhookDelivery]) -> None:
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_([delivery.id for delivery in deliveries]))
        .values(due_at=clock.epoch(), lease_token=None)
        .execution_options(synchronize_session=False)
    )


def _fail(session: Session, delivery: WebhookDelivery, error: Exception) -> None:
    """Close what cannot be told, and say why in the delivery's own log and in ours."""
    if isinstance(error, CannotDecrypt):
        reason = "Its signing secret cannot be read, since SECRET_KEY has changed; rotate the secret."
    elif isinstance(error, _CannotBeTold):
        reason = str(error)
    else:
        reason = f"The event cannot be built ({type(error).__name__})."
    log.error("webhook delivery %s of user %s is given up: %s", delivery.id, delivery.user_id, reason)
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery.id)
        .values(status=Delivery.FAILED, last_error=reason, lease_token=None)
        .execution_options(synchronize_session=False)
    )


def _parcel(session: Session, delivery: WebhookDelivery, jobs: dict[str, Job]) -> Parcel:
    """The event as the receiver gets it, signed as Standard Webhooks says. Raises CannotDecrypt or _CannotBeTold."""
    body = json.dumps(_told(session, delivery, jobs), ensure_ascii=False, separators=(",", ":"))
    moment = clock.now()
    signing = webhook_endpoints.signing(session, delivery.user_id, delivery.endpoint_id)
    if not signing:
        raise _CannotBeTold("The endpoint was deleted.")
    signatures = [Webhook(secret).sign(delivery.id, moment, body) for secret in signing]
    return Parcel(
        id=delivery.id,
        token=delivery.lease_token or "",
        tries=delivery.tries,
        user_id=delivery.user_id,
        endpoint_id=delivery.endpoint_id,
        receiver=delivery.receiver or "",
        is_tried_once=not delivery.job_id or delivery.type == PROGRESS,
        url=delivery.url,
        headers={
            "Content-Type": "application/json",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(moment.timestamp())),
            "webhook-signature": " ".join(signatures),
        },
        body=body.encode(),
    )


def _told(session: Session, delivery: WebhookDelivery, jobs: dict[str, Job]) -> dict[str, Any]:
    """An event; or what a midjourney-proxy server would send to the notifyHook of a task. `jobs` are known already.

    Raises _CannotBeTold.
    """
    data = delivery.data
    if data is None:
        job = jobs.get(delivery.job_id) or session.get(Job, delivery.job_id)
        if job is None or job.deleted_at is not None:
            raise _CannotBeTold("The job was deleted.")
        jobs[job.id] = job
        results = session.scalars(
            select(Artifact).where(Artifact.job_id == job.id).order_by(Artifact.number)
        ).all()
        if job.dialect == midjourney_tasks.DIALECT and delivery.endpoint_id is None:
            return midjourney_tasks.task_object(job, results)
        data = told_job_object(job, list(results))
    return {
        "id": delivery.id,
        "object": "event",
        "type": delivery.type,
        "created_at": int(delivery.created_at.timestamp()),
        "data": data,
    }


def _length(value: Any) -> int:
    """How many characters there are in a job's input."""
    if isinstance(value, dict):
        return sum(map(_length, value.values()))
    return (
        sum(map(_length, value)) if isinstance(value, list) else len(value) if isinstance(value, str) else 0
    )


def renew(session: Session, parcels: Sequence[Parcel]) -> None:
    """Hold these deliveries for another lease, as far as they are still held."""
    for parcel in parcels:
        _update(session, parcel, due_at=clock.epoch() + settings().lease_s)


def put_back(session: Session, parcels: Sequence[Parcel]) -> None:
    """Let another worker try these at once."""
    for parcel in parcels:
        _update(session, parcel, due_at=clock.epoch(), lease_token=None)


def delivered(session: Session, parcel: Parcel, *, status: int) -> None:
    """The receiver took it."""
    _close(session, parcel, status=Delivery.DELIVERED, delivered_at=clock.now(), tries=parcel.tries + 1,
           response_status=status, last_error=None)  # fmt: skip
    if parcel.endpoint_id:
        webhook_endpoints.took(session, parcel.endpoint_id, parcel.url)


def refused(
    session: Session, parcel: Parcel, error: str, *, status: int | None, retry_after_s: float | None
) -> None:
    """It was not taken: try again by the schedule, or give up at its end or when told to."""
    tries = parcel.tries + 1
    schedule = settings().webhook_schedule_s
    told: dict[str, Any] = {"tries": tries, "last_error": error[:500], "response_status": status}
    is_over = status == _GONE and (
        not parcel.endpoint_id or webhook_endpoints.is_at(session, parcel.endpoint_id, parcel.url)
    )
    if tries >= len(schedule) or is_over or parcel.is_tried_once:
        _close(session, parcel, status=Delivery.FAILED, **told)
    else:
        delay = max(schedule[tries] - schedule[tries - 1], _SHORTEST_DELAY_S) * random.uniform(1.0, 1.1)  # noqa: S311
        _close(session, parcel, due_at=clock.epoch() + max(delay, retry_after_s or 0.0), **told)
    if parcel.endpoint_id and is_over:
        webhook_endpoints.gone(session, parcel.endpoint_id, parcel.url)
    elif parcel.endpoint_id and not parcel.is_tried_once:
        webhook_endpoints.refused(session, parcel.endpoint_id, parcel.url)


def _close(session: Session, parcel: Parcel, **values: object) -> None:
    _update(session, parcel, lease_token=None, tried_at=clock.now(), **values)


def _update(session: Session, parcel: Parcel, **values: object) -> None:
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == parcel.id, WebhookDelivery.lease_token == parcel.token)
        .values(values)
    )


def give_up(session: Session) -> int:
    """Close what nobody has taken within its time, e.g. because its receiver was left alone; how many there were."""
    old = select(WebhookDelivery.id).where(
        WebhookDelivery.status == Delivery.PENDING, WebhookDelivery.gives_up_at <= clock.epoch()
    )
    closed = session.scalars(
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(old.limit(_GIVING_UP)))
        .values(status=Delivery.FAILED, lease_token=None)
        .returning(WebhookDelivery.id)
        .execution_options(synchronize_session=False)
    ).all()
    return len(closed)


def abandon(session: Session, job_id: str, reason: str) -> None:
    """Send nothing more about a job."""
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.job_id == job_id, WebhookDelivery.status == Delivery.PENDING)
        .values(status=Delivery.FAILED, last_error=reason, lease_token=None)
    )


def next_due(session: Session) -> float | None:
    """When the next delivery falls due (epoch seconds), or None."""
    query = select(WebhookDelivery.due_at).where(
        WebhookDelivery.status == Delivery.PENDING, WebhookDelivery.due_at > clock.epoch()
    )
    return session.scalar(query.order_by(WebhookDelivery.due_at).limit(1))


# ---------------------------------------------------------------- the log, and sending again


def get(session: Session, actor: Actor, delivery_id: str) -> WebhookDelivery:
    """One of the actor's own deliveries. Raises NotFound."""
    delivery = session.get(WebhookDelivery, delivery_id)
    if delivery is None or delivery.user_id != actor.user_id or delivery.type == PROGRESS:
        raise NotFound("There is no such webhook delivery.")
    return delivery


def page(
    session: Session, actor: Actor, *, limit: int, after: str | None, endpoint_id: str | None = None,
    job_id: str | None = None, status: Delivery | None = None,
) -> tuple[list[WebhookDelivery], bool]:  # fmt: skip
    """The actor's deliveries, newest first, from behind the one named `after`; and whether there are more."""
    query = select(WebhookDelivery).where(
        WebhookDelivery.user_id == actor.user_id, WebhookDelivery.type != PROGRESS
    )
    if endpoint_id is not None:
        query = query.where(WebhookDelivery.endpoint_id == endpoint_id)
    if job_id is not None:
        query = query.where(WebhookDelivery.job_id == job_id)
    if status is not None:
        query = query.where(WebhookDelivery.status == status)
    if after is not None:
        query = query.where(WebhookDelivery.id < after)
    rows = list(session.scalars(query.order_by(WebhookDelivery.id.desc()).limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def replay(session: Session, actor: Actor, delivery_id: str) -> WebhookDelivery:
    """Send a closed delivery again, with the same id. Raises NotFound, and Conflict where that cannot be."""
    delivery = get(session, actor, delivery_id)
    if delivery.status == Delivery.PENDING:
        raise Conflict("This delivery is still being tried.")
    if not delivery.job_id:
        raise Conflict("This was a test; make another one.")
    if session.scalar(_living(delivery.job_id)) is None:
        raise Conflict("The job of this delivery was deleted.")
    if delivery.endpoint_id:
        endpoint = session.get(WebhookEndpoint, delivery.endpoint_id)
        if endpoint is None or not endpoint.enabled:
            raise Conflict("The endpoint of this delivery is gone or switched off.")
        delivery.url = endpoint.url
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id)
        .values({**_anew(), "url": delivery.url})
    )
    session.refresh(delivery)
    after_commit(session, lambda: queue.nudge(Step.DELIVER))
    return delivery


def replay_since(
    session: Session, actor: Actor, endpoint_id: str, since: datetime, *, delivered: bool
) -> int:
    """Send an endpoint again what it did not take since then, and with `delivered` also what it did; how many.

    Raises NotFound, and Conflict for an endpoint that is switched off.
    """
    endpoint = webhook_endpoints.get(session, actor, endpoint_id)
    if not endpoint.enabled:
        raise Conflict("This endpoint is switched off.")
    closed = [Delivery.FAILED, Delivery.DELIVERED] if delivered else [Delivery.FAILED]
    again = session.scalars(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.endpoint_id == endpoint_id,
            WebhookDelivery.status.in_(closed),
            WebhookDelivery.created_at >= since,
            _living(WebhookDelivery.job_id).exists(),
        )
        .values({**_anew(), "url": endpoint.url})
        .returning(WebhookDelivery.id)
        .execution_options(synchronize_session=False)
    ).all()
    after_commit(session, lambda: queue.nudge(Step.DELIVER))
    return len(again)


def _living(job_id: Any) -> Select[Any]:
    """The job, unless it was deleted: there would be nothing to tell."""
    return select(Job.id).where(Job.id == job_id, Job.deleted_at.is_(None))


def _anew() -> dict[str, Any]:
    return {"status": Delivery.PENDING, "due_at": clock.epoch(), "tries": 0, "lease_token": None,
            "delivered_at": None, "gives_up_at": _gives_up_at()}  # fmt: skip
