"""Databases that the original program made: what the import counts is what was counted when they were filled."""

from __future__ import annotations

import json
import lzma
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from common.settings import Settings
from migrations import runner
from migrations.chain import Chain
from tests.infrastructure.postgres import Postgres
from tests.integration.legacy.test_kills import ask
from tests.migrations.takeover.test_samples import SAMPLES, play

EXPECTED = SAMPLES / "wxiai-expected.json"
_TABLES = {"midjourney": "mj_tasks", "kling": "kling_tasks", "jimeng": "jimeng_tasks",
           "dreamwork": "dreamwork_tasks", "flux": "flux_tasks"}  # fmt: skip


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """DATABASE_URL of the sample's own kind."""
    packed = [file for file in SAMPLES.glob(f"{request.param}.*.xz")] if SAMPLES.exists() else []
    if not packed:
        pytest.skip(f"{request.param} is not in {SAMPLES}")
    with lzma.open(packed[0]) as source:
        if "sqlite" in request.param:
            with (tmp_path / "webui.db").open("wb") as target:
                shutil.copyfileobj(source, target)
            yield f"sqlite:///{tmp_path}/webui.db"
            return
        server: Postgres = request.getfixturevalue("postgres_server")
        made = server.create_database()
        with psycopg.connect(made, autocommit=True) as connection:
            play(connection.cursor(), source)
        yield made
        server.drop_database(made)


def parse(out: str) -> dict[str, dict[str, str]]:
    """The totals by table, as they were printed."""
    found: dict[str, dict[str, str]] = {}
    table = ""
    for line in out.splitlines():
        name, _, rest = line.strip().rpartition(": ") if line.startswith("  ") else line.partition(": ")
        if line.startswith("  ") and table:
            found[table][name] = rest
        elif " rows = " in rest:
            table = name
            found[table] = {"rows": rest.split()[0]}
        else:
            table = ""
    return found


def check_tasks(said: dict[str, str], expected: dict[str, Any]) -> None:
    def number(name: str) -> int:
        return int(said.get(name, "0"))

    assert number("rows") == expected["rows"]
    assert number("credits_cost") == int(expected["credits_cost_sum"])
    assert (
        number("result in the cloud") == expected["with_cloud_url"] + expected["cloud_url_in_provider_column"]
    )
    from_files = expected["cloud_url_only_in_generated_files"]
    assert number("result in the cloud, known only from generated_files") == from_files
    assert number("result only at the provider") == expected["provider_url_only"] - from_files
    assert number("without an owner") == expected["user_id_null"]
    assert number("of users who are gone") == expected["owner_missing"]


CASES = [
    "wxiai-f1-half-applied-sqlite",
    "wxiai-d-merge_heads_final-sqlite",
    "wxiai-g1-startup-fallback-postgresql",
]


@pytest.mark.chaos
@pytest.mark.parametrize("url", CASES, indirect=True)
def test_a_real_database_of_wxiai(url: str, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["url"]
    fixtures = json.loads(EXPECTED.read_text())["fixtures"]
    (expected,) = (fixture["sums"] for fixture in fixtures if fixture["name"] == name)
    given = Settings(database_url=url, redis_url="redis://127.0.0.1:1/0", migration_backup="off")
    assert runner.upgrade(given, Chain()).code == 0
    done = ask(url, "import-legacy")
    assert done.returncode == 0, done.stdout + done.stderr
    said = parse(done.stdout)
    for source, sums in expected["tasks"].items():
        check_tasks(said[_TABLES[source]], sums)
    if "credit" in expected:
        assert said["credit"]["sum of balances"] == expected["credit"]["sum"]
        assert said["credit"]["in the ledger"] == said["credit"]["granted"]
        assert said["trade_ticket"]["paid tickets"] == expected["trade_ticket"]["paid_amount"]
        assert said["redemption_code"]["unused codes"] == expected["redemption_code"]["unused_amount"]
