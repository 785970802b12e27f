"""What claims promise to the flows: full accounts are left out, leases can be held on to and handed on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sqlalchemy import select

from common import clock
from common.db import transaction
from common.models import Job, JobAttempt, JobStep
from common.providers.base import Accepted, Output, Succeeded
from common.services import claims, jobs, lifecycle
from common.services.jobs import NewJob
from common.services.users import Actor
from common.words import Status, Step

Make = Callable[..., Actor]
FLUX = {"prompt": "a fox"}


def submit(actor: Actor, count: int = 1) -> list[str]:
    with transaction() as session:
        return [
            jobs.accept(session, actor, NewJob(model="flux/pro-1.1", input=dict(FLUX)))[0].id
            for _ in range(count)
        ]


def run(limit: int = 10) -> list[claims.SubmitClaim]:
    """Bring waiting jobs to their provider; they are due to be polled at once."""
    with transaction() as session:
        claimed = lifecycle.sending(session, claims.submits(session, limit))
        for claim in claimed:
            lifecycle.accepted(session, claim, Accepted(provider_ref=claim.attempt_id))
    with transaction() as session:
        for step in session.scalars(select(JobStep)):
            step.due_at = 0.0
    return claimed


def due_at(job_id: str) -> float:
    with transaction() as session:
        return session.get_one(JobStep, job_id).due_at


def test_accounts_that_are_full_are_left_out(make_actor: Make, make_account: Callable[..., str]) -> None:
    first, second = make_account(), make_account()
    submit(make_actor(), 4)
    at = {claim.job_id: claim.account_id for claim in run()}
    assert set(at.values()) == {first, second}
    with transaction() as session:
        claimed = claims.due(session, Step.POLL, 10, frozenset({first}))
    assert {claim.account_id for claim in claimed} == {second}
    assert len(claimed) == list(at.values()).count(second)


def test_a_full_account_gets_no_submits(make_actor: Make, make_account: Callable[..., str]) -> None:
    only = make_account()
    submit(make_actor())
    with transaction() as session:
        assert claims.submits(session, 10, frozenset({only})) == []
        assert len(claims.submits(session, 10)) == 1


def test_a_lease_is_renewed_only_by_its_holder(make_actor: Make, make_account: Callable[..., str]) -> None:
    make_account()
    submit(make_actor())
    run()
    with transaction() as session:
        (old,) = claims.due(session, Step.POLL, 10)
    with transaction() as session:
        session.get_one(JobStep, old.job_id).due_at = 1.0
    with transaction() as session:
        claims.renew(session, [old])
    assert due_at(old.job_id) > clock.epoch() + 30

    with transaction() as session:
        session.get_one(JobStep, old.job_id).due_at = 1.0
    with transaction() as session:
        (new,) = claims.due(session, Step.POLL, 10)
    with transaction() as session:
        session.get_one(JobStep, new.job_id).due_at = 1.0
    with transaction() as session:
        claims.renew(session, [old])
        claims.put_back(session, [old])
    assert due_at(new.job_id) == 1.0


def test_what_is_put_back_is_anybodys_at_once(make_actor: Make, make_account: Callable[..., str]) -> None:
    make_account()
    submit(make_actor())
    run()
    with transaction() as session:
        (claim,) = claims.due(session, Step.POLL, 10)
        assert claims.due(session, Step.POLL, 10) == []
    with transaction() as session:
        claims.put_back(session, [claim])
    with transaction() as session:
        (other,) = claims.due(session, Step.POLL, 10)
    assert other.token != claim.token


def test_only_what_falls_due_later_is_looked_ahead_to(
    make_actor: Make, make_account: Callable[..., str]
) -> None:
    make_account(limit=1)
    submit(make_actor(), 2)
    run()
    with transaction() as session:
        assert claims.next_due(session, [Step.SUBMIT]) is None  # it waits for a slot, not for a moment
        soon = clock.epoch() + 5
        session.execute(select(JobStep).where(JobStep.step == Step.SUBMIT)).scalar_one().due_at = soon
    with transaction() as session:
        assert claims.next_due(session, [Step.SUBMIT]) == soon


def test_what_has_waited_longest_is_looked_at_first(
    make_actor: Make, make_account: Callable[..., str]
) -> None:
    make_account(limit=10)
    submit(make_actor(), 3)
    started = [claim.job_id for claim in run()]
    with transaction() as session:
        for age, job_id in enumerate(started):
            session.get_one(JobStep, job_id).due_at = clock.epoch() - age - 1
    with transaction() as session:
        first = claims.due(session, Step.POLL, 2)
        second = claims.due(session, Step.POLL, 2)
    assert {claim.job_id for claim in first} == set(started[1:])
    assert [claim.job_id for claim in second] == started[:1]


def test_no_poll_is_in_two_hands(make_actor: Make, make_account: Callable[..., str]) -> None:
    make_account(limit=60)
    submit(make_actor(10_000), 60)
    run(60)
    together, taken = threading.Barrier(4, timeout=10), []

    def take() -> None:
        together.wait()
        while True:
            with transaction() as session:
                claimed = claims.due(session, Step.POLL, 7)
            taken.extend(claim.job_id for claim in claimed)
            if not claimed:
                return

    workers = [threading.Thread(target=take) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert len(taken) == len(set(taken)) == 60


def test_a_poll_knows_how_to_ask_and_whether_its_job_still_lives(
    make_actor: Make, make_account: Callable[..., str]
) -> None:
    account = make_account()
    submit(make_actor(), 2)
    running, over = (claim.job_id for claim in run())
    with transaction() as session:
        session.get_one(JobAttempt, session.get_one(JobStep, running).attempt_id).memo = {"url": "u"}
        session.get_one(Job, over).status = Status.FAILED
    with transaction() as session:
        claimed = {claim.job_id: claim for claim in claims.due(session, Step.POLL, 10)}
    assert (claimed[running].finished, claimed[over].finished) == (False, True)
    handle = claimed[running].handle
    assert handle is not None
    assert handle.provider_ref == handle.reference == claimed[running].attempt_id
    assert (handle.model, handle.memo, claimed[running].account_id) == ("flux/pro-1.1", {"url": "u"}, account)


def test_results_whose_urls_die_first_are_stored_first(
    make_actor: Make, make_account: Callable[..., str]
) -> None:
    make_account()
    submit(make_actor(), 3)
    lives = {claim.job_id: lives_s for claim, lives_s in zip(run(), (900.0, 60.0, 600.0), strict=True)}
    with transaction() as session:
        for claim in claims.due(session, Step.POLL, 10):
            output = Output(kind="image", url="https://example.com/1.png", lives_s=lives[claim.job_id])
            lifecycle.produced(session, claim, Succeeded(outputs=(output,)))
    with transaction() as session:
        (first,) = claims.results_to_store(session, 1)
        (second,) = claims.results_to_store(session, 1)
    assert [lives[claim.job_id] for claim in (first, second)] == [60.0, 600.0]
    assert first.outputs[0]["url"] == "https://example.com/1.png"
    assert first.expires_at < second.expires_at
