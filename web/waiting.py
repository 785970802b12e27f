"""How long an answer is held that is to wait for something, and what ends every wait."""

from __future__ import annotations

import re
from threading import Event

from flask import request

LONGEST_S = 60
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:$|[,;])", re.IGNORECASE)

stopping = Event()  # set when this process is told to stop: nobody is kept waiting then


def preferred_wait_s() -> int:
    """What `Prefer: wait=N` asks for, at most 60; 0 without it. What cannot be understood is ignored (RFC 7240)."""
    match = _WAIT.search(",".join(request.headers.getlist("Prefer")))
    return min(int(match[1]), LONGEST_S) if match else 0
