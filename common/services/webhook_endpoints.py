"""Who wants to be told: users' webhook endpoints, what signs for them, and how each of them is doing."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from common import addresses, clock
from common.crypto import CannotDecrypt, seal, unseal
from common.errors import Conflict, InvalidInput, NotFound
from common.ids import new_id
from common.models import WebhookDelivery, WebhookEndpoint, WebhookSecret
from common.services.users import Actor
from common.settings import settings
from common.words import Delivery

MOST_ENDPOINTS = 20  # of one user
OVERLAP = timedelta(hours=24)  # how long a secret that was replaced still signs, if it is to
FAILURES = 5  # in a row after which an endpoint is left alone for a while
_PAUSE_S, _LONGEST_PAUSE_S = 30.0, 3600.0
_HINT = 4  # characters of a secret that may be shown


# ---------------------------------------------------------------- create, show, change


def create(
    session: Session, actor: Actor, *, url: str, name: str, event_types: Sequence[str]
) -> tuple[WebhookEndpoint, str]:
    """A new endpoint and its secret, which is shown this once. Raises InvalidInput, and Conflict for one too many."""
    check_url(url, param="url")
    count = session.scalar(
        select(func.count()).select_from(WebhookEndpoint).where(WebhookEndpoint.user_id == actor.user_id)
    )
    if (count or 0) >= MOST_ENDPOINTS:
        raise Conflict(f"There can be {MOST_ENDPOINTS} webhook endpoints; delete one first.")
    secret = _new_secret()
    now = clock.now()
    endpoint = WebhookEndpoint(
        id=new_id("whe"), user_id=actor.user_id, url=url, name=name, event_types=list(event_types), enabled=True,
        secret=seal({"secret": secret}), failures=0, created_at=now, updated_at=now,
    )  # fmt: skip
    session.add(endpoint)
    session.flush()
    return endpoint, secret


def check_url(url: str, *, param: str) -> None:
    """Raise InvalidInput for an address that no delivery could reach, as far as it says so itself.

    A name may still lead to a private one; workers refuse that when they connect.
    """
    try:
        addresses.check_url(url, allow_private=settings().allow_private_addresses)
    except addresses.AddressRefused as error:
        raise InvalidInput(f"No webhook can be sent there: {error}", param=param) from None


def get(session: Session, actor: Actor, endpoint_id: str) -> WebhookEndpoint:
    """One of the actor's own endpoints. Raises NotFound."""
    endpoint = session.get(WebhookEndpoint, endpoint_id)
    if endpoint is None or endpoint.user_id != actor.user_id:
        raise NotFound("There is no such webhook endpoint.")
    return endpoint


def page(
    session: Session, actor: Actor, *, limit: int, after: str | None
) -> tuple[list[WebhookEndpoint], bool]:
    """The actor's endpoints, newest first, from behind the endpoint `after`; and whether there are more."""
    query = select(WebhookEndpoint).where(WebhookEndpoint.user_id == actor.user_id)
    if after is not None:
        query = query.where(WebhookEndpoint.id < after)
    rows = list(session.scalars(query.order_by(WebhookEndpoint.id.desc()).limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def change(session: Session, actor: Actor, endpoint_id: str, changes: dict[str, Any]) -> WebhookEndpoint:
    """Change `url`, `name`, `event_types` or `enabled`. Switching it on again forgives what went wrong.

    What is still owed to it goes to its new URL. Raises NotFound or InvalidInput.
    """
    endpoint = get(session, actor, endpoint_id)
    if "url" in changes:
        check_url(changes["url"], param="url")
    if changes.get("enabled") is False:
        abandon(session, endpoint_id, "The endpoint was switched off.")
    changed = {name: value for name, value in changes.items() if getattr(endpoint, name) != value}
    if not changed:
        return endpoint
    if "url" in changed:  # before the endpoint's own row is written: workers lock in this order, too
        session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.status == Delivery.PENDING)
            .values(url=changed["url"])
        )
    for name, value in changed.items():
        setattr(endpoint, name, value)
    if "enabled" in changed or "url" in changed:
        endpoint.failures, endpoint.paused_until, endpoint.disabled_reason = 0, None, None
    endpoint.updated_at = clock.now()
    session.flush()
    return endpoint


def delete(session: Session, actor: Actor, endpoint_id: str) -> None:
    """Forget an endpoint; what was still owed to it is not sent. Raises NotFound."""
    endpoint = get(session, actor, endpoint_id)
    abandon(session, endpoint_id, "The endpoint was deleted.")
    session.delete(endpoint)
    session.flush()


def abandon(session: Session, endpoint_id: str, reason: str) -> None:
    """Send nothing more of what is owed to it."""
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.status == Delivery.PENDING)
        .values(status=Delivery.FAILED, last_error=reason, lease_token=None)
    )


# ---------------------------------------------------------------- secrets


def rotate(
    session: Session, actor: Actor, endpoint_id: str, *, keep_old: bool
) -> tuple[WebhookEndpoint, str]:
    """Give an endpoint a new secret, shown this once. With `keep_old` the present one signs too for a day.

    Raises NotFound.
    """
    endpoint = get(session, actor, endpoint_id)
    secret = _new_secret()
    _replace(endpoint, secret, keep_old=keep_old)
    endpoint.updated_at = clock.now()
    session.flush()
    return endpoint, secret


def own_secret(session: Session, user_id: str) -> str:
    """What signs the webhooks of this user's jobs that name a URL of their own; made at first use.

    Raises Conflict where it cannot be read.
    """
    try:
        return _shown(_own(session, user_id).secret)
    except CannotDecrypt:
        raise Conflict("Your webhook secret cannot be read any more; rotate it.") from None


def rotate_own(session: Session, user_id: str, *, keep_old: bool) -> str:
    """Give the user a new one. With `keep_old` the present one signs too for a day."""
    secret = _new_secret()
    _replace(_own(session, user_id), secret, keep_old=keep_old)
    session.flush()
    return secret


def signing(session: Session, user_id: str, endpoint_id: str | None) -> list[str]:
    """The secrets that a delivery is signed with: its endpoint's, or the user's; two while one is being replaced.

    Empty where the endpoint is gone. Raises CannotDecrypt.
    """
    row = session.get(WebhookEndpoint, endpoint_id) if endpoint_id else _own(session, user_id)
    if row is None:
        return []
    found = [_shown(row.secret)]
    if row.previous_secret and row.previous_until and row.previous_until > clock.now():
        with suppress(CannotDecrypt):  # nobody can need what nobody has
            found.append(_shown(row.previous_secret))
    return found


def hint(endpoint: WebhookEndpoint) -> str | None:
    """How its secret ends, to tell it from others; None where it cannot be read."""
    try:
        return f"whsec_…{_shown(endpoint.secret)[-_HINT:]}"
    except CannotDecrypt:
        return None


def _own(session: Session, user_id: str) -> WebhookSecret:
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    row = {"user_id": user_id, "secret": seal({"secret": _new_secret()}), "created_at": clock.now()}
    session.execute(dialect.insert(WebhookSecret).values(row).on_conflict_do_nothing())
    return session.get_one(WebhookSecret, user_id)


def _replace(row: WebhookEndpoint | WebhookSecret, secret: str, *, keep_old: bool) -> None:
    row.previous_secret = row.secret if keep_old else None
    row.previous_until = clock.now() + OVERLAP if keep_old else None
    row.secret = seal({"secret": secret})


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


def _shown(sealed: str) -> str:
    return unseal(sealed)["secret"]


# ---------------------------------------------------------------- how it is doing


# What is said at an address that it has no more says nothing of it: hence the `url` of these.


def took(session: Session, endpoint_id: str, url: str) -> None:
    """It took a delivery: whatever went wrong before is forgotten."""
    session.execute(
        update(WebhookEndpoint)
        .where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.url == url, WebhookEndpoint.failures > 0)
        .values(failures=0, paused_until=None)
    )


def refused(session: Session, endpoint_id: str, url: str) -> None:
    """It did not take a delivery. After several in a row it is left alone, longer each time.

    What was tried at the same moment counts once.
    """
    now = clock.epoch()
    endpoint = session.scalars(
        select(WebhookEndpoint)
        .where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.url == url)
        .with_for_update()
    ).one_or_none()
    if endpoint is None or (endpoint.paused_until or 0.0) > now:
        return
    endpoint.failures = (endpoint.failures or 0) + 1
    beyond = endpoint.failures - FAILURES
    if beyond >= 0:
        endpoint.paused_until = now + min(_PAUSE_S * 2.0 ** min(beyond, 16), _LONGEST_PAUSE_S)


def is_at(session: Session, endpoint_id: str, url: str) -> bool:
    """Whether this is its URL still."""
    return session.scalar(select(WebhookEndpoint.url).where(WebhookEndpoint.id == endpoint_id)) == url


def gone(session: Session, endpoint_id: str, url: str) -> None:
    """It said that nothing shall be sent there any more (410)."""
    closed = session.scalars(
        update(WebhookEndpoint)
        .where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.url == url)
        .values(enabled=False, disabled_reason="The receiver answered 410 Gone.")
        .returning(WebhookEndpoint.id)
        .execution_options(synchronize_session=False)
    ).all()
    if closed:
        abandon(session, endpoint_id, "The receiver answered 410 Gone before.")


def can_be_tried(now: float) -> Any:
    """A condition on an outer join of deliveries with their endpoints: nothing speaks against a try now."""
    return or_(
        WebhookDelivery.endpoint_id.is_(None),
        WebhookDelivery.job_id == "",  # a test is what somebody waits for
        func.coalesce(WebhookEndpoint.paused_until, 0.0) <= now,
    )
