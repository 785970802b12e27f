"""The yardstick of `throughput`: three tasks that do nothing, chained, as a plain Celery application has them.

Its messages are acknowledged when the work is done, as the platform's are: none would survive a crash otherwise.
"""

from __future__ import annotations

import os
import sys

from celery import Celery, chain

app = Celery("chain", broker=os.environ.get("REDIS_URL"))
app.conf.update(
    task_ignore_result=True, task_acks_late=True, worker_concurrency=2, task_default_queue="chain",
    broker_connection_retry_on_startup=True,
)  # fmt: skip


@app.task(name="chain.submit")
def submit() -> None:
    """Nothing."""


@app.task(name="chain.poll")
def poll() -> None:
    """Nothing."""


@app.task(name="chain.store")
def store() -> None:
    """Nothing."""


def send(count: int) -> None:
    """Start so many chains."""
    for _ in range(count):
        chain(submit.si(), poll.si(), store.si()).apply_async()


if __name__ == "__main__":
    send(int(sys.argv[1]))
