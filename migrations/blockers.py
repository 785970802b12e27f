"""Who is in the way on PostgreSQL: which session has the lock that another one waits for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import Connection, text

_HEAD = 80
_BLOCKERS = text(
    "SELECT pid, application_name, state, query,"
    " extract(epoch FROM clock_timestamp() - coalesce(xact_start, state_change, backend_start))"
    " FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids(:pid))"
)
# Where a value may begin: a quoted string, plain or dollar-quoted, or a comment.
_VALUE = re.compile(r"""'|\$\w*\$|--|/\*""")


@dataclass(frozen=True)
class Blocker:
    """A session that holds what another one waits for; `query` is the beginning of its last one, without values."""

    pid: int
    application: str
    state: str
    seconds: float
    query: str

    def __str__(self) -> str:
        who = f"process {self.pid} of the database ({self.application or 'no name'})"
        return f"{who}, {self.state} for {self.seconds:.0f} s: {self.query}"


def blockers(connection: Connection, pid: int) -> list[Blocker]:
    """The sessions that the session `pid` is waiting for; none if it is not waiting."""
    return [
        Blocker(row[0], row[1] or "", row[2] or "unknown", float(row[4] or 0), head(row[3] or ""))
        for row in connection.execute(_BLOCKERS, {"pid": pid})
    ]


def head(query: str) -> str:
    """The beginning of a query for a log: it ends before the first value, and numbers are not shown."""
    value = _VALUE.search(query)
    shown = query[: value.start()] if value else query
    words = re.sub(r"(?<![\w$])\d[\w.]*", "?", " ".join(shown.split()))
    return words[:_HEAD] + ("…" if value or len(words) > _HEAD else "")
