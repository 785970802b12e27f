"""One event loop per worker process, in its own thread, for all that waits on the network.

A Celery task is a nudge to this loop: 'take what is due'. What was taken goes on here under renewed leases. What
falls due within the next moments is waited for, so that a poll does not have to wait for the next tick.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from sqlalchemy.orm import Session

from common import clock
from common.services import claims, webhooks
from common.settings import settings
from common.words import Step
from workers.flow import AnyFlow
from workers.threads import in_reading

log = logging.getLogger(__name__)

WAIT_FOR_TICK_S = 20.0  # how long a task waits for its round before it lets the loop go on alone
SILENCE_S = 15.0  # without a tick for so long (beat or broker gone) the process ticks by itself
CLOSE_S = 6.0
_LOOK_UP_S = 0.2  # how often a waiting task looks whether the process stops


def _next_due(session: Session, step: Step) -> float | None:
    return webhooks.next_due(session) if step is Step.DELIVER else claims.next_due(session, [step])


class Engine:
    """Runs the flows of one process. `told_to_stop` is looked at before anything new is claimed."""

    def __init__(self, flows: Callable[[], Iterable[AnyFlow]], told_to_stop: Callable[[], bool]) -> None:
        self._closing = False
        self._told_to_stop = told_to_stop
        self._loop = asyncio.new_event_loop()
        self._flows: dict[Step, AnyFlow] = {}
        self._wanted: dict[Step, asyncio.Event] = {}
        self._drained: dict[Step, asyncio.Event] = {}
        self._last_tick = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(flows,), name="engine", daemon=True)
        self._thread.start()

    @property
    def stopping(self) -> bool:
        """Whether the process is on its way out."""
        return self._closing or self._told_to_stop()

    # ------------------------------------------------------------ from the task's thread

    def tick(self, step: Step) -> None:
        """Have everything due of this step taken; returns when that is done, after a while, or to stop."""
        self._last_tick = time.monotonic()
        future = asyncio.run_coroutine_threadsafe(self._drain(step), self._loop)
        until = time.monotonic() + WAIT_FOR_TICK_S
        while not self.stopping and time.monotonic() < until:
            with suppress(TimeoutError):
                return future.result(_LOOK_UP_S)
        future.cancel()
        return None

    def close(self) -> None:
        """Stop claiming, give what is under way a moment to be written down, and end the loop."""
        self._closing = True
        try:
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(CLOSE_S + 1)
        except TimeoutError:
            log.warning("work was still under way; its leases will run out")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1.0)

    # ------------------------------------------------------------ inside the loop

    def _run(self, flows: Callable[[], Iterable[AnyFlow]]) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.create_task(self._start(flows))
        self._loop.run_forever()
        self._loop.close()

    async def _start(self, flows: Callable[[], Iterable[AnyFlow]]) -> None:
        for flow in flows():
            self._flows[flow.step] = flow
            self._wanted[flow.step], self._drained[flow.step] = asyncio.Event(), asyncio.Event()
            flow.start(lambda: self.stopping, self._wanted[flow.step].set)
        self._serving = [asyncio.create_task(self._serve(flow)) for flow in self._flows.values()]
        self._serving.append(asyncio.create_task(self._watch()))

    async def _drain(self, step: Step) -> None:
        self._drained[step].clear()
        self._wanted[step].set()
        await self._drained[step].wait()

    async def _serve(self, flow: AnyFlow) -> None:
        """Take what is due whenever asked, and for a short while after that as soon as something falls due."""
        wanted = self._wanted[flow.step]
        while not self.stopping:
            await wanted.wait()
            wanted.clear()
            until = time.monotonic() + 2 * settings().tick_s
            await self._fill(flow)
            self._drained[flow.step].set()
            while not self.stopping and not wanted.is_set():
                pause_s = await self._pause_s(flow.step, until)
                if pause_s is None or await self._wanted_within(wanted, pause_s):
                    break
                await self._fill(flow)

    async def _fill(self, flow: AnyFlow) -> None:
        try:
            await flow.fill()
        except Exception:
            log.exception("step %s: this round failed; the next tick makes up for it", flow.step)
            await asyncio.sleep(0.5)

    async def _pause_s(self, step: Step, until: float) -> float | None:
        """Seconds until the next row of this step is due, or None if that is for a later tick."""
        try:
            due_at = await in_reading(_next_due, step)
        except Exception as error:
            log.warning("step %s: could not look ahead: %s", step, type(error).__name__)
            return None
        if due_at is None:
            return None
        pause_s = max(_SHORTEST_PAUSE_S, due_at - clock.epoch())
        return pause_s if time.monotonic() + pause_s < until else None

    async def _wanted_within(self, wanted: asyncio.Event, pause_s: float) -> bool:
        try:
            await asyncio.wait_for(wanted.wait(), pause_s)
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
        await asyncio.gather(*(flow.close(CLOSE_S) for flow in self._flows.values()))
        for task in self._serving:
            task.cancel()


_SHORTEST_PAUSE_S = 0.2  # what falls due within it is taken together: rounds cost more than rows
_engine: tuple[int, Engine] | None = None


def engine(flows: Callable[[], Iterable[AnyFlow]], told_to_stop: Callable[[], bool]) -> Engine:
    """This process's engine, made at its first task: threads do not survive a fork."""
    global _engine  # noqa: PLW0603 - one per process
    if _engine is None or _engine[0] != os.getpid():
        _engine = (os.getpid(), Engine(flows, told_to_stop))
    return _engine[1]


def running() -> Engine | None:
    """The engine of this process, if it has one."""
    return _engine[1] if _engine is not None and _engine[0] == os.getpid() else None
