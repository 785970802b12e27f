"""What the processes of a platform count together: gathered in each, added up in Redis, shown by web.

Counting never waits and never fails. What Redis does not take is kept and offered again; what a process had not yet
handed over when it was killed is lost, a second's worth.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter

from redis.exceptions import RedisError

from common import broker

log = logging.getLogger(__name__)

LEFT_OUT = "wxiai:left-out"  # a hash: rows by "table.column"
GATHER_S = 1.0
AGAIN_S = 5.0
_TIMEOUT_S = 2.0
_TROUBLE = (RedisError, OSError, ValueError)


class _Gathered:
    """The counts of one process on their way to Redis."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        threading.Thread(target=self._run, name="tally", daemon=True).start()

    def add(self, label: str, count: int) -> None:
        with self._lock:
            self._counts[label] += count
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            time.sleep(GATHER_S)
            if not self._hand_over():
                time.sleep(AGAIN_S)
                self._wake.set()

    def _hand_over(self) -> bool:
        with self._lock:
            counts, self._counts = self._counts, Counter()
        try:
            with broker.client(_TIMEOUT_S) as redis, redis.pipeline(transaction=True) as pipe:
                for label, count in counts.items():
                    pipe.hincrby(LEFT_OUT, label, count)
                pipe.execute()
        except _TROUBLE as error:
            log.warning("what was left out is not counted yet: %s", type(error).__name__)
            with self._lock:
                self._counts.update(counts)
            return False
        return True


_gathered: _Gathered | None = None
_guard = threading.Lock()


def count_left_out(table: str, column: str, rows: int) -> None:
    """Count rows that were written without a column. Returns at once."""
    global _gathered  # noqa: PLW0603 - one thread per process, made again after a fork
    with _guard:
        if _gathered is None or _gathered.pid != os.getpid():
            _gathered = _Gathered()
        current = _gathered
    current.add(f"{table}.{column}", rows)


def left_out() -> dict[tuple[str, str], int]:
    """Rows that all processes together wrote without a column, by table and column; none while Redis is away."""
    try:
        with broker.client(_TIMEOUT_S) as redis:
            known: dict[bytes, bytes] = redis.hgetall(LEFT_OUT)
    except _TROUBLE as error:
        log.warning("no counts of what was left out: %s", type(error).__name__)
        return {}
    counts = {}
    for label, count in known.items():
        table, _, column = label.decode().partition(".")
        counts[table, column] = int(count)
    return counts
