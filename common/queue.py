"""The queue façade: nudges. A nudge says 'there may be work', nothing more: rows are the truth.

Nudges leave from one background thread per process, at most one per kind and 100 ms: a message for every
request would halve the throughput, and a dead or hung broker must never delay or fail a request.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from functools import cache
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from common import broker
from common.settings import settings
from common.words import Step

log = logging.getLogger(__name__)

COALESCE_S = 0.1
TICKS = "ticks"  # the one queue
EXPIRES_S = 5  # a tick that waited longer has been overtaken by the next one
_KEEPALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}


def broker_options(url: str) -> dict[str, Any]:
    """Celery's settings for reaching the broker; kombu would otherwise wait for ever on a hung one."""
    options: dict[str, Any] = {
        "broker_url": broker.without_ssl_query(url),
        "broker_transport_options": {
            "visibility_timeout": 300,  # longer than any task may run
            "unacked_restore_interval": 5,  # the defaults look every 100 s
            "unacked_restore_throttle": 1,
            "socket_timeout": 5,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "socket_keepalive_options": _KEEPALIVE,
            "health_check_interval": 10,
            "client_name": "wxiai",
        },
        "broker_connection_timeout": 4,
        "broker_pool_acquire_timeout": 2,
        "task_publish_retry": True,
        "task_publish_retry_policy": {
            "max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.2,
        },
    }  # fmt: skip
    if url.startswith("rediss://"):
        options["broker_use_ssl"] = {"ssl_cert_reqs": broker.certificate_rule(url)}
    return options


@cache
def _sender() -> Celery:
    sender = Celery("wxiai")
    sender.conf.update(
        broker_options(settings().redis_url), task_ignore_result=True, broker_pool_limit=1,
        task_default_queue=TICKS,
    )  # fmt: skip
    return sender


class _Nudger:
    """Collects nudges and sends them from its own thread."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._wanted: set[Step] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        threading.Thread(target=self._run, name="nudges", daemon=True).start()

    def want(self, step: Step) -> None:
        with self._lock:
            self._wanted.add(step)
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            with self._lock:
                wanted, self._wanted = self._wanted, set()
            for step in wanted:
                self._send(step)
            time.sleep(COALESCE_S)

    @staticmethod
    def _send(step: Step) -> None:
        try:
            _sender().send_task(f"workers.{step}", expires=EXPIRES_S, ignore_result=True)
        except (OperationalError, OSError) as error:
            log.warning("broker unreachable, the next tick will find the work: %s", type(error).__name__)
        except Exception:
            log.exception("a nudge could not be sent")


_nudger: _Nudger | None = None
_guard = threading.Lock()


def nudge(step: Step) -> None:
    """Say that there may be work for this step. Returns at once and never raises."""
    global _nudger  # noqa: PLW0603 - one thread per process, made again after a fork
    with _guard:
        if _nudger is None or _nudger.pid != os.getpid():
            _nudger = _Nudger()
        current = _nudger
    current.want(step)


# ---------------------------------------------------------------- is it there?


def is_reachable(timeout_s: float = 0.5) -> bool:
    """Whether the broker answers a PING in that time; a name lookup that hangs counts as no."""
    answered = threading.Event()
    threading.Thread(target=_ping, args=(timeout_s, answered), name="ping", daemon=True).start()
    return answered.wait(timeout_s)


def _ping(timeout_s: float, answered: threading.Event) -> None:
    try:
        with broker.client(timeout_s) as client:
            client.ping()
            answered.set()
    except (RedisError, OSError, ValueError):
        pass
