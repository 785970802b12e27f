"""Two at the same moment, in real transactions: one of them counts, the other changes nothing, neither breaks."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import func, select

from common.db import transaction
from common.errors import Conflict, LeaseLost
from common.models import JobStep, LedgerEntry
from common.providers.base import Failed, Rejected
from common.services import claims, credits, jobs, lifecycle
from common.services.claims import SubmitClaim
from common.services.users import Actor
from common.words import Status
from tests.integration.services.life import (
    PRICE,
    STATES,
    Seen,
    claim_submits,
    make_due,
    picture,
    submit,
)

ROUNDS = 8
Call = Callable[[], Any]


def at_once(*calls: Call) -> list[Any]:
    """What each call returned or raised; all start at the same moment."""
    start = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def run(number: int, call: Call) -> None:
        start.wait(30)
        try:
            results[number] = call()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def write(report: Callable[..., Any], *args: Any, **kwargs: Any) -> Call:
    """A call that makes this report, in a transaction of its own."""

    def call() -> Any:
        with transaction() as session:
            return report(session, *args, **kwargs)

    return call


def check_books(actor: Actor) -> None:
    """All is settled, nothing waits."""
    with transaction() as session:
        assert credits.verify(session) == []
        assert session.scalar(select(func.count()).select_from(JobStep)) == 0
        assert credits.balance(session, actor.user_id).held == 0


@pytest.fixture
def rich(make_actor: Callable[..., Actor], make_account: Callable[..., str]) -> Actor:
    """A user with credits for every round."""
    make_account(limit=50)
    return make_actor(10_000)


def test_one_settlement(rich: Actor) -> None:
    for spent in range(ROUNDS):
        job_id = submit(rich)
        results = at_once(*[write(credits.settle, job_id, spent=spent)] * 3)
        assert sum(isinstance(result, LedgerEntry) for result in results) == 1
        assert results.count(None) == 2


def test_one_refund(rich: Actor) -> None:
    for _ in range(ROUNDS):
        at = STATES["succeeded"](rich)
        assert sorted(at_once(*[write(lifecycle.refund, at.job_id, reason="sorry")] * 3)) == [
            False,
            False,
            True,
        ]
    check_books(rich)
    with transaction() as session:
        assert credits.balance(session, rich.user_id).available == 10_000


def test_one_of_two_workers_finishes(rich: Actor) -> None:
    """Both believe that the step is theirs: one stores, the other, whose lease was taken away, fails it."""
    for _ in range(ROUNDS):
        at = STATES["being stored"](rich)
        results = at_once(
            write(lifecycle.stored, at.claim, [picture()]), write(lifecycle.stored, at.claim, [picture()]),
            write(lifecycle.unstorable, at.claim, [], "404"),
        )  # fmt: skip
        assert sum(result is None for result in results) == 1
        assert sum(isinstance(result, LeaseLost) for result in results) == 2
        assert Seen(rich, at.job_id).settlements == 1
    check_books(rich)


def test_a_lease_that_is_taken_away_while_its_holder_reports(rich: Actor) -> None:
    for _ in range(ROUNDS):
        at = STATES["being stored"](rich)
        make_due()
        stored, taken = at_once(
            write(lifecycle.stored, at.claim, [picture()]), write(claims.results_to_store, 10)
        )
        if taken:
            assert isinstance(stored, LeaseLost)
            write(lifecycle.stored, taken[0], [picture()])()
        else:
            assert stored is None
        seen = Seen(rich, at.job_id)
        assert (seen.status, seen.charged, seen.artifacts) == (Status.SUCCEEDED, PRICE, 1)
    check_books(rich)


def test_cancel_and_the_end(rich: Actor) -> None:
    for _ in range(ROUNDS):
        at = STATES["being stored"](rich)
        stored, canceled = at_once(
            write(lifecycle.stored, at.claim, [picture()]), write(jobs.cancel, rich, at.job_id)
        )
        assert stored is None
        seen = Seen(rich, at.job_id)
        if isinstance(canceled, Conflict):
            assert (seen.end, seen.late) == ((Status.SUCCEEDED, None, PRICE), False)
        else:
            assert (seen.end, seen.late) == ((Status.CANCELED, "canceled", PRICE), True)
        assert (seen.settlements, seen.artifacts) == (1, 1)
    check_books(rich)


def test_cancel_and_a_failure(rich: Actor) -> None:
    for _ in range(ROUNDS):
        at = STATES["running and looked at"](rich)
        failed, canceled = at_once(
            write(lifecycle.failed, at.claim, Failed(code="provider_failed", message="no")),
            write(jobs.cancel, rich, at.job_id),
        )
        assert failed is None
        code = "provider_failed" if isinstance(canceled, Conflict) else "canceled"
        assert (Seen(rich, at.job_id).code, Seen(rich, at.job_id).charged) == (code, 0)
    check_books(rich)


def test_cancel_and_the_turn_of_a_queued_job(rich: Actor) -> None:
    for _ in range(ROUNDS):
        job_id = submit(rich)
        taken, canceled = at_once(write(claims.submits, 10), write(jobs.cancel, rich, job_id))
        assert not isinstance(canceled, Exception)
        if taken:  # then it is not sent
            assert write(lifecycle.sending, taken)() == []
        assert Seen(rich, job_id).end == (Status.CANCELED, "canceled", 0)
    check_books(rich)


def test_cancel_and_sending(rich: Actor) -> None:
    for _ in range(ROUNDS):
        at = STATES["given an account"](rich)
        sent, canceled = at_once(write(lifecycle.sending, [at.claim]), write(jobs.cancel, rich, at.job_id))
        assert not isinstance(canceled, Exception)
        if sent:
            write(lifecycle.rejected, at.claim, Rejected(code="invalid_input", message="no"))()
        assert Seen(rich, at.job_id).end == (Status.CANCELED, "canceled", 0)
    check_books(rich)


def test_two_cancels(rich: Actor) -> None:
    for _ in range(ROUNDS):
        job_id = submit(rich)
        results = at_once(*[write(jobs.cancel, rich, job_id)] * 3)
        assert sum(isinstance(result, Conflict) for result in results) == 2
        assert Seen(rich, job_id).settlements == 1
    check_books(rich)


def test_deadline_and_the_result(rich: Actor) -> None:
    for _ in range(ROUNDS):
        at = STATES["being stored"](rich)
        with transaction() as session:
            session.get_one(JobStep, at.job_id).deadline_at = 0
        results = at_once(
            write(lifecycle.stored, at.claim, [picture()]), *[write(lifecycle.past_deadline)] * 2
        )
        assert results == [None, 0, 0]
        assert Seen(rich, at.job_id).end == (Status.SUCCEEDED, None, PRICE)
    check_books(rich)


def test_deadline_and_a_failure(rich: Actor) -> None:
    for _ in range(ROUNDS):
        at = STATES["running and looked at"](rich)
        with transaction() as session:
            session.get_one(JobStep, at.job_id).deadline_at = 0
        failed, first, second = at_once(
            write(lifecycle.failed, at.claim, Failed(code="provider_failed", message="no")),
            *[write(lifecycle.past_deadline)] * 2,
        )
        assert (failed, Seen(rich, at.job_id).settlements) == (None, 1)
        assert Seen(rich, at.job_id).code == ("timeout" if first or second else "provider_failed")
    check_books(rich)


def test_two_sweeps(rich: Actor) -> None:
    ids = [submit(rich) for _ in range(ROUNDS)]
    with transaction() as session:
        for step in session.scalars(select(JobStep)):
            step.deadline_at = 0
    first, second = at_once(*[write(lifecycle.past_deadline)] * 2)
    assert first + second == len(ids)
    check_books(rich)


def test_batches_over_the_same_users_do_not_wait_for_each_other(
    make_actor: Callable[..., Actor], make_account: Callable[..., str]
) -> None:
    """Whatever order two workers, the sweep and the users come in, nobody is told of a deadlock."""
    make_account(limit=1000)
    actors = [make_actor(10_000) for _ in range(6)]
    shuffled = random.Random(1)
    for _ in range(4):
        order = [actor for actor in actors for _ in range(4)]
        shuffled.shuffle(order)
        ids = [submit(actor) for actor in order]
        with transaction() as session:
            for job_id in ids[-6:]:
                session.get_one(JobStep, job_id).deadline_at = 0
                session.get_one(JobStep, job_id).due_at = 1e12
        claimed = lifecycle_sent(claim_submits())
        shuffled.shuffle(claimed)
        half = len(claimed) // 2
        results = at_once(
            write(reject_all, claimed[:half]), write(reject_all, claimed[half:]), write(lifecycle.past_deadline),
            write(claims.renew, claimed),
            *[write(jobs.accept, actor, jobs.NewJob(model="flux/dev", input={"prompt": "x"})) for actor in actors[:3]],
        )  # fmt: skip
        assert [result for result in results if isinstance(result, Exception)] == []
        finish_all()
    with transaction() as session:
        assert credits.verify(session) == []


def lifecycle_sent(claimed: list[SubmitClaim]) -> list[SubmitClaim]:
    with transaction() as session:
        return lifecycle.sending(session, claimed)


def reject_all(session: Any, claimed: Sequence[SubmitClaim]) -> None:
    """As a worker writes a batch down."""
    for claim in lifecycle.still_held(session, claimed):
        lifecycle.rejected(session, claim, Rejected(code="invalid_input", message="no"))


def finish_all() -> None:
    with transaction() as session:
        for job_id in session.scalars(select(JobStep.job_id)).all():
            lifecycle.finish(session, job_id, Status.FAILED, spent=0, code="internal", message="over")
