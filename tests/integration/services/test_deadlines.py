"""The deadline in every state, what comes after it, and the sweep that sees to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from common import clock
from common.db import transaction
from common.models import CreditAccount, JobStep
from common.providers.base import Accepted, Failed, NotAccepted, Running, Succeeded, Trouble
from common.services import credits, lifecycle, sweep
from common.services.users import Actor
from common.words import Status
from tests.integration.services.life import (
    PICTURE,
    PRICE,
    STATES,
    Seen,
    cancel,
    claim_lost,
    claim_poll,
    claim_store,
    pass_deadline,
    picture,
    produce,
    run,
    store,
    submit,
)

TIMEOUT = (Status.FAILED, "timeout", 0)
CANCELED = (Status.CANCELED, "canceled", 0)
ENDS = {"queued": False, "running": True, "running and looked at": True}  # and whether it is watched then


def write(report: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    with transaction() as session:
        report(session, *args, **kwargs)


@pytest.mark.parametrize("state", STATES)
def test_every_state(actor: Actor, state: str) -> None:
    at = STATES[state](actor)
    before = Seen(actor, at.job_id)
    pass_deadline()
    after = Seen(actor, at.job_id)
    if state in ENDS:
        assert (after.end, after.waiting) == (TIMEOUT, ENDS[state])
        assert after.balance == credits.Balance(100, 0)
    elif state == "timed out and watched":
        assert (after.end, after.waiting) == (TIMEOUT, False)  # the window of the watch was over
    else:
        assert (after.end, after.waiting, after.step) == (before.end, before.waiting, before.step)


@pytest.mark.parametrize("state", ["running", "running and looked at"])
def test_with_a_cancel_on_its_way_it_ends_canceled_and_free(actor: Actor, state: str) -> None:
    at = STATES[state](actor)
    cancel(actor, at.job_id)
    pass_deadline()
    assert (Seen(actor, at.job_id).end, Seen(actor, at.job_id).waiting) == (CANCELED, True)
    assert not claim_poll().cancel_requested


# ---------------------------------------------------------------- what was under way


def test_a_submit_that_is_not_taken_ends_at_the_next_sweep(actor: Actor) -> None:
    at = STATES["sent"](actor)
    pass_deadline()
    write(lifecycle.not_accepted, at.claim, NotAccepted(trouble=Trouble.BUSY, message="429"))
    assert Seen(actor, at.job_id).status == Status.QUEUED
    write(lifecycle.past_deadline)
    assert Seen(actor, at.job_id).end == TIMEOUT


def test_a_submit_that_is_taken_ends_at_the_next_sweep_and_is_watched(actor: Actor) -> None:
    at = STATES["sent"](actor)
    pass_deadline()
    write(lifecycle.accepted, at.claim, Accepted(provider_ref="ref"))
    write(lifecycle.past_deadline)
    assert (Seen(actor, at.job_id).end, Seen(actor, at.job_id).waiting) == (TIMEOUT, True)


def test_a_lost_submit_that_is_found_too_late_is_watched(actor: Actor) -> None:
    at = STATES["lost"](actor)
    pass_deadline()
    write(lifecycle.accepted, claim_lost(), Accepted(provider_ref="found"), adopted=True)
    write(lifecycle.past_deadline)
    assert (Seen(actor, at.job_id).end, Seen(actor, at.job_id).waiting) == (TIMEOUT, True)


def test_the_answer_of_a_worker_that_was_looking_still_counts(actor: Actor) -> None:
    job_id, looking = run(actor)
    pass_deadline()
    store(produce(looking))
    seen = Seen(actor, job_id)
    assert (seen.end, seen.late, seen.artifacts, seen.waiting) == (TIMEOUT, True, 1, False)


# ---------------------------------------------------------------- afterwards


def timed_out(actor: Actor) -> str:
    job_id, claim = run(actor)
    write(lifecycle.still_running, [(claim, Running())])
    pass_deadline()
    return job_id


def test_a_late_success_is_kept_and_costs_nothing(actor: Actor) -> None:
    job_id = timed_out(actor)
    store(produce(claim_poll()))
    seen = Seen(actor, job_id)
    assert (seen.end, seen.late, seen.artifacts, seen.settlements) == (TIMEOUT, True, 1, 1)
    assert (seen.balance, seen.waiting) == (credits.Balance(100, 0), False)


def test_late_words_are_kept_and_end_the_watch(actor: Actor) -> None:
    job_id = timed_out(actor)
    write(lifecycle.produced, claim_poll(), Succeeded(output={"prompts": ["a fox"]}))
    seen = Seen(actor, job_id)
    assert (seen.end, seen.late, seen.output, seen.waiting) == (TIMEOUT, True, {"prompts": ["a fox"]}, False)


def test_a_late_failure_ends_the_watch(actor: Actor) -> None:
    job_id = timed_out(actor)
    write(lifecycle.failed, claim_poll(), Failed(code="provider_failed", message="no"))
    assert (Seen(actor, job_id).end, Seen(actor, job_id).waiting) == (TIMEOUT, False)


def test_what_is_being_stored_late_outlives_the_watch(actor: Actor) -> None:
    job_id = timed_out(actor)
    write(lifecycle.produced, claim_poll(), Succeeded(outputs=(PICTURE, PICTURE)))
    write(lifecycle.partly_stored, claim_store(), [picture(1)])
    pass_deadline()
    assert (Seen(actor, job_id).waiting, Seen(actor, job_id).late) == (True, True)
    write(lifecycle.stored, claim_store(), [picture(2)])
    assert (Seen(actor, job_id).end, Seen(actor, job_id).artifacts) == (TIMEOUT, 2)


def test_a_watched_job_is_looked_at_now_and_then(actor: Actor) -> None:
    timed_out(actor)
    write(lifecycle.still_running, [(claim_poll(), Running())])
    with transaction() as session:
        step = session.scalars(select(JobStep)).one()
        assert step.due_at > clock.epoch() + 0.8 * lifecycle.LATE_POLL_S
        assert step.deadline_at > clock.epoch() + 0.9 * lifecycle.LATE_WINDOW_S


# ---------------------------------------------------------------- the sweep


def test_more_than_one_batch_ends_in_one_sweep(
    make_actor: Callable[..., Actor], make_account: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_BATCH", 3)
    actor = make_actor(1000)
    ids = [submit(actor) for _ in range(8)]
    with transaction() as session:
        session.execute(update(JobStep).values(deadline_at=0))
    rounds = 0
    for part in sweep.PARTS:
        more = True
        while more:
            rounds += 1
            with transaction() as session:
                more = part(session)
    assert {Seen(actor, job_id).end for job_id in ids} == {TIMEOUT}
    assert rounds == len(sweep.PARTS) + 2, "three of them for the eight jobs"


def test_lost_submits_past_their_deadline_hide_nobody(
    make_actor: Callable[..., Actor], make_account: Callable[..., str]
) -> None:
    make_account(limit=3)
    actor = make_actor(1000)
    for state in ("lost", "sent", "being stored"):
        STATES[state](actor)
    job_id = submit(actor)
    with transaction() as session:
        session.execute(update(JobStep).where(JobStep.job_id != job_id).values(deadline_at=1))
        session.execute(update(JobStep).where(JobStep.job_id == job_id).values(deadline_at=2))
    with transaction() as session:
        assert lifecycle.past_deadline(session, limit=1) == 1
    assert Seen(actor, job_id).end == TIMEOUT


def test_one_broken_ledger_keeps_nobody_else_alive(
    make_actor: Callable[..., Actor], make_account: Callable[..., str]
) -> None:
    broken, well = make_actor(100), make_actor(100)
    submit(broken)
    job_id = submit(well)
    with transaction() as session:
        session.execute(
            update(CreditAccount).where(CreditAccount.user_id == broken.user_id).values(held=PRICE - 1)
        )
    pass_deadline()
    with transaction() as session:
        assert credits.balance(session, well.user_id) == credits.Balance(100, 0)
        assert credits.balance(session, broken.user_id) == credits.Balance(100 - PRICE, PRICE - 1)
        assert session.get(JobStep, job_id) is None
