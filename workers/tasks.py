"""The tasks: ticks, whose work is in `workers.steps`, and the operator's upgrade."""

from __future__ import annotations

import asyncio
import logging

from common.db import reading, transaction
from common.gate import DEGRADED, run_migrations
from common.services import callbacks, credits, daily, deletions, proof, schedules
from common.services import sweep as sweeping
from common.words import Step
from workers import engine
from workers.app import app, stopping
from workers.steps import all_flows, keys, removal

log = logging.getLogger(__name__)

_UPGRADE_S = 6 * 3600  # every statement of an upgrade has its own limit; this one only ends what hangs
_MOST_ROUNDS = 50  # of one part of a sweep; the next sweep is near
TIDIED = "storage_tidied"  # under which it is remembered when that was done last
_MOST_RUNS = 200  # of schedules in one tick
_LOGGED = 20


def _tick(step: Step) -> None:
    if stopping():
        return
    engine.engine(all_flows, stopping).tick(step)


@app.task(name="workers.submit")
def submit() -> None:
    """Give waiting jobs to providers."""
    _tick(Step.SUBMIT)


@app.task(name="workers.reconcile")
def reconcile() -> None:
    """Look for submits whose answer was lost."""
    _tick(Step.RECONCILE)


@app.task(name="workers.poll")
def poll() -> None:
    """Look at running generations."""
    _tick(Step.POLL)


@app.task(name="workers.store")
def store() -> None:
    """Copy finished results into the operator's storage."""
    _tick(Step.STORE)


@app.task(name="workers.deliver")
def deliver() -> None:
    """Send what the outbox owes."""
    _tick(Step.DELIVER)


@app.task(name="workers.schedules")
def run_schedules() -> None:
    """Submit the jobs whose time has come."""
    with reading() as session:
        more = schedules.any_due(session)
    for _ in range(_MOST_RUNS):
        if not more or stopping():
            break
        with transaction() as session:
            more = schedules.run_one(session)


@app.task(name="workers.delete")
def remove_objects() -> None:
    """Remove from the storage what nothing needs any more."""
    with reading() as session:
        more = deletions.any_due(session)
    for _ in range(_MOST_ROUNDS):
        if not more or stopping():
            break
        more = removal.remove_some()


@app.task(name="workers.tidy", soft_time_limit=1500, time_limit=1800)
def tidy() -> None:
    """Remove what killed processes have left behind, once a day however often this is called."""
    with transaction() as session:
        if not daily.claim(session, TIDIED):
            return
    found = {"orphans": removal.forget_orphans(removal.lately(), stopping), "half_written": removal.sweep()}
    with transaction() as session:
        daily.finished(session, TIDIED, found)
    log.info("tidied: %d half-written files, %d orphans", found["half_written"], found["orphans"])


@app.task(name="workers.sweep")
def sweep() -> None:
    """Decide what nobody came back for, and forget what is over."""
    for part in sweeping.PARTS:
        try:
            for _ in range(_MOST_ROUNDS):
                with transaction() as session:
                    more = part(session)
                if not more or stopping():
                    break
        except Exception:
            log.exception("a part of the sweep failed; the next one makes up for it")


@app.task(name="workers.verify", soft_time_limit=240, time_limit=270)
def verify() -> None:
    """Prove that every credit is accounted for, once a day however often this is called."""
    with transaction() as session:
        if not proof.claim(session):
            return
    with reading() as session:
        findings = credits.verify(session)
    with transaction() as session:
        proof.record(session, findings)
    for line in findings[:_LOGGED]:
        log.error("ledger: %s", line)
    if findings:
        log.error("ledger: %d contradictions; `flask --app web.app ledger verify` lists them", len(findings))
    else:
        log.info("ledger: every credit is accounted for")


@app.task(name="workers.keys")
def renew_keys() -> None:
    """Keep the keys at hand that providers sign their callbacks with."""
    with reading() as session:
        key_sets = callbacks.key_sets(session)
    if key_sets and not stopping():
        asyncio.run(keys.renew(key_sets))


class UpgradeFailed(Exception):
    """`python -m migrations upgrade` ended with an exit code that is not good enough to serve."""


# Acknowledged when it begins: an upgrade may take longer than the broker waits before it hands a message on.
@app.task(name="migrations.upgrade", acks_late=False, time_limit=_UPGRADE_S, soft_time_limit=_UPGRADE_S - 60)
def upgrade() -> None:
    """Upgrade the database, for operators who trigger it so: `celery -A workers.app call migrations.upgrade`.

    The same command under the same lock as everywhere; `python -m migrations status` shows how it ended.
    Raises UpgradeFailed.
    """
    code = run_migrations("upgrade")
    if code not in (0, DEGRADED):
        raise UpgradeFailed(f"exit code {code}")
    log.info("the upgrade ended with exit code %d", code)
