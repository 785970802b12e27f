"""The life of a job, state by state: who may write, what ends it, and what that costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from common import clock
from common import settings as configuration
from common.db import transaction
from common.errors import LeaseLost
from common.models import Job, JobAttempt, JobStep, ProviderAccount
from common.providers.base import (
    Accepted,
    Failed,
    NotAccepted,
    NoVerdict,
    Rejected,
    Running,
    Succeeded,
    Trouble,
    Unknown,
)
from common.services import claims, credits, lifecycle
from common.services.users import Actor
from common.words import Outcome, Status, Step
from tests.integration.services.life import (
    PICTURE,
    PRICE,
    Seen,
    accept,
    cancel,
    claim_poll,
    claim_store,
    claim_submits,
    make_due,
    picture,
    produce,
    run,
    sent,
    store,
    submit,
)

# ---------------------------------------------------------------- the ordinary way


def test_from_accept_to_settlement(actor: Actor) -> None:
    job_id, claim = run(actor)
    assert Seen(actor, job_id).status == Status.RUNNING
    with transaction() as session:
        lifecycle.still_running(session, [(claim, Running(progress=40))])
    store(produce(claim_poll()))
    seen = Seen(actor, job_id)
    assert (seen.status, seen.charged, seen.artifacts, seen.waiting) == (Status.SUCCEEDED, PRICE, 1, False)
    assert seen.balance == credits.Balance(80, 0)


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (Rejected(code="invalid_input", message="no"), "invalid_input"),
        (NotAccepted(trouble=Trouble.BALANCE, message="no money"), "account_exhausted"),
        (NotAccepted(trouble=Trouble.CREDENTIALS, message="bad key"), "provider_unavailable"),
    ],
)
def test_a_definite_no_costs_nothing(actor: Actor, verdict: Any, code: str) -> None:
    job_id = submit(actor)
    claim = sent(claim_submits()[0])
    with transaction() as session:
        write = lifecycle.rejected if isinstance(verdict, Rejected) else lifecycle.not_accepted
        write(session, claim, verdict)
    seen = Seen(actor, job_id)
    assert (seen.status, seen.code, seen.balance) == (Status.FAILED, code, credits.Balance(100, 0))


def test_with_another_account_a_bad_key_only_moves_the_job(
    actor: Actor, make_account: Callable[..., str]
) -> None:
    make_account("fal")
    job_id = submit(actor)
    first = sent(claim_submits()[0])
    with transaction() as session:
        lifecycle.not_accepted(session, first, NotAccepted(trouble=Trouble.CREDENTIALS, message="bad key"))
    make_due()
    second = claim_submits()[0]
    assert (second.job_id, second.account_id != first.account_id) == (job_id, True)


def test_a_busy_provider_only_delays(actor: Actor) -> None:
    job_id = submit(actor)
    claim = sent(claim_submits()[0])
    with transaction() as session:
        lifecycle.not_accepted(session, claim, NotAccepted(trouble=Trouble.BUSY, message="429"))
    assert Seen(actor, job_id).status == Status.QUEUED


def test_an_input_that_cannot_be_fetched_delays_the_job_and_blames_no_account(actor: Actor) -> None:
    job_id = submit(actor)
    claim = sent(claim_submits()[0])
    with transaction() as session:
        lifecycle.not_accepted(session, claim, NotAccepted(trouble=Trouble.INPUT, message="503"))
        account = session.get_one(ProviderAccount, claim.account_id)
        assert (account.failures, account.open_until, account.trouble) == (0, 0.0, None)
    seen = Seen(actor, job_id)
    assert (seen.status, seen.balance.held > 0) == (Status.QUEUED, True)
    make_due()
    assert claim_submits()[0].account_id == claim.account_id


def test_a_failed_generation_costs_nothing(actor: Actor) -> None:
    job_id, claim = run(actor)
    with transaction() as session:
        lifecycle.failed(session, claim, Failed(code="content_moderated", message="no"))
    seen = Seen(actor, job_id)
    assert (seen.status, seen.code, seen.charged, seen.waiting) == (
        Status.FAILED,
        "content_moderated",
        0,
        False,
    )


def test_one_denial_is_no_verdict_but_five_in_a_row_are(actor: Actor) -> None:
    job_id, claim = run(actor)
    for _ in range(lifecycle.GONE_LIMIT - 1):
        with transaction() as session:
            lifecycle.no_verdict(session, claim, NoVerdict(message="not found", gone=True))
        assert Seen(actor, job_id).status == Status.RUNNING
        claim = claim_poll()
    with transaction() as session:
        lifecycle.no_verdict(session, claim, NoVerdict(message="not found", gone=True))
    assert Seen(actor, job_id).code == "provider_failed"


DENIAL = NoVerdict(message="not found", gone=True)


def look(actor: Actor, job_id: str, *seen: NoVerdict) -> list[float]:
    """Look that often, as soon as one may; returns the pauses that follow."""
    pauses = []
    for each in seen:
        claim = claim_poll()
        with transaction() as session:
            lifecycle.no_verdict(session, claim, each)
        due_at = Seen(actor, job_id).due_at
        if due_at is not None:
            pauses.append(due_at - clock.epoch())
    return pauses


def slots_of(job_id: str) -> int:
    with transaction() as session:
        return session.get_one(JobStep, job_id).slots


def test_what_tells_nothing_counts_for_no_denial_and_forgives_none(actor: Actor) -> None:
    job_id, _ = run(actor)
    time_out = NoVerdict(message="time-out")
    look(actor, job_id, *[time_out] * 9, DENIAL)
    assert Seen(actor, job_id).status == Status.RUNNING
    look(actor, job_id, *[time_out, DENIAL] * (lifecycle.GONE_LIMIT - 2))
    assert Seen(actor, job_id).status == Status.RUNNING
    look(actor, job_id, DENIAL)
    assert Seen(actor, job_id).end == (Status.FAILED, "provider_failed", 0)


def test_a_provider_may_be_confused_for_a_minute(actor: Actor) -> None:
    job_id, _ = run(actor)
    pauses = look(actor, job_id, *[DENIAL] * (lifecycle.GONE_LIMIT - 1))
    assert pauses == sorted(pauses)
    assert pauses[0] < 5  # right after the submit it is normal at some
    assert sum(pauses) > 60
    longer = replace(DENIAL, retry_after_s=300.0)
    other = submit(actor)
    accept(sent(claim_submits()[0]))
    make_due()
    with transaction() as session:
        claim = next(claim for claim in claims.due(session, Step.POLL, 10) if claim.job_id == other)
    with transaction() as session:
        lifecycle.no_verdict(session, claim, longer)
    due_at = Seen(actor, other).due_at
    assert due_at is not None
    assert due_at > clock.epoch() + 290


def test_a_lost_job_ends_free_gives_up_its_slot_and_is_still_watched(actor: Actor) -> None:
    job_id, _ = run(actor)
    with transaction() as session:
        session.execute(update(ProviderAccount).values(max_concurrency=1))
    other = submit(actor)
    look(actor, job_id, *[DENIAL] * lifecycle.GONE_LIMIT)
    seen = Seen(actor, job_id)
    assert (seen.end, seen.waiting, seen.balance) == (
        (Status.FAILED, "provider_failed", 0),
        True,
        credits.Balance(80, PRICE),
    )
    make_due()
    assert [claim.job_id for claim in claim_submits()] == [other]
    store(produce(claim_poll()))
    seen = Seen(actor, job_id)
    assert (seen.end, seen.late, seen.artifacts, seen.waiting) == (
        (Status.FAILED, "provider_failed", 0),
        True,
        1,
        False,
    )
    with transaction() as session:
        attempt = session.scalars(select(JobAttempt).where(JobAttempt.job_id == job_id)).one()
        assert (attempt.error_code, attempt.ended_at is not None) == (None, True)


def test_the_watch_over_a_lost_job_ends_with_the_denials(actor: Actor) -> None:
    job_id, _ = run(actor)
    look(actor, job_id, *[DENIAL] * lifecycle.GONE_LIMIT)
    pauses = look(actor, job_id, *[DENIAL] * lifecycle.GONE_LIMIT)
    assert sum(pauses) > 600
    assert not Seen(actor, job_id).waiting


def test_who_wants_to_cancel_what_is_lost_has_canceled_it(actor: Actor) -> None:
    job_id, _ = run(actor)
    look(actor, job_id, *[DENIAL] * (lifecycle.GONE_LIMIT - 1))
    claim = claim_poll()
    cancel(actor, job_id)
    with transaction() as session:
        lifecycle.no_verdict(session, claim, DENIAL)
    seen = Seen(actor, job_id)
    assert (seen.end, seen.waiting) == ((Status.CANCELED, "canceled", 0), True)
    assert not claim_poll().cancel_requested


def test_an_ended_job_that_is_denied_holds_no_slot(actor: Actor) -> None:
    job_id, _ = run(actor)
    with transaction() as session:
        session.execute(update(JobStep).values(deadline_at=0))
    with transaction() as session:
        lifecycle.past_deadline(session)
    assert slots_of(job_id) == 1, "it may run there still"
    look(actor, job_id, NoVerdict(message="time-out"))
    assert slots_of(job_id) == 1
    look(actor, job_id, DENIAL)
    assert slots_of(job_id) == 0


def test_what_broke_at_the_provider_is_bounded(actor: Actor) -> None:
    job_id, _ = run(actor)
    broken = NoVerdict(message="Internal Error (code 50500)", final_after=3)
    look(actor, job_id, broken, NoVerdict(message="time-out"), broken)
    assert Seen(actor, job_id).status == Status.RUNNING
    look(actor, job_id, broken)
    seen = Seen(actor, job_id)
    assert (seen.end, slots_of(job_id)) == ((Status.FAILED, "provider_failed", 0), 0)


def test_a_good_answer_forgives_earlier_denials(actor: Actor) -> None:
    job_id, claim = run(actor)
    for _ in range(3 * lifecycle.GONE_LIMIT):
        with transaction() as session:
            lifecycle.no_verdict(session, claim, NoVerdict(message="not found", gone=True))
        claim = claim_poll()
        with transaction() as session:
            lifecycle.still_running(session, [(claim, Running())])
        claim = claim_poll()
    assert Seen(actor, job_id).status == Status.RUNNING


# ---------------------------------------------------------------- chance at the submit


CHECKS_BROKE = Rejected(code="provider_failed", message="Risk Internal Error (code 50520)", tries=1)


def refuse(verdict: Any) -> claims.SubmitClaim:
    """The next submit is answered with this."""
    make_due()
    claim = sent(claim_submits()[0])
    with transaction() as session:
        write = lifecycle.rejected if isinstance(verdict, Rejected) else lifecycle.not_accepted
        write(session, claim, verdict)
    return claim


def health(account_id: str) -> tuple[int, str | None, bool]:
    """Of an account: failures, trouble, whether it pauses."""
    with transaction() as session:
        row = session.get_one(ProviderAccount, account_id)
        return row.failures, row.trouble, row.open_until > clock.epoch()


WELL = (0, None, False)


@pytest.mark.parametrize(
    "verdict", [CHECKS_BROKE, Rejected(code="content_moderated", message="bad luck", tries=2)]
)
def test_chance_at_the_submit_is_tried_again_later_and_blames_nobody(actor: Actor, verdict: Rejected) -> None:
    job_id = submit(actor)
    for _ in range(verdict.tries):
        claim = refuse(verdict)
        seen = Seen(actor, job_id)
        assert (seen.status, seen.balance) == (Status.QUEUED, credits.Balance(80, PRICE))
        assert seen.due_at is not None
        assert seen.due_at > clock.epoch() + 2
        assert health(claim.account_id) == WELL
    claim = refuse(verdict)
    seen = Seen(actor, job_id)
    assert (seen.end, seen.balance) == ((Status.FAILED, verdict.code, 0), credits.Balance(100, 0))
    assert health(claim.account_id) == WELL
    with transaction() as session:
        assert (session.get_one(Job, job_id).error or {})["retryable"] is True


def test_chance_at_the_submit_and_after_it_share_their_tries(actor: Actor) -> None:
    job_id = submit(actor)
    chance = Rejected(code="content_moderated", message="bad luck", tries=2)
    for _ in range(2):
        refuse(chance)
    make_due()
    accept(sent(claim_submits()[0]))
    fail_by_chance(claim_poll())
    assert Seen(actor, job_id).end == (Status.FAILED, "content_moderated", 0)


# ---------------------------------------------------------------- doubt about an account, and its faults


TOKEN = NotAccepted(trouble=Trouble.CREDENTIALS, message="not yet valid (code 1003)", doubted=True)


def test_a_doubtful_refusal_is_tried_again_once_before_the_account_is_paused(actor: Actor) -> None:
    job_id = submit(actor)
    refuse(NotAccepted(trouble=Trouble.BUSY, message="429"))  # which is something else
    with transaction() as session:
        session.execute(update(ProviderAccount).values(open_until=0.0, trouble=None))
    account_id = refuse(TOKEN).account_id
    assert (Seen(actor, job_id).status, health(account_id)) == (Status.QUEUED, WELL)
    refuse(TOKEN)
    assert Seen(actor, job_id).end == (Status.FAILED, "provider_unavailable", 0)
    assert health(account_id) == (1, "credentials", True)


def test_a_fresh_token_may_be_all_that_it_takes(actor: Actor) -> None:
    job_id = submit(actor)
    refuse(TOKEN)
    make_due()
    accept(sent(claim_submits()[0]))
    assert Seen(actor, job_id).status == Status.RUNNING


BROKE = Failed(code="account_exhausted", message="总绘图次数已用完", retryable=True, trouble=Trouble.BALANCE)


def test_a_generation_that_fails_for_its_accounts_fault_goes_to_another(
    actor: Actor, make_account: Callable[..., str]
) -> None:
    other = make_account("fal", limit=1)
    with transaction() as session:
        session.execute(update(ProviderAccount).where(ProviderAccount.id == other).values(enabled=False))
    job_id, claim = run(actor)
    with transaction() as session:
        session.execute(update(ProviderAccount).values(enabled=True))
    with transaction() as session:
        lifecycle.failed(session, claim, BROKE)
    assert (Seen(actor, job_id).status, health(claim.account_id)) == (Status.QUEUED, (1, "balance", True))
    make_due()
    assert [(again.job_id, again.account_id) for again in claim_submits()] == [(job_id, other)]


def test_with_no_other_account_such_a_generation_is_final(actor: Actor) -> None:
    job_id, claim = run(actor)
    with transaction() as session:
        lifecycle.failed(session, claim, BROKE)
    seen = Seen(actor, job_id)
    assert (seen.end, seen.balance) == ((Status.FAILED, "account_exhausted", 0), credits.Balance(100, 0))
    assert health(claim.account_id) == (1, "balance", True)


def test_a_full_account_is_tried_again_a_few_times(actor: Actor) -> None:
    busy = Failed(code="provider_unavailable", message="队列已满", retryable=True, trouble=Trouble.BUSY)
    job_id, claim = run(actor)
    for _ in range(lifecycle.CHANCE_TRIES):
        with transaction() as session:
            lifecycle.failed(session, claim, busy)
        assert Seen(actor, job_id).status == Status.QUEUED
        with transaction() as session:
            session.execute(update(ProviderAccount).values(open_until=0.0))
        make_due()
        accept(sent(claim_submits()[0]))
        claim = claim_poll()
    with transaction() as session:
        lifecycle.failed(session, claim, busy)
    assert Seen(actor, job_id).end == (Status.FAILED, "provider_unavailable", 0)


# ---------------------------------------------------------------- lost submits and dead workers


def test_a_worker_that_died_before_sending_loses_nothing(actor: Actor) -> None:
    job_id = submit(actor)
    claim_submits()
    make_due()
    with transaction() as session:
        assert lifecycle.recover(session) == 1
    assert Seen(actor, job_id).status == Status.QUEUED
    assert claim_submits()[0].job_id == job_id


def test_a_worker_that_died_after_sending_leads_to_a_search_never_a_second_submit(actor: Actor) -> None:
    job_id = submit(actor)
    sent(claim_submits()[0])
    make_due()
    with transaction() as session:
        lifecycle.recover(session)
    assert claim_submits() == []
    with transaction() as session:
        lost = claims.lost_submits(session, 10)[0]
        lifecycle.accepted(session, lost, Accepted(provider_ref="found"), adopted=True)
    store(produce(claim_poll()))
    assert Seen(actor, job_id).status == Status.SUCCEEDED
    with transaction() as session:
        assert session.get_one(JobAttempt, lost.attempt_id).outcome == Outcome.ADOPTED


def test_an_answer_that_comes_after_the_lease_helps_whoever_looks(actor: Actor) -> None:
    job_id = submit(actor)
    slow = sent(claim_submits()[0])
    make_due()
    with transaction() as session:
        lifecycle.recover(session)
        lifecycle.answered_late(session, slow, Accepted(provider_ref="known", memo={"a": 1}, cost="3"))
    make_due()
    with transaction() as session:
        (lost,) = claims.lost_submits(session, 10)
    assert lost.late_answer == {"provider_ref": "known", "memo": {"a": 1}, "cost": "3"}
    assert Seen(actor, job_id).status == Status.SUBMITTING


def test_a_submit_that_took_long_to_send_is_looked_for_as_long_as_others(actor: Actor) -> None:
    job_id = submit(actor)
    claim = sent(claim_submits()[0])
    with transaction() as session:
        session.get_one(JobAttempt, claim.attempt_id).sent_at = clock.now() - timedelta(hours=1)
        lifecycle.unknown(session, claim, Unknown(message="time-out"))
    make_due()
    with transaction() as session:
        lifecycle.not_found_yet(session, claims.lost_submits(session, 10)[0])
    assert Seen(actor, job_id).step == Step.RECONCILE


def test_a_submit_that_is_never_found_fails_free(actor: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILE_WINDOW_S", "0")
    configuration.settings.cache_clear()
    job_id = submit(actor)
    claim = sent(claim_submits()[0])
    with transaction() as session:
        lifecycle.unknown(session, claim, Unknown(message="time-out"))
    make_due()
    with transaction() as session:
        lifecycle.not_found_yet(session, claims.lost_submits(session, 10)[0])
    seen = Seen(actor, job_id)
    assert (seen.status, seen.code, seen.balance) == (
        Status.FAILED,
        "submit_unknown",
        credits.Balance(100, 0),
    )


def test_inside_the_window_the_search_goes_on(actor: Actor) -> None:
    job_id = submit(actor)
    claim = sent(claim_submits()[0])
    with transaction() as session:
        lifecycle.unknown(session, claim, Unknown(message="time-out"))
    make_due()
    with transaction() as session:
        lifecycle.not_found_yet(session, claims.lost_submits(session, 10)[0])
    assert Seen(actor, job_id).status == Status.SUBMITTING


def test_who_lost_the_lease_writes_nothing(actor: Actor) -> None:
    job_id, slow = run(actor)
    fast = claim_poll()
    with pytest.raises(LeaseLost), transaction() as session:
        lifecycle.failed(session, slow, Failed(code="provider_failed", message="too late"))
    with pytest.raises(LeaseLost), transaction() as session:
        lifecycle.produced(session, slow, Succeeded(outputs=(PICTURE,)))
    with transaction() as session:
        lifecycle.still_running(session, [(slow, Running())])
    assert Seen(actor, job_id).status == Status.RUNNING
    store(produce(fast))
    assert Seen(actor, job_id).status == Status.SUCCEEDED


def test_storing_twice_makes_one_artifact(actor: Actor) -> None:
    job_id, claim = run(actor)
    first = produce(claim)
    second = claim_store()
    with pytest.raises(LeaseLost):
        store(first)
    store(second)
    assert (Seen(actor, job_id).artifacts, Seen(actor, job_id).charged) == (1, PRICE)


def test_a_dead_source_fails_free(actor: Actor) -> None:
    job_id, claim = run(actor)
    stored = produce(claim)
    with transaction() as session:
        lifecycle.unstorable(session, stored, [], "404")
    seen = Seen(actor, job_id)
    assert (seen.code, seen.balance) == ("storage_failed", credits.Balance(100, 0))


def test_what_is_stored_is_kept_while_the_rest_is_tried_again(actor: Actor) -> None:
    job_id, claim = run(actor)
    with transaction() as session:
        lifecycle.produced(session, claim, Succeeded(outputs=(PICTURE, PICTURE)))
    first = claim_store()
    with transaction() as session:
        lifecycle.partly_stored(session, first, [picture(1)])
    second = claim_store()
    assert second.stored == {1}
    with transaction() as session:
        lifecycle.stored(session, second, [picture(2)])
    assert (Seen(actor, job_id).status, Seen(actor, job_id).artifacts) == (Status.SUCCEEDED, 2)


# ---------------------------------------------------------------- slots and turns


def test_an_account_never_has_more_than_its_limit(
    make_actor: Callable[..., Actor], make_account: Callable[..., str]
) -> None:
    account = make_account(limit=3)
    actor = make_actor(1000)
    for _ in range(10):
        submit(actor)
    first = claim_submits()
    assert ([claim.account_id for claim in first], claim_submits()) == ([account] * 3, [])
    with transaction() as session:
        lifecycle.rejected(session, sent(first[0]), Rejected(code="invalid_input", message="no"))
    assert len(claim_submits()) == 1


def test_a_stored_result_needs_no_slot(
    make_actor: Callable[..., Actor], make_account: Callable[..., str]
) -> None:
    make_account(limit=1)
    actor = make_actor(1000)
    _, claim = run(actor)
    submit(actor)
    assert claim_submits() == []
    with transaction() as session:
        lifecycle.produced(session, claim, Succeeded(outputs=(PICTURE,)))
    assert len(claim_submits()) == 1


def test_a_small_user_does_not_wait_behind_a_big_ones_backlog(
    make_actor: Callable[..., Actor], make_account: Callable[..., str]
) -> None:
    make_account(limit=4)
    big, small = make_actor(10_000), make_actor(100)
    for _ in range(50):
        submit(big)
    wanted = {submit(small), submit(small)}
    assert wanted <= {claim.job_id for claim in claim_submits()}


def test_priority_goes_before_age(make_actor: Callable[..., Actor], make_account: Callable[..., str]) -> None:
    make_account(limit=1)
    actor = make_actor(1000)
    submit(actor)
    urgent = submit(actor, priority=5)
    assert [claim.job_id for claim in claim_submits()] == [urgent]


def test_accounts_share_by_weight(make_actor: Callable[..., Actor], make_account: Callable[..., str]) -> None:
    light, heavy = make_account(limit=100, weight=1), make_account(limit=100, weight=3)
    actor = make_actor(10_000)
    for _ in range(40):
        submit(actor)
    used = [claim.account_id for claim in claim_submits()]
    assert (used.count(light), used.count(heavy)) == (10, 30)


def test_a_broken_account_gets_one_probe_at_a_time(
    make_actor: Callable[..., Actor], make_account: Callable[..., str]
) -> None:
    account = make_account(limit=10)
    actor = make_actor(10_000)
    for _ in range(10):
        submit(actor)
    with transaction() as session:
        row = session.get_one(claims.ProviderAccount, account)
        row.failures, row.open_until = 9, 0.0
    probe = claim_submits()
    assert (len(probe), claim_submits()) == (1, [])
    with transaction() as session:
        lifecycle.accepted(session, sent(probe[0]), Accepted(provider_ref="ref"))
    assert len(claim_submits()) == 9


# ---------------------------------------------------------------- chance, and parts of a price

CHANCE = Failed(code="content_moderated", message="bad luck", retryable=True, try_again=True)


def fail_by_chance(claim: claims.Claim) -> None:
    with transaction() as session:
        lifecycle.failed(session, claim, CHANCE)


def test_what_chance_has_stopped_is_tried_again_a_few_times(actor: Actor) -> None:
    job_id, claim = run(actor)
    for number in range(1, lifecycle.CHANCE_TRIES + 1):
        fail_by_chance(claim)
        seen = Seen(actor, job_id)
        assert (seen.status, seen.charged) == (Status.QUEUED, None)
        make_due()
        again = sent(claim_submits()[0])
        assert again.attempt_id != claim.attempt_id
        with transaction() as session:
            lifecycle.accepted(session, again, Accepted(provider_ref=f"ref-{number}"))
        claim = claim_poll()
        assert claim.handle is not None
        assert claim.handle.provider_ref == f"ref-{number}"
    fail_by_chance(claim)
    seen = Seen(actor, job_id)
    assert (seen.status, seen.code, seen.balance) == (
        Status.FAILED,
        "content_moderated",
        credits.Balance(100, 0),
    )


def test_chance_may_be_kind_the_second_time(actor: Actor) -> None:
    job_id, claim = run(actor)
    fail_by_chance(claim)
    make_due()
    again = sent(claim_submits()[0])
    with transaction() as session:
        lifecycle.accepted(session, again, Accepted(provider_ref="ref-2"))
    store(produce(claim_poll()))
    seen = Seen(actor, job_id)
    assert (seen.status, seen.charged, seen.balance) == (Status.SUCCEEDED, PRICE, credits.Balance(80, 0))


def test_who_cancels_is_not_tried_again(actor: Actor) -> None:
    job_id, claim = run(actor)
    cancel(actor, job_id)
    fail_by_chance(claim)
    seen = Seen(actor, job_id)
    assert (seen.status, seen.balance) == (Status.CANCELED, credits.Balance(100, 0))


@pytest.mark.parametrize(("made", "charged"), [(1, 2), (3, 4), (14, 19), (15, 20), (20, 20)])
def test_only_what_was_made_of_many_is_charged(actor: Actor, made: int, charged: int) -> None:
    job_id, claim = run(actor)
    with transaction() as session:
        lifecycle.produced(session, claim, Succeeded(outputs=(PICTURE,), share=(made, 15)))
    store(claim_store())
    seen = Seen(actor, job_id)
    assert (seen.charged, seen.balance) == (charged, credits.Balance(100 - charged, 0))
    with transaction() as session:
        assert credits.verify(session) == []
