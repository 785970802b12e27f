"""What every simulator is made of: a real HTTP server that remembers what it was asked and can be told to misbehave."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from aiohttp import web

REMEMBERED = 200_000  # calls
BODY_LIMIT = 64 * 1024 * 1024
_START_S = 10.0
_STOP_S = 5.0
_FOR_EVER_S = 3600.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it arrived. `headers` has lower-case names; `status` is None where no answer was given."""

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
    `hang`: take the request, do nothing, never answer. `drop`: hang up without working. `hang_reply` and
    `drop_reply`: work, but never answer: the client cannot know. `garbage`: work, then answer 200 with rubbish.
    """

    kind: Literal["answer", "slow", "hang", "hang_reply", "drop", "drop_reply", "garbage"]
    match: str = ""
    times: int = 1
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0
    met: int = 0  # how many requests it was applied to


class Simulator:
    """One simulated service on a port of the loopback. Subclasses give `routes()`; state belongs to the loop's thread.

    Tests read `calls` and set `faults` (through `misbehave`) from their own thread.
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        self.calls: deque[Call] = deque(maxlen=REMEMBERED)
        self.port = 0
        self._faults: list[Fault] = []
        self._runner: web.AppRunner | None = None

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """The paths this service answers."""
        raise NotImplementedError

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
        application = web.Application(middlewares=[self._around], client_max_size=BODY_LIMIT)
        application.add_routes(self.routes())
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port or self.port, backlog=1024)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def hang_up(self) -> None:
        """Stop serving; what is under way is cut."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        body = await request.read()
        fault = self._fault(request)
        status: int | None = None
        try:
            response = await self._answer(request, handler, fault)
            status = response.status
            return response
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.calls.append(Call(request.method, request.path_qs, headers, body, time.time(), status))

    def _fault(self, request: web.Request) -> Fault | None:
        line = f"{request.method} {request.path_qs}"
        for fault in self._faults:
            if fault.times > 0 and fault.match in line:
                fault.times -= 1
                fault.met += 1
                return fault
        return None

    async def _answer(
        self, request: web.Request, handler: Handler, fault: Fault | None
    ) -> web.StreamResponse:
        match fault.kind if fault else None:
            case "answer":
                assert fault is not None
                return web.Response(status=fault.status, headers=fault.headers, body=fault.body)
            case "slow":
                assert fault is not None
                await asyncio.sleep(fault.seconds)
                return await handler(request)
            case "hang":
                await asyncio.sleep(_FOR_EVER_S)
                raise _dropped(request)
            case "hang_reply":
                await handler(request)
                await asyncio.sleep(_FOR_EVER_S)
                raise _dropped(request)
            case "drop":
                raise _dropped(request)
            case "drop_reply":
                await handler(request)
                raise _dropped(request)
            case "garbage":
                await handler(request)
                return web.Response(body=b"<html>\x00 upstream \xff{", content_type="text/html")
            case _:
                return await handler(request)


def _dropped(request: web.Request) -> web.HTTPException:
    """Cut the connection under the answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.HTTPInternalServerError()


class Stage:
    """Runs simulators in one event loop, in a thread of its own."""

    def __init__(self, simulators: Iterable[Simulator]) -> None:
        self._simulators = list(simulators)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulators", daemon=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start them all; each keeps the port it was given before, if it was."""
        self._thread.start()
        for simulator in self._simulators:
            self.run(simulator.listen(), _START_S)
        return self

    def stop(self) -> None:
        """Stop them all and end the loop."""
        for simulator in self._simulators:
            self.run(simulator.hang_up(), _STOP_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)
        self._loop.close()

    def run(self, work: Any, timeout_s: float = _STOP_S) -> Any:
        """Run a coroutine in the simulators' loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """The value as a JSON answer."""
    text = json.dumps(value, ensure_ascii=False)
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")
