"""The tasks that are no ticks: the sweep and the daily proof, as a worker runs them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from common.db import reading, transaction
from common.models import CreditAccount, JobStep
from common.services import daily, proof, sweep
from common.services.users import Actor
from tests.integration.services.life import Seen, submit
from workers import tasks
from workers.app import app


def break_the_books(actor: Actor) -> None:
    with transaction() as session:
        session.execute(
            update(CreditAccount).where(CreditAccount.user_id == actor.user_id).values(available=1_000_000)
        )


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_the_proof_says_what_it_has_found_once(actor: Actor, caplog: pytest.LogCaptureFixture) -> None:
    """Also with two beats, and however many messages there are."""
    break_the_books(actor)
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(tasks.verify.run) for _ in range(8)]:
            done.result(60)
    tasks.verify.run()
    found = errors(caplog)
    assert len(found) == 2
    assert "balance 1000000+0 held, ledger says 100+0" in found[0]
    assert found[1].startswith("ledger: 1 contradictions")
    with reading() as session:
        last = proof.last(session)
    assert last is not None
    assert last.findings == 1


def test_a_proof_without_findings_is_remembered_too(actor: Actor, caplog: pytest.LogCaptureFixture) -> None:
    submit(actor)
    tasks.verify.run()
    with reading() as session:
        last = proof.last(session)
    assert last is not None
    assert (errors(caplog), last.findings) == ([], 0)


def test_a_proof_that_breaks_is_due_again_soon(actor: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(session: Session) -> list[str]:
        raise RuntimeError("the database went away")

    monkeypatch.setattr(tasks.credits, "verify", breaks)
    with pytest.raises(RuntimeError):
        tasks.verify.run()
    monkeypatch.undo()
    with transaction() as session:
        assert proof.last(session) is None
        begun = session.get_one(proof.AppSetting, proof.KEY)
        begun.updated_at -= daily._AGAIN
    tasks.verify.run()
    with reading() as session:
        assert proof.last(session) is not None


def test_beat_asks_for_the_proof_more_often_than_it_may_be_restarted() -> None:
    entry = app.conf.beat_schedule["ledger"]
    assert (entry["task"], entry["schedule"] <= 3600) == (tasks.verify.name, True)


def test_a_part_of_the_sweep_that_breaks_keeps_no_other_from_its_work(
    make_actor: Callable[..., Actor], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(session: Session) -> bool:
        raise RuntimeError("something unforeseen")

    monkeypatch.setattr(sweep, "PARTS", (breaks, *sweep.PARTS))
    monkeypatch.setattr(sweep, "_BATCH", 2)
    actor = make_actor(100)
    ids = [submit(actor) for _ in range(5)]
    with transaction() as session:
        session.execute(update(JobStep).values(deadline_at=0))
    tasks.sweep.run()
    assert {Seen(actor, job_id).code for job_id in ids} == {"timeout"}
    assert len(errors(caplog)) == 1
