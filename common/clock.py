"""The only place that reads the time."""

import time
from datetime import UTC, datetime

_LAST_SECOND = 253_402_300_799  # of the year 9999, behind which no calendar goes


def now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)


def epoch() -> float:
    """The present moment in seconds since 1970: what schedules and leases are written in."""
    return time.time()


def iso(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC with milliseconds and `Z`, as every answer of the API has it."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_epoch(seconds: float) -> str:
    """`iso` for a moment kept in seconds (Open WebUI's tables, where it may be any number)."""
    return str(iso(datetime.fromtimestamp(min(max(seconds, 0), _LAST_SECOND), UTC)))
