"""Many clients of one URL, in a process of their own: `python -m tests.benchmarks.load`, a `Load` as JSON on its input.

Plain sockets and kept-alive connections, because a full HTTP client would take the machine's time from the servers.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

from tests.infrastructure.environment import ROOT, clean_environment

NUMBER = "#"  # stands in a body for the number of the request
_HEAD_END = b"\r\n\r\n"
_GRACE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send: one connection per token, each with one request at a time, until `seconds` or `most` is reached.

    With `pause_s` every connection waits about so long between two requests.
    """

    url: str
    tokens: list[str]
    body: str
    seconds: float = 30.0
    most: int = 1_000_000
    pause_s: float = 0.0

    def run(self) -> Answers:
        """Send it from a process of its own. Raises CalledProcessError, TimeoutExpired."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.load"],
            input=json.dumps(asdict(self)),
            cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, text=True, check=True,
            timeout=self.seconds + 2 * _GRACE_S,
        )  # fmt: skip
        return Answers(**json.loads(done.stdout))


@dataclass(slots=True)
class Answers:
    """What came back. `answered_at` has the moment of each answer, by the number of its request."""

    began_at: float = 0.0
    ended_at: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)
    answered_at: dict[str, float] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.latencies_s)

    @property
    def per_s(self) -> float:
        """Answers per second."""
        return self.count / (self.ended_at - self.began_at)

    def require(self, status: int) -> Answers:
        """Itself. Raises RuntimeError where any answer had another status, or there was none."""
        if set(self.statuses) != {str(status)}:
            raise RuntimeError(f"expected only {status}, got {self.statuses}")
        return self


class _Clients:
    """All connections of one load."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.answers = Answers()
        self.statuses: Counter[str] = Counter()
        self._numbers = iter(range(load.most))
        self._until = 0.0

    def begin(self) -> None:
        self.answers.began_at = time.time()
        self._until = time.monotonic() + self.load.seconds

    def next_body(self) -> tuple[int, str] | None:
        """The number and the body of the next request; None when it is enough."""
        number = next(self._numbers, None) if time.monotonic() < self._until else None
        return None if number is None else (number, self.load.body.replace(NUMBER, str(number)))

    def answered(self, number: int, status: str, took_s: float) -> None:
        now = time.time()
        self.statuses[status] += 1
        self.answers.latencies_s.append(took_s)
        self.answers.answered_at[str(number)] = now
        self.answers.ended_at = now


class _Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, clients: _Clients, token: str) -> None:
        self._clients = clients
        self._loop = asyncio.get_running_loop()
        self.over = self._loop.create_future()
        parts = urlsplit(clients.load.url)
        self._head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self._buffer = b""
        self._number, self._sent_at = 0, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self._clients.statuses["lost"] += 1
            self.over.set_result(None)

    def send(self) -> None:
        """The next request, or the end."""
        wanted = self._clients.next_body()
        if wanted is None:
            self.over.set_result(None)
            self._transport.close()
            return
        self._number, body = wanted
        content = body.encode()
        self._sent_at = time.perf_counter()
        self._transport.write(b"%s%d%s%s" % (self._head, len(content), _HEAD_END, content))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return
        head = self._buffer[:end].lower()
        place = head.find(b"content-length:")
        length = int(head[place + 15 :].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + len(_HEAD_END) + length:
            return
        self._clients.answered(self._number, head[9:12].decode(), time.perf_counter() - self._sent_at)
        self._buffer = b""
        pause_s = self._clients.load.pause_s
        if pause_s:
            self._loop.call_later(pause_s * random.uniform(0.5, 1.5), self.send)
        else:
            self.send()


async def _run(load: Load) -> Answers:
    """Connect everybody first, then let all begin at once."""
    loop = asyncio.get_running_loop()
    clients = _Clients(load)
    parts = urlsplit(load.url)
    assert parts.hostname is not None
    assert parts.port is not None
    host, port = parts.hostname, parts.port
    connections: deque[_Connection] = deque()
    for token in load.tokens:
        made = await loop.create_connection(
            lambda token=token: _Connection(clients, token),  # type: ignore[misc]
            host,
            port,
        )
        connections.append(made[1])
    clients.begin()
    for connection in connections:
        connection.send()
    async with asyncio.timeout(load.seconds + _GRACE_S):
        await asyncio.gather(*(connection.over for connection in connections))
    clients.answers.statuses = dict(clients.statuses)
    return clients.answers


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(_run(Load(**json.load(sys.stdin)))))))
