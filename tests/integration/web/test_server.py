"""What two web processes can get wrong that one cannot, and what a broken broker can do to them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.ids import new_id
from tests.infrastructure.valkey import Valkey
from tests.integration.web.api import Api
from tests.integration.web.conftest import new_user
from tests.integration.web.jobs import BODY, PRICE, jobs_of
from tests.integration.web.serving import serving
from tests.simulators.media import png

pytestmark = pytest.mark.xdist_group("web-server")  # they share the processes


@pytest.fixture(scope="module")
def broker() -> Iterator[Valkey]:
    """A Valkey that may be broken."""
    with Valkey() as server:
        yield server


@pytest.fixture(scope="module")
def url(released_url: str, broker: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the API is served."""
    with serving(tmp_path_factory.mktemp("web"), released_url, broker.url) as (address, _):
        yield address


@pytest.fixture
def user(url: str) -> Api:
    return new_user(url=url)


# ---------------------------------------------------------------- two workers


def test_duplicates_at_both_workers_make_one_job(user: Api) -> None:
    require_one_job(user, {"Idempotency-Key": new_id("key")})


def test_an_sdk_that_asks_again_before_it_was_heard_makes_one_job(user: Api) -> None:
    require_one_job(user, {"x-stainless-retry-count": "1"})


def test_equal_calls_of_an_sdk_at_both_workers_get_a_job_each(user: Api) -> None:
    def tries(number: int) -> list[str]:
        header = {"x-stainless-retry-count": str(number)}
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: user.ask("POST", "/v1/jobs", BODY, header), range(12)))
        assert {answer.status for answer in answers} == {202}
        return sorted(answer.json["id"] for answer in answers)

    made = tries(0)
    assert len(set(made)) == 12
    assert tries(1) == tries(2) == made
    assert user.credits() == (1000 - 12 * PRICE, 12 * PRICE)


def require_one_job(user: Api, key: dict[str, str]) -> None:
    """However often it is asked for at once."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: user.ask("POST", "/v1/jobs", BODY, key), range(32)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert len(jobs_of(user)) == 1
    assert user.credits() == (1000 - PRICE, PRICE)


def test_nobody_spends_more_than_they_have(url: str) -> None:
    poor = new_user(5 * PRICE, url=url)
    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(lambda _: poor.ask("POST", "/v1/jobs", BODY).status, range(20)))
    assert (statuses.count(202), statuses.count(402)) == (5, 15)
    assert poor.credits() == (0, 5 * PRICE)


def test_the_same_file_at_both_workers_is_kept_once(user: Api) -> None:
    picture = png(user.user_id)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: user.ask("POST", "/v1/uploads", picture), range(16)))
    assert {answer.status for answer in answers} <= {200, 201}
    assert len({answer.json["id"] for answer in answers}) == len(user.get("/v1/uploads")["data"]) == 1


def test_figures_of_all_workers_are_added_up(user: Api) -> None:
    pattern = r'wxiai_http_requests_total\{method="GET",route="/v1/credits",status="200"\} (\S+)'

    def count() -> float:
        found = re.search(pattern, user.ask("GET", "/metrics").body.decode())
        return float(found[1]) if found else 0.0

    before = count()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: user.ask("GET", "/v1/credits"), range(24)))
    assert count() - before == 24


# ---------------------------------------------------------------- without Redis


@pytest.mark.parametrize("trouble", ["paused", "killed"])
def test_a_job_is_accepted_at_once_without_redis(user: Api, broker: Valkey, trouble: str) -> None:
    break_it, mend_it = (broker.pause, broker.resume) if trouble == "paused" else (broker.kill9, broker.start)
    user.ask("POST", "/v1/jobs", BODY)  # with a connection to the broker that is about to break
    time.sleep(0.2)
    break_it()
    try:
        answers = [user.ask("POST", "/v1/jobs", BODY) for _ in range(6)]
        ready = user.ask("GET", "/readyz")
    finally:
        mend_it()
    assert {answer.status for answer in answers} == {202}
    assert max(answer.took_s for answer in answers) < 1
    assert (ready.status, ready.json["status"], ready.json["redis"]) == (200, "degraded", "unavailable")
    assert len(jobs_of(user)) == 7
