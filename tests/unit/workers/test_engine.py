"""The loop behind a task: a tick waits for its round, and for nothing when the process stops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from common.words import Step
from tests.infrastructure.children import wait_until
from workers.engine import WAIT_FOR_TICK_S, Engine
from workers.flow import Answered, Flow


@dataclass(frozen=True)
class _Claim:
    key: str
    token: str


class _Stuck(Flow[_Claim, None]):
    """A database that does not answer a claim."""

    step = Step.POLL
    most = most_per_lane = 10

    def __init__(self) -> None:
        super().__init__()
        self.is_claiming, self.answers = threading.Event(), threading.Event()

    async def claim(self, limit: int, full: frozenset[str]) -> list[_Claim]:
        self.is_claiming.set()
        await asyncio.to_thread(self.answers.wait, WAIT_FOR_TICK_S * 2)
        return []

    async def ask(self, portion: list[_Claim]) -> Answered[_Claim, None]:
        return []

    async def record(self, answered: Answered[_Claim, None]) -> None: ...

    def renew(self, session: Session, claims: Sequence[_Claim]) -> None: ...

    def put_back(self, session: Session, claims: Sequence[_Claim]) -> None: ...


def test_a_tick_that_waits_ends_when_the_process_stops() -> None:
    flow, stop = _Stuck(), threading.Event()
    engine = Engine(lambda: [flow], stop.is_set)
    tick = threading.Thread(target=engine.tick, args=(Step.POLL,), daemon=True)
    tick.start()
    assert flow.is_claiming.wait(5)
    stop.set()
    wait_until(lambda: not tick.is_alive(), 5, what="the tick returns")
    flow.answers.set()
    engine.close()


def test_a_tick_that_comes_while_the_process_stops_does_not_wait() -> None:
    engine = Engine(lambda: [_Stuck()], lambda: True)
    began = time.monotonic()
    engine.tick(Step.POLL)
    assert time.monotonic() - began < WAIT_FOR_TICK_S / 4
    engine.close()
