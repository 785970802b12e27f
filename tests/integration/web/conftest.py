"""The real application on a released database of each kind, and users who speak to it. No worker is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from common.db import transaction
from common.ids import new_id
from common.services import credits, users
from common.words import Role
from tests.infrastructure.databases import Released
from tests.infrastructure.inside import configured
from tests.infrastructure.valkey import Valkey
from tests.integration.web.api import Api
from web import auth
from web.api import account
from web.app import create_app

MakeUser = Callable[..., Api]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MEDIA_DIR."""
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def app(released_url: str, valkey_server: Valkey, media: Path) -> Iterator[Flask]:
    """The application of a module's tests."""
    environment = {
        "DATABASE_URL": released_url,
        "REDIS_URL": valkey_server.url,
        "SECRET_KEY": "a secret for tests",
        "MEDIA_DIR": str(media),
    }
    with configured(environment):
        yield create_app()


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    """What a process remembers about callers must not reach from one test into another."""
    auth.forget()
    account.attempts_at_login.clear()
    account.attempts_from_address.clear()


@pytest.fixture
def make_user(app: Flask) -> MakeUser:
    """Create users with credits and a token."""

    def make(credits_: int = 1000, role: Role = Role.USER) -> Api:
        return new_user(credits_, role, app=app)

    return make


def new_user(credits_: int = 1000, role: Role = Role.USER, *, app: Flask | None = None, url: str = "") -> Api:
    """A user with credits and a token, in the database of this process."""
    with transaction() as session:
        user = users.create_user(session, email=f"{new_id('u')}@example.com", role=role)
        token, _ = users.create_token(session, user.id, "test")
        if credits_:
            credits.grant(session, user.id, credits_, note=None, reference=new_id("ref"))
        return Api(token, app=app, url=url, user_id=user.id, email=user.email)


@pytest.fixture
def user(make_user: MakeUser) -> Api:
    """Somebody with 1000 credits."""
    return make_user()


@pytest.fixture
def other(make_user: MakeUser) -> Api:
    """Somebody else with 1000 credits."""
    return make_user()


@pytest.fixture
def nobody(app: Flask) -> Api:
    """Somebody without a token."""
    return Api(app=app)


@pytest.fixture
def admin(app: Flask, released: Released) -> Api:
    """The first admin."""
    return Api(released.admin_token, app=app, email=released.admin_email)
