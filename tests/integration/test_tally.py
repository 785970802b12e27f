"""What several processes count is one figure, and a Redis that is away loses none of it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import settings, tally
from tests.infrastructure.children import free_port, wait_until
from tests.infrastructure.valkey import Valkey


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tally, "GATHER_S", 0.01)
    monkeypatch.setattr(tally, "AGAIN_S", 0.05)
    monkeypatch.setattr(tally, "_gathered", None)
    settings.settings.cache_clear()
    yield
    settings.settings.cache_clear()


def use_redis(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order: threads that other tests have left in this process read the settings at any moment."""
    monkeypatch.setenv("REDIS_URL", url)
    settings.settings.cache_clear()


# Of these tests alone: what others have counted in this process is handed over to any Redis, too.
OF_BOTH, OF_ONE = ("job", "of_both_processes"), ("artifact", "of_one_process")


def _child() -> None:
    tally.count_left_out(*OF_BOTH, 5)
    wait_until(lambda: tally.left_out().get(OF_BOTH, 0) >= 5, 10, what="it is handed over")


def test_processes_count_together(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_redis(valkey_url, monkeypatch)
    tally.count_left_out(*OF_BOTH, 2)
    tally.count_left_out(*OF_ONE, 1)
    child = multiprocessing.get_context("fork").Process(target=_child)
    child.start()
    child.join(15)
    assert child.exitcode == 0
    expected = {OF_BOTH: 7, OF_ONE: 1}
    wait_until(lambda: expected.items() <= tally.left_out().items(), 10, what="all is added up")


def test_what_redis_does_not_take_is_offered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    use_redis(f"redis://127.0.0.1:{port}/0", monkeypatch)
    label = ("artifact", "of_this_test")
    tally.count_left_out(*label, 3)
    assert tally.left_out() == {}
    with Valkey(tmp_path / "valkey", port=port):
        tally.count_left_out(*label, 4)
        wait_until(lambda: tally.left_out().get(label) == 7, 10, what="nothing is lost")
