"""Running platforms: one of each kind of installation, which all stories share.

`small`: SQLite and local storage, as on one machine. `large`: PostgreSQL and Tencent COS.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from sqlalchemy import update

from common.db import build_engine
from common.models import ProviderAccount
from tests.infrastructure.client import Client
from tests.infrastructure.platform import Platform
from tests.infrastructure.postgres import Postgres
from tests.infrastructure.valkey import Valkey
from tests.simulators.world import World

QUICK = {"LEASE_S": "3", "RECONCILE_WINDOW_S": "4", "POLL_INTERVAL_S": "0.3", "TICK_S": "0.5", "SWEEP_S": "1"}


@dataclass(frozen=True)
class Installation:
    """A platform with everything around it."""

    kind: str
    platform: Platform
    world: World
    valkey: Valkey

    def user(self, *, credits: int = 10_000) -> Client:
        """A new user with credits."""
        return self.platform.user(credits=credits)

    def calm(self) -> None:
        """Everything runs, simulators behave, accounts have no trouble: an empty one would pause for minutes."""
        if not self.valkey.is_running:
            self.valkey.start()
        running = {process.name for process in self.platform.group.processes if process.is_running}
        if missing := {"web", "worker", "beat"} - running:
            self.platform.start(*missing)
        self.world.behave()
        engine = build_engine(self.platform.group.environment["DATABASE_URL"])
        with engine.begin() as connection:
            connection.execute(update(ProviderAccount).values(failures=0, open_until=0.0, trouble=None))
        engine.dispose()


_KINDS = [pytest.param(kind, marks=pytest.mark.xdist_group(f"stories-{kind}")) for kind in ("small", "large")]


@pytest.fixture(scope="package", params=_KINDS)  # an idle platform costs a fifth of a processor
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres
) -> Iterator[Installation]:
    """The running installation of this kind that all stories share."""
    folder, kind = tmp_path_factory.mktemp("shared"), request.param
    with ExitStack() as stack:
        if kind == "large":
            database_url = postgres_server.create_database()
            stack.callback(postgres_server.drop_database, database_url)
        else:
            database_url = f"sqlite:///{folder}/webui.db"
        valkey = stack.enter_context(Valkey(folder / "valkey"))
        world = stack.enter_context(World(at_once=24))
        storage = world.environment(storage="cos" if kind == "large" else "local")
        platform = stack.enter_context(
            Platform(
                folder, database_url=database_url, redis_url=valkey.url, environment={**QUICK, **storage}
            )
        )
        platform.release()
        yield Installation(kind, platform, world, valkey)


@pytest.fixture
def installation(shared: Installation) -> Iterator[Installation]:
    """The shared one, all of it running, without whatever trouble the story before has made."""
    shared.calm()
    yield shared
    shared.world.behave()
