"""An import that is killed at random moments, over and over, still ends with all of it, and nothing twice."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from common.services import credits
from tests.infrastructure.children import spawn, tail, wait_until
from tests.infrastructure.environment import ROOT, clean_environment
from tests.integration.legacy import wxiai

USERS = 1250
COMMAND = [sys.executable, "-m", "flask", "--app", "web.app"]
_TABLES = ("job", "ledger_entry", "legacy_record")
_PROGRESS = f"SELECT {' + '.join(f'(SELECT count(*) FROM {table})' for table in _TABLES)}"


def scalar(engine: sa.Engine, query: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.text(query)).scalar_one() or 0)


def environment(url: str) -> dict[str, str]:
    return clean_environment(
        {"DATABASE_URL": url, "REDIS_URL": "redis://127.0.0.1:1/0", "SECRET_KEY": "a secret for tests"}
    )


def ask(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command that is left in peace."""
    return subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, env=environment(url), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


def killed(engine: sa.Engine, url: str, log: Path, chance: random.Random) -> bool:
    """Start the import, and kill it at some moment after its first batch. False: it had ended by itself."""
    before = scalar(engine, _PROGRESS)
    process = spawn([*COMMAND, "import-legacy"], log=log, cwd=ROOT, environment=environment(url))
    try:
        wait_until(
            lambda: process.poll() is not None or scalar(engine, _PROGRESS) > before,
            60,
            what="a batch is there",
        )
        time.sleep(chance.uniform(0, 0.3))  # the moment is what is tried, nothing is waited for
        if process.poll() is not None:
            assert process.returncode == 0, tail(log)
            return False
        return True
    finally:
        process.kill()
        process.wait(10)


def check_ended_right(engine: sa.Engine, url: str) -> None:
    done = ask(url, "import-legacy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("complete: all totals match\n")
    with Session(engine) as session:
        assert credits.verify(session) == []
    assert scalar(engine, "SELECT count(*) FROM job") == sum(wxiai.SHARES.values()) == 2500
    people = [*(f"legacy-user-{number}" for number in range(USERS)), "gone"]
    due = sum(max(0, math.ceil(Decimal(row["credit"] or 0))) for row in wxiai.balances(people))
    opened = "SELECT sum(amount) FROM ledger_entry WHERE reference LIKE 'legacy\\:credit\\:%'"
    assert scalar(engine, opened) == due
    before = scalar(engine, _PROGRESS)
    again = ask(url, "import-legacy")
    assert (again.returncode, scalar(engine, _PROGRESS)) == (0, before)
    sums = [line for line in done.stdout.splitlines() if " rows = " not in line]
    assert [line for line in again.stdout.splitlines() if " rows = " not in line] == sums


def kill_often(engine: sa.Engine, url: str, folder: Path, *, times: int, seed: int) -> None:
    wxiai.build(engine, wxiai.LAYOUTS["chain"], users=USERS, tasks_each=wxiai.SHARES)
    chance = random.Random(seed)
    assert all(killed(engine, url, folder / "import.log", chance) for _ in range(times))
    check_ended_right(engine, url)


def test_an_import_that_is_killed_ends_right(engine: sa.Engine, url: str, tmp_path: Path) -> None:
    kill_often(engine, url, tmp_path, times=1, seed=time.time_ns())


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_an_import_that_is_killed_again_and_again_ends_right(
    engine: sa.Engine, url: str, tmp_path: Path, seed: int
) -> None:
    kill_often(engine, url, tmp_path, times=5, seed=seed)
