"""One step's work in a process: claimed, asked about, written down, many at once.

What is asked never waits for what is slow: claims go on while there is room, and a lane (an account) whose
questions pile up is left out until they are answered. Leases of what takes long are renewed; what is answered is
written down in batches, and tried again while the database is away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from common.db.compat import RequiredColumnMissing, SchemaDrift
from common.settings import settings
from common.words import Step
from workers.threads import in_transaction

log = logging.getLogger(__name__)

AWAY = (OperationalError, InterfaceError, PoolTimeout, SchemaDrift, RequiredColumnMissing)
_LONGEST_AWAY_S = 600.0  # how long an answer is kept for a database that does not take it
_LONGEST_PAUSE_S = 5.0


class Leased(Protocol):
    """Something that this process may work on while `token` is still the row's."""

    @property
    def key(self) -> str:
        """The row's id."""

    @property
    def token(self) -> str: ...


C = TypeVar("C", bound=Leased)
V = TypeVar("V")
Answered = Sequence[tuple[C, V]]


class Flow(ABC, Generic[C, V]):
    """The work of one step. Subclasses say what to claim, how to ask, and how to write an answer down."""

    step: ClassVar[Step]
    most: ClassVar[int]  # claims in flight in one process
    most_per_lane: ClassVar[int]
    longest_s: ClassVar[float] = (
        300.0  # a question that takes longer has hung: renewed leases would hide it for ever
    )
    may_be_cut: ClassVar[bool] = True  # whether a question may be dropped when the process stops

    def __init__(self) -> None:
        # With the moment of its claim; by key and token, since a row whose lease was lost may be claimed here again.
        self._in_flight: dict[tuple[str, str], tuple[C, float]] = {}
        self._lanes: Counter[str] = Counter()
        self._answers: asyncio.Queue[tuple[list[C], Answered[C, V]]] = asyncio.Queue()
        self._asking: set[asyncio.Task[None]] = set()
        self._hungry = False  # something was left unclaimed for want of room
        self._claiming = False
        self._idle = asyncio.Event()  # nothing in flight, nothing being claimed
        self._idle.set()
        self._stopping: Callable[[], bool] = lambda: False
        self._has_room: Callable[[], None] = lambda: None

    # ------------------------------------------------------------ what a step says

    @abstractmethod
    async def claim(self, limit: int, full: frozenset[str]) -> list[C]:
        """Take up to `limit` due rows, none of a lane in `full`."""

    @abstractmethod
    async def ask(self, portion: list[C]) -> Answered[C, V]:
        """Ask the outside world. A claim without an answer is left to its lease."""

    @abstractmethod
    async def record(self, answered: Answered[C, V]) -> None:
        """Write a batch of answers down."""

    @abstractmethod
    def renew(self, session: Session, claims: Sequence[C]) -> None:
        """Hold these for another lease, as far as they are still ours."""

    @abstractmethod
    def put_back(self, session: Session, claims: Sequence[C]) -> None:
        """Let somebody else have these at once."""

    def portions(self, claims: list[C]) -> Iterable[list[C]]:
        """What is asked about together."""
        return ([claim] for claim in claims)

    def room(self, held: Iterable[C]) -> int:
        """How many more claims may be worked on beside those."""
        return self.most - sum(1 for _ in held)

    def lane(self, claim: C) -> str:
        """What may be slow for itself: the account, where there is one."""
        return ""

    # ------------------------------------------------------------ what the engine does

    def start(self, stopping: Callable[[], bool], has_room: Callable[[], None]) -> None:
        """Begin to write answers down and to renew leases. `has_room` is called when a full flow can take more."""
        self._stopping, self._has_room = stopping, has_room
        self._helpers = [asyncio.create_task(self._record_all()), asyncio.create_task(self._renew_all())]

    def is_stopping(self) -> bool:
        """Whether nothing new may be begun."""
        return self._stopping()

    async def fill(self) -> None:
        """Claim and start what is due, until nothing is or there is no room for more."""
        self._claiming = True
        self._idle.clear()
        try:
            await self._fill()
        finally:
            self._claiming = False
            self._rest()

    async def _fill(self) -> None:
        while not self.is_stopping():
            room = self.room(claim for claim, _ in self._in_flight.values())
            full = frozenset(lane for lane, count in self._lanes.items() if count >= self.most_per_lane)
            self._hungry = room <= 0 or bool(full)
            if room <= 0:
                return
            claims = await self.claim(room, full)
            if not claims:
                return
            if self.is_stopping() and self.may_be_cut:
                await self._hand_on(claims)
                return
            self._take(claims)

    @property
    def in_flight(self) -> int:
        """How many claims are being worked on."""
        return len(self._in_flight)

    def held(self) -> list[C]:
        """What is being worked on."""
        return [claim for claim, _ in self._in_flight.values()]

    async def close(self, within_s: float) -> None:
        """Nothing new; write down what is answered in time; what may be cut is handed on, the rest keeps its lease."""
        if self.may_be_cut:
            await asyncio.sleep(0)  # one that is cut before its first step could not hand on anything
            for task in self._asking:
                task.cancel()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), within_s)
        for helper in self._helpers:
            helper.cancel()

    # ------------------------------------------------------------ inside

    def _rest(self) -> None:
        """While something is being claimed, an answer to what was claimed before is no reason to rest."""
        if not self._in_flight and not self._claiming:
            self._idle.set()

    def _take(self, claims: list[C]) -> None:
        now = time.monotonic()
        for claim in claims:
            self._in_flight[claim.key, claim.token] = (claim, now)
            self._lanes[self.lane(claim)] += 1
        for portion in self.portions(claims):
            task = asyncio.create_task(self._carry(portion, now))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _carry(self, portion: list[C], claimed_at: float) -> None:
        answered: Answered[C, V] = ()
        try:
            if time.monotonic() < claimed_at + settings().lease_s:  # the process may have been frozen since
                async with asyncio.timeout(self.longest_s):
                    answered = await self.ask(portion)
        except asyncio.CancelledError:
            await self._hand_on(portion)
        except TimeoutError:
            log.error("step %s: no answer within %d s; the leases will run out", self.step, self.longest_s)
        except Exception:
            log.exception("step %s: asking broke; the leases will run out", self.step)
        self._answers.put_nowait((portion, answered))

    async def _hand_on(self, portion: list[C]) -> None:
        try:
            await in_transaction(self.put_back, portion)
        except Exception as error:
            log.warning(
                "step %s: not handed on, the leases will run out: %s", self.step, type(error).__name__
            )

    async def _record_all(self) -> None:
        """Write down whatever has gathered, again and again."""
        while True:
            gathered = [await self._answers.get()]
            while not self._answers.empty():
                gathered.append(self._answers.get_nowait())
            await self._record([pair for _, answered in gathered for pair in answered])
            for portion, _ in gathered:
                self._let_go(portion)
            self._rest()
            if self._hungry:
                self._has_room()

    async def _record(self, answered: Answered[C, V]) -> None:
        """Once an answer is in hand it must not be lost to a database that is away for a while."""
        since, pause_s = time.monotonic(), 0.2
        while answered:
            try:
                return await self.record(answered)
            except AWAY as error:
                if self.is_stopping() or time.monotonic() - since > _LONGEST_AWAY_S:
                    log.error("step %s: %d answers are lost with the database", self.step, len(answered))
                    return None
                log.warning("step %s: the database does not answer: %s", self.step, type(error).__name__)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except Exception:
                log.exception("step %s: %d answers could not be written", self.step, len(answered))
                return None
        return None

    def _let_go(self, portion: list[C]) -> None:
        for claim in portion:
            del self._in_flight[claim.key, claim.token]
            lane = self.lane(claim)
            self._lanes[lane] -= 1
            if not self._lanes[lane]:
                del self._lanes[lane]

    async def _renew_all(self) -> None:
        every_s = settings().lease_s / 3
        while True:
            await asyncio.sleep(every_s)
            long_held = [
                claim for claim, at in self._in_flight.values() if time.monotonic() - at > every_s / 2
            ]
            if long_held:
                try:
                    await in_transaction(self.renew, long_held)
                except Exception as error:
                    log.warning("step %s: leases were not renewed: %s", self.step, type(error).__name__)


AnyFlow = Flow[Any, Any]
