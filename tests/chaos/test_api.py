"""Whatever is asked, the API answers as its OpenAPI document says, and never with a 5xx."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.fuzz import Fuzzer
from tests.infrastructure.databases import Released
from tests.infrastructure.valkey import Valkey

SHORT_S, LONG_S = 12.0, 300.0
JOBS = 5  # at least so many of the things that were asked for were done


@pytest.fixture
def fuzzer(tmp_path: Path, released_url: str, released: Released, valkey_server: Valkey) -> Iterator[Fuzzer]:
    """An API to ask."""
    with Fuzzer(
        tmp_path, database_url=released_url, redis_url=valkey_server.url, admin_token=released.admin_token
    ) as made:
        yield made


def test_every_answer_is_as_documented(fuzzer: Fuzzer) -> None:
    assert not (report := fuzzer.run(SHORT_S, 1, "examples", "fuzzing", "stateful")), report
    assert fuzzer.jobs_ended > JOBS


@pytest.mark.chaos
@pytest.mark.timeout(LONG_S + 300)
def test_every_answer_is_as_documented_for_minutes(fuzzer: Fuzzer) -> None:
    seed = random.SystemRandom().randrange(1_000_000)  # the report names it
    assert not (report := fuzzer.run(LONG_S, seed, "examples", "coverage", "fuzzing", "stateful")), report
