"""What claims promise to the flows: full accounts are left out, leases can be held on to and handed on."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select

from common import clock
from common.db import transaction
from common.models import JobStep
from common.providers.base import Accepted
from common.services import claims, jobs, lifecycle
from common.services.jobs import NewJob
from common.services.users import Actor
from common.words import Step

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
