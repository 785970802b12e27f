"""Released databases with wxiai's tables beside ours, and the command in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.infrastructure.databases import Released
from tests.infrastructure.inside import configured
from tests.infrastructure.postgres import Postgres
from tests.integration.web.test_commands import Done, run
from web.app import create_app

SECRET_KEY = "a secret for tests"
Command = Callable[..., Done]


@pytest.fixture
def url(request: pytest.FixtureRequest, released: Released, tmp_path: Path) -> Iterator[str]:
    """DATABASE_URL of a released database of its own: SQLite, unless a test asks for another kind."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield released.sqlite(tmp_path / "webui.db")
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    made = released.postgresql()
    yield made
    server.drop_database(made)


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine(url)
    yield made
    made.dispose()


@pytest.fixture
def command(url: str) -> Iterator[Command]:
    """Operators' commands on that database."""
    environment = {"DATABASE_URL": url, "REDIS_URL": "redis://127.0.0.1:1/0", "SECRET_KEY": SECRET_KEY}
    with configured(environment):
        app = create_app()
        yield lambda *arguments: run(app, *arguments)
