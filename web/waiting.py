"""Holding an answer until a job is finished, without holding a transaction."""

from __future__ import annotations

import re
import time
from threading import Event

from flask import request
from sqlalchemy.exc import SQLAlchemyError

from common.db import reading
from common.services import jobs
from common.words import TERMINAL

LONGEST_S = 60
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:$|[,;])", re.IGNORECASE)

stopping = Event()  # set when this process is told to stop: nobody is kept waiting then


def preferred_wait_s() -> int:
    """What `Prefer: wait=N` asks for, at most 60; 0 without it. What cannot be understood is ignored (RFC 7240)."""
    match = _WAIT.search(",".join(request.headers.getlist("Prefer")))
    return min(int(match[1]), LONGEST_S) if match else 0


def until_finished(job_id: str, wait_s: float) -> bool:
    """Wait at most so long for the job to be finished; whether it is. A database that is gone ends the wait."""
    end = time.monotonic() + wait_s
    pause_s = _SHORTEST_PAUSE_S
    while not stopping.is_set():
        left_s = end - time.monotonic()
        if left_s <= 0:
            break
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.3, _LONGEST_PAUSE_S)
        try:
            with reading() as session:
                if jobs.status_of(session, job_id) in TERMINAL:
                    return True
        except SQLAlchemyError:
            break
    return False
