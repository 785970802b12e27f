"""The tasks: ticks, nothing else. What they do is in `workers.steps`."""

from __future__ import annotations

from common.db import transaction
from common.services import sweep as sweeping
from common.words import Step
from workers import engine
from workers.app import app, stopping
from workers.steps import all_flows


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


@app.task(name="workers.sweep")
def sweep() -> None:
    """Decide what nobody came back for, and forget what is over."""
    with transaction() as session:
        sweeping.sweep(session)
