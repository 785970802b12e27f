"""A provider that counts, and worker processes that may be killed at any moment: the scheduler from outside.

The workers use the services as the engine does (claim, write down, ask, record), and speak to the provider over a
socket, one JSON object a line.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import socket
import socketserver
import threading
import time
from collections import Counter, defaultdict
from multiprocessing.context import ForkServerProcess
from typing import Any, Self

from common import queue
from common.db import transaction
from common.errors import LeaseLost
from common.providers.base import Accepted, NotAccepted, Running, Succeeded, Trouble
from common.services import claims, lifecycle
from common.services.claims import Claim
from common.settings import settings
from common.words import Step

_TIMEOUT_S = 10.0
_IDLE_S = 0.05
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])  # so that a worker is there at once


class Provider:
    """Takes any submit, lets it run for a while, and remembers how many ran at once at each account."""

    def __init__(self, runs_s: float, busy: float = 0.0, seed: int = 0) -> None:
        self._runs_s, self._busy, self._random = runs_s, busy, random.Random(seed)
        self._lock = threading.Lock()
        self._ends: dict[str, float] = {}  # by attempt
        self._running: defaultdict[str, set[str]] = defaultdict(set)
        self.most: Counter[str] = Counter()  # at once, by account
        self.submits: Counter[str] = Counter()  # by job, those it has taken
        self._server = _Server(("127.0.0.1", 0), _Caller)
        self._server.provider = self

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def answer(self, asked: dict[str, Any]) -> Any:
        """What the provider says to a worker."""
        now = time.monotonic()
        with self._lock:
            if asked["do"] == "submit":
                return self._take(asked["account"], asked["job"], asked["attempt"], now)
            if asked["do"] == "find":
                return asked["attempt"] in self._ends
            return self._ends[asked["attempt"]] <= now

    def _take(self, account: str, job: str, attempt: str, now: float) -> bool:
        if self._random.random() < self._busy:
            return False
        running = {each for each in self._running[account] if self._ends[each] > now} | {attempt}
        self._running[account] = running
        self.most[account] = max(self.most[account], len(running))
        self.submits[job] += 1
        self._ends[attempt] = now + self._runs_s
        return True


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    provider: Provider


class _Caller(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        try:
            for line in self.rfile:
                self.wfile.write(json.dumps(self.server.provider.answer(json.loads(line))).encode() + b"\n")
        except OSError:
            return  # it was killed


class Workers:
    """Worker processes on one database; `kill9` ends one without a warning and starts another in its place."""

    def __init__(self, count: int, provider: Provider, environment: dict[str, str]) -> None:
        self._args = (provider.port, environment)
        self._processes = [self._start() for _ in range(count)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(_TIMEOUT_S)

    def kill9(self, number: int) -> None:
        self._processes[number].kill()
        self._processes[number].join(_TIMEOUT_S)
        self._processes[number] = self._start()

    def failed(self) -> list[int]:
        """How those ended that ended by themselves."""
        return [code for process in self._processes if (code := process.exitcode) is not None]

    def _start(self) -> ForkServerProcess:
        process = _context.Process(target=work, args=self._args, daemon=True)
        process.start()
        return process


# ---------------------------------------------------------------- inside a worker


def work(port: int, environment: dict[str, str]) -> None:
    """Take what is due, again and again, until killed."""
    os.environ.update(environment)
    queue.nudge = lambda step: None  # there is no broker here
    _Worker(port).run()


class _Worker:
    def __init__(self, port: int) -> None:
        self._line = socket.create_connection(("127.0.0.1", port), _TIMEOUT_S).makefile("rw")

    def run(self) -> None:
        while True:
            try:
                busy = [self._submit(), self._poll(), self._reconcile()]
            except LeaseLost:
                continue  # too slow: somebody else has it now
            if not any(busy):
                time.sleep(_IDLE_S)

    def _ask(self, do: str, claim: Claim) -> Any:
        what = {"do": do, "account": claim.account_id, "job": claim.job_id, "attempt": claim.attempt_id}
        self._line.write(json.dumps(what) + "\n")
        self._line.flush()
        return json.loads(self._line.readline())

    def _submit(self) -> bool:
        until = time.monotonic() + settings().lease_s
        with transaction() as session:
            lifecycle.recover(session)
            claimed = claims.submits(session, 4)
        if not claimed:
            return False
        with transaction() as session:
            claimed = lifecycle.sending(session, claimed)
        # Who is too late asks nothing: somebody else is looking for these submits by now.
        answers = [(claim, self._ask("submit", claim)) for claim in claimed if time.monotonic() < until]
        with transaction() as session:
            for claim, taken in answers:
                if taken:
                    lifecycle.accepted(session, claim, Accepted(provider_ref=claim.attempt_id))
                else:
                    lifecycle.not_accepted(session, claim, NotAccepted(trouble=Trouble.BUSY, message="429"))
        return True

    def _poll(self) -> bool:
        with transaction() as session:
            claimed = claims.due(session, Step.POLL, 5)
        if not claimed:
            return False
        answers = [(claim, self._ask("poll", claim)) for claim in claimed]
        with transaction() as session:
            running = [(claim, Running()) for claim, ended in answers if not ended]
            if running:
                lifecycle.still_running(session, running)
            for claim in lifecycle.still_held(session, [claim for claim, ended in answers if ended]):
                lifecycle.produced(session, claim, Succeeded(output={"prompts": []}))
        return True

    def _reconcile(self) -> bool:
        with transaction() as session:
            lost = claims.lost_submits(session, 5)
        for claim in lost:
            found = self._ask("find", claim)
            with transaction() as session:
                if found:
                    lifecycle.accepted(session, claim, Accepted(provider_ref=claim.attempt_id), adopted=True)
                else:
                    lifecycle.not_found_yet(session, claim)
        return bool(lost)
