"""Which line of which revision is at work, or failed: so that SQL and errors can be traced to their author."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType


@dataclass(frozen=True)
class Place:
    """A line of a revision's file."""

    path: Path
    line: int


def place(folder: Path) -> Place | None:
    """The innermost line on this thread's stack that stands in one of the files of `folder`."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.parent == folder:
            return Place(path, frame.f_lineno)
        frame = frame.f_back
    return None


def raised_at(error: BaseException, folder: Path) -> Place | None:
    """The innermost line of one of the files of `folder` that the error came through."""
    found: Place | None = None
    trace = error.__traceback__
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        found = Place(path, trace.tb_lineno) if path.parent == folder else found
        trace = trace.tb_next
    return found
