"""Columns vanish under a running platform and come back: nobody sees it but who needs a column that must be there."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from common.db import build_engine
from tests.infrastructure.children import wait_until
from tests.infrastructure.client import Client
from tests.infrastructure.databases import Released
from tests.infrastructure.platform import Platform
from tests.infrastructure.postgres import Postgres
from tests.infrastructure.valkey import Valkey
from tests.simulators.world import World
from tests.stories.conftest import QUICK, Installation

HEALED_S = 30.0
MODEL = "flux/schnell"
BEARABLE = {"job": {"preview_url": "TEXT"}, "artifact": {"url": "TEXT"}}
REQUIRED = {"job_step": {"pinned_account_id": "VARCHAR(32)"}, "api_token": {"expires_at": "TIMESTAMP"}}


@pytest.fixture(params=[pytest.param("small", marks=pytest.mark.chaos), "large"])
def installation(
    request: pytest.FixtureRequest,
    released: Released,
    postgres_server: Postgres,
    valkey_url: str,
    valkey_server: Valkey,
    tmp_path: Path,
) -> Iterator[Installation]:
    """With one web process, on SQLite or on PostgreSQL."""
    large = request.param == "large"
    url = released.postgresql() if large else released.sqlite(tmp_path / "webui.db")
    with World(at_once=24) as world:
        environment = (
            QUICK | world.environment(storage="cos" if large else "local") | {"WEB_CONCURRENCY": "1"}
        )
        with Platform(tmp_path, database_url=url, redis_url=valkey_url, environment=environment) as platform:
            platform.admin.token = released.admin_token
            platform.start()
            yield Installation(request.param, platform, world, valkey_server)
    if large:
        postgres_server.drop_database(url)


@pytest.fixture
def engine(installation: Installation) -> Iterator[Engine]:
    made = build_engine(installation.platform.group.environment["DATABASE_URL"])
    yield made
    made.dispose()


class Users:
    """They ask for everything, again and again, and remember what they were answered."""

    def __init__(self, client: Client) -> None:
        self.seen: list[tuple[str, int, str]] = []
        self.accepted: dict[str, str] = {}
        self.tokens = 0
        self._client, self._stop = client, threading.Event()
        calls = (self._submit, self._list, self._credits, self._show, self._token)
        self._threads = [threading.Thread(target=self._ask, args=(call,), daemon=True) for call in calls]

    def __enter__(self) -> Users:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)

    def _ask(self, call: Callable[[], None]) -> None:
        while not self._stop.wait(0.05):
            call()

    def _note(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
        answer = self._client.ask(method, path, body)
        self.seen.append((f"{method} {path.partition('?')[0]}", answer.status, answer.body.decode()[:300]))
        return answer.status, answer.json

    def _submit(self) -> None:
        prompt = f"number {len(self.seen)} {time.monotonic_ns()}"
        status, body = self._note("POST", "/v1/jobs", {"model": MODEL, "input": {"prompt": prompt}})
        if status == 202:
            self.accepted[str(body["id"])] = prompt

    def _list(self) -> None:
        self._note("GET", "/v1/jobs?limit=5")

    def _credits(self) -> None:
        self._note("GET", "/v1/credits")

    def _show(self) -> None:
        for job_id in list(self.accepted)[-1:]:
            self._note("GET", f"/v1/jobs/{job_id}")

    def _token(self) -> None:
        status, _ = self._note("POST", "/v1/tokens", {"name": "another"})
        self.tokens += status == 201

    def go_on(self, answers: int = 25) -> None:
        """Until so many more were answered."""
        before = len(self.seen)
        wait_until(lambda: len(self.seen) >= before + answers, 30, what="answers")


def alter(engine: Engine, columns: dict[str, dict[str, str]], *, add: bool) -> None:
    for table, names in columns.items():
        for name, type_ in names.items():
            what = f"ADD COLUMN {name} {type_}" if add else f"DROP COLUMN {name}"
            with engine.begin() as connection:
                connection.exec_driver_sql(f"ALTER TABLE {table} {what}")


def _left_out(client: Client, table: str, column: str) -> float:
    """What /metrics says was written without this column."""
    shown = client.ask("GET", "/metrics").body.decode()
    line = re.search(
        rf'^schema_compat_dropped_total{{column="{column}",table="{table}"}} (\S+)$', shown, re.M
    )
    return float(line[1]) if line else 0.0


@pytest.mark.slow
def test_columns_come_and_go(installation: Installation, engine: Engine) -> None:
    user = installation.user(credits=1_000_000)
    with Users(user) as users:
        users.go_on()
        alter(engine, BEARABLE, add=False)
        users.go_on(60)
        missing = {table: list(names) for table, names in BEARABLE.items()}
        wait_until(lambda: user.get("/readyz")["schema"]["missing"] == missing, 10, what="it is told")
        assert user.get("/readyz")["status"] == "degraded"
        first = next(iter(users.accepted))
        assert user.ended(first)["status"] == "succeeded"
        calm = len(users.seen)
        # Only workers write this column: what they leave out is counted where web shows it.
        wait_until(lambda: _left_out(user, "artifact", "url") > 0, 10, what="what workers leave out is shown")

        alter(engine, REQUIRED, add=False)
        users.go_on(60)
        alter(engine, BEARABLE, add=True)
        alter(engine, REQUIRED, add=True)
        back_at, tokens = time.monotonic(), users.tokens
        accepted = len(users.accepted)
        wait_until(lambda: users.tokens > tokens, HEALED_S, what="tokens are made again")
        wait_until(lambda: len(users.accepted) > accepted, HEALED_S, what="jobs are accepted again")
        healed_s = time.monotonic() - back_at
        users.go_on(25)
        last = list(users.accepted)[-1]

    assert healed_s < HEALED_S
    trouble = [(call, status, body) for call, status, body in users.seen if status >= 500]
    refused = {("POST /v1/tokens", 503), ("POST /v1/jobs", 503)}
    assert {(call, status) for call, status, _ in trouble} == refused, trouble[:5]
    assert [call for call in users.seen[:calm] if call[1] >= 500] == []
    assert all('"code": "unavailable"' in body or '"code":"unavailable"' in body for *_, body in trouble)
    for job_id, prompt in users.accepted.items():
        assert user.ended(job_id, 60)["status"] == "succeeded", job_id
        assert installation.world.submits(prompt) == 1
    assert user.job(last)["artifacts"][0]["url"]
    assert installation.platform.command("ledger", "verify") == ""
    wait_until(lambda: user.get("/readyz")["schema"]["missing"] == {}, 10, what="nothing is missing")
