"""Any sequence of credit movements, some of them at the same moment, against a model of what must come of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from common import clock
from common.db import transaction
from common.errors import InsufficientCredits
from common.ids import new_id
from common.models import Job
from common.services import credits
from common.services.credits import Balance
from common.services.users import Actor

T = TypeVar("T")

AMOUNTS = st.integers(0, 60)
AT_ONCE = 4
_threads = ThreadPoolExecutor(AT_ONCE, "movements")


class GivenUp(Exception):
    """What makes a transaction roll back."""


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """What they return, each run in a thread of its own."""
    return [running.result(60) for running in [_threads.submit(call) for call in calls]]


# ---------------------------------------------------------------- movements, with the job that each belongs to


def grant(user_id: str, amount: int) -> None:
    with transaction() as session:
        credits.grant(session, user_id, amount, note=None, reference=new_id("ref"))


def hold(user_id: str, amount: int) -> str | None:
    """The new job, or None where there were too few credits."""
    job_id = new_id("job")
    try:
        with transaction() as session:
            _add_job(session, user_id, job_id, amount)
            credits.hold(session, user_id, job_id, amount)
    except InsufficientCredits:
        return None
    return job_id


def settle(job_id: str, spent: int) -> int | None:
    """What was taken, or None where somebody else had settled it."""
    with transaction() as session:
        entry = credits.settle(session, job_id, spent=spent)
        if entry is None:
            return None
        taken = -(entry.available_delta + entry.held_delta)
        session.execute(update(Job).where(Job.id == job_id).values(status="succeeded", charged=taken))
    return taken


def refund(job_id: str) -> int | None:
    """What was given back, or None where that was nothing."""
    with transaction() as session:
        entry = credits.refund(session, job_id, note=None)
        if entry is None:
            return None
        session.execute(update(Job).where(Job.id == job_id).values(charged=0))
    return entry.amount


def _add_job(session: Session, user_id: str, job_id: str, price: int) -> None:
    session.execute(insert(Job), [{
        "id": job_id, "user_id": user_id, "status": "running", "provider": "flux", "model": "flux/dev",
        "action": "generate", "input": {}, "metadata_": {}, "priority": 0, "price": price, "progress": 0,
        "actions": [], "attempts": 1, "late": False, "deadline_at": clock.now(), "created_at": clock.now(),
    }])  # fmt: skip


# ---------------------------------------------------------------- the machine


class Ledger(RuleBasedStateMachine):
    """`available` by user; `held`, `taken` and `over` by job."""

    make_actor: Callable[..., Actor]

    @initialize()
    def two_users(self) -> None:
        self.available = {type(self).make_actor(100).user_id: 100 for _ in range(2)}
        self.owners: dict[str, str] = {}
        self.held: dict[str, int] = {}
        self.taken: dict[str, int] = {}
        self.over: list[str] = []

    def user(self, which: int) -> str:
        return sorted(self.available)[which % 2]

    @rule(which=st.integers(0, 1), amount=AMOUNTS)
    def grant(self, which: int, amount: int) -> None:
        grant(self.user(which), amount)
        self.available[self.user(which)] += amount

    @rule(which=st.integers(0, 1), amount=AMOUNTS)
    def grant_twice_by_one_reference(self, which: int, amount: int) -> None:
        reference = new_id("ref")
        with transaction() as session:
            credits.grant(session, self.user(which), amount, note=None, reference=reference)
        with pytest.raises(IntegrityError), transaction() as session:
            credits.grant(session, self.user(which), amount, note=None, reference=reference)
        self.available[self.user(which)] += amount

    @rule(which=st.integers(0, 1), amount=AMOUNTS)
    def hold(self, which: int, amount: int) -> None:
        self.was_held(self.user(which), amount, [hold(self.user(which), amount)])

    @rule(which=st.integers(0, 1), amount=AMOUNTS, times=st.integers(2, AT_ONCE))
    def hold_at_once(self, which: int, amount: int, times: int) -> None:
        self.was_held(self.user(which), amount, at_once([lambda: hold(self.user(which), amount)] * times))

    def was_held(self, user_id: str, amount: int, jobs: list[str | None]) -> None:
        made = [job_id for job_id in jobs if job_id is not None]
        assert len(made) == min(len(jobs), self.available[user_id] // amount if amount else len(jobs))
        self.available[user_id] -= amount * len(made)
        self.held |= dict.fromkeys(made, amount)
        self.owners |= dict.fromkeys(made, user_id)

    # What comes of a rule must not depend on who is first: Hypothesis wants to be able to run it again.

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0), spent=st.integers(0, 90), times=st.integers(1, AT_ONCE))
    def settle_at_once(self, which: int, spent: int, times: int) -> None:
        job_id = sorted(self.held)[which % len(self.held)]
        taken = [much for much in at_once([lambda: settle(job_id, spent)] * times) if much is not None]
        assert taken == [min(spent, self.held[job_id])]
        self.was_settled(job_id, taken[0])

    def was_settled(self, job_id: str, taken: int) -> None:
        assert taken <= self.held[job_id]
        self.available[self.owners[job_id]] += self.held.pop(job_id) - taken
        self.taken[job_id] = taken
        self.over.append(job_id)

    @precondition(lambda self: self.over)
    @rule(which=st.integers(0), spent=AMOUNTS)
    def settle_again(self, which: int, spent: int) -> None:
        assert settle(self.over[which % len(self.over)], spent) is None

    @precondition(lambda self: self.over)
    @rule(which=st.integers(0), times=st.integers(1, AT_ONCE))
    def refund_at_once(self, which: int, times: int) -> None:
        job_id = self.over[which % len(self.over)]
        given = [much for much in at_once([lambda: refund(job_id)] * times) if much is not None]
        assert given == ([self.taken[job_id]] if self.taken[job_id] else [])
        self.available[self.owners[job_id]] += self.taken[job_id]
        self.taken[job_id] = 0

    @precondition(lambda self: len(self.held) > 1)
    @rule(amount=AMOUNTS, spent=AMOUNTS)
    def all_sorts_at_once(self, amount: int, spent: int) -> None:
        first, second = sorted(self.held)[:2]
        user_id = self.owners[first]
        enough = min(amount, self.available[user_id])
        calls: list[Callable[[], Any]] = [
            lambda: grant(user_id, amount), lambda: settle(first, spent), lambda: settle(second, spent),
            lambda: hold(user_id, enough),
        ]  # fmt: skip
        _, taken, as_well, made = at_once(calls)
        self.available[user_id] += amount
        self.was_settled(first, taken)
        self.was_settled(second, as_well)
        self.was_held(user_id, enough, [made])

    @rule(which=st.integers(0, 1), amount=AMOUNTS)
    def what_rolls_back_never_was(self, which: int, amount: int) -> None:
        with pytest.raises(GivenUp), transaction() as session:
            credits.grant(session, self.user(which), amount, note=None, reference=new_id("ref"))
            _add_job(session, self.user(which), job_id := new_id("job"), amount)
            credits.hold(session, self.user(which), job_id, amount)
            credits.settle(session, job_id, spent=amount)
            raise GivenUp

    @invariant()
    def all_is_as_expected(self) -> None:
        with transaction() as session:
            for user_id, available in self.available.items():
                held = sum(much for job_id, much in self.held.items() if self.owners[job_id] == user_id)
                assert credits.balance(session, user_id) == Balance(available, held)

    def teardown(self) -> None:
        """An entry that was ever wrong still is."""
        with transaction() as session:
            assert credits.verify(session) == []


def test_any_sequence_of_movements_adds_up(make_actor: Callable[..., Actor]) -> None:
    machine: Any = type("Machine", (Ledger,), {"make_actor": staticmethod(make_actor)})
    bounds = settings(max_examples=8, stateful_step_count=20, suppress_health_check=list(HealthCheck))
    run_machine(machine, settings=bounds)
