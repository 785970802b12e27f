"""The catalogue and its prices."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from common.db import reading
from common.errors import NotFound, UnknownModel
from common.services import catalog
from common.services.catalog import Offer
from common.services.users import Actor
from web import schemas, shapes
from web.answers import listing
from web.endpoints import Access, endpoint

_SINCE = 1_763_942_400  # OpenAI's `created`: when this catalogue began
blueprint = Blueprint("models", __name__, url_prefix="/v1")


@blueprint.get("/models")
@endpoint(access=Access.USER, returns=shapes.Model, many=True)
def index(actor: Actor) -> dict[str, Any]:
    """List the models that you may call, with prices and input schemas."""
    with reading() as session:
        return listing([model_object(offer) for offer in catalog.offers(session)])


@blueprint.get("/models/<provider>/<name>")
@endpoint(access=Access.USER, returns=shapes.Model, errors=(404,))
def one(actor: Actor, provider: str, name: str) -> dict[str, Any]:
    """Show one model."""
    with reading() as session:
        try:
            return model_object(catalog.offer(session, f"{provider}/{name}"))
        except UnknownModel:
            raise NotFound("There is no such model.") from None


@blueprint.post("/quotes")
@endpoint(access=Access.USER, body=schemas.NewQuote, returns=shapes.Quote)
def quote(actor: Actor, body: schemas.NewQuote) -> dict[str, Any]:
    """Say what a job would cost, without running it."""
    with reading() as session:
        offer = catalog.offer(session, body.model)
    price = catalog.quote(offer, catalog.check_input(offer.spec, body.input))
    return {"object": "quote", "model": body.model, "credits": price.credits, "breakdown": price.breakdown}


def model_object(offer: Offer) -> dict[str, Any]:
    """A model as the API shows it: OpenAI's shape and what ours need besides."""
    spec = offer.spec
    choices = spec.input_schema.get("properties", {}).get("action", {}).get("enum")
    return {
        "id": spec.id,
        "object": "model",
        "created": _SINCE,
        "owned_by": spec.provider,
        "provider": spec.provider,
        "title": spec.title,
        "kind": spec.kind,
        "price": dict(offer.price),
        "input_schema": spec.input_schema,
        "actions": list(choices) if choices else [spec.action],
    }
