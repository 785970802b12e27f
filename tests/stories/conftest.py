"""Running platforms: one shared by the stories of each kind of installation, and fresh ones for those that break it.

`small`: SQLite and local storage, as on one machine. `large`: PostgreSQL and Tencent COS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

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
        """Well-behaved simulators, and accounts that remember no trouble: an empty one would pause for minutes."""
        self.world.behave()
        engine = build_engine(self.platform.group.environment["DATABASE_URL"])
        with engine.begin() as connection:
            connection.execute(update(ProviderAccount).values(failures=0, open_until=0.0, trouble=None))
        engine.dispose()


class Installations:
    """Makes installations; `close` ends them all."""

    def __init__(self, folder: Callable[[], Path], postgres: Postgres) -> None:
        self._folder, self._postgres = folder, postgres
        self._stack = ExitStack()

    def make(self, kind: str, *, started: bool = True, **settings: str) -> Installation:
        """A new one with its own database, Valkey and simulators; `settings` are environment variables."""
        folder = self._folder()
        valkey = self._stack.enter_context(Valkey(folder / "valkey"))
        world = self._stack.enter_context(World(at_once=24))
        platform = Platform(
            folder,
            database_url=self._database(kind, folder),
            redis_url=valkey.url,
            environment={
                **QUICK,
                **world.environment(storage="cos" if kind == "large" else "local"),
                **settings,
            },
        )
        self._stack.enter_context(platform)
        platform.release()
        if started:
            platform.start()
        return Installation(kind, platform, world, valkey)

    def _database(self, kind: str, folder: Path) -> str:
        if kind == "small":
            return f"sqlite:///{folder}/webui.db"
        url = self._postgres.create_database()
        self._stack.callback(self._postgres.drop_database, url)
        return url

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="package")  # an idle platform costs a fifth of a processor: it ends with the stories
def shared_installations(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres
) -> Iterator[Installations]:
    made = Installations(lambda: tmp_path_factory.mktemp("shared"), postgres_server)
    yield made
    made.close()


_KINDS = [pytest.param(kind, marks=pytest.mark.xdist_group(f"stories-{kind}")) for kind in ("small", "large")]


@pytest.fixture(scope="package", params=_KINDS)
def shared(request: pytest.FixtureRequest, shared_installations: Installations) -> Installation:
    """The running installation of this kind that all stories share which break nothing."""
    return shared_installations.make(request.param)


@pytest.fixture
def installation(shared: Installation) -> Iterator[Installation]:
    """The shared one, without whatever trouble the story before has made."""
    shared.calm()
    yield shared
    shared.world.behave()


@pytest.fixture(params=_KINDS)
def own(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres
) -> Iterator[Callable[..., Installation]]:
    """Makes an installation of this kind for one test, which may break it."""
    made = Installations(lambda: tmp_path_factory.mktemp("own"), postgres_server)

    def make(**options: str | bool) -> Installation:
        return made.make(request.param, **options)  # type: ignore[arg-type]

    yield make
    made.close()
