"""What accepting a job sends to the database, and that all of it or nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, event, func, select

from common.db import transaction
from common.errors import InsufficientCredits
from common.models import Job, JobStep, LedgerEntry
from common.services import catalog, credits, jobs
from common.services.jobs import NewJob
from common.services.presentation import job_object
from common.services.users import Actor
from tests.integration.services.life import MODEL, PRICE

NEW = NewJob(model=MODEL, input={"prompt": "a fox"}, metadata={"order": 7})


@pytest.fixture
def sent(engine: Engine) -> Iterator[list[str]]:
    """The statements that the engine is given."""
    statements: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)


def rows() -> list[int]:
    """How many jobs, steps and ledger entries there are."""
    with transaction() as session:
        return [
            session.scalars(select(func.count()).select_from(model)).one()
            for model in (Job, JobStep, LedgerEntry)
        ]


def test_postgresql_is_asked_once(engine: Engine, make_actor: Callable[..., Actor], sent: list[str]) -> None:
    actor = make_actor(PRICE)
    with transaction() as session:
        catalog.offer(session, MODEL)  # read now, for some seconds
    sent.clear()
    with transaction(one_write=True) as session:
        job, replayed = jobs.accept(session, actor, NEW)
        if engine.dialect.name == "postgresql":
            driver = session.connection().connection.driver_connection
            assert driver is not None
            assert driver.autocommit
    assert len(sent) == (1 if engine.dialect.name == "postgresql" else 5)
    assert not replayed
    assert rows() == [1, 1, 2]
    with transaction() as session:
        assert credits.balance(session, actor.user_id) == credits.Balance(0, PRICE)
        assert credits.verify(session) == []
        row = session.get_one(Job, job.id)
        assert job_object(row, []) == job_object(job, [])
        assert session.get_one(JobStep, job.id).deadline_at == row.deadline_at.timestamp()


@pytest.mark.parametrize("one_write", [True, False])
def test_nothing_is_written_without_credits(make_actor: Callable[..., Actor], one_write: bool) -> None:
    actor = make_actor(PRICE - 1)
    with (
        pytest.raises(InsufficientCredits, match=f"{PRICE - 1} are available"),
        transaction(one_write=one_write) as session,
    ):
        jobs.accept(session, actor, NEW)
    assert rows() == [0, 0, 1]
    with transaction() as session:
        assert credits.balance(session, actor.user_id) == credits.Balance(PRICE - 1, 0)


def test_a_connection_begins_transactions_again(make_actor: Callable[..., Actor]) -> None:
    actor = make_actor(3 * PRICE)
    with transaction(one_write=True) as session:
        jobs.accept(session, actor, NEW)
    with pytest.raises(ZeroDivisionError), transaction() as session:
        jobs.accept(session, actor, NEW)
        raise ZeroDivisionError
    assert rows() == [1, 1, 2]
