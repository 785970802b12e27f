"""The two commands that end with a usable schema: `upgrade` and `wait`."""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy import Connection

from common import clock
from common.settings import Settings
from migrations import backup, first_run, ladder, reports
from migrations.chain import Chain
from migrations.errors import Refused, SchemaConflict, TimedOut, one_line
from migrations.guard import Guard, guard_for, process_name
from migrations.lease import TTL_S, Lease, lease_key
from migrations.outcomes import Exit, Outcome
from migrations.preflight import preflight
from migrations.state import State, look
from migrations.transactions import attempt, checkpoint
from migrations.waiting import Watch

log = logging.getLogger(__name__)


def upgrade(
    given: Settings, chain: Chain, *, since: datetime | None = None, lease_s: float = TTL_S
) -> Outcome:
    """Upgrade the database, or share the outcome of the process that does.

    One process at a time, elected by the Redis lease and made safe by the database's own guard. When there is
    nothing to do, neither is touched. What another process tried in vain after `since` is not tried again.
    """
    with Watch(given, chain, since or clock.now()) as watch:
        if (outcome := watch.outcome()) is not None:
            return outcome
        lease = Lease(given.redis_url, lease_key(given.database_url), process_name(), lease_s)
        guard = guard_for(given.database_url)
        try:
            return _in_turn(watch, lease, guard, chain, given)
        except TimedOut as error:
            return Outcome(Exit.TIMED_OUT, "timed_out", f"timed out: {error}")
        finally:
            guard.release()
            lease.release()


def wait(given: Settings, chain: Chain, *, since: datetime | None = None) -> Outcome:
    """Wait until another process has upgraded the database; never touch it."""
    with Watch(given, chain, since or clock.now()) as watch:
        try:
            outcome = watch.outcome() or watch.degraded() or watch.refused()
            while outcome is None:
                watch.wait()
                outcome = watch.outcome() or watch.degraded()
            return outcome
        except TimedOut as error:
            return Outcome(Exit.TIMED_OUT, "timed_out", f"timed out: {error}")


def _in_turn(watch: Watch, lease: Lease, guard: Guard, chain: Chain, given: Settings) -> Outcome:
    while True:
        if lease.acquire() and (connection := watch.patiently(guard.take)) is not None:
            # Somebody may have finished between our last look and our turn.
            return watch.outcome_on(connection) or _run(connection, chain, given)
        watch.wait(lease.holder())
        if (outcome := watch.outcome()) is not None:
            return outcome


def _run(connection: Connection, chain: Chain, given: Settings) -> Outcome:
    state = look(connection, chain)
    findings = preflight(connection)
    if findings.conflicts:
        return Outcome(Exit.REFUSED, reports.REFUSED, findings.refusal())
    if not state.db:
        for line in findings.differences:
            log.info("differs from ours, and may: %s", line)
    reports.ensure_tables(connection)
    report = reports.begin(connection, holder=process_name(), db=state.db, aim=chain.aim)
    checkpoint(connection)
    log.info("upgrading from %s to %s", ", ".join(state.db) or state.name, chain.aim)
    try:
        if state.name == "behind":
            back_up(connection, given, state, report)
        with attempt(connection):
            outcome = _work(connection, chain, state, report, fallback=given.enable_fallback_create)
        connection.commit()
        return outcome
    except Exception as error:
        return failed(connection, report, error)


def back_up(connection: Connection, given: Settings, state: State, report: reports.Report) -> None:
    """Make a backup of what is committed, and write down where, for others to see too."""
    reports.note_backup(connection, report, backup.before_change(connection, given, state.db))
    checkpoint(connection)


def _work(
    connection: Connection, chain: Chain, state: State, report: reports.Report, *, fallback: bool
) -> Outcome:
    broken_before = ladder.broken_references(connection)
    climbed = ladder.climb(connection, chain, state, report, fallback=fallback)
    rows_after = reports.count_rows(connection)
    reports.check_kept(report.rows_before, rows_after)
    ladder.check_references(connection, broken_before)
    lines = first_run.prepare(connection)
    verdict = reports.DEGRADED if climbed.degraded else reports.OK
    reports.end(connection, report, verdict, rung=climbed.rung, rows_after=rows_after, error=climbed.error)
    # Before the commit: a password that was shown and then lost with its row is replaced by the next run; one
    # that was committed and never shown is gone.
    for line in [reports.kept_line(report.rows_before), *lines]:
        log.info(line)
    if climbed.degraded:
        why = climbed.error or "columns are missing"
        return Outcome(Exit.DEGRADED, "degraded", f"degraded: {why}; usable, see `status`", report.id)
    return Outcome(Exit.OK, "current", f"current: {chain.aim}", report.id)


def failed(connection: Connection, report: reports.Report, error: Exception) -> Outcome:
    """Write the failure down while the guard is still ours, so that no waiter tries the same again."""
    refused = isinstance(error, (SchemaConflict, Refused))
    verdict = reports.REFUSED if refused else reports.FAILED
    line = one_line(error)
    try:
        with attempt(connection):
            reports.end(connection, report, verdict, error=line)
        connection.commit()
    except Exception as trouble:
        log.error("the failure could not be recorded: %s", one_line(trouble))
    code = Exit.REFUSED if refused else Exit.FAILED
    return Outcome(code, verdict, f"{verdict}: {line}", report.id)
