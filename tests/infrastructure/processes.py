"""The platform's own processes, started by the Procfile's commands and ended in every way that happens in life."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self, TypeVar

import psutil

from tests.infrastructure.children import (
    StartError,
    is_dead,
    kill_all,
    pause_all,
    resume_all,
    send,
    spawn,
    tail,
    wait_until,
)
from tests.infrastructure.environment import ROOT, clean_environment

T = TypeVar("T")

_MARK = (
    "WXIAI_PROCESS_GROUP"  # in the environment of every process we start, so that no descendant escapes us
)
_NOT_LINKED = frozenset({".env", "data"})  # what belongs to the operator of this checkout


def read_procfile(path: Path = ROOT / "Procfile") -> dict[str, str]:
    """Name → command."""
    lines = (line.strip() for line in path.read_text().splitlines())
    parts = (re.fullmatch(r"([\w-]+):\s*(\S.*)", line) for line in lines if line and not line.startswith("#"))
    return {match[1]: match[2] for match in parts if match}


class Process:
    """One process of the Procfile with all its descendants."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], mark: str, log: Path) -> None:
        self.name, self.log, self._popen, self._mark = name, log, popen, mark

    def __repr__(self) -> str:
        return f"<{self.name} {self.pid} {'running' if self.is_running else self.exit_code}>"

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._popen.poll()

    @property
    def output(self) -> str:
        """All it has written."""
        return self.log.read_text(errors="replace")

    def tree(self) -> list[psutil.Process]:
        """It and every living descendant, also orphaned ones."""
        return list(_marked(self._mark))

    def children(self) -> list[psutil.Process]:
        """Its living descendants: gunicorn's workers, Celery's pool."""
        return [process for process in self.tree() if process.pid != self.pid]

    def memory_bytes(self) -> int:
        """Resident memory of the whole tree."""
        return sum(_resident(process) for process in self.tree())

    def wait(self, timeout_s: float = 30.0) -> int:
        """Wait until it has ended by itself; return its exit code."""
        return self._popen.wait(timeout_s)

    def stop(self, timeout_s: float = 30.0, *, everyone: bool = False) -> int:
        """SIGTERM (with `everyone` to the whole tree, as Heroku does); return the exit code.

        TimeoutError, after SIGKILL, when it or a descendant is still there after `timeout_s`.
        """
        for process in self.tree() if everyone else [psutil.Process(self.pid)] * self.is_running:
            send(process, signal.SIGTERM)
        try:
            wait_until(lambda: not self.is_running and not self.tree(), timeout_s, what=f"end of {self}")
        except TimeoutError:
            self.kill9()
            raise
        return self._popen.wait(1)

    def kill9(self) -> None:
        """SIGKILL to the whole tree, the parent first, so that it cannot tidy up after its children."""
        while alive := sorted(self.tree(), key=lambda process: process.pid != self.pid):
            kill_all(alive)
        self._popen.wait(10)

    def pause(self) -> None:
        """SIGSTOP to the whole tree: connections and leases stay, nothing happens."""
        pause_all(self.tree())

    def resume(self) -> None:
        resume_all(self.tree())


class ProcessGroup:
    """Processes of the Procfile that belong together. Leaving the `with` ends them and checks that all are gone.

    They run in a folder that shows this checkout without its `.env` and with a `data/` of their own; logs go to
    `folder/logs`. `cwd` makes them run elsewhere, `make run` for one in the checkout itself.
    """

    def __init__(
        self, folder: Path, *, environment: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.cwd = cwd or _checkout(folder / "checkout")
        self.environment = dict(environment or {})
        self.processes: list[Process] = []
        self._commands = read_procfile()
        self._logs = folder / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._mark = secrets.token_hex(8)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.stop()
                self.assert_nothing_left()
        finally:
            self.kill9()

    def start(
        self, name: str, *, environment: Mapping[str, str] | None = None, arguments: str = ""
    ) -> Process:
        """Start the Procfile's `name`, once more with each call; `arguments` are put behind its command."""
        return self.start_command(
            name, f"{self._commands[name]} {arguments}".strip(), environment=environment
        )

    def start_command(
        self, name: str, command: str, *, environment: Mapping[str, str] | None = None
    ) -> Process:
        """Start any shell command as a member of the group."""
        count = sum(process.name == name for process in self.processes)
        log = self._logs / (f"{name}-{count + 1}.log" if count else f"{name}.log")
        mark = f"{self._mark}:{len(self.processes)}"
        popen = spawn(
            ["/bin/sh", "-c", f"exec {command}"],
            log=log,
            cwd=self.cwd,
            environment=clean_environment(
                {"PYTHONUNBUFFERED": "1", **self.environment, **(environment or {}), _MARK: mark}
            ),
        )
        self.processes.append(Process(name, popen, mark, log))
        return self.processes[-1]

    def run(self, name: str, timeout_s: float = 60.0) -> str:
        """Run the Procfile's `name` (`release`) to its end and return its output; StartError when it fails."""
        process = self.start(name)
        code = process.wait(timeout_s)
        if code:
            raise StartError(f"{name} exited {code}:\n{tail(process.log)}")
        return process.output

    def wait_until(self, condition: Callable[[], T], timeout_s: float = 30.0, *, what: str = "") -> T:
        """Return the first true value of `condition`; what the processes last said explains a failure."""
        try:
            return wait_until(condition, timeout_s, what=what, every_s=0.05)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.report()}") from None

    def report(self) -> str:
        """Every process and the end of its log."""
        return "\n".join(f"--- {process}\n{tail(process.log)}" for process in self.processes)

    def stop(self, timeout_s: float = 30.0, *, everyone: bool = False) -> None:
        """Stop all, at the same time, in good order."""
        deadline = time.monotonic() + timeout_s
        running = [process for process in self.processes if process.is_running]
        for process in running:
            for member in process.tree() if everyone else [psutil.Process(process.pid)]:
                send(member, signal.SIGTERM)
        for process in running:
            process_s = max(deadline - time.monotonic(), 0.1)
            wait_until(lambda each=process: not each.is_running, process_s, what=f"end of {process}")  # type: ignore[misc]

    def kill9(self) -> None:
        """SIGKILL to everything that was ever started here and still lives."""
        for process in self.processes:
            process.kill9()

    def assert_nothing_left(self, timeout_s: float = 5.0) -> None:
        """AssertionError when a descendant of anything started here is alive after `timeout_s`."""
        try:
            wait_until(lambda: not list(_marked(self._mark)), timeout_s)
        except TimeoutError:
            left = [process.as_dict(["pid", "cmdline"]) for process in _marked(self._mark)]
            raise AssertionError(f"left behind: {left}") from None


def _marked(mark: str) -> Iterator[psutil.Process]:
    """Living processes whose environment carries that mark (or the mark of a group)."""
    for process in psutil.process_iter():
        try:
            found = process.environ().get(_MARK, "")
        except (psutil.Error, OSError):
            continue
        if (found == mark or found.startswith(f"{mark}:")) and not is_dead(process):
            yield process


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _checkout(folder: Path) -> Path:
    """A folder of links to what is in this checkout, without what belongs to its operator."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in ROOT.iterdir():
        link = folder / entry.name
        hidden = entry.name.startswith(".")
        if entry.name not in _NOT_LINKED and not hidden and not os.path.lexists(link):
            link.symlink_to(entry)
    return folder
