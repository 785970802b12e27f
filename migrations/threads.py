"""A thread that calls something again and again, for leases and pulses."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Repeating:
    """Calls `call` every `seconds` until stopped, or until it answers False."""

    def __init__(self, seconds: float, call: Callable[[], bool]) -> None:
        self._seconds, self._call = seconds, call
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            if not self._call():
                return

    def stop(self) -> None:
        """Returns when a call that was under way has ended, or after two seconds."""
        self._stopped.set()
        self._thread.join(timeout=2)
