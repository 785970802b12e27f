"""The Celery application: queues, limits, the beat schedule, and how a process starts and stops.

Every task is a tick: it works through what is due and returns. No results, no ETA, no chains; a message lost or
doubled changes nothing.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import signal
import sys
from typing import Any

import billiard.pool
from celery import Celery
from celery.signals import (
    beat_init,
    celeryd_init,
    setup_logging,
    task_prerun,
    worker_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutting_down,
)
from kombu import Queue

from common import logs, tally
from common.db import compat, transaction
from common.gate import require_schema
from common.queue import EXPIRES_S, TICKS, broker_options
from common.services import accounts
from common.settings import settings
from common.words import Step
from workers import engine

# Children wait so many tenths of a second for a parent that no longer reads; the default makes a stop take 30 s.
billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 20

_STOP = multiprocessing.RawValue(ctypes.c_bool, False)  # shared with the children, made before they are

compat.when_left_out(tally.count_left_out)

app = Celery("wxiai", include=["workers.tasks"])
app.conf.update(
    broker_options(settings().redis_url),
    result_backend=None,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_pool_limit=2,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_acks_on_failure=True,
    task_acks_on_timeout=True,
    task_time_limit=60,
    task_soft_time_limit=45,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    task_serializer="json",
    accept_content=["json"],
    timezone="UTC",
    enable_utc=True,
    task_create_missing_queues=False,
    task_default_queue=TICKS,
    task_queues=[Queue(TICKS)],
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    worker_concurrency=2,
    worker_max_tasks_per_child=20_000,
    worker_max_memory_per_child=600_000,  # kB; leases make a recycled child harmless
    worker_eta_task_limit=100,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_redirect_stdouts=False,
    worker_hijack_root_logger=False,
    worker_detect_quorum_queues=False,
    worker_proc_alive_timeout=10,
    beat_scheduler="celery.beat:Scheduler",  # in memory: no file, and any number of beats is harmless
    beat_max_loop_interval=1,
    beat_schedule={
        **{
            f"{step}-tick": {
                "task": f"workers.{step}",
                "schedule": settings().tick_s,
                "options": {"expires": EXPIRES_S},
            }
            for step in Step
        },
        "schedules": {
            "task": "workers.schedules",
            "schedule": settings().tick_s,
            "options": {"expires": EXPIRES_S},
        },
        "delete": {
            "task": "workers.delete",
            "schedule": settings().sweep_s,
            "options": {"expires": EXPIRES_S},
        },
        "sweep": {"task": "workers.sweep", "schedule": settings().sweep_s, "options": {"expires": 30}},
        # Asked often, done once a day or when a callback does not fit.
        "keys": {"task": "workers.keys", "schedule": 60.0, "options": {"expires": 30}},
        "tidy": {"task": "workers.tidy", "schedule": 600.0, "options": {"expires": 300}},
        # Asked often, done once a day: beat keeps its schedule in memory and may itself be restarted daily.
        "ledger": {"task": "workers.verify", "schedule": 600.0, "options": {"expires": 300}},
    },
)


@setup_logging.connect
def _logs(**_: Any) -> None:
    logs.configure("beat" if "beat" in sys.argv else "worker")


@celeryd_init.connect
@beat_init.connect
def _gate(**_: Any) -> None:
    """No process starts on a schema it cannot use. SystemExit: Celery would only log any other exception."""
    require_schema()


@worker_init.connect
def _share(**_: Any) -> None:
    """Keep the collector from writing to the memory that the children share with their parent."""
    gc.freeze()


@worker_ready.connect
def _accounts(**_: Any) -> None:
    """Make the `env` accounts what this worker's settings say."""
    with transaction() as session:
        accounts.sync_env(session, settings())


@worker_shutting_down.connect
def _stop_all(**_: Any) -> None:
    _STOP.value = True


@task_prerun.connect
def _listen_for_stop(**_: Any) -> None:
    """A SIGTERM to the whole process group (Heroku) only raises the flag; the parent ends its children.

    At the first task and not at start: billiard resets the handlers after the child's start-up signal.
    """
    if signal.getsignal(signal.SIGTERM) is not _flag:
        signal.signal(signal.SIGTERM, _flag)


def _flag(*_: Any) -> None:
    _STOP.value = True


@worker_process_shutdown.connect
def _close(**_: Any) -> None:
    current = engine.running()
    if current is not None:
        current.close()


def stopping() -> bool:
    """Whether this worker was told to stop."""
    return bool(_STOP.value)
