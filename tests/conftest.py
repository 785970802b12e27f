"""What all tests share: an isolated environment, a real Valkey, a real PostgreSQL, and a fresh database of each kind.

Servers start when a test first asks for them. With pytest-xdist each worker has its own (a PostgreSQL is there in
a third of a second), so tests may run side by side without names or locks in common.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.infrastructure.databases import Released
from tests.infrastructure.environment import isolate
from tests.infrastructure.postgres import Postgres
from tests.infrastructure.valkey import Valkey

isolate()  # before any test module is imported: some read settings at import

# How long an example takes says more about the machine's load than about us; pytest-timeout catches what hangs.
# Where CI is set the examples are the same in every run; elsewhere each run tries new ones, and those that failed.
hypothesis.settings.register_profile("wxiai", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("wxiai")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: a third of the time a test waits for something."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests stay to the end: a collector that looks through them takes a fifth of all our time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    """This session's Valkey. Tests that kill or pause a server start one of their own."""
    with Valkey() as server:
        yield server


@pytest.fixture
def valkey_url(valkey_server: Valkey) -> str:
    """REDIS_URL of an empty Valkey."""
    valkey_server.flush()
    return valkey_server.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """This session's PostgreSQL. Tests that kill or pause a server start one of their own."""
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """DATABASE_URL of an empty database; the test runs once for each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/webui.db"
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    url = server.create_database()
    yield url
    server.drop_database(url)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Released:
    """Makes databases as the release process leaves them; the first of each kind takes two seconds, others none."""
    return Released(tmp_path_factory.mktemp("released"), lambda: request.getfixturevalue("postgres_server"))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def released_url(
    request: pytest.FixtureRequest, released: Released, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """DATABASE_URL of a released database that a module's tests share; they run once for each kind."""
    if request.param == "sqlite":
        yield released.sqlite(tmp_path_factory.mktemp("database") / "webui.db")
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    url = released.postgresql()
    yield url
    server.drop_database(url)
