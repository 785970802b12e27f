"""What every simulator is made of: a real HTTP server that remembers what it was asked and can be told to misbehave."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, TypeVar

import aiohttp
from aiohttp import web

REMEMBERED = 20_000  # calls; with their bodies, so not too many
BODY_LIMIT = 64 * 1024 * 1024
CALLBACK_S = 15.0  # fal's own limit, the only documented one
_START_S = 10.0
_STOP_S = 5.0
_WORKING = ("hang_reply", "drop_reply", "garbage", "cut", "trickle")  # faults that spoil only the answer
_IDLE = ("answer", "hang", "drop")  # those for which nothing is worked

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it arrived. `headers` are looked up by name in any case; `status` is None where no whole
    answer was given; `body` is empty where the simulator streams bodies."""

    method: str
    path: str  # with its query
    headers: Mapping[str, str]
    body: bytes
    at: float
    status: int | None = None

    def json(self) -> Any:
        """The parsed body, or None."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(slots=True)
class Fault:
    """How to misbehave towards requests whose `METHOD /path?query` contains `match`, `times` times.

    `answer`: give that status, headers and body instead of working. `slow`: wait `seconds`, then work.
    `hang`: take the request, do nothing, never answer. `drop`: hang up without working. `hang_reply`, `drop_reply`:
    work, then never answer or hang up: the client cannot know. `garbage`: work, then answer 200 with rubbish.
    `cut`: work, then hang up in the middle of the answer. `trickle`: work, then be silent for `seconds` there.
    """

    kind: Literal["answer", "slow", "hang", "hang_reply", "drop", "drop_reply", "garbage", "cut", "trickle"]
    match: str = ""
    times: int = 1
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0
    met: int = 0  # how often it was obeyed; for `…_reply`, when the work is done


class _Dropped(Exception):
    """The connection was cut under the answer."""


class Simulator(ABC):
    """One simulated service on a port of the loopback. Subclasses give `routes()`; state belongs to the loop's thread.

    Tests read `calls` and set `faults` (through `misbehave`) from their own thread. What a handler or its background
    work raises lands in `broken`, and fails whoever leaves the `with Stage(…)`.
    """

    name: ClassVar[str]
    streams: ClassVar[bool] = False  # whether handlers read `request.content` themselves, which may be large

    def __init__(self) -> None:
        self.calls: deque[Call] = deque(maxlen=REMEMBERED)
        self.broken: list[BaseException] = []
        self.port = 0
        self._faults: list[Fault] = []
        self._runner: web.AppRunner | None = None
        self._ending = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._caller: aiohttp.ClientSession | None = None

    @abstractmethod
    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """The paths this service answers."""

    @property
    def url(self) -> str:
        """Its root, without a slash at the end."""
        assert self.port, f"{self.name} is not started"
        return f"http://127.0.0.1:{self.port}"

    def misbehave(self, fault: Fault) -> Fault:
        """Obey this fault from now on, in the order in which faults were given."""
        self._faults.append(fault)
        return fault

    def behave(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    def asked(self, match: str) -> list[Call]:
        """The calls whose `METHOD /path?query` contains `match`, oldest first."""
        return [call for call in list(self.calls) if match in f"{call.method} {call.path}"]

    # ------------------------------------------------------------ inside the loop

    async def listen(self, port: int = 0) -> None:
        """Serve from now on."""
        self._ending.clear()
        application = web.Application(middlewares=[self._around], client_max_size=BODY_LIMIT)
        application.add_routes(self.routes())
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        self.port = await self.open(port or self.port)

    async def open(self, port: int = 0) -> int:
        """Serve the same at one more port; which one it became."""
        assert self._runner is not None
        known = len(self._runner.addresses)
        await web.TCPSite(self._runner, "127.0.0.1", port, backlog=1024).start()
        return int(self._runner.addresses[known][1])

    async def hang_up(self) -> None:
        """Stop serving; what is under way is cut, background work is dropped."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._ending.set()  # not before: who is cancelled in a pause that has just ended may go on, for ever
        if self._caller is not None:
            await self._caller.close()
            self._caller = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something go on beside the requests, at most until this simulator hangs up."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.broken.append(error)

    async def call_back(
        self, url: str, body: bytes, headers: Mapping[str, str] | None = None, timeout_s: float = CALLBACK_S
    ) -> int | None:
        """POST to somebody's webhook, once. The status of the answer; None where there was none in time."""
        if self._caller is None:
            self._caller = aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.DummyCookieJar())
        limit = aiohttp.ClientTimeout(total=timeout_s)
        sent = {"Content-Type": "application/json", **(headers or {})}
        try:
            async with self._caller.post(
                url, data=body, headers=sent, timeout=limit, allow_redirects=False
            ) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError, ValueError):  # the last for what is no URL
            return None

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        fault = self._fault(request) if self._faults else None
        body = b""
        status: int | None = None
        try:
            if not self.streams:
                body = await request.read()
            elif fault is not None and fault.kind in _IDLE:  # the handler does not read it
                await drain(request)
            response = await self._obey(request, handler, fault)
            status = response.status
            return response
        except (_Dropped, ConnectionError, web.RequestPayloadError):  # one of both has hung up
            return web.Response(status=500)  # goes nowhere
        except web.HTTPException as error:
            status = error.status
            raise
        except Exception as error:
            status = 500
            self.broken.append(error)
            raise
        finally:
            self.calls.append(
                Call(request.method, request.path_qs, request.headers, body, time.time(), status)
            )

    def _fault(self, request: web.Request) -> Fault | None:
        line = f"{request.method} {request.path_qs}"
        for fault in self._faults:
            if fault.times > 0 and fault.match in line:
                fault.times -= 1
                return fault
        return None

    async def _obey(self, request: web.Request, handler: Handler, fault: Fault | None) -> web.StreamResponse:
        if fault is None:
            return await handler(request)
        if fault.kind in _WORKING:
            return await self._spoil(request, handler, fault)
        fault.met += 1
        match fault.kind:
            case "answer":
                return web.Response(status=fault.status, headers=fault.headers, body=fault.body)
            case "slow":
                await self.pause(fault.seconds)
                return await handler(request)
            case "hang":
                await self._ending.wait()
        raise _dropped(request)

    async def _spoil(self, request: web.Request, handler: Handler, fault: Fault) -> web.StreamResponse:
        """Work, then spoil the answer."""
        try:
            response = await handler(request)
        except web.HTTPException as refusal:
            response = web.Response(status=refusal.status, headers=refusal.headers, body=refusal.body)
        fault.met += 1
        match fault.kind:
            case "garbage":
                return web.Response(body=b"<html>\x00 upstream \xff{", content_type="text/html")
            case "cut" | "trickle":
                return await self._broken_off(request, response, fault)
            case "hang_reply":
                await self._ending.wait()
        raise _dropped(request)

    async def _broken_off(
        self, request: web.Request, response: web.StreamResponse, fault: Fault
    ) -> web.StreamResponse:
        """Half of the answer; then nothing more, or a silence and the rest."""
        assert isinstance(response, web.Response), "an answer that is sent already cannot be broken off"
        body = response.body if isinstance(response.body, bytes) else b""  # None where there is none
        half = len(body) // 2
        broken = web.StreamResponse(status=response.status, headers=response.headers)
        broken.content_length = len(body)
        if body:  # without one the head is all there is, and that is what stays out
            await broken.prepare(request)
            await broken.write(body[:half])
        if fault.kind == "cut":
            raise _dropped(request)
        await self.pause(fault.seconds)
        await broken.prepare(request)  # again is nothing
        await broken.write(body[half:])
        return broken

    async def pause(self, seconds: float) -> None:
        """Sleep, but not beyond the end of this simulator."""
        try:
            await asyncio.wait_for(self._ending.wait(), seconds)
        except TimeoutError:
            return


def _dropped(request: web.Request) -> _Dropped:
    """Cut the connection under the answer."""
    if request.transport is not None:
        request.transport.abort()
    return _Dropped()


class Stage:
    """Runs simulators in one event loop, in a thread of its own."""

    def __init__(self, simulators: Iterable[Simulator]) -> None:
        self._simulators = list(simulators)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulators", daemon=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: object, *_: object) -> None:
        self.stop()
        if kind is None:
            self.check()

    def start(self) -> Self:
        """Start them all; each keeps the port it was given before, if it was. A stage starts only once."""
        self._thread.start()
        try:
            for simulator in self._simulators:
                self.run(simulator.listen(), _START_S)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop them all and end the loop; again is fine."""
        if self._loop.is_closed():
            return
        try:
            for simulator in self._simulators:
                self.run(simulator.hang_up(), _STOP_S)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_STOP_S)
            self._loop.close()

    def check(self) -> None:
        """Raise what broke inside a simulator, if anything did."""
        for simulator in self._simulators:
            for error in simulator.broken:
                raise AssertionError(f"the simulator {simulator.name} broke") from error

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = _STOP_S) -> T:
        """Run a coroutine in the simulators' loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """The value as a JSON answer."""
    text = json.dumps(value, ensure_ascii=False)
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")


def wanted_part(request: web.Request, size: int) -> range | None:
    """The bytes of a file of that size that a Range header asks for; None where it asks for all of it.

    Raises HTTPRequestRangeNotSatisfiable.
    """
    try:
        asked = request.http_range
    except ValueError:
        return None  # RFC 9110: what cannot be understood is ignored
    if asked.start is None and asked.stop is None:
        return None
    part = range(*slice(asked.start, asked.stop).indices(size))
    if not part:
        raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
    return part


async def drain(request: web.Request) -> None:
    """Read the rest of a body and forget it, so that the client comes to read the answer."""
    while await request.content.readany():
        pass
