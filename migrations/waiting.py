"""Watching a database that somebody else may be upgrading."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from common import clock
from common.db import schema
from common.settings import Settings
from migrations import reports
from migrations.chain import Chain
from migrations.errors import TimedOut, is_busy, one_line
from migrations.guard import pause
from migrations.outcomes import Exit, Outcome, settled, shared
from migrations.preflight import preflight
from migrations.state import look

log = logging.getLogger(__name__)

_TELL_EVERY_S = 5.0


def process_started() -> datetime:
    """When this process began, imports included: whoever fails after that, fails for us too."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        uptime_s = float(Path("/proc/uptime").read_text().split()[0])
        age_s = uptime_s - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        age_s = 0.0
    return clock.now() - timedelta(seconds=max(age_s, 0.0))


class Watch:
    """Looks at the database again and again; out of patience when nobody shows life for MIGRATION_TIMEOUT."""

    def __init__(self, given: Settings, chain: Chain, since: datetime) -> None:
        self._engine = schema.probe(given.database_url)
        self._chain, self._since, self._patience_s = chain, since, given.migration_timeout
        self._began = self._alive = time.monotonic()
        self._told = float("-inf")
        self._trouble = "nobody is upgrading it"

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    def outcome(self) -> Outcome | None:
        """How it ended, if it did. A database that cannot be asked is no news."""
        try:
            with self._engine.connect() as connection:
                if (outcome := self.outcome_on(connection)) is None:
                    self._note_life(connection)
                return outcome
        except OperationalError as error:
            if self._engine.dialect.name == "sqlite" and not is_busy(error):
                raise
            self._trouble = one_line(error)
            return None

    def outcome_on(self, connection: Connection) -> Outcome | None:
        """`outcome`, asked over the guarded connection."""
        return settled(look(connection, self._chain), self._chain) or self._shared(connection)

    def degraded(self) -> Outcome | None:
        """The outcome for those who may not upgrade: a degraded schema will not become better by waiting."""
        with suppress(OperationalError), self._engine.connect() as connection:
            found = reports.last(connection)
            if found and found[0].verdict == reports.DEGRADED:
                return shared(found[0], self._chain, None)
        return None

    def refused(self) -> Outcome | None:
        """The outcome for those who may not upgrade a database that every upgrade refuses."""
        with suppress(OperationalError), self._engine.connect() as connection:
            if conflicts := preflight(connection).conflicts:
                return Outcome(Exit.REFUSED, reports.REFUSED, f"refused: {'; '.join(conflicts)}")
        return None

    def patiently(self, take: Callable[[], Connection | None]) -> Connection | None:
        """`take()`; a database that does not answer is as good as one that somebody else has."""
        try:
            return take()
        except OperationalError as error:
            if self._engine.dialect.name == "sqlite":
                raise
            self._trouble = one_line(error)
            return None

    def _shared(self, connection: Connection) -> Outcome | None:
        found = reports.last(connection)
        return shared(found[0], self._chain, self._since) if found else None

    def _note_life(self, connection: Connection) -> None:
        holder = schema.holder(connection)
        if holder is not None:
            self._alive = max(self._alive, time.monotonic() - holder.silent_s)
            self._trouble = f"{holder.name} is upgrading it"
            self._tell(holder.name)

    def _tell(self, holder: str) -> None:
        now = time.monotonic()
        if now - self._told >= _TELL_EVERY_S:
            self._told = now
            log.info("waiting for %s, which upgrades the schema (%.0f s)", holder, now - self._began)

    def wait(self, lease_holder: str | None = None) -> None:
        """Sleep a moment. Raises TimedOut once nobody has shown life for too long."""
        silent_s = time.monotonic() - self._alive
        if silent_s > self._patience_s:
            others = f", {lease_holder} has the lease" if lease_holder else ""
            why = f"{self._trouble}{others}"
            raise TimedOut(f"the schema is not current, no sign of life for {silent_s:.0f} s: {why}")
        if lease_holder:
            self._tell(lease_holder)
        pause()
