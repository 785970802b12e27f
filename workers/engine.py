"""One event loop per worker process, in its own thread, for all that waits on the network.

A Celery task is a nudge to this loop: 'work through what is due'. Work that outlives the task (a long download)
goes on here under a renewed lease. What is due within the next moments is waited for, so that a poll does not
have to wait for the next tick.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

from sqlalchemy.orm import Session

from common.db import transaction
from common.services import claims, webhooks
from common.settings import settings
from common.words import Step

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

WAIT_FOR_TICK_S = 20.0  # how long a task waits for its work before it lets the loop go on alone
SILENCE_S = 15.0  # without a tick for so long (beat or broker gone) the process ticks by itself
CLOSE_S = 6.0

WorkThrough = Callable[[], Awaitable[int]]


async def in_transaction(call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run `call(session, …)` in a thread, in one transaction of its own."""
    return await asyncio.to_thread(_committed, partial(call, *args, **kwargs))


def _committed(call: Callable[..., T]) -> T:
    with transaction() as session:
        return call(session)


def _next_due(session: Session, step: Step) -> float | None:
    return webhooks.next_due(session) if step is Step.DELIVER else claims.next_due(session, [step])


class Engine:
    """Runs the steps of one process. `stopping` is looked at before anything new is claimed."""

    def __init__(self, steps: dict[Step, WorkThrough], told_to_stop: Callable[[], bool]) -> None:
        self._closing = False
        self._told_to_stop = told_to_stop
        self._steps = steps
        self._loop = asyncio.new_event_loop()
        self._wanted = {step: asyncio.Event() for step in steps}
        self._drained = {step: asyncio.Event() for step in steps}
        self._last_tick = time.monotonic()
        self._background: set[asyncio.Task[Any]] = set()
        self._rounds = 0  # of _work, under way now
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def stopping(self) -> bool:
        """Whether the process is on its way out."""
        return self._closing or self._told_to_stop()

    # ------------------------------------------------------------ from the task's thread

    def tick(self, step: Step) -> None:
        """Have everything due of this step worked through; returns when that is done, or after a while."""
        self._last_tick = time.monotonic()
        future = asyncio.run_coroutine_threadsafe(self._drain(step), self._loop)
        try:
            future.result(WAIT_FOR_TICK_S)
        except TimeoutError:
            future.cancel()

    def close(self) -> None:
        """Stop claiming, give what is under way a moment to be written down, and end the loop."""
        self._closing = True
        try:
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(CLOSE_S)
        except TimeoutError:
            log.warning("work was still under way; its leases will run out")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1.0)

    # ------------------------------------------------------------ inside the loop

    def spawn(self, work: Awaitable[Any]) -> asyncio.Task[Any]:
        """Start work that may outlive the tick that found it."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    @property
    def background(self) -> int:
        return len(self._background)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        for step, work in self._steps.items():
            self._loop.create_task(self._serve(step, work))
        self._loop.create_task(self._watch())
        self._loop.run_forever()

    async def _drain(self, step: Step) -> None:
        self._drained[step].clear()
        self._wanted[step].set()
        await self._drained[step].wait()

    async def _serve(self, step: Step, work: WorkThrough) -> None:
        """Work whenever asked, and for a short while after that as soon as something falls due."""
        while not self.stopping:
            await self._wanted[step].wait()
            self._wanted[step].clear()
            until = time.monotonic() + 2 * settings().tick_s
            await self._work(step, work)
            self._drained[step].set()
            while not self.stopping and not self._wanted[step].is_set():
                pause = await self._pause(step, until)
                if pause is None:
                    break
                if await self._wanted_within(step, pause):
                    break
                await self._work(step, work)

    async def _work(self, step: Step, work: WorkThrough) -> None:
        self._rounds += 1
        try:
            await work()
        except Exception:
            log.exception("step %s: this round failed; leases and the next tick make up for it", step)
            await asyncio.sleep(0.5)
        finally:
            self._rounds -= 1

    async def _pause(self, step: Step, until: float) -> float | None:
        """Seconds until the next row of this step is due, or None if that is for a later tick."""
        try:
            due_at = await in_transaction(_next_due, step)
        except Exception:
            log.exception("step %s: could not look ahead", step)
            return None
        if due_at is None:
            return None
        pause = max(0.01, due_at - time.time())
        return pause if time.monotonic() + pause < until else None

    async def _wanted_within(self, step: Step, pause: float) -> bool:
        try:
            await asyncio.wait_for(self._wanted[step].wait(), pause)
        except TimeoutError:
            return False
        return True

    async def _watch(self) -> None:
        """If ticks stop coming, give them ourselves: the platform lives without beat and without a broker."""
        while not self.stopping:
            await asyncio.sleep(1.0)
            if time.monotonic() - self._last_tick > SILENCE_S:
                for wanted in self._wanted.values():
                    wanted.set()

    async def _close(self) -> None:
        for task in list(self._background):
            task.cancel()
        while self._background or self._rounds:  # noqa: ASYNC110 - bounded by CLOSE_S
            await asyncio.sleep(0.05)


_engine: tuple[int, Engine] | None = None


def engine(steps: Callable[[], dict[Step, WorkThrough]], told_to_stop: Callable[[], bool]) -> Engine:
    """This process's engine, made at its first task: threads do not survive a fork."""
    global _engine  # noqa: PLW0603 - one per process
    if _engine is None or _engine[0] != os.getpid():
        _engine = (os.getpid(), Engine(steps(), told_to_stop))
    return _engine[1]


def running() -> Engine | None:
    """The engine of this process, if it has one."""
    return _engine[1] if _engine is not None and _engine[0] == os.getpid() else None
