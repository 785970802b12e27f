"""Limits on attempts, kept in this process, and whose attempts they are."""

from __future__ import annotations

import os
import time
from collections import deque
from threading import Lock

from flask import request

from common.errors import RateLimited

_MOST_KEYS = 10_000


class Attempts:
    """At most `most` failed attempts per key in `window_s` seconds."""

    def __init__(self, most: int, window_s: float) -> None:
        self._most = most
        self._window_s = window_s
        self._begun: dict[str, deque[float]] = {}
        self._lock = Lock()

    def begin(self, key: str) -> None:
        """Count an attempt before it is made, so that many at once are no way around. Raises RateLimited."""
        now = time.monotonic()
        with self._lock:
            begun = self._recent(key, now)
            if len(begun) >= self._most:
                wait_s = int(begun[0] + self._window_s - now) + 1
                raise RateLimited("Too many attempts; try again later.", retry_after_s=wait_s)
            if key not in self._begun and len(self._begun) >= _MOST_KEYS:
                self._make_room(now)
            self._begun.setdefault(key, begun).append(now)

    def give_back(self, key: str) -> None:
        """The last attempt has succeeded and does not count."""
        with self._lock:
            begun = self._begun.get(key)
            if begun:
                begun.pop()

    def forget(self, key: str) -> None:
        """An attempt has succeeded, and those before it do not count any more."""
        with self._lock:
            self._begun.pop(key, None)

    def clear(self) -> None:
        """Forget all attempts."""
        with self._lock:
            self._begun.clear()

    def _recent(self, key: str, now: float) -> deque[float]:
        begun = self._begun.get(key, deque())
        while begun and begun[0] <= now - self._window_s:
            begun.popleft()
        return begun

    def _make_room(self, now: float) -> None:
        """What is over goes first, then everything."""
        for key in list(self._begun):
            if not self._recent(key, now):
                del self._begun[key]
        if len(self._begun) >= _MOST_KEYS:
            self._begun.clear()


def client_address() -> str:
    """Where the request came from; a proxy named in FORWARDED_ALLOW_IPS is believed about whom it speaks for."""
    peer = request.remote_addr or ""
    trusted = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1").split(",")
    if "*" not in trusted and peer not in [address.strip() for address in trusted]:
        return peer
    last = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    return last[:64] or peer
