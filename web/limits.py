"""Limits on attempts, kept in this process."""

from __future__ import annotations

import time
from collections import deque
from threading import Lock

from common.errors import RateLimited

_MOST_KEYS = 10_000


class Attempts:
    """At most `most` failed attempts per key in `window_s` seconds."""

    def __init__(self, most: int, window_s: float) -> None:
        self._most = most
        self._window_s = window_s
        self._failures: dict[tuple[str, ...], deque[float]] = {}
        self._lock = Lock()

    def check(self, key: tuple[str, ...]) -> None:
        """Raise RateLimited if this key has failed too often."""
        now = time.monotonic()
        with self._lock:
            failures = self._recent(key, now)
            if len(failures) >= self._most:
                wait_s = int(failures[0] + self._window_s - now) + 1
                raise RateLimited("Too many attempts; try again later.", retry_after_s=wait_s)

    def failed(self, key: tuple[str, ...]) -> None:
        """Count a failure."""
        now = time.monotonic()
        with self._lock:
            if len(self._failures) >= _MOST_KEYS:
                self._forget(now)
            self._failures.setdefault(key, deque()).append(now)

    def succeeded(self, key: tuple[str, ...]) -> None:
        """Forget the failures of this key."""
        with self._lock:
            self._failures.pop(key, None)

    def _recent(self, key: tuple[str, ...], now: float) -> deque[float]:
        failures = self._failures.get(key, deque())
        while failures and failures[0] <= now - self._window_s:
            failures.popleft()
        return failures

    def _forget(self, now: float) -> None:
        """Make room: what is over first, then everything."""
        for key in list(self._failures):
            if not self._recent(key, now):
                del self._failures[key]
        if len(self._failures) >= _MOST_KEYS:
            self._failures.clear()
