"""Starting, watching and ending child processes."""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class StartError(RuntimeError):
    """A server or process did not come up; the message ends with the tail of its log."""


def spawn(
    command: list[str],
    *,
    log: Path,
    cwd: Path,
    environment: Mapping[str, str],
    with_us: signal.Signals = signal.SIGTERM,
    user: Mapping[str, Any] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, its output appended to `log`.

    On Linux it gets the signal `with_us` when this process dies, however that happens. The kernel watches the
    thread that forked, so that is only asked for on the main thread, which lives as long as the process.
    """
    dies_with_us = _libc is not None and threading.current_thread() is threading.main_thread()

    def prepare() -> None:
        if dies_with_us and _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(with_us))

    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509 - one system call, nothing that takes a lock
            **(user or {}),
        )


def wait_until(
    condition: Callable[[], T], timeout_s: float = 10.0, *, what: str = "", every_s: float = 0.02
) -> T:
    """Return the first true value of `condition`; TimeoutError, naming `what`, when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what or condition}")
        time.sleep(every_s)


def free_port() -> int:
    """A TCP port of the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tail(log: Path, lines: int = 20) -> str:
    """The end of a log, for error messages."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL them all, and return once they are gone."""
    doomed = list(processes)
    for process in doomed:
        send(process, signal.SIGKILL)
    wait_until(lambda: all(is_dead(process) for process in doomed), what=f"end by SIGKILL: {doomed}")


def pause_all(processes: Iterable[psutil.Process]) -> None:
    """SIGSTOP them all, and return once they stand still."""
    paused = list(processes)
    for process in paused:
        send(process, signal.SIGSTOP)
    wait_until(
        lambda: all(is_dead(process) or _status(process) == psutil.STATUS_STOPPED for process in paused),
        what=f"stand still: {paused}",
    )


def resume_all(processes: Iterable[psutil.Process]) -> None:
    """SIGCONT."""
    for process in processes:
        send(process, signal.SIGCONT)


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal; a process that is gone needs none."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def tree(pid: int) -> list[psutil.Process]:
    """A process and all its descendants; empty when it is gone."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def is_dead(process: psutil.Process) -> bool:
    """Gone, or only waiting for a parent to notice."""
    return not process.is_running() or _status(process) in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_DEAD)
