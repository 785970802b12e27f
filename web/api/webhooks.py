"""Who is told when jobs end: webhook endpoints, the secrets that sign for them, and the log of what was sent.

Endpoints have the paths and shapes of OpenAI's API, so that `client.webhooks` of its SDK can manage them.
"""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint

from common.db import reading, transaction
from common.errors import Conflict, Unavailable
from common.services import webhook_endpoints, webhooks
from common.services.presentation import delivery_object, endpoint_object
from common.services.users import Actor
from common.words import Delivery, EventType
from web import schemas, shapes
from web.answers import listing
from web.endpoints import Access, endpoint
from web.waiting import stopping

TEST_WAIT_S = 20.0  # longer than a worker waits for the receiver
_LOOK_S = 0.2
blueprint = Blueprint("webhooks", __name__, url_prefix="/v1")


# ---------------------------------------------------------------- endpoints


@blueprint.post("/webhook_endpoints")
@endpoint(access=Access.USER, body=schemas.NewWebhookEndpoint, returns=shapes.NewWebhookEndpoint, status=201,
          errors=(409,))  # fmt: skip
def create(actor: Actor, body: schemas.NewWebhookEndpoint) -> dict[str, Any]:
    """Create a webhook endpoint. Its signing secret is shown only here."""
    with transaction() as session:
        made, secret = webhook_endpoints.create(
            session, actor, url=body.url, name=body.name, event_types=body.event_types
        )
        return {**endpoint_object(made), "signing_secret": secret}


@blueprint.get("/webhook_endpoints")
@endpoint(access=Access.USER, query=schemas.PageQuery, returns=shapes.WebhookEndpoint, many=True)
def index(actor: Actor, query: schemas.PageQuery) -> dict[str, Any]:
    """List your webhook endpoints, newest first."""
    with reading() as session:
        found, has_more = webhook_endpoints.page(session, actor, limit=query.limit, after=query.after)
        return listing([endpoint_object(each) for each in found], has_more=has_more)


@blueprint.get("/webhook_endpoints/<endpoint_id>")
@endpoint(access=Access.USER, returns=shapes.WebhookEndpoint, errors=(404,))
def one(actor: Actor, endpoint_id: str) -> dict[str, Any]:
    """Show a webhook endpoint."""
    with reading() as session:
        return endpoint_object(webhook_endpoints.get(session, actor, endpoint_id))


@blueprint.post("/webhook_endpoints/<endpoint_id>")
@endpoint(
    access=Access.USER, body=schemas.WebhookEndpointChange, returns=shapes.WebhookEndpoint, errors=(404,)
)
def change(actor: Actor, endpoint_id: str, body: schemas.WebhookEndpointChange) -> dict[str, Any]:
    """Change a webhook endpoint; what is absent stays. Switching it on again forgives what went wrong."""
    with transaction() as session:
        changes = body.model_dump(exclude_unset=True)
        return endpoint_object(webhook_endpoints.change(session, actor, endpoint_id, changes))


@blueprint.delete("/webhook_endpoints/<endpoint_id>")
@endpoint(access=Access.USER, returns=shapes.DeletedWebhookEndpoint, errors=(404,))
def delete(actor: Actor, endpoint_id: str) -> dict[str, Any]:
    """Delete a webhook endpoint; what is still owed to it is not sent."""
    with transaction() as session:
        webhook_endpoints.delete(session, actor, endpoint_id)
    return {"id": endpoint_id, "object": "webhook_endpoint.deleted", "deleted": True}


@blueprint.post("/webhook_endpoints/<endpoint_id>/rotate_secret")
@endpoint(access=Access.USER, body=schemas.SecretRotation, returns=shapes.NewWebhookEndpoint, errors=(404,))
def rotate(actor: Actor, endpoint_id: str, body: schemas.SecretRotation) -> dict[str, Any]:
    """Replace an endpoint's signing secret; the new one is shown only here."""
    with transaction() as session:
        made, secret = webhook_endpoints.rotate(
            session, actor, endpoint_id, keep_old=body.keep_old_secret_active_for_24_hours
        )
        return {**endpoint_object(made), "signing_secret": secret}


@blueprint.post("/webhook_endpoints/<endpoint_id>/test")
@endpoint(
    access=Access.SUBMITTER, body=schemas.WebhookTest, returns=shapes.WebhookTestResult, errors=(404, 409)
)
def test(actor: Actor, endpoint_id: str, body: schemas.WebhookTest) -> dict[str, Any]:
    """Send a sample event and answer what the receiver said; 409 where it could not be reached."""
    with transaction() as session:
        delivery_id = webhooks.test(session, actor, endpoint_id, body.event_type)
    return {
        "object": "webhook_endpoint.test",
        "webhook_endpoint_id": endpoint_id,
        "event_type": body.event_type,
        "status_code": _answer_to(actor, delivery_id),
        "success": True,
    }


def _answer_to(actor: Actor, delivery_id: str) -> int:
    """The receiver's HTTP status, once a worker has tried."""
    end = time.monotonic() + TEST_WAIT_S
    while time.monotonic() < end and not stopping.is_set():
        with reading() as session:
            delivery = webhooks.get(session, actor, delivery_id)
        if delivery.status != Delivery.PENDING:
            if delivery.response_status is None:
                raise Conflict(f"The receiver could not be reached: {delivery.last_error}")
            return delivery.response_status
        time.sleep(_LOOK_S)
    raise Unavailable(f"No worker has sent it yet; see the webhook delivery {delivery_id}.")


@blueprint.post("/webhook_endpoints/<endpoint_id>/replay")
@endpoint(access=Access.USER, body=schemas.WebhookReplay, returns=shapes.WebhookReplayed, status=202,
          errors=(404, 409))  # fmt: skip
def replay_since(actor: Actor, endpoint_id: str, body: schemas.WebhookReplay) -> dict[str, Any]:
    """Send an endpoint again what it has not taken since then, each with its old id."""
    with transaction() as session:
        count = webhooks.replay_since(session, actor, endpoint_id, body.since, delivered=body.delivered)
    return {"object": "webhook_endpoint.replay", "webhook_endpoint_id": endpoint_id, "count": count}


@blueprint.get("/webhook_event_types")
@endpoint(access=Access.USER, returns=shapes.WebhookEventTypes)
def event_types(actor: Actor) -> dict[str, Any]:
    """List what webhooks can tell."""
    return {"object": "list", "data": list(EventType)}


# ---------------------------------------------------------------- the secret of jobs' own URLs


@blueprint.get("/webhook_secret")
@endpoint(access=Access.USER, returns=shapes.WebhookSecret, errors=(409,))
def own_secret(actor: Actor) -> dict[str, Any]:
    """Show what signs the webhooks of your jobs that name a `webhook_url`."""
    with transaction() as session:
        return {"object": "webhook_secret", "secret": webhook_endpoints.own_secret(session, actor.user_id)}


@blueprint.post("/webhook_secret/rotate")
@endpoint(access=Access.USER, body=schemas.SecretRotation, returns=shapes.WebhookSecret)
def rotate_own_secret(actor: Actor, body: schemas.SecretRotation) -> dict[str, Any]:
    """Replace it."""
    with transaction() as session:
        secret = webhook_endpoints.rotate_own(
            session, actor.user_id, keep_old=body.keep_old_secret_active_for_24_hours
        )
    return {"object": "webhook_secret", "secret": secret}


# ---------------------------------------------------------------- the log


@blueprint.get("/webhook_deliveries")
@endpoint(access=Access.USER, query=schemas.DeliveriesQuery, returns=shapes.WebhookDelivery, many=True)
def deliveries(actor: Actor, query: schemas.DeliveriesQuery) -> dict[str, Any]:
    """List what was sent and is to be sent, newest first."""
    with reading() as session:
        found, has_more = webhooks.page(
            session, actor, limit=query.limit, after=query.after, endpoint_id=query.endpoint_id,
            job_id=query.job_id, status=query.status,
        )  # fmt: skip
        return listing([delivery_object(each) for each in found], has_more=has_more)


@blueprint.get("/webhook_deliveries/<delivery_id>")
@endpoint(access=Access.USER, returns=shapes.WebhookDelivery, errors=(404,))
def delivery(actor: Actor, delivery_id: str) -> dict[str, Any]:
    """Show a delivery."""
    with reading() as session:
        return delivery_object(webhooks.get(session, actor, delivery_id))


@blueprint.post("/webhook_deliveries/<delivery_id>/replay")
@endpoint(access=Access.USER, returns=shapes.WebhookDelivery, status=202, errors=(404, 409))
def replay(actor: Actor, delivery_id: str) -> dict[str, Any]:
    """Send a closed delivery again, with the same id."""
    with transaction() as session:
        return delivery_object(webhooks.replay(session, actor, delivery_id))
