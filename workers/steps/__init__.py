"""What a worker does with a due step: claim, call the outside world, record. One module a step."""

from common.words import Step
from workers.engine import WorkThrough
from workers.steps.deliver import deliver_due
from workers.steps.poll import poll_due
from workers.steps.reconcile import reconcile_due
from workers.steps.store import store_due
from workers.steps.submit import submit_due


def all_steps() -> dict[Step, WorkThrough]:
    """Every step with the coroutine that works through what is due of it."""
    return {
        Step.SUBMIT: submit_due,
        Step.RECONCILE: reconcile_due,
        Step.POLL: poll_due,
        Step.STORE: store_due,
        Step.DELIVER: deliver_due,
    }
