"""The ledger: no movement twice, no balance below zero, and every line adds up."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.exc import IntegrityError

from common.db import transaction
from common.errors import InsufficientCredits
from common.ids import new_id
from common.models import Job
from common.services import credits, jobs
from common.services.users import Actor

MODEL, PRICE = "flux/pro-1.1", 20


def submit(actor: Actor) -> Job:
    with transaction() as session:
        return jobs.accept(session, actor, jobs.NewJob(model=MODEL, input={"prompt": "a fox"}))[0]


def test_a_grant_counts_once(make_actor: Callable[..., Actor]) -> None:
    actor = make_actor(0)
    with transaction() as session:
        credits.grant(session, actor.user_id, 70, note="bonus", reference="grant:one")
    with pytest.raises(IntegrityError), transaction() as session:
        credits.grant(session, actor.user_id, 70, note="bonus", reference="grant:one")
    with transaction() as session:
        assert credits.balance(session, actor.user_id) == credits.Balance(70, 0)


def test_too_few_credits_change_nothing(make_actor: Callable[..., Actor]) -> None:
    actor = make_actor(PRICE - 1)
    with pytest.raises(InsufficientCredits):
        submit(actor)
    with transaction() as session:
        assert credits.balance(session, actor.user_id) == credits.Balance(PRICE - 1, 0)
        assert jobs.page(session, actor, status=None, model=None, limit=10, after=None) == ([], False)


def test_a_hold_is_settled_once(make_actor: Callable[..., Actor]) -> None:
    actor = make_actor(100)
    job = submit(actor)
    with transaction() as session:
        assert credits.settle(session, job.id, spent=5) is not None
        assert credits.settle(session, job.id, spent=20) is None
        assert credits.balance(session, actor.user_id) == credits.Balance(95, 0)


def test_a_capture_never_exceeds_the_hold(make_actor: Callable[..., Actor]) -> None:
    actor = make_actor(100)
    job = submit(actor)
    with transaction() as session:
        entry = credits.settle(session, job.id, spent=10_000)
        assert entry is not None
        assert (entry.kind, entry.amount) == ("capture", PRICE)


def test_a_refund_counts_once(make_actor: Callable[..., Actor]) -> None:
    actor = make_actor(100)
    job = submit(actor)
    with transaction() as session:
        credits.settle(session, job.id, spent=PRICE)
        credits.refund(session, job.id, note="sorry")
        assert credits.balance(session, actor.user_id) == credits.Balance(100, 0)
    with pytest.raises(IntegrityError), transaction() as session:
        credits.refund(session, job.id, note="again")


def test_200_submits_at_once_against_credits_for_50(make_actor: Callable[..., Actor]) -> None:
    actor = make_actor(50 * PRICE)
    outcomes: list[str] = []

    def run(count: int) -> None:
        for _ in range(count):
            try:
                submit(actor)
                outcomes.append("accepted")
            except InsufficientCredits:
                outcomes.append("refused")

    threads = [threading.Thread(target=run, args=(20,)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (outcomes.count("accepted"), outcomes.count("refused")) == (50, 150)
    with transaction() as session:
        assert credits.balance(session, actor.user_id) == credits.Balance(0, 50 * PRICE)


def test_verify_finds_what_does_not_add_up(make_actor: Callable[..., Actor]) -> None:
    actor = make_actor(100)
    job = submit(actor)
    with transaction() as session:
        session.get_one(credits.CreditAccount, actor.user_id).available += 1
        session.get_one(Job, job.id).status = "failed"
    with transaction() as session:
        lines = credits.verify(session)
    assert any(actor.user_id in line for line in lines)
    assert any(job.id in line and "hold is open" in line for line in lines)


class Ledger(RuleBasedStateMachine):
    """Random movements against a model of what the balance must be."""

    actor: Actor
    open_jobs = Bundle("open_jobs")
    taken_jobs = Bundle("taken_jobs")

    def __init__(self) -> None:
        super().__init__()
        with transaction() as session:
            now = credits.balance(session, self.actor.user_id)
        self.available, self.held = now.available, now.held

    @rule(amount=st.integers(0, 100))
    def grant(self, amount: int) -> None:
        with transaction() as session:
            credits.grant(session, self.actor.user_id, amount, note=None, reference=new_id("ref"))
        self.available += amount

    @rule(target=open_jobs)
    def hold(self) -> object:
        try:
            job = submit(self.actor)
        except InsufficientCredits:
            assert self.available < PRICE
            return None
        self.available -= PRICE
        self.held += PRICE
        return job.id

    @rule(target=taken_jobs, job_id=consumes(open_jobs), spent=st.integers(0, 2 * PRICE))
    def settle(self, job_id: str | None, spent: int) -> object:
        if job_id is None:
            return None
        with transaction() as session:
            credits.settle(session, job_id, spent=spent)
        taken = min(spent, PRICE)
        self.held -= PRICE
        self.available += PRICE - taken
        return job_id if taken else None

    @rule(job_id=taken_jobs)
    def settle_again(self, job_id: str | None) -> None:
        if job_id is not None:
            with transaction() as session:
                assert credits.settle(session, job_id, spent=1) is None

    @invariant()
    def the_balance_is_as_expected(self) -> None:
        with transaction() as session:
            assert credits.balance(session, self.actor.user_id) == credits.Balance(self.available, self.held)
            assert [line for line in credits.verify(session) if "user" in line or "hold " in line[:5]] == []


def test_any_sequence_of_movements_adds_up(make_actor: Callable[..., Actor]) -> None:
    machine = type("Machine", (Ledger,), {"actor": make_actor(100)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
