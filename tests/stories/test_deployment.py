"""As a host runs it: its URLs, its port, and SIGTERM to every process at any moment."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil

from tests.infrastructure.children import send
from tests.infrastructure.platform import Platform
from tests.infrastructure.postgres import Postgres
from tests.infrastructure.tls import TlsFront
from tests.infrastructure.valkey import Valkey
from tests.simulators.world import World
from tests.stories.conftest import QUICK, Installation

DRAIN_S = 10.0


def test_the_urls_that_heroku_gives(tmp_path: Path, valkey_server: Valkey, postgres_server: Postgres) -> None:
    database = postgres_server.create_database()
    with TlsFront(tmp_path, valkey_server.port) as tls, World() as world:
        platform = Platform(
            tmp_path,
            database_url=database.replace("postgresql://", "postgres://"),
            redis_url=f"rediss://:@127.0.0.1:{tls.port}",
            environment={**QUICK, **world.environment()},
        )
        with platform:
            platform.release()
            platform.start()
            user = platform.user()
            assert user.get("/readyz")["status"] == "ok"
            assert user.ended(user.submit("flux/pro-1.1")["id"])["status"] == "succeeded"
            assert tls.connections > 0
    postgres_server.drop_database(database)


def test_sigterm_drains_in_time_and_loses_nothing(installation: Installation) -> None:
    platform, world = installation.platform, installation.world
    user = installation.user()
    prompts = [f"drained {number} [run=2]" for number in range(12)]
    models = ("jimeng/text-to-image", "kling/text-to-video", "flux/pro-1.1")
    ids = [user.submit(models[number % 3], prompt)["id"] for number, prompt in enumerate(prompts)]
    user.until(ids[0], lambda job: job["status"] not in ("queued", "submitting"))

    began = time.monotonic()
    for process in platform.group.processes:
        for member in process.tree():  # as Heroku does: to every process, not only to the parents
            send(psutil.Process(member.pid), signal.SIGTERM)
    platform.group.stop(DRAIN_S)
    assert time.monotonic() - began < DRAIN_S
    platform.group.assert_nothing_left()

    platform.start()
    jobs = [user.ended(job_id, 60) for job_id in ids]
    assert [job["status"] for job in jobs] == ["succeeded"] * len(jobs), [job["error"] for job in jobs]
    assert {world.submits(prompt) for prompt in prompts} == {1}
