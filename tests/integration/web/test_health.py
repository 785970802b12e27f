"""Is this process alive, can the platform take jobs, and the figures behind that, whatever is broken."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import delete, text

from common import clock
from common.db import engine, transaction
from common.ids import new_id
from common.models import ProviderAccount
from common.services import proof
from tests.infrastructure.children import wait_until
from tests.infrastructure.databases import Released
from tests.infrastructure.inside import configured
from tests.infrastructure.postgres import Postgres
from tests.infrastructure.valkey import Valkey
from tests.integration.web.api import Api
from tests.integration.web.conftest import new_user
from tests.integration.web.jobs import BODY
from web import metrics
from web.app import create_app

NO_REDIS = "redis://127.0.0.1:1/0"
Installed = Callable[..., Api]


@contextmanager
def installed(database_url: str, redis_url: str = NO_REDIS, **settings: str) -> Iterator[Flask]:
    """An application of a test's own, on what it may break."""
    with configured({"DATABASE_URL": database_url, "REDIS_URL": redis_url, "SECRET_KEY": "s", **settings}):
        yield create_app()


@pytest.fixture
def sqlite_url(released: Released, tmp_path: Path) -> str:
    """A released SQLite of a test's own."""
    return released.sqlite(tmp_path / "webui.db")


def test_all_is_well(nobody: Api) -> None:
    assert nobody.get("/healthz") == {"status": "ok"}
    answer = nobody.ask("GET", "/readyz")
    assert answer.status == 200
    head = Path("migrations/HEAD").read_text().strip()
    assert answer.json == {
        "status": "ok",
        "database": "ok",
        "redis": "ok",
        "schema": {"state": "current", "db": [head], "code": head, "missing": {}, "holder": None},
    }


def test_without_redis_jobs_are_still_accepted(sqlite_url: str) -> None:
    with Valkey() as valkey, installed(sqlite_url, valkey.url) as app:
        nobody = Api(app=app)
        assert nobody.get("/readyz")["status"] == "ok"
        for trouble, cure in ((valkey.pause, valkey.resume), (valkey.kill9, valkey.start)):
            trouble()
            answer = nobody.ask("GET", "/readyz")
            assert (answer.status, answer.json["status"], answer.json["redis"]) == (
                200,
                "degraded",
                "unavailable",
            )
            assert answer.took_s < 2
            assert new_user(app=app).ask("POST", "/v1/jobs", BODY).took_s < 0.5
            cure()
            wait_until(lambda: nobody.get("/readyz")["status"] == "ok", 5)


def test_without_a_database_nothing_is_accepted_until_it_is_back(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(Postgres())
        app = stack.enter_context(installed(Released(tmp_path, lambda: server).postgresql()))
        nobody, user = Api(app=app), new_user(app=app)
        assert user.ask("POST", "/v1/jobs", BODY).status == 202
        server.kill9()
        assert nobody.ask("GET", "/healthz").status == 200
        refused = user.ask("POST", "/v1/jobs", BODY)
        assert (refused.status, refused.json["error"]["code"]) == (503, "unavailable")
        wait_until(lambda: nobody.ask("GET", "/readyz").status == 503, 5, what="the cached look is old")
        gone = nobody.ask("GET", "/readyz")
        assert (gone.json["status"], gone.json["database"]) == ("unavailable", "unavailable")
        assert gone.json["schema"]["state"] == "unknown"
        assert b"wxiai_database_up 0.0" in scrape(nobody)
        server.start()
        wait_until(lambda: nobody.ask("GET", "/readyz").status == 200, 10)
        assert user.ask("POST", "/v1/jobs", BODY).status == 202
        assert len(user.get("/v1/jobs")["data"]) == 2


@pytest.mark.parametrize(
    ("change", "status", "state", "missing"),
    [
        ("ALTER TABLE job DROP COLUMN preview_url", "degraded", "current", {"job": ["preview_url"]}),
        ("DROP TABLE app_setting", "unavailable", "current", {"app_setting": ["key", "value", "updated_at"]}),
        ("UPDATE wxiai_alembic_version SET version_num = 'feedc0ffee00'", "unavailable", "foreign", {}),
    ],
)  # fmt: skip
def test_another_schema(sqlite_url: str, change: str, status: str, state: str, missing: object) -> None:
    with installed(sqlite_url) as app:
        with engine().begin() as connection:
            connection.execute(text(change))
        answer = Api(app=app).ask("GET", "/readyz")
        assert (answer.json["status"], answer.status) == (status, 503 if status == "unavailable" else 200)
        assert (answer.json["schema"]["state"], answer.json["schema"]["missing"]) == (state, missing)


def test_a_lost_sqlite_file_is_no_place_for_jobs(tmp_path: Path) -> None:
    with installed(f"sqlite:///{tmp_path}/nothing.db") as app:
        answer = Api(app=app).ask("GET", "/readyz")
        assert (answer.status, answer.json["schema"]["state"]) == (503, "empty")


# ---------------------------------------------------------------- figures


def scrape(nobody: Api) -> bytes:
    """The figures of now."""
    for cached in (metrics._schema, metrics._figures, metrics._totals):
        cached._asked_at = float("-inf")
    answer = nobody.ask("GET", "/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, metrics.CONTENT_TYPE)
    return answer.body


def value(exposition: bytes, series: str) -> float:
    """The value of one series; 0 where it is not there yet."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", exposition.decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_requests_are_counted_by_route_and_status(user: Api, nobody: Api) -> None:
    series = [
        'wxiai_http_requests_total{method="GET",route="/v1/jobs/<job_id>",status="404"}',
        'wxiai_http_requests_total{method="GET",route="unmatched",status="404"}',
        'wxiai_http_requests_total{method="OTHER",route="unmatched",status="405"}',
        'wxiai_http_request_duration_seconds_count{method="GET",route="/v1/jobs/<job_id>"}',
    ]
    before = scrape(nobody)
    for path in ("/v1/jobs/one", "/v1/jobs/two"):
        user.ask("GET", path)
    user.ask("GET", "/somewhere/unheard/of")
    user.ask("BREW", "/v1/jobs")
    after = scrape(nobody)
    assert [value(after, name) - value(before, name) for name in series] == [2, 1, 1, 2]
    assert b"unheard" not in after


def test_a_callbacks_token_is_in_no_figure(nobody: Api) -> None:
    nobody.ask("POST", "/callbacks/cbt_secret")
    assert b"cbt_secret" not in scrape(nobody)


def test_the_work_is_counted(user: Api, nobody: Api) -> None:
    before = scrape(nobody)
    user.post("/v1/jobs", BODY)
    after = scrape(nobody)
    series = 'wxiai_steps{step="submit"}'
    assert value(after, series) - value(before, series) == 1
    assert value(after, "wxiai_database_up") == 1


def test_an_account_that_is_out_of_work_is_told_with_its_reason(nobody: Api) -> None:
    moment = clock.now()
    with transaction() as session:
        session.add(
            ProviderAccount(
                id=new_id("acc"), provider="flux", adapter="bfl", name="bfl:spent", base_url="https://example.com",
                credentials="", enabled=True, weight=1, max_concurrency=1, failures=1, trouble="balance",
                open_until=clock.epoch() + 300, created_at=moment, updated_at=moment,
            )
        )  # fmt: skip
    series = 'provider_account_paused{account="bfl:spent",trouble="balance"}'
    assert value(scrape(nobody), series) == 1
    with transaction() as session:
        session.execute(delete(ProviderAccount).where(ProviderAccount.name == "bfl:spent"))


def test_scraping_often_does_not_ask_often(user: Api, nobody: Api) -> None:
    before = scrape(nobody)
    user.post("/v1/jobs", BODY)
    again = nobody.ask("GET", "/metrics").body
    series = 'wxiai_steps{step="submit"}'
    assert value(again, series) == value(before, series)


def test_what_the_doctor_sees_is_scraped(nobody: Api) -> None:
    shown = scrape(nobody)
    assert value(shown, 'wxiai_schema_state{state="current"}') == 1
    assert b"wxiai_jobs_submit_unknown_total 0.0" in shown
    for series in (
        "wxiai_credits_unsettled",
        "wxiai_slots_leaked",
        "wxiai_jobs_stuck",
        "wxiai_jobs_past_deadline",
    ):
        assert f"{series} 0.0".encode() in shown
    assert b"wxiai_ledger_findings" not in shown  # until the first daily proof


def test_the_daily_proof_is_scraped(nobody: Api) -> None:
    with transaction() as session:
        assert proof.claim(session)
        proof.record(session, ["user u: wrong"])
    shown = scrape(nobody)
    assert value(shown, "wxiai_ledger_findings") == 1
    assert value(shown, "wxiai_ledger_verified_timestamp_seconds") > 1.7e9
