"""The caller's own account: who they are, their credits, their tokens, their sign-in."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from common.clock import iso
from common.db import reading, transaction
from common.services import credits, users
from common.services.presentation import entry_object, token_object, user_object
from common.services.users import Actor
from web import auth, rates, schemas, shapes
from web.answers import JsonResponse, listing
from web.aside import aside
from web.endpoints import Access, endpoint
from web.limits import Attempts, client_address
from web.parsing import SMALL_BODY

blueprint = Blueprint("account", __name__, url_prefix="/v1")
attempts_at_login = Attempts(most=10, window_s=60.0)  # by e-mail and address
attempts_from_address = Attempts(most=100, window_s=60.0)


@blueprint.post("/auth/signin")
@endpoint(access=Access.ANYONE, body=schemas.SignIn, returns=shapes.SignedIn, errors=(401, 403, 429),
          max_bytes=SMALL_BODY)  # fmt: skip
def sign_in(body: schemas.SignIn) -> dict[str, Any]:
    """Sign in with e-mail and password; the token lasts seven days."""
    address = client_address()
    pair = f"{address} {body.email.lower()}"
    attempts_from_address.begin(address)
    attempts_at_login.begin(pair)
    with reading() as session:
        login = users.login_of(session, body.email)
    user_id = aside(users.check_password, login, body.password)
    attempts_from_address.give_back(address)
    attempts_at_login.forget(pair)
    with transaction() as session:
        token, expires_at, user = users.begin_session(session, user_id)
    return {"token": token, "token_type": "Bearer", "expires_at": iso(expires_at), "user": user_object(user)}


@blueprint.get("/me")
@endpoint(access=Access.USER, returns=shapes.User)
def me(actor: Actor) -> dict[str, Any]:
    """Show who you are."""
    with reading() as session:
        return user_object(users.get_user(session, actor.user_id))


@blueprint.get("/credits")
@endpoint(access=Access.USER, returns=shapes.Credits)
def balance(actor: Actor) -> dict[str, Any]:
    """Show your credits: what you may spend, and what running jobs hold."""
    with reading() as session:
        present = credits.balance(session, actor.user_id)
    return {"object": "credits", "available": present.available, "held": present.held}


@blueprint.get("/credits/ledger")
@endpoint(access=Access.USER, query=schemas.LedgerQuery, returns=shapes.LedgerEntry, many=True)
def ledger(actor: Actor, query: schemas.LedgerQuery) -> dict[str, Any]:
    """List every movement of your credits, newest first."""
    with reading() as session:
        found = credits.entries(session, actor.user_id, limit=query.limit + 1, after=query.after)
    shown = [entry_object(entry) for entry in found[: query.limit]]
    return listing(shown, has_more=len(found) > query.limit)


@blueprint.post("/tokens")
@endpoint(access=Access.USER, body=schemas.NewToken, returns=shapes.NewToken, status=201)
def create_token(actor: Actor, body: schemas.NewToken) -> dict[str, Any]:
    """Create a token. The secret is shown only in this answer; a token that has a rate limit cannot create others."""
    rates.refuse_limited_token(actor)
    with transaction() as session:
        secret, row = users.create_token(session, actor.user_id, body.name, rate_limit=body.rate_limit)
        return {**token_object(row), "token": secret}


@blueprint.get("/tokens")
@endpoint(access=Access.USER, returns=shapes.Token, many=True)
def list_tokens(actor: Actor) -> dict[str, Any]:
    """List your tokens, newest first, without their secrets."""
    with reading() as session:
        return listing([token_object(row) for row in users.list_tokens(session, actor.user_id)])


@blueprint.delete("/tokens/<token_id>")
@endpoint(access=Access.USER, status=204, errors=(404,))
def delete_token(actor: Actor, token_id: str) -> Response:
    """Revoke a token."""
    with transaction() as session:
        users.delete_token(session, actor.user_id, token_id)
    auth.forget()
    return JsonResponse(status=204)
