"""Live events: what is told of a job while it changes, over Redis, after the commit.

Telling never waits and never fails: what Redis does not take is dropped. Whoever listens has begun with the job's row,
and reads it again where events may have been missed (`web.live`).
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import deque
from dataclasses import dataclass
from typing import Self

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.orm import Session

from common import broker, clock
from common.db import after_commit
from common.words import TERMINAL, Status

log = logging.getLogger(__name__)

CHANNEL = "wxiai:live"
_TIMEOUT_S = 2.0
_MOST_WAITING = 20_000  # events of one process that Redis has not taken yet; the oldest are dropped
_MOST_TOLD = 1000  # events in one message
_AGAIN_S = 1.0
_TOLD = "told"  # in a session's info: what its transaction has to tell
_TROUBLE = (RedisError, OSError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What became known about a job at a moment (epoch seconds); None is what did not change."""

    job_id: str
    at: float
    status: Status | None = None
    progress: int | None = None
    preview_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What viewers see of a job."""

    status: Status
    progress: int
    preview_url: str | None
    at: float  # when its status was that

    @property
    def is_last(self) -> bool:
        """Whether nothing can follow."""
        return self.status in TERMINAL

    def after(self, event: Event) -> Self:
        """The state when `event` has been heard, which may be late: clocks differ, and so do the ways to here.

        A step forward counts whenever it is heard, one back to the queue only if it is newer, nothing after the end.
        """
        status = event.status
        if status is None or self.is_last or (_RANK[status] < _RANK[self.status] and event.at < self.at):
            status = self.status
        progress = max(self.progress, event.progress or 0)
        return type(self)(
            status=status,
            progress=100 if status is Status.SUCCEEDED else progress,
            preview_url=event.preview_url or self.preview_url,
            at=self.at if status is self.status else event.at,
        )


_RANK = {status: rank for rank, status in enumerate(Status)}  # in the order of a job's life


# ---------------------------------------------------------------- telling


def tell(
    session: Session, job_id: str, *, status: Status | None = None, progress: int | None = None,
    preview_url: str | None = None,
) -> None:  # fmt: skip
    """Have listeners told once this transaction has committed. The job may have ended: they know, and keep its end."""
    told = session.info.get(_TOLD)
    if told is None:
        told = session.info[_TOLD] = []
        after_commit(session, lambda: _teller().add(clock.epoch(), session.info.pop(_TOLD)))
    told.append((job_id, status, progress, preview_url))


class _Teller:
    """Publishes from a thread of its own what transactions had to tell."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._waiting: deque[tuple[object, ...]] = deque(maxlen=_MOST_WAITING)
        self._wake = threading.Event()
        threading.Thread(target=self._run, name="live", daemon=True).start()

    def add(self, at: float, told: list[tuple[object, ...]]) -> None:
        self._waiting.extend((at, *each) for each in told)
        self._wake.set()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            try:
                with broker.client(_TIMEOUT_S) as redis:
                    self._publish(redis)
            except _TROUBLE as error:
                log.warning("events are not told: %s", type(error).__name__)
                pause.wait(_AGAIN_S)

    def _publish(self, redis: Redis) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._waiting:
                most = min(len(self._waiting), _MOST_TOLD)
                redis.publish(CHANNEL, json.dumps([self._waiting.popleft() for _ in range(most)]))


_told_by: _Teller | None = None
_guard = threading.Lock()


def _teller() -> _Teller:
    global _told_by  # noqa: PLW0603 - one thread per process, made again after a fork
    with _guard:
        if _told_by is None or _told_by.pid != os.getpid():
            _told_by = _Teller()
        return _told_by


# ---------------------------------------------------------------- hearing


def heard(message: str | bytes) -> list[Event]:
    """The events of one message; none for what is not one of ours."""
    try:
        return [
            Event(
                job_id=job_id, at=at, status=status and Status(status), progress=progress, preview_url=preview
            )
            for at, job_id, status, progress, preview in json.loads(message)
        ]
    except (ValueError, TypeError):
        log.warning("a message about jobs could not be read")
        return []
