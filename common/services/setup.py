"""What a fresh database gets: the catalogue and the first admin."""

from __future__ import annotations

import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.errors import InvalidInput
from common.models import User
from common.services import catalog, users
from common.settings import settings
from common.words import Role

DEFAULT_ADMIN = "admin@example.com"


def prepare_fresh_database(session: Session) -> list[str]:
    """Fill the catalogue and create the first admin if there is no user yet. Returns lines for the operator.

    Without ADMIN_PASSWORD a random one is made, and shown this once. Raises InvalidInput, which names the setting.
    """
    new_models = catalog.sync(session)
    lines = [f"Catalogue: {len(new_models)} models added"] if new_models else []
    if session.scalar(select(User.id).limit(1)) is None:
        lines += _first_admin(session)
    return lines


def _first_admin(session: Session) -> list[str]:
    given = settings()
    email = given.admin_email or DEFAULT_ADMIN
    chosen = given.admin_password.get_secret_value()
    password = chosen or secrets.token_urlsafe(12)
    try:
        admin = users.create_user(session, email=email, name="Admin", role=Role.ADMIN, password=password)
    except InvalidInput as error:
        raise InvalidInput(f"ADMIN_{str(error.param).upper()}: {error}", param=error.param) from None
    lines = [f"Admin: {admin.email}" + ("" if chosen else f", password (shown only now): {password}")]
    token = given.admin_api_token.get_secret_value()
    if token:
        users.create_token(session, admin.id, "ADMIN_API_TOKEN", token=token)
        lines.append("Admin: ADMIN_API_TOKEN is a valid token")
    return lines
