"""Attempts are counted per key, in a window, in bounded memory."""

from __future__ import annotations

import time

import pytest

from common.errors import RateLimited
from tests.infrastructure.children import wait_until
from web import limits
from web.limits import Attempts


def is_free(attempts: Attempts, key: str) -> bool:
    try:
        attempts.begin(key)
    except RateLimited:
        return False
    return True


def test_a_window_passes() -> None:
    attempts = Attempts(most=2, window_s=0.2)
    began = time.monotonic()
    assert [is_free(attempts, "a") for _ in range(3)] == [True, True, False]
    assert is_free(attempts, "b")
    wait_until(lambda: is_free(attempts, "a"), 5)
    assert time.monotonic() - began >= 0.2


def test_who_is_limited_learns_for_how_long() -> None:
    attempts = Attempts(most=1, window_s=30)
    attempts.begin("a")
    with pytest.raises(RateLimited) as refusal:
        attempts.begin("a")
    assert refusal.value.retry_after_s in (30, 31)


def test_a_success_gives_back_or_forgets() -> None:
    attempts = Attempts(most=3, window_s=30)
    for _ in range(3):
        attempts.begin("a")
    attempts.give_back("a")
    assert [is_free(attempts, "a") for _ in range(2)] == [True, False]
    attempts.forget("a")
    assert [is_free(attempts, "a") for _ in range(4)] == [True, True, True, False]
    attempts.give_back("nobody")
    attempts.forget("nobody")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MOST_KEYS", 10)
    attempts = Attempts(most=1, window_s=30)
    for number in range(100):
        attempts.begin(str(number))
        assert len(attempts._begun) <= 10
