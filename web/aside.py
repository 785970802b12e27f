"""Long computations beside the event loop: one password check would else hold up everybody for a quarter second."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import BoundedSemaphore
from typing import ParamSpec, TypeVar

import gevent

_AT_ONCE = 2  # each may use 64 MB and a processor
_turn = BoundedSemaphore(_AT_ONCE)
P = ParamSpec("P")
T = TypeVar("T")


def aside(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `call` returns or raises; it runs in a thread of its own and must touch neither request nor database."""
    with _turn:
        outcome: Future[T] = gevent.get_hub().threadpool.apply(_settled, (lambda: call(*args, **kwargs),))
    return outcome.result()


def _settled(call: Callable[[], T]) -> Future[T]:
    """How it went, as a value: gevent would print what is raised."""
    outcome: Future[T] = Future()
    try:
        outcome.set_result(call())
    except Exception as error:
        outcome.set_exception(error)
    return outcome
