"""schemathesis asks a running API for everything that its OpenAPI document allows, and for much that it does not.

No worker runs, so that nobody calls the addresses it makes up. A hand in this process ends its jobs instead.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from sqlalchemy import select, update

from common.db import reading, transaction
from common.models import Job, WebhookDelivery
from common.words import TERMINAL, Delivery
from tests.infrastructure.environment import clean_environment
from tests.infrastructure.inside import configured
from tests.infrastructure.platform import Platform
from tests.integration.web import jobs

CREDITS = 1_000_000_000
_MORE_S = 120.0  # what may be under way when the time is over
_CONFIG = Path(__file__).with_name("schemathesis.toml")
_SETTINGS = {"RATE_LIMIT_SUBMITS": "1000000/minute", "WEB_CONCURRENCY": "2"}


class Fuzzer:
    """A web process on a released database, an administrator with credits, and what workers would do to their jobs."""

    def __init__(self, folder: Path, *, database_url: str, redis_url: str, admin_token: str) -> None:
        self._folder = folder
        self._platform = Platform(
            folder,
            database_url=database_url,
            redis_url=redis_url,
            environment={**_SETTINGS, "ADMIN_API_TOKEN": admin_token},
        )
        self._platform.admin.token = admin_token
        self.jobs_ended = 0
        self._over = threading.Event()
        self._hand = threading.Thread(target=self._end_jobs, name="hand")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._platform)
            stack.enter_context(configured(self._platform.group.environment))
            self._platform.start("web")
            admin = self._platform.admin
            grant = {"amount": CREDITS, "note": "to spend"}
            admin.post(f"/v1/admin/users/{admin.get('/v1/me')['id']}/credits", grant)
            self._hand.start()
            stack.callback(self._hand.join)
            stack.callback(self._over.set)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def _end_jobs(self) -> None:
        """Every other job succeeds, the others fail, and whatever is told is taken."""
        while not self._over.wait(0.2):
            with reading() as session:
                waiting = list(session.scalars(select(Job.id).where(Job.status.not_in(TERMINAL)).limit(100)))
            for number, job_id in enumerate(waiting):
                (jobs.succeed if number % 2 else jobs.fail)(job_id)
            self.jobs_ended += len(waiting)
            with transaction() as session:
                told = update(WebhookDelivery).where(WebhookDelivery.status == Delivery.PENDING)
                session.execute(told.values(status=Delivery.DELIVERED, response_status=204))

    def run(self, seconds: float, seed: int, *phases: str) -> str:
        """The report of what was wrong; nothing if nothing was."""
        done = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "--config-file", str(_CONFIG), "--no-color",
             "run", f"{self._platform.url}/openapi.json", "--phases", ",".join(phases),
             "--max-time", f"{seconds:g}", "--seed", str(seed)],
            cwd=self._folder,
            env=clean_environment({"FUZZ_TOKEN": self._platform.admin.token}),
            capture_output=True,
            text=True,
            timeout=seconds + _MORE_S,
            check=False,
        )  # fmt: skip
        return f"{done.stdout}{done.stderr}" if done.returncode else ""
