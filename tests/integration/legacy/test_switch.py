"""The moment of the switch on a running platform: what was under way goes on, what can still be fetched is copied."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from common.services import credits
from tests.infrastructure.databases import Released
from tests.infrastructure.platform import Platform
from tests.integration.legacy import wxiai
from tests.integration.legacy.test_import import by_legacy_id, rows
from tests.simulators.media import png
from tests.simulators.world import World

QUICK = {"POLL_INTERVAL_S": "0.3", "TICK_S": "0.5", "SWEEP_S": "1"}


def imagine(world: World) -> str:
    """Start a picture as the legacy program did; the proxy's id of it."""
    request = urllib.request.Request(
        f"{world.midjourney.url}/mj/submit/imagine",
        data=json.dumps({"prompt": "a fox"}).encode(),
        headers={"mj-api-secret": world.midjourney.account.key, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        return str(json.load(reply)["result"])


@pytest.mark.chaos
@pytest.mark.timeout(180)
def test_what_runs_goes_on_and_what_lives_is_copied(
    tmp_path: Path, released: Released, valkey_url: str
) -> None:
    url = released.sqlite(tmp_path / "webui.db")
    engine = sa.create_engine(url)
    with World() as world, Platform(tmp_path, database_url=url, redis_url=valkey_url,
                                    environment=world.environment() | QUICK) as platform:  # fmt: skip
        wxiai.build(engine, wxiai.LAYOUTS["chain"], users=5, tasks_each={})
        alive = world.media.publish("a.png", "image/png", lambda: png("a fox"))
        running = imagine(world)
        task = {"user_id": "legacy-user-0", "action": "IMAGINE", "prompt": "a fox", "credits_cost": 5,
                "created_at": wxiai.AT, "updated_at": wxiai.AT}  # fmt: skip
        layout = wxiai.LAYOUTS["chain"]
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE mj_config SET base_url = :url, api_key = :key"), {
                "url": world.midjourney.url, "key": world.midjourney.account.key})  # fmt: skip
            wxiai._insert(connection, layout, "mj_tasks", [
                {**task, "id": running, "status": "IN_PROGRESS", "image_url": None},
                {**task, "id": "1", "status": "SUCCESS", "image_url": alive},
                {**task, "id": "2", "status": "SUCCESS", "image_url": f"{world.media.url}/files/gone/b.png"},
                {**task, "id": "3", "status": "IN_PROGRESS", "image_url": None},  # the proxy has forgotten it
            ])  # fmt: skip
        assert platform.command("import-legacy", "--rehost").endswith("complete: all totals match")
        platform.start("worker", "beat")
        platform.group.wait_until(
            lambda: (
                rows(engine, "SELECT count(*) AS n FROM job_step WHERE slots > 0 OR step <> 'poll'")[0]["n"]
                == 0
                and rows(engine, "SELECT count(*) AS n FROM job_event WHERE kind = 'source_gone'")[0]["n"]
                == 1
            ),
            90,
            what="nothing is left to do but to watch what the proxy denies",
        )
        jobs = by_legacy_id(engine, "mj_tasks")
        assert {name: job["status"] for name, job in jobs.items()} == {
            running: "succeeded", "1": "succeeded", "2": "succeeded", "3": "failed",
        }  # fmt: skip
        stored = {row["job_id"]: row["key"] for row in rows(engine, "SELECT job_id, key FROM artifact")}
        assert stored.keys() == {jobs[running]["id"], jobs["1"]["id"]}
        assert all((tmp_path / "media" / key).is_file() for key in stored.values())
        (gone,) = rows(engine, "SELECT * FROM job_event WHERE kind = 'source_gone'")
        assert gone["job_id"] == jobs["2"]["id"]
        assert (jobs[running]["charged"], jobs["3"]["charged"]) == (5, 0)
        # 100 of the opening balance, and the five that came back with the task that failed
        assert rows(engine, "SELECT available, held FROM credit_account WHERE user_id = 'legacy-user-0'")[0] == {
            "available": 105, "held": 0,
        }  # fmt: skip
        with Session(engine) as session:
            assert credits.verify(session) == []
        again = platform.command("import-legacy", "--rehost")
        assert "rehost: copied: 1" in again
        assert "rehost: the source is gone: 1" in again
    engine.dispose()
