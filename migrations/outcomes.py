"""How a command ended: an exit code, a word, and one line for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any

from sqlalchemy import Row

from common.db import schema
from migrations import reports
from migrations.chain import Chain
from migrations.state import State


class Exit(IntEnum):
    """Exit codes of `upgrade` and `wait`."""

    OK = 0
    FAILED = 1
    TIMED_OUT = 3
    DEGRADED = 4
    REFUSED = 5


@dataclass(frozen=True)
class Outcome:
    """`state` is the word for machines, `line` the sentence for people."""

    code: Exit
    state: str
    line: str
    report: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "code": int(self.code)}


_SHARED = {
    reports.FAILED: (Exit.FAILED, "failed"),
    reports.REFUSED: (Exit.REFUSED, "refused"),
    reports.DEGRADED: (Exit.DEGRADED, "degraded"),
}


def settled(state: State, chain: Chain) -> Outcome | None:
    """The outcome that follows from the state alone; None if there is something to do."""
    if state.is_ready:
        return Outcome(Exit.OK, "current", f"current: {chain.aim}")
    if state.name == "ahead":
        there = ", ".join(state.db)
        return Outcome(
            Exit.OK, "ahead", f"ahead: the database is at {there}, this code at {chain.aim}; it is served"
        )
    if state.name == "foreign":
        what = f"the revision {', '.join(state.db)}" if state.db else f"the shape of {schema.VERSION_TABLE}"
        line = f"refused: nobody knows {what}; see `python -m migrations repair`"
        return Outcome(Exit.REFUSED, "foreign", line)
    return None


def shared(report: Row[Any], chain: Chain, since: datetime | None) -> Outcome | None:
    """The outcome of another process's run that ended after `since`: it is ours too, nothing is tried twice."""
    if report.to_revision != chain.aim or report.verdict not in _SHARED:
        return None
    if since is not None and not reports.is_since(report, since):
        return None
    code, word = _SHARED[report.verdict]
    return Outcome(code, word, f"{word} in {report.holder}: {report.error}", report.id)
