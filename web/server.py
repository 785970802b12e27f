"""How gunicorn serves us: gevent, errors in our shape, JSON logs, and a stop that leaves nobody hanging."""

from __future__ import annotations

import json
import logging
import secrets
import warnings
from typing import Any

import gevent
from gevent.monkey import MonkeyPatchWarning
from gunicorn import util
from gunicorn.glogging import Logger
from gunicorn.workers.ggevent import GeventWorker

from common import logs
from common.errors import Kind
from web.answers import error_object
from web.waiting import stopping

_IDLE_S = 1.2  # after this a connection without a request is closed at a stop


class Worker(GeventWorker):  # type: ignore[misc]
    """gunicorn's gevent worker, which closes idle connections when told to stop instead of waiting for them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: set[_Idle] = set()

    def patch(self) -> None:
        """Patch what the master has left to its workers, and say nothing about the rest being patched already."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MonkeyPatchWarning)
            super().patch()

    def timeout_ctx(self) -> _Idle:
        """Bounds the wait for the next request on a connection: briefly for one that was busy when the stop began."""
        return _Idle(_IDLE_S if stopping.is_set() else self.cfg.keepalive, self._idle)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: answer what has begun, keep nobody waiting for a job, and hang up on the idle."""
        super().handle_exit(sig, frame)
        stopping.set()
        gevent.spawn_later(_IDLE_S, self._hang_up)

    def _hang_up(self) -> None:
        for waiting in list(self._idle):
            waiting.cut()


class _Idle:
    """A greenlet that waits for the next request."""

    def __init__(self, timeout_s: float, among: set[_Idle]) -> None:
        self._timeout = gevent.Timeout(timeout_s, False)
        self._among = among

    def __enter__(self) -> None:
        self._greenlet = gevent.getcurrent()
        self._among.add(self)
        self._timeout.start()

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> bool:
        self._among.discard(self)
        self._timeout.close()
        return value is self._timeout

    def cut(self) -> None:
        """End the wait now, as if it had timed out."""
        gevent.get_hub().loop.run_callback(self._greenlet.throw, self._timeout)


class Log(Logger):  # type: ignore[misc]
    """gunicorn's own messages through our JSON log; requests are logged by `web.app`, which knows what to mask."""

    def setup(self, cfg: Any) -> None:
        """Hand everything to the root logger."""
        super().setup(cfg)
        logs.configure("web")
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(logging.NOTSET)


_KINDS = {403: Kind.FORBIDDEN, 500: Kind.UNAVAILABLE, 501: Kind.UNAVAILABLE}


def write_error(client: Any, status: int, reason: str, message: str) -> None:
    """What gunicorn answers to a request that never became one; its own would be HTML."""
    code = reason.lower().replace(" ", "_") if status != 400 else str(Kind.MALFORMED)
    kind = _KINDS.get(status, Kind.MALFORMED)
    body = json.dumps(error_object(code, kind, message or "Something went wrong on our side.")).encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"X-Request-Id: {secrets.token_hex(16)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(client, head.encode("latin1") + body)


util.write_error = write_error
