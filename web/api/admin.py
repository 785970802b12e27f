"""What administrators do: users, their tokens, their credits."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from common.db import reading, transaction
from common.errors import Conflict, InvalidInput, NotFound
from common.services import administration, credits, users
from common.services.presentation import entry_object, managed_user_object, token_object
from common.services.users import Actor
from common.words import Role
from web import auth, rates, schemas, shapes
from web.answers import REPLAYED, answer, listing
from web.endpoints import Access, endpoint
from web.parsing import idempotency_key

ONCE = ("Idempotency-Key",)
blueprint = Blueprint("admin", __name__, url_prefix="/v1/admin/users")


@blueprint.post("")
@endpoint(access=Access.ADMIN, body=schemas.NewUser, returns=shapes.ManagedUser, status=201, errors=(409,))
def create_user(actor: Actor, body: schemas.NewUser) -> dict[str, Any]:
    """Create a user."""
    with transaction() as session:
        user = users.create_user(
            session, email=body.email, name=body.name, role=Role(body.role), password=body.password
        )
        return managed_user_object(user, {})


@blueprint.get("")
@endpoint(access=Access.ADMIN, query=schemas.PageQuery, returns=shapes.ManagedUser, many=True)
def list_users(actor: Actor, query: schemas.PageQuery) -> dict[str, Any]:
    """List users, oldest first."""
    with reading() as session:
        try:
            found = users.list_users(session, limit=query.limit + 1, after=query.after)
        except NotFound:
            raise InvalidInput("There is no such user.", param="after") from None
        weights = credits.weights(session, [user.id for user in found])
    shown = [managed_user_object(user, weights) for user in found[: query.limit]]
    return listing(shown, has_more=len(found) > query.limit)


@blueprint.get("/<user_id>")
@endpoint(access=Access.ADMIN, returns=shapes.ManagedUser, errors=(404,))
def one_user(actor: Actor, user_id: str) -> dict[str, Any]:
    """Show a user."""
    with reading() as session:
        return managed_user_object(users.get_user(session, user_id), credits.weights(session, [user_id]))


@blueprint.patch("/<user_id>")
@endpoint(access=Access.ADMIN, body=schemas.UserChange, returns=shapes.ManagedUser, errors=(404, 409))
def change_user(actor: Actor, user_id: str, body: schemas.UserChange) -> dict[str, Any]:
    """Change a user; what is absent stays as it is."""
    role = Role(body.role) if body.role else None
    if user_id == actor.user_id and role not in (None, Role.ADMIN):
        raise Conflict("You cannot take the role of administrator from yourself.")
    with transaction() as session:
        user = users.change_user(
            session, user_id, name=body.name, role=role, email=body.email, password=body.password
        )
        if body.weight is not None:
            credits.set_weight(session, user_id, body.weight)
        shown = managed_user_object(user, credits.weights(session, [user_id]))
    auth.forget()
    return shown


@blueprint.post("/<user_id>/tokens")
@endpoint(access=Access.ADMIN, body=schemas.NewToken, returns=shapes.NewToken, status=201, errors=(404, 409),
          headers=ONCE)  # fmt: skip
def create_token(actor: Actor, user_id: str, body: schemas.NewToken) -> Response:
    """Create a token for a user. A repeat with the same Idempotency-Key answers the same token."""
    rates.refuse_limited_token(actor)
    key = idempotency_key()
    with transaction() as session:
        secret, row, replayed = administration.issue_token(
            session, actor, user_id, body.name, key, rate_limit=body.rate_limit
        )
        shown = {**token_object(row), "token": secret}
    return _created(shown, replayed)


@blueprint.post("/<user_id>/credits")
@endpoint(access=Access.ADMIN, body=schemas.NewGrant, returns=shapes.LedgerEntry, status=201, errors=(404,),
          headers=ONCE)  # fmt: skip
def grant(actor: Actor, user_id: str, body: schemas.NewGrant) -> Response:
    """Give a user credits. A repeat with the same Idempotency-Key, whenever it comes, answers the same ledger entry."""
    key = idempotency_key()
    with transaction() as session:
        entry, replayed = administration.grant(session, actor, user_id, body.amount, note=body.note, key=key)
        shown = entry_object(entry)
    return _created(shown, replayed)


def _created(shown: dict[str, Any], replayed: bool) -> Response:
    return answer(shown, 201, REPLAYED if replayed else {})
