"""Cancel in every state, and whatever may come after it: how the job ends, and what that costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from common import clock
from common import settings as configuration
from common.db import transaction
from common.errors import Conflict, NotFound
from common.models import JobAttempt, JobEvent, JobStep, LedgerEntry
from common.providers.base import (
    Accepted,
    Failed,
    NotAccepted,
    NoVerdict,
    Rejected,
    Running,
    Succeeded,
    Trouble,
)
from common.services import claims, credits, lifecycle
from common.services.users import Actor
from common.words import Outcome, Status, Step
from tests.integration.services.life import (
    FINISHED,
    PICTURE,
    PRICE,
    STATES,
    Seen,
    cancel,
    claim_lost,
    claim_poll,
    claim_store,
    claim_submits,
    make_due,
    pass_deadline,
    picture,
    produce,
    run,
    store,
    submit,
)

FREE = (Status.CANCELED, "canceled", 0)
CHARGED = (Status.CANCELED, "canceled", PRICE)
ENDS_AT_ONCE = {"queued": FREE, "produced": CHARGED, "being stored": CHARGED}


def write(report: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    with transaction() as session:
        report(session, *args, **kwargs)


# ---------------------------------------------------------------- in every state


@pytest.mark.parametrize("state", STATES)
def test_every_state(actor: Actor, state: str) -> None:
    at = STATES[state](actor)
    before = Seen(actor, at.job_id)
    if state in FINISHED:
        with pytest.raises(Conflict):
            cancel(actor, at.job_id)
        after = Seen(actor, at.job_id)
        assert (after.end, after.waiting, after.due_at) == (before.end, before.waiting, before.due_at)
        return
    cancel(actor, at.job_id)
    after = Seen(actor, at.job_id)
    if state in ENDS_AT_ONCE:
        assert after.end == ENDS_AT_ONCE[state]
        assert after.waiting == (state != "queued")  # what is made already is still stored
        with pytest.raises(Conflict):
            cancel(actor, at.job_id)
    else:
        assert (after.status, after.charged) == (before.status, None)
        cancel(actor, at.job_id)  # asking twice is no error, and changes nothing
        assert Seen(actor, at.job_id).due_at == after.due_at


def test_nobody_else_may(actor: Actor, make_actor: Callable[..., Actor]) -> None:
    job_id = submit(actor)
    with pytest.raises(NotFound):
        cancel(make_actor(0), job_id)
    assert Seen(actor, job_id).status == Status.QUEUED


# ---------------------------------------------------------------- before the provider has answered


def test_what_is_not_sent_yet_is_not_sent(actor: Actor) -> None:
    at = STATES["given an account"](actor)
    cancel(actor, at.job_id)
    with transaction() as session:
        assert lifecycle.sending(session, [at.claim]) == []
        assert session.get_one(JobAttempt, at.claim.attempt_id).outcome == Outcome.REJECTED
    seen = Seen(actor, at.job_id)
    assert (seen.end, seen.waiting, seen.balance) == (FREE, False, credits.Balance(100, 0))


def test_a_worker_that_died_before_sending_leaves_it_canceled(actor: Actor) -> None:
    at = STATES["given an account"](actor)
    cancel(actor, at.job_id)
    make_due()
    write(lifecycle.recover)
    assert (Seen(actor, at.job_id).end, claim_submits()) == (FREE, [])


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        (lifecycle.rejected, Rejected(code="invalid_input", message="no")),
        (lifecycle.not_accepted, NotAccepted(trouble=Trouble.BUSY, message="429")),
        (lifecycle.not_accepted, NotAccepted(trouble=Trouble.BALANCE, message="no money")),
    ],
)
def test_what_the_provider_does_not_take_ends_canceled(
    actor: Actor, report: Callable[..., None], verdict: Any
) -> None:
    at = STATES["sent"](actor)
    cancel(actor, at.job_id)
    write(report, at.claim, verdict)
    seen = Seen(actor, at.job_id)
    assert (seen.end, seen.waiting) == (FREE, False)


def test_what_it_takes_it_is_asked_to_stop_at_once(actor: Actor) -> None:
    at = STATES["sent"](actor)
    cancel(actor, at.job_id)
    write(lifecycle.accepted, at.claim, Accepted(provider_ref="ref"))
    with transaction() as session:
        (wanted,) = claims.due(session, Step.POLL, 10)
    assert wanted.cancel_requested
    write(lifecycle.cancel_answered, wanted, confirmed=True)
    seen = Seen(actor, at.job_id)
    assert (seen.end, seen.waiting, seen.balance) == (FREE, False, credits.Balance(100, 0))


@pytest.mark.parametrize("state", ["lost", "lost and looked for"])
def test_a_lost_submit_that_is_found_is_stopped(actor: Actor, state: str) -> None:
    at = STATES[state](actor)
    cancel(actor, at.job_id)
    write(lifecycle.accepted, at.claim or claim_lost(), Accepted(provider_ref="found"), adopted=True)
    with transaction() as session:
        (wanted,) = claims.due(session, Step.POLL, 10)
    assert wanted.cancel_requested


def test_a_lost_submit_is_looked_for_no_more_often_for_being_canceled(actor: Actor) -> None:
    at = STATES["lost and looked for"](actor)
    cancel(actor, at.job_id)
    write(lifecycle.not_found_yet, at.claim)
    due_at = Seen(actor, at.job_id).due_at
    assert due_at is not None
    assert due_at > clock.epoch() + 0.5


def test_a_lost_submit_that_is_never_found_ends_canceled_and_is_told(
    actor: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECONCILE_WINDOW_S", "0")
    configuration.settings.cache_clear()
    at = STATES["lost and looked for"](actor)
    cancel(actor, at.job_id)
    write(lifecycle.not_found_yet, at.claim)
    assert Seen(actor, at.job_id).end == FREE
    with transaction() as session:
        assert session.get_one(JobAttempt, at.claim.attempt_id).outcome == Outcome.ABANDONED
        assert session.scalars(select(JobEvent.kind)).all() == ["submit_unknown"]


# ---------------------------------------------------------------- at the provider


def canceled_by_a_worker(actor: Actor, *, confirmed: bool) -> str:
    """A running job that was canceled and whose provider was asked."""
    job_id, claim = run(actor)
    cancel(actor, job_id)
    write(lifecycle.still_running, [(claim, Running(progress=5))])
    with transaction() as session:
        (wanted,) = claims.due(session, Step.POLL, 10)  # at once, not in this model's rhythm
    assert (wanted.cancel_requested, Seen(actor, job_id).status) == (True, Status.RUNNING)
    write(lifecycle.cancel_answered, wanted, confirmed=confirmed)
    return job_id


def test_a_confirmed_cancel_is_free(actor: Actor) -> None:
    seen = Seen(actor, canceled_by_a_worker(actor, confirmed=True))
    assert (seen.end, seen.waiting, seen.balance) == (FREE, False, credits.Balance(100, 0))


@pytest.mark.parametrize(("rule", "charged"), [("full", PRICE), ("none", 0)])
def test_an_unconfirmed_one_costs_what_the_operator_says_and_keeps_the_late_result(
    actor: Actor, monkeypatch: pytest.MonkeyPatch, rule: str, charged: int
) -> None:
    monkeypatch.setenv("CANCEL_CHARGE", rule)
    configuration.settings.cache_clear()
    job_id = canceled_by_a_worker(actor, confirmed=False)
    seen = Seen(actor, job_id)
    assert (seen.end, seen.waiting) == ((Status.CANCELED, "canceled", charged), True)
    watching = claim_poll()
    assert (watching.cancel_requested, watching.finished) == (False, True)  # it is not asked again
    store(produce(watching))
    seen = Seen(actor, job_id)
    assert (seen.end, seen.late, seen.artifacts) == ((Status.CANCELED, "canceled", charged), True, 1)
    assert (seen.balance, seen.waiting, seen.settlements) == (credits.Balance(100 - charged, 0), False, 1)


def test_a_charge_is_given_back_if_the_generation_fails_after_all(actor: Actor) -> None:
    job_id = canceled_by_a_worker(actor, confirmed=False)
    write(lifecycle.failed, claim_poll(), Failed(code="content_moderated", message="no"))
    seen = Seen(actor, job_id)
    assert (seen.end, seen.waiting, seen.balance) == (FREE, False, credits.Balance(100, 0))
    with transaction() as session:
        kinds = session.scalars(select(LedgerEntry.kind).where(LedgerEntry.job_id == job_id)).all()
    assert sorted(kinds) == ["capture", "hold", "refund"]


def test_a_watched_job_that_the_provider_denies_is_given_up_and_refunded(actor: Actor) -> None:
    job_id = canceled_by_a_worker(actor, confirmed=False)
    for _ in range(lifecycle.GONE_LIMIT):
        write(lifecycle.no_verdict, claim_poll(), NoVerdict(message="404", gone=True))
    assert (Seen(actor, job_id).end, Seen(actor, job_id).waiting) == (FREE, False)


def test_the_charge_stays_when_the_watch_is_over(actor: Actor) -> None:
    job_id = canceled_by_a_worker(actor, confirmed=False)
    pass_deadline()
    assert (Seen(actor, job_id).end, Seen(actor, job_id).waiting) == (CHARGED, False)


def test_the_watch_is_patient(actor: Actor) -> None:
    canceled_by_a_worker(actor, confirmed=False)
    write(lifecycle.still_running, [(claim_poll(), Running())])
    with transaction() as session:
        due_at = session.scalars(select(JobStep.due_at)).one()
    assert due_at > clock.epoch() + 0.8 * lifecycle.LATE_POLL_S


def test_a_cancel_whose_worker_died_is_asked_again(actor: Actor) -> None:
    job_id, _ = run(actor)
    cancel(actor, job_id)
    dead = claim_poll()
    again = claim_poll()
    assert (again.cancel_requested, again.token != dead.token) == (True, True)
    write(lifecycle.cancel_answered, again, confirmed=True)
    assert Seen(actor, job_id).end == FREE


def test_a_provider_that_does_not_answer_is_asked_to_stop_a_few_times(actor: Actor) -> None:
    job_id, _ = run(actor)
    cancel(actor, job_id)
    for _ in range(lifecycle.CANCEL_TRIES - 1):
        write(lifecycle.no_verdict, claim_poll(), NoVerdict(message="no answer"))
        assert Seen(actor, job_id).status == Status.RUNNING
        with transaction() as session:
            due_at = session.scalars(select(JobStep.due_at)).one()
        assert clock.epoch() < due_at < clock.epoch() + 5  # neither at once nor in this model's rhythm
    write(lifecycle.cancel_answered, claim_poll(), confirmed=True)
    assert Seen(actor, job_id).end == FREE


def test_a_provider_that_never_answers_cannot_keep_a_job_from_being_canceled(actor: Actor) -> None:
    job_id, _ = run(actor)
    cancel(actor, job_id)
    for _ in range(lifecycle.CANCEL_TRIES):
        write(lifecycle.no_verdict, claim_poll(), NoVerdict(message="internal error: KeyError"))
    assert (Seen(actor, job_id).end, Seen(actor, job_id).waiting) == (CHARGED, True)


def test_a_failure_that_was_under_way_ends_it_canceled(actor: Actor) -> None:
    job_id, claim = run(actor)
    cancel(actor, job_id)
    write(lifecycle.failed, claim, Failed(code="provider_failed", message="no"))
    assert (Seen(actor, job_id).end, Seen(actor, job_id).waiting) == (FREE, False)


def test_a_success_that_was_under_way_is_kept_and_charged_once(actor: Actor) -> None:
    job_id, claim = run(actor)
    cancel(actor, job_id)
    stored = produce(claim)
    seen = Seen(actor, job_id)
    assert (seen.end, seen.waiting, seen.late) == (CHARGED, True, False)
    store(stored)
    seen = Seen(actor, job_id)
    assert (seen.end, seen.late, seen.artifacts, seen.settlements) == (CHARGED, True, 1, 1)


def test_words_that_were_under_way_are_kept_too(actor: Actor) -> None:
    job_id, claim = run(actor)
    cancel(actor, job_id)
    write(lifecycle.produced, claim, Succeeded(output={"prompts": ["a fox"]}))
    seen = Seen(actor, job_id)
    assert (seen.end, seen.late, seen.output, seen.waiting) == (CHARGED, True, {"prompts": ["a fox"]}, False)


def test_an_answer_to_a_cancel_that_came_after_the_deadline_changes_nothing(actor: Actor) -> None:
    job_id, _ = run(actor)
    asking = claim_poll()
    pass_deadline()
    cancel_confirmed = asking
    write(lifecycle.cancel_answered, cancel_confirmed, confirmed=True)
    seen = Seen(actor, job_id)
    assert (seen.end, seen.waiting) == ((Status.FAILED, "timeout", 0), False)


# ---------------------------------------------------------------- while it is stored


def test_a_result_that_is_being_stored_is_kept(actor: Actor) -> None:
    at = STATES["being stored"](actor)
    cancel(actor, at.job_id)
    store(at.claim)
    seen = Seen(actor, at.job_id)
    assert (seen.end, seen.late, seen.artifacts) == (CHARGED, True, 1)
    assert (seen.waiting, seen.settlements) == (False, 1)


def test_each_part_that_comes_late_is_shown_as_late(actor: Actor) -> None:
    job_id, claim = run(actor)
    write(lifecycle.produced, claim, Succeeded(outputs=(PICTURE, PICTURE)))
    first = claim_store()
    cancel(actor, job_id)
    assert not Seen(actor, job_id).late
    write(lifecycle.partly_stored, first, [picture(1)])
    assert (Seen(actor, job_id).late, Seen(actor, job_id).artifacts) == (True, 1)
    write(lifecycle.unstorable, claim_store(), [], "404")
    seen = Seen(actor, job_id)
    assert (seen.end, seen.artifacts, seen.waiting) == (CHARGED, 1, False)


def test_a_late_result_that_cannot_be_stored_leaves_the_end_as_it_was(actor: Actor) -> None:
    at = STATES["being stored"](actor)
    cancel(actor, at.job_id)
    write(lifecycle.unstorable, at.claim, [], "404")
    seen = Seen(actor, at.job_id)
    assert (seen.end, seen.late, seen.waiting) == (CHARGED, False, False)


# ---------------------------------------------------------------- refunds


def test_a_refund_is_given_once(actor: Actor) -> None:
    at = STATES["succeeded"](actor)
    for given in (True, False):
        with transaction() as session:
            assert lifecycle.refund(session, at.job_id, reason="sorry") is given
    seen = Seen(actor, at.job_id)
    assert (seen.end, seen.balance) == ((Status.SUCCEEDED, None, 0), credits.Balance(100, 0))


def test_what_cost_nothing_is_not_refunded(actor: Actor) -> None:
    at = STATES["failed"](actor)
    with transaction() as session:
        assert not lifecycle.refund(session, at.job_id, reason="sorry")
    assert Seen(actor, at.job_id).balance == credits.Balance(100, 0)
