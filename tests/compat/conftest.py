"""The same data twice: with the whole schema, and with one that lacks columns and the compatibility mode over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from sqlalchemy import Engine, MetaData
from sqlalchemy.orm import Session

from common.db import build_engine
from common.db.compat import Compat
from tests.compat.models import LACKING, Base, Book, Config, Counter, Item, Tool, User, without
from tests.infrastructure.postgres import Postgres


@dataclass(frozen=True)
class Pair:
    """Two databases of one kind."""

    whole: Engine
    old: Engine
    compat: Compat


class Pairs:
    """Makes pairs of engines; `close` ends them."""

    def __init__(self, new_url: Callable[[], str]) -> None:
        self._new_url, self._stack = new_url, ExitStack()

    def make(self, metadata: MetaData, lacking: Mapping[str, frozenset[str]]) -> Pair:
        """Two empty databases: one with every column, one without these."""
        whole, old = build_engine(self._new_url()), build_engine(self._new_url())
        self._stack.callback(whole.dispose)
        self._stack.callback(old.dispose)
        metadata.create_all(whole)
        without(metadata, lacking).create_all(old)
        bridge = Compat(old, metadata)
        self._stack.callback(bridge.close)
        bridge.look()
        return Pair(whole, old, bridge)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def pairs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """Of SQLite, then of PostgreSQL."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            made = Pairs(lambda: f"sqlite:///{tmp_path_factory.mktemp('compat') / 'webui.db'}")
        else:
            server: Postgres = request.getfixturevalue("postgres_server")

            def new_url() -> str:
                url = server.create_database()
                stack.callback(server.drop_database, url)
                return url

            made = Pairs(new_url)
        stack.callback(made.close)
        yield made


@pytest.fixture(scope="module")
def pair(pairs: Pairs) -> Pair:
    """Filled; a test leaves them as they are."""
    made = pairs.make(Base.metadata, LACKING)
    for engine in (made.whole, made.old):
        with Session(engine) as session, session.begin():
            fill(session)
    return made


def fill(session: Session) -> None:
    """The same rows in both, with nothing but defaults in what one of them lacks."""
    session.add_all(
        [
            User(id="u1", name="Ann", email="ann@example.com", score=10, settings={"a": {"b": 1}}),
            User(id="u2", name="Bob", email="bob@example.com", score=20),
            User(id="u3", name="Cid", email=None, score=None),
        ]
    )
    session.flush()
    session.add_all(
        [
            Tool(id="t1", user_id="u1", content="one"),
            Tool(id="t2", user_id="u1", parent_id="t1", content="two"),
            Tool(id="t3", user_id="u2", content="three"),
            Tool(id="t4", user_id=None, content="four"),
            Config(data={"x": 1}),
            Item(title="a thing"),
            Book(title="a book", author="Dee"),
            Counter(),
        ]
    )
