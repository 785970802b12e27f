"""PostgreSQL: an upgrade among sessions that use the tables it changes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from common.settings import Settings
from migrations import runner
from migrations.chain import Chain
from migrations.outcomes import Exit
from tests.infrastructure.children import wait_until
from tests.migrations.conftest import add_revision, settings_for

LONG_S = 9.0
LONGEST_WAIT_S = 2.5


@pytest.fixture
def given(postgres_at_head: str) -> Settings:
    return settings_for(postgres_at_head)


@pytest.fixture
def chain(folder: Path) -> Chain:
    return add_revision(folder, "aaaa00000001", 'op.add_column_if_missing("job", sa.Column("a", sa.Text()))')


@pytest.fixture
def reader(given: Settings) -> Iterator[sa.Connection]:
    """A session that has read the table and does not end its transaction."""
    engine = sa.create_engine(
        given.database_url, poolclass=sa.NullPool, connect_args={"application_name": "yearly report"}
    )
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT id, 'alice@example.com' FROM job WHERE price > 12345")
        yield connection


def test_who_is_in_the_way_is_named(
    given: Settings, chain: Chain, reader: sa.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def let_go() -> None:
        wait_until(lambda: any(line.startswith("waiting for process") for line in caplog.messages), 20)
        reader.rollback()

    pid = reader.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    helper = threading.Thread(target=let_go)
    helper.start()
    assert runner.upgrade(given, chain).code == Exit.OK
    helper.join()
    [line] = [line for line in caplog.messages if line.startswith("waiting for process")]
    assert line.startswith(
        f"waiting for process {pid} of the database (yearly report), idle in transaction for "
    )
    assert "alice" not in caplog.text
    assert "12345" not in caplog.text


@pytest.mark.chaos
def test_a_long_read_delays_the_upgrade_and_no_other_read(
    given: Settings, chain: Chain, reader: sa.Connection
) -> None:
    longest_s, is_over = 0.0, threading.Event()

    def read_on() -> None:
        nonlocal longest_s
        with sa.create_engine(given.database_url, poolclass=sa.NullPool).connect() as connection:
            while not is_over.is_set():
                began = time.monotonic()
                connection.exec_driver_sql("SELECT id FROM job LIMIT 1").all()
                connection.rollback()
                longest_s = max(longest_s, time.monotonic() - began)
                time.sleep(0.02)

    others = [threading.Thread(target=read_on) for _ in range(3)]
    end = threading.Timer(LONG_S, reader.rollback)
    began = time.monotonic()
    for thread in (*others, end):
        thread.start()
    outcome = runner.upgrade(given, chain)
    took_s = time.monotonic() - began
    is_over.set()
    for thread in (*others, end):
        thread.join()
    assert outcome.code == Exit.OK, outcome
    assert took_s > LONG_S - 1
    assert longest_s < LONGEST_WAIT_S
    print(f"upgraded after {took_s:.1f} s, the longest other read took {longest_s:.2f} s")
