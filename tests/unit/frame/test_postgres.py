"""Our PostgreSQL does what tests will do to it, whoever runs them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.infrastructure import postgres
from tests.infrastructure.postgres import Postgres

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root only")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with Postgres() as made:
        yield made


def create_table(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (id int)")
        connection.execute("INSERT INTO kept VALUES (1)")


def rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.parametrize("how", ["kill9", "restart"])
def test_data_survive_on_the_same_port(server: Postgres, how: str) -> None:
    url, port = server.create_database(), server.port
    create_table(url)
    if how == "kill9":
        server.kill9()
        assert not server.is_running
        server.start()
    else:
        server.restart()
    assert server.port == port
    assert rows(url) == 1


def test_databases_are_separate_and_copied_from_templates(server: Postgres) -> None:
    first = server.create_database("first")
    create_table(first)
    second = server.create_database(template="first")
    with psycopg.connect(second) as connection:
        connection.execute("INSERT INTO kept VALUES (2)")
    assert (rows(first), rows(second)) == (1, 2)


def test_a_database_in_use_is_dropped(server: Postgres) -> None:
    url = server.create_database()
    with psycopg.connect(url):
        server.drop_database(url)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


def test_a_paused_server_comes_back(server: Postgres) -> None:
    server.pause()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url(), connect_timeout=1)
    server.resume()
    psycopg.connect(server.url()).close()


def test_stop_leaves_nothing() -> None:
    with Postgres() as server:
        folder = server.folder
        assert server.is_running
    assert not server.is_running
    assert not folder.exists()


@as_root
def test_programs_that_the_other_user_cannot_read_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    can_run = postgres._can_run

    def only_true(command: list[str], user: dict[str, Any], folder: Path) -> bool:
        return command == ["true"] and can_run(command, user, folder)

    monkeypatch.setattr(postgres, "_can_run", only_true)
    with Postgres() as server:
        assert (server.folder / "programs").is_dir()
        create_table(server.create_database())


@as_root
def test_root_hands_over_to_somebody_else(server: Postgres) -> None:
    assert server.folder.stat().st_uid != 0


def test_the_fixture_makes_an_empty_database(database_url: str) -> None:
    if database_url.startswith("sqlite"):
        assert not Path(database_url.removeprefix("sqlite:///")).exists()
        return
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert found == (0,)
