"""Who watches which jobs in this process, and what they are told: one connection to Redis serves all viewers.

A viewer begins with the job's row. From then on it is told what Redis tells; rows are read again, all in one query,
where that may have missed something: after a lost connection, while there is none, and now and then in any case, for
the worker that died between its commit and its word.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from redis.client import PubSub
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from common import broker, live
from common.db import reading
from common.errors import NotFound, TooManyViewers
from common.live import Event, State
from common.services import jobs
from web.waiting import stopping

log = logging.getLogger(__name__)

MOST_VIEWERS = 3000  # of one process, well below the connections that gunicorn lets it have
_REMEMBERED = 64  # changes of one job that a slow viewer can catch up with
_LOOK_S = 1.0
_BLIND_S = 5.0  # between looks at the rows while Redis is away
_DOUBT_S = 30.0  # between looks at the rows in any case
_TIMEOUT_S = 3.0
_TROUBLE = (RedisError, OSError, ValueError)


class Watch:
    """One job that somebody views: its state, and the last changes."""

    def __init__(self) -> None:
        self.viewers = 0
        self._state: State | None = None
        self._early: deque[Event] = deque(maxlen=_REMEMBERED)
        self._changes: deque[State] = deque(maxlen=_REMEMBERED)
        self._count = 0
        self._news = threading.Condition()

    def begin(self, state: State) -> None:
        """This was read from the row; what was heard meanwhile is newer."""
        with self._news:
            if self._state is None:
                self._state = state
                for event in self._early:
                    self._state = self._state.after(event)
                self._early.clear()
            else:
                self._become(self._state.after(_as_event(state)))

    def hear(self, event: Event) -> None:
        """This was told."""
        with self._news:
            if self._state is None:
                self._early.append(event)
            else:
                self._become(self._state.after(event))

    def _become(self, state: State) -> None:
        if state != self._state:
            self._state = state
            self._changes.append(state)
            self._count += 1
            self._news.notify_all()

    def now(self) -> tuple[int, State]:
        """The number of the last change, and the state since then."""
        with self._news:
            assert self._state is not None, "viewers begin with a state"
            return self._count, self._state

    def since(self, seen: int, wait_s: float) -> tuple[int, list[State]]:
        """The changes after the one numbered `seen`; waits so long for one, and may come back with none."""
        with self._news:
            if self._count == seen:
                self._news.wait(wait_s)
            missed = min(self._count - seen, len(self._changes))
            return self._count, list(self._changes)[len(self._changes) - missed :]

    def wake(self) -> None:
        """Let viewers look up."""
        with self._news:
            self._news.notify_all()


def _as_event(state: State, job_id: str = "") -> Event:
    return Event(job_id=job_id, at=state.at, status=state.status, progress=state.progress,
                 preview_url=state.preview_url)  # fmt: skip


class _Hub:
    """All watches of this process and the thread that listens for them."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._watches: dict[str, Watch] = {}
        self._viewers = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="live", daemon=True).start()

    @contextmanager
    def view(self, job_id: str) -> Iterator[Watch]:
        """Take part in watching a job. Raises TooManyViewers."""
        with self._lock:
            if self._viewers >= MOST_VIEWERS:
                raise TooManyViewers
            self._viewers += 1
            watch = self._watches.setdefault(job_id, Watch())
            watch.viewers += 1
        try:
            yield watch
        finally:
            with self._lock:
                self._viewers -= 1
                watch.viewers -= 1
                if not watch.viewers:
                    self._watches.pop(job_id, None)

    def _run(self) -> None:
        while True:
            try:
                with broker.client(_TIMEOUT_S) as redis, redis.pubsub() as said:
                    said.subscribe(live.CHANNEL)
                    self._listen(said)
            except _TROUBLE as error:
                log.warning("events are not heard: %s", type(error).__name__)
            self._look_at_rows()
            self._rest(_BLIND_S)

    def _listen(self, said: PubSub) -> None:
        """Pass on what is said, until the connection breaks or has been silent though it was asked for a word."""
        look_at, is_silent = time.monotonic() + _DOUBT_S, False
        while True:
            message = said.get_message(timeout=_LOOK_S)
            if message is not None:
                is_silent = False
                self._pass_on(message)
            if time.monotonic() >= look_at:
                if is_silent:
                    raise TimeoutError
                self._look_at_rows()
                said.ping()
                look_at, is_silent = time.monotonic() + _DOUBT_S, True
            if stopping.is_set():
                self._wake_all()

    def _pass_on(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":  # from here on nothing is missed
            self._look_at_rows()
        for event in live.heard(message["data"]) if message["type"] == "message" else ():
            if (watch := self._watches.get(event.job_id)) is not None:
                watch.hear(event)

    def _rest(self, rest_s: float) -> None:
        if stopping.wait(rest_s):
            self._wake_all()
            time.sleep(_LOOK_S)

    def _wake_all(self) -> None:
        with self._lock:
            watches = list(self._watches.values())
        for watch in watches:
            watch.wake()

    def _look_at_rows(self) -> None:
        with self._lock:
            watches = dict(self._watches)
        if not watches:
            return
        try:
            with reading() as session:
                states = jobs.states(session, list(watches))
        except SQLAlchemyError as error:
            log.warning("jobs that are watched could not be read: %s", type(error).__name__)
            return
        for job_id, state in states.items():
            watches[job_id].hear(_as_event(state, job_id))


_hub: _Hub | None = None
_guard = threading.Lock()


@contextmanager
def view(job_id: str, read: Callable[[], State]) -> Iterator[Watch]:
    """Watch a job; `read` reads its row, once the watch is on. Raises TooManyViewers and what `read` raises."""
    global _hub  # noqa: PLW0603 - one thread per process, made again after a fork
    with _guard:
        if _hub is None or _hub.pid != os.getpid():
            _hub = _Hub()
        hub = _hub
    with hub.view(job_id) as watch:
        watch.begin(read())
        yield watch


def until_finished(job_id: str, wait_s: float) -> bool:
    """Wait at most so long for the job to be finished; whether it is.

    Nobody is kept waiting where the database is gone or there are too many viewers already. Raises NotFound.
    """

    def read() -> State:
        with reading() as session:
            states = jobs.states(session, [job_id])
        if job_id not in states:
            raise NotFound
        return states[job_id]

    end = time.monotonic() + wait_s
    try:
        with view(job_id, read) as watch:
            number, state = watch.now()
            while not state.is_last and not stopping.is_set() and (left_s := end - time.monotonic()) > 0:
                watch.since(number, left_s)
                number, state = watch.now()
    except (SQLAlchemyError, TooManyViewers):
        return False
    return state.is_last
