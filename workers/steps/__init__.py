"""What a worker does with a due step: claim, call the outside world, record. One module a step."""

from workers.flow import AnyFlow
from workers.steps.deliver import Deliver
from workers.steps.poll import Poll
from workers.steps.reconcile import Reconcile
from workers.steps.store import Store
from workers.steps.submit import Submit


def all_flows() -> list[AnyFlow]:
    """One flow a step, for one process."""
    return [Submit(), Reconcile(), Poll(), Store(), Deliver()]
