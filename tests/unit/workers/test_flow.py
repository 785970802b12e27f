"""A flow takes what there is room for, waits for nobody slow, and loses no answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from common import db, settings
from common.db.compat import RequiredColumnMissing
from common.words import Step
from workers.flow import Answered, Flow


@dataclass(frozen=True)
class Item:
    """Something to work on."""

    key: str
    lane: str = ""
    token: str = "t"


@dataclass
class Ledger:
    """What has happened."""

    waiting: list[Item]
    recorded: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    put_back: list[str] = field(default_factory=list)
    away: int = 0


class Sample(Flow[Item, str]):
    """Items wait in a list; those of the lane `slow` are answered when the gate opens."""

    step = Step.POLL
    most = 6
    most_per_lane = 3

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.gate = asyncio.Event()
        self.rooms = 0
        self.told_to_stop = False
        self.start(lambda: self.told_to_stop, self._count)

    def _count(self) -> None:
        self.rooms += 1

    def lane(self, claim: Item) -> str:
        return claim.lane

    async def claim(self, limit: int, full: frozenset[str]) -> list[Item]:
        found = [item for item in self.ledger.waiting if item.lane not in full][: min(limit, 3)]
        for item in found:
            self.ledger.waiting.remove(item)
        return found

    async def ask(self, portion: list[Item]) -> Answered[Item, str]:
        (item,) = portion
        if item.lane == "slow":
            await self.gate.wait()
        if item.lane == "broken":
            raise RuntimeError("broken")
        return [(item, f"answer to {item.key}")]

    async def record(self, answered: Answered[Item, str]) -> None:
        if self.ledger.away:
            self.ledger.away -= 1
            raise RequiredColumnMissing if self.ledger.away else OperationalError("", {}, Exception("gone"))
        self.ledger.recorded += [item.key for item, _ in answered]

    def renew(self, session: Session, claims: Sequence[Item]) -> None:
        self.ledger.renewed += [item.key for item in claims]

    def put_back(self, session: Session, claims: Sequence[Item]) -> None:
        self.ledger.put_back += [item.key for item in claims]


@pytest.fixture(autouse=True)
def short_lease(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LEASE_S", "0.3")
    monkeypatch.setenv("DATABASE_URL", "sqlite://")
    settings.settings.cache_clear()
    db.engine.cache_clear()
    yield
    db.engine().dispose()
    settings.settings.cache_clear()
    db.engine.cache_clear()


async def until(condition: object, timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


def test_a_slow_lane_holds_up_no_other() -> None:
    async def story() -> None:
        slow = [Item(f"slow {number}", "slow") for number in range(5)]
        quick = [Item(f"quick {number}", "quick") for number in range(20)]
        flow = Sample(Ledger([*slow, *quick]))
        for _ in range(20):
            await flow.fill()
            await asyncio.sleep(0.01)
        assert sorted(flow.ledger.recorded) == sorted(item.key for item in quick)
        assert flow.in_flight == 3
        assert [item.lane for item in flow.ledger.waiting] == ["slow", "slow"]
        flow.gate.set()
        await until(lambda: flow.rooms > 0 and not flow.in_flight)
        await flow.fill()
        await until(lambda: len(flow.ledger.recorded) == 25)
        await flow.close(1)

    asyncio.run(story())


def test_an_answer_outlives_a_database_that_is_away() -> None:
    async def story() -> None:
        flow = Sample(Ledger([Item("a")], away=2))
        await flow.fill()
        await until(lambda: flow.ledger.recorded == ["a"])
        assert flow.ledger.away == 0
        await flow.close(1)

    asyncio.run(story())


def test_a_row_that_was_lost_and_claimed_here_again_stops_nothing() -> None:
    async def story() -> None:
        flow = Sample(Ledger([Item("a", "slow", "lost")]))
        await flow.fill()
        flow.ledger.waiting.append(Item("a", "slow", "again"))
        await flow.fill()
        assert flow.in_flight == 2
        flow.gate.set()
        await until(lambda: not flow.in_flight)
        flow.ledger.waiting.append(Item("b"))
        await flow.fill()
        await until(lambda: flow.ledger.recorded == ["a", "a", "b"])
        await flow.close(1)

    asyncio.run(story())


def test_a_question_that_hangs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sample, "longest_s", 0.05)

    async def story() -> None:
        flow = Sample(Ledger([Item("a", "slow"), Item("b")]))
        await flow.fill()
        await until(lambda: not flow.in_flight)
        assert (flow.ledger.recorded, flow.ledger.put_back) == (["b"], [])
        await flow.close(1)

    asyncio.run(story())


def test_what_breaks_is_left_to_its_lease_and_hurts_no_other() -> None:
    async def story() -> None:
        flow = Sample(Ledger([Item("a", "broken"), Item("b")]))
        await flow.fill()
        await until(lambda: not flow.in_flight)
        assert flow.ledger.recorded == ["b"]
        await flow.close(1)

    asyncio.run(story())


def test_leases_of_what_takes_long_are_renewed() -> None:
    async def story() -> None:
        flow = Sample(Ledger([Item("long", "slow"), Item("short")]))
        await flow.fill()
        await until(lambda: len(flow.ledger.renewed) >= 3)
        assert set(flow.ledger.renewed) == {"long"}
        flow.gate.set()
        await until(lambda: flow.in_flight == 0)
        await flow.close(1)

    asyncio.run(story())


@pytest.mark.parametrize("may_be_cut", [True, False])
def test_a_stop_hands_on_what_may_be_cut_and_waits_for_the_rest(may_be_cut: bool) -> None:
    async def story() -> None:
        flow = Sample(Ledger([Item("a", "slow")]))
        flow.may_be_cut = may_be_cut  # type: ignore[misc]
        await flow.fill()
        flow.told_to_stop = True
        closing = asyncio.create_task(flow.close(2))
        await asyncio.sleep(0.02)
        flow.gate.set()
        await closing
        assert (flow.ledger.put_back, flow.ledger.recorded) == ((["a"], []) if may_be_cut else ([], ["a"]))
        flow.ledger.waiting.append(Item("b"))
        await flow.fill()
        assert flow.in_flight == 0

    asyncio.run(story())


def test_a_stop_waits_for_what_is_just_being_claimed() -> None:
    """Also where all that was claimed before is answered meanwhile: a submit may be written down as sent by then."""

    async def story() -> None:
        flow = Sample(Ledger([Item("first", "slow")]))
        flow.may_be_cut = False  # type: ignore[misc]
        await flow.fill()
        claim, claimed = flow.claim, asyncio.Event()

        async def slow_claim(limit: int, full: frozenset[str]) -> list[Item]:
            await claimed.wait()
            return await claim(limit, full)

        flow.claim = slow_claim  # type: ignore[method-assign]
        flow.ledger.waiting.append(Item("second"))
        filling = asyncio.create_task(flow.fill())
        await asyncio.sleep(0)
        flow.gate.set()
        await until(lambda: flow.ledger.recorded == ["first"])
        closing = asyncio.create_task(flow.close(2))
        await asyncio.sleep(0.01)
        claimed.set()
        await closing
        assert flow.ledger.recorded == ["first", "second"]
        await filling

    asyncio.run(story())
