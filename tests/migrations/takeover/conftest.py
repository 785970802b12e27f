"""The first run as it really is, and the application on a database that was taken over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import sqlalchemy as sa

from common.settings import Settings
from migrations import runner
from migrations.chain import Chain
from tests.infrastructure.inside import configured
from tests.integration.web.api import Api
from tests.migrations.conftest import NO_REDIS
from tests.migrations.takeover.contents import Content, contents
from tests.migrations.takeover.people import fill
from tests.migrations.takeover.releases import Shape
from web import auth
from web.api import account
from web.app import create_app


@pytest.fixture
def setup_calls() -> list[str]:
    """No stand-in for the set-up here."""
    return []


Taken = Callable[[Shape], Content]


@pytest.fixture
def take_over(given: Settings, engine: sa.Engine) -> Taken:
    """Build a database of that shape with people in it, upgrade it, and say what it held before."""

    def take(shape: Shape) -> Content:
        with engine.begin() as connection:
            shape.build(connection)
            fill(connection, shape)
        before = contents(engine)
        outcome = runner.upgrade(given, Chain())
        assert outcome.code == 0, outcome.line
        return before

    return take


@pytest.fixture
def serve(given: Settings) -> Iterator[Callable[[], Callable[..., Api]]]:
    """Start the application on the database; what comes back makes clients."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(serving(given.database_url))


@contextmanager
def serving(url: str) -> Iterator[Callable[..., Api]]:
    environment = {"DATABASE_URL": url, "REDIS_URL": NO_REDIS, "SECRET_KEY": "a secret for tests"}
    with configured(environment):
        auth.forget()
        account.attempts_at_login.clear()
        account.attempts_from_address.clear()
        app = create_app()
        yield lambda token="": Api(token, app=app)
