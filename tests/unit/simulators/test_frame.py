"""What every simulator can do: remember, misbehave, call back, come and go."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

import pytest
from aiohttp import web

from common.providers.base import NotSent, Reply, Unanswered
from tests.infrastructure.children import wait_until
from tests.simulators.frame import Fault, Simulator, Stage, json_answer
from tests.simulators.pace import Generation, Pace
from tests.simulators.receiver import Receiver
from workers.http import AioHttp


class Counter(Simulator):
    """Counts."""

    name: ClassVar[str] = "counter"

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [
            web.post("/count", self._counted),
            web.post("/refuse", self._refused),
            web.post("/break", self._broken),
        ]

    async def _counted(self, request: web.Request) -> web.Response:
        self.count += 1
        return json_answer({"count": self.count, "text": "多" * 50})

    async def _refused(self, request: web.Request) -> web.Response:
        raise web.HTTPConflict(text="no")

    async def _broken(self, request: web.Request) -> web.Response:
        raise KeyError("a mistake of ours")


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def stage(counter: Counter) -> Iterator[Stage]:
    with Stage([counter]) as stage:
        yield stage


Ask = Callable[..., Reply]


@pytest.fixture
def ask(stage: Stage, counter: Counter) -> Iterator[Ask]:
    """A POST through the workers' client."""
    http = AioHttp(allow_private=True)
    with asyncio.Runner() as runner:

        def ask(path: str, *, timeout_s: float = 5.0) -> Reply:
            url = f"{counter.url}{path}"
            return runner.run(
                http.send("POST", url, json={"a": 1}, headers={"X-Key": "k"}, timeout_s=timeout_s)
            )

        yield ask
        runner.run(http.close())


def test_calls_are_remembered(ask: Ask, counter: Counter) -> None:
    before = time.time()
    ask("/count?x=1")
    ask("/nowhere")
    first, second = counter.calls
    assert (first.method, first.path, first.json(), first.status) == ("POST", "/count?x=1", {"a": 1}, 200)
    assert first.headers["x-key"] == "k"
    assert before <= first.at <= time.time()
    assert second.status == 404
    assert [call.path for call in counter.asked("POST /count")] == ["/count?x=1"]


def test_faults_are_for_what_they_match_and_as_often_as_they_say(ask: Ask, counter: Counter) -> None:
    fault = counter.misbehave(
        Fault("answer", "?x", times=2, status=503, headers={"Retry-After": "7"}, body=b"busy")
    )
    replies = [ask(path) for path in ("/count", "/count?x=1", "/count?x=2", "/count?x=3")]
    assert [reply.status for reply in replies] == [200, 503, 503, 200]
    assert (replies[1].headers["retry-after"], replies[1].body) == ("7", b"busy")
    assert (counter.count, fault.met) == (2, 2)
    counter.misbehave(Fault("answer", times=100))
    counter.behave()
    assert ask("/count").status == 200


def test_slow(ask: Ask, counter: Counter) -> None:
    counter.misbehave(Fault("slow", seconds=0.2))
    began = time.monotonic()
    assert ask("/count").status == 200
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize(
    ("kind", "works"),
    [
        ("hang", False),
        ("drop", False),
        ("hang_reply", True),
        ("drop_reply", True),
        ("cut", True),
        ("trickle", True),
    ],
)
def test_no_answer(ask: Ask, counter: Counter, kind: str, works: bool) -> None:
    fault = counter.misbehave(Fault(kind, seconds=60))  # type: ignore[arg-type]
    with pytest.raises(Unanswered):
        ask("/count", timeout_s=0.4)
    assert counter.count == works
    assert fault.met == 1


def test_drop_reply_also_drops_a_refusal(ask: Ask, counter: Counter) -> None:
    counter.misbehave(Fault("drop_reply"))
    with pytest.raises(Unanswered):
        ask("/refuse")
    assert wait_until(lambda: counter.calls)[0].status is None


def test_trickle_gives_all_in_the_end(ask: Ask, counter: Counter) -> None:
    counter.misbehave(Fault("trickle", seconds=0.2))
    began = time.monotonic()
    assert ask("/count").json()["text"] == "多" * 50
    assert time.monotonic() - began >= 0.2


def test_garbage(ask: Ask, counter: Counter) -> None:
    counter.misbehave(Fault("garbage"))
    reply = ask("/count")
    assert (reply.status, reply.json(), counter.count) == (200, None, 1)


def test_a_simulator_keeps_its_port_and_what_it_knows(ask: Ask, stage: Stage, counter: Counter) -> None:
    port = counter.port
    ask("/count")
    stage.run(counter.hang_up())
    with pytest.raises(Unanswered):
        ask("/count")  # on the connection that was kept alive
    with pytest.raises(NotSent):
        ask("/count")
    stage.run(counter.listen())
    assert counter.port == port
    assert ask("/count").json()["count"] == 2


def test_stopping_waits_for_nobody(counter: Counter) -> None:
    counter.misbehave(Fault("hang"))
    stage = Stage([counter]).start()
    http = AioHttp(allow_private=True)

    async def hung() -> None:
        try:
            with pytest.raises(Unanswered):
                await http.send("POST", f"{counter.url}/count")
        finally:
            await http.close()

    thread = threading.Thread(target=lambda: asyncio.run(hung()))
    thread.start()
    wait_until(lambda: counter._faults[0].met)
    began = time.monotonic()
    stage.stop()
    stage.stop()
    assert time.monotonic() - began < 2
    thread.join(5)
    assert not thread.is_alive()


def test_what_breaks_inside_fails_the_test(counter: Counter) -> None:
    async def broken() -> None:
        raise ValueError("in the background")

    async def begin() -> None:
        counter.spawn(broken())

    with pytest.raises(AssertionError, match="the simulator counter broke"), Stage([counter]) as stage:
        stage.run(begin())
        wait_until(lambda: counter.broken)


def test_a_port_that_is_taken_stops_the_stage(counter: Counter, stage: Stage) -> None:
    other = Counter()
    other.port = counter.port
    before = set(threading.enumerate())
    with pytest.raises(OSError, match="address already in use"):
        Stage([other]).start()
    assert not {thread for thread in set(threading.enumerate()) - before if thread.name == "simulators"}


def test_calling_back() -> None:
    receiver, sender = Receiver(), Counter()
    receiver.misbehave(Fault("answer", "POST /hook", status=410))
    receiver.misbehave(Fault("hang", "POST /hook"))
    with Stage([receiver, sender]) as stage:
        hook = f"{receiver.url}/hook"
        assert stage.run(sender.call_back(hook, b"{}", {"X-Sign": "s"})) == 410
        assert stage.run(sender.call_back(hook, b"{}", timeout_s=0.2)) is None
        assert stage.run(sender.call_back(hook, b"{}")) == 204
        assert stage.run(sender.call_back("http://127.0.0.1:1/", b"{}")) is None
        assert stage.run(sender.call_back("nonsense", b"{}")) is None
    assert receiver.calls[0].headers["x-sign"] == "s"
    assert receiver.calls[0].headers["content-type"] == "application/json"


# ---------------------------------------------------------------- how long things take


def test_pace_and_directives() -> None:
    plain = Generation("1", "a fox", Pace(0.2, 1.0), made_at=100.0)
    assert (plain.starts_at, plain.done_at) == (100.2, 101.2)
    asked = Generation("2", "[queue=5] fox [run=2.5] [fail] [run]", Pace(0.2, 1.0), made_at=100.0, held_s=3.0)
    assert (asked.starts_at, asked.done_at) == (108.0, 109.0)
    assert asked.wants("fail")
    assert not asked.wants("expire")
    assert plain.is_over


@pytest.mark.parametrize(("age_s", "progress"), [(0, None), (10, 0.0), (15, 0.5), (30, 1.0)])
def test_progress(age_s: float, progress: float | None) -> None:
    made = Generation("1", "x", Pace(10, 10), made_at=time.time() - age_s)
    assert made.progress() == (None if progress is None else pytest.approx(progress, abs=0.05))
    assert made.is_over == (progress == 1.0)
