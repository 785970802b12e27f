"""A database with every table, and the services' own view of it, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from common import clock, db, queue, settings
from common.crypto import seal
from common.db import transaction
from common.db.types import Base
from common.ids import new_id
from common.models import ProviderAccount
from common.services import credits, users
from common.services.users import Actor
from common.words import Role


@pytest.fixture
def engine(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The process's engine, on a fresh database with every table."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("SECRET_KEY", "a secret for tests")
    monkeypatch.setattr(queue, "nudge", lambda step: None)
    settings.settings.cache_clear()
    db.engine.cache_clear()
    made = db.engine()
    Base.metadata.create_all(made)
    yield made
    made.dispose()
    settings.settings.cache_clear()
    db.engine.cache_clear()


@pytest.fixture
def make_actor(engine: Engine) -> Callable[..., Actor]:
    """Create users with credits."""

    def make(credits_: int = 1000) -> Actor:
        with transaction() as session:
            user = users.create_user(session, email=f"{new_id('u')}@example.com", role=Role.USER)
            if credits_:
                credits.grant(session, user.id, credits_, note=None, reference=new_id("ref"))
            return users.actor_of(user)

    return make


@pytest.fixture
def make_account(engine: Engine) -> Callable[..., str]:
    """Create provider accounts; returns the id."""

    def make(adapter: str = "bfl", provider: str = "flux", limit: int = 5, weight: int = 1) -> str:
        account_id = new_id("acc")
        with transaction() as session:
            session.add(
                ProviderAccount(
                    id=account_id,
                    provider=provider,
                    adapter=adapter,
                    name=account_id,
                    base_url="http://127.0.0.1:9",
                    credentials=seal({"api_key": "k", "key": "k"}),
                    enabled=True,
                    weight=weight,
                    max_concurrency=limit,
                    failures=0,
                    open_until=0.0,
                    created_at=clock.now(),
                    updated_at=clock.now(),
                )
            )
        return account_id

    return make


@pytest.fixture
def actor(make_actor: Callable[..., Actor], make_account: Callable[..., str]) -> Actor:
    """A user with 100 credits, and one account to work with."""
    make_account()
    return make_actor(100)
