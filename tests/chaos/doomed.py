"""The workers' application, in a process that dies where it is told to: `celery -A tests.chaos.doomed worker …`.

The environment's DOOM names a file. While a `Doom` stands in it, the first process that comes there with enough work
renames the file and kills itself with SIGKILL. Who comes to the place before the others waits for them there, so that
one death meets the work of all providers at the same boundary.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from common.services import claims, lifecycle, webhooks
from common.storage import Storage
from common.words import Step
from tests.chaos.doom import ENVIRONMENT, Boundary, Doom, hold, met
from workers.app import app
from workers.flow import AnyFlow, Leased
from workers.steps import deliver, store
from workers.steps.deliver import Deliver
from workers.steps.poll import Poll
from workers.steps.reconcile import Reconcile
from workers.steps.recording import JobFlow
from workers.steps.store import Store
from workers.steps.submit import Submit

__all__ = ["app"]

_LONGEST_WAIT_S = 20.0
_LOOK_S = 0.01


_path = Path(os.environ.get(ENVIRONMENT, "no-doom"))
_lock = threading.Lock()
_arrived: defaultdict[Doom, set[str]] = defaultdict(set)
_complete: defaultdict[Doom, asyncio.Event] = defaultdict(asyncio.Event)


def _doom(step: Step) -> Doom | None:
    """What is written for this step now."""
    try:
        written = json.loads(_path.read_text())
    except FileNotFoundError:
        return None
    if written["step"] != step:
        return None
    return Doom(**written | {"step": step, "boundary": Boundary(written["boundary"])})


def _die(doom: Doom) -> None:
    """Once: who finds the file renamed lives on."""
    with suppress(FileNotFoundError):
        _path.rename(met(_path))
        if doom.whole:
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


# ---------------------------------------------------------------- at a boundary


def _are_all_there(doom: Doom, keys: Iterable[str]) -> bool:
    with _lock:
        _arrived[doom].update(keys)
        return len(_arrived[doom]) >= doom.gathered


def _in_transaction(step: Step, boundary: Boundary, work: Iterable[Leased]) -> None:
    """Nobody can be waited for here; what is written down together was gathered before."""
    doom = _doom(step)
    if doom is None or doom.boundary is not boundary:
        return
    keys = _meant(doom, work)
    if keys and _are_all_there(doom, keys):
        _die(doom)


async def _in_the_loop(step: Step, boundary: Boundary, work: Iterable[Leased]) -> None:
    """Wait for the others and die; where it is the next boundary that kills, go on to it with them."""
    doom = _doom(step)
    keys = _meant(doom, work) if doom is not None else []
    if doom is None or not keys:
        return
    if doom.boundary is boundary:
        if _are_all_there(doom, keys):
            _die(doom)
        await _withdrawn(doom)
    elif boundary is Boundary.ANSWERED and doom.boundary in (Boundary.RECORDING, Boundary.RECORDED):
        if _are_all_there(doom, keys):
            _complete[doom].set()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_WAIT_S):
                await _complete[doom].wait()


async def _withdrawn(doom: Doom) -> None:
    end = time.monotonic() + _LONGEST_WAIT_S
    while _doom(doom.step) == doom and time.monotonic() < end:
        await asyncio.sleep(_LOOK_S)


def _in_a_thread(step: Step, boundary: Boundary, key: str) -> None:
    doom = _doom(step)
    if doom is None or doom.boundary is not boundary:
        return
    if _are_all_there(doom, [key]):
        _die(doom)
    end = time.monotonic() + _LONGEST_WAIT_S
    while _doom(step) == doom and time.monotonic() < end:
        time.sleep(_LOOK_S)


def _meant(doom: Doom, work: Iterable[Leased]) -> list[str]:
    """The keys of those claims that this doom is about."""
    return [claim.key for claim in work if getattr(claim, "cancel_requested", False) == doom.cancels]


# ---------------------------------------------------------------- what is put around the flows


def _claiming(step: Step, take: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Take nothing until all can be taken at once; then die before the commit."""

    def doomed(session: Session, *args: Any, **kwargs: Any) -> list[Any]:
        if step is Step.SUBMIT and hold(_path).exists():
            return []
        doom = _doom(step)
        if doom is None or doom.boundary is not Boundary.CLAIMING:
            return take(session, *args, **kwargs)
        attempt = session.begin_nested()
        if len(take(session, *args, **kwargs)) >= doom.gathered:
            session.flush()
            _die(doom)
        attempt.rollback()
        return []

    return doomed


def _sending(send: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    def doomed(session: Session, work: Sequence[Leased]) -> list[Any]:
        _in_transaction(Step.SUBMIT, Boundary.CLAIMED, work)
        sent = send(session, work)
        _in_transaction(Step.SUBMIT, Boundary.SENDING, sent)
        return sent

    return doomed


def _asking(ask: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def doomed(flow: AnyFlow, portion: list[Any]) -> Any:
        first = Boundary.SENT if flow.step is Step.SUBMIT else Boundary.CLAIMED
        await _in_the_loop(flow.step, first, portion)
        answered = await ask(flow, portion)
        await _in_the_loop(flow.step, Boundary.ANSWERED, portion)
        return answered

    return doomed


def _recording(write: Callable[..., None]) -> Callable[..., None]:
    def doomed(flow: AnyFlow, session: Session, answered: Sequence[tuple[Any, Any]]) -> None:
        write(flow, session, answered)
        session.flush()
        _in_transaction(flow.step, Boundary.RECORDING, [claim for claim, _ in answered])

    return doomed


def _recording_of(step: Step, write: Callable[..., None]) -> Callable[..., None]:
    def doomed(session: Session, answered: Sequence[tuple[Any, Any]]) -> None:
        write(session, answered)
        session.flush()
        _in_transaction(step, Boundary.RECORDING, [claim for claim, _ in answered])

    return doomed


def _recorded(record: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def doomed(flow: AnyFlow, answered: Sequence[tuple[Any, Any]]) -> None:
        await record(flow, answered)
        _in_transaction(flow.step, Boundary.RECORDED, [claim for claim, _ in answered])

    return doomed


class _Puts:
    """The storage, with a boundary before and behind every put."""

    def __init__(self, real: Storage) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def put(self, key: str, path: Path, content_type: str) -> None:
        is_thumbnail = ".thumbnail." in key
        if not is_thumbnail:
            _in_a_thread(Step.STORE, Boundary.FETCHED, key)
        self._real.put(key, path, content_type)
        _in_a_thread(Step.STORE, Boundary.THUMBNAIL if is_thumbnail else Boundary.PUT, key)


def _put_around(owner: Any, name: str, around: Callable[[Any], Any]) -> None:
    setattr(owner, name, around(getattr(owner, name)))


def _wait_at_every_boundary() -> None:
    """Here and in every child that is forked from here."""
    _put_around(claims, "submits", partial(_claiming, Step.SUBMIT))
    _put_around(claims, "lost_submits", partial(_claiming, Step.RECONCILE))
    _put_around(claims, "due", partial(_claiming, Step.POLL))
    _put_around(claims, "results_to_store", partial(_claiming, Step.STORE))
    _put_around(webhooks, "due", partial(_claiming, Step.DELIVER))
    _put_around(lifecycle, "sending", _sending)
    for flow in (Submit, Reconcile, Poll, Store, Deliver):
        _put_around(flow, "ask", _asking)
        _put_around(flow, "record", _recorded)
    _put_around(JobFlow, "_write_all", _recording)
    _put_around(lifecycle, "still_running", partial(_recording_of, Step.POLL))
    _put_around(deliver, "_write_all", partial(_recording_of, Step.DELIVER))
    _put_around(store, "storage", lambda real: lambda: _Puts(real()))


_wait_at_every_boundary()
