"""Our Valkey does what tests will do to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.infrastructure.valkey import Valkey


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "valkey", fsync="always") as made:
        yield made


def write(server: Valkey, value: str) -> None:
    with server.client() as client:
        client.set("key", value)


def read(server: Valkey) -> str | None:
    with server.client() as client:
        return client.get("key")


@pytest.mark.parametrize("how", ["kill9", "restart"])
def test_data_survive_on_the_same_port(server: Valkey, how: str) -> None:
    write(server, "kept")
    port = server.port
    if how == "kill9":
        server.kill9()
        assert not server.is_running
        server.start()
    else:
        server.restart()
    assert server.port == port
    assert read(server) == "kept"


def test_without_a_folder_a_restart_forgets() -> None:
    with Valkey() as server:
        write(server, "lost")
        assert read(server.restart()) is None
        folder = server.log.parent
    assert not folder.exists()


def test_a_paused_server_accepts_and_does_not_answer(server: Valkey) -> None:
    write(server, "there")
    server.pause()
    with server.client(timeout_s=0.2) as client, pytest.raises(redis.TimeoutError):
        client.get("key")
    server.resume()
    assert read(server) == "there"


def test_a_paused_server_can_be_stopped(server: Valkey) -> None:
    server.pause()
    server.stop()
    assert not server.is_running


def test_flush(server: Valkey) -> None:
    write(server, "gone")
    server.flush()
    assert read(server) is None


def test_a_taken_port_is_told(server: Valkey, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Address already in use"):
        Valkey(tmp_path / "second", port=server.port).start()
    assert server.is_running


def test_the_fixtures_server_is_empty(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        assert client.dbsize() == 0
