"""Giving out slots: limits that hold, turns that are fair, breakers that let one probe through, at any size."""

from __future__ import annotations

import random
import secrets
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, update

from common import clock
from common.db import transaction
from common.models import Job, JobAttempt, JobStep, ProviderAccount
from common.providers.base import Accepted, Failed, NotAccepted, Rejected, Succeeded, Trouble, Unknown
from common.services import claims, credits, jobs, lifecycle
from common.services.accounts import BREAKER_THRESHOLD
from common.services.claims import SubmitClaim
from common.services.jobs import NewJob
from common.services.users import Actor
from common.words import Outcome, Status, Step
from tests.infrastructure.children import wait_until
from tests.integration.services.backlog import add_running, add_waiting, plan, statements
from tests.integration.services.hive import Provider, Workers
from workers.steps.submit import Submit

MODEL = "flux/pro-1.1"  # served by bfl and by fal
WAIT_S = 20.0
MakeAccount = Callable[..., str]
MakeActor = Callable[..., Actor]


@pytest.fixture
def user(make_actor: MakeActor) -> Actor:
    """Somebody with enough credits for all that happens here."""
    return make_actor(100_000)


# ---------------------------------------------------------------- what users and workers do


def submit(actor: Actor, count: int = 1, **fields: Any) -> list[str]:
    with transaction() as session:
        new = NewJob(**({"model": MODEL, "input": {"prompt": "a fox"}} | fields))
        return [jobs.accept(session, actor, new)[0].id for _ in range(count)]


def give(limit: int = 64) -> list[SubmitClaim]:
    with transaction() as session:
        return claims.submits(session, limit)


def send(claimed: list[SubmitClaim]) -> list[SubmitClaim]:
    with transaction() as session:
        return lifecycle.sending(session, claimed)


def answer(claim: SubmitClaim, verdict: Any) -> None:
    with transaction() as session:
        match verdict:
            case Accepted():
                lifecycle.accepted(session, claim, verdict)
            case Rejected():
                lifecycle.rejected(session, claim, verdict)
            case NotAccepted():
                lifecycle.not_accepted(session, claim, verdict)
            case Unknown():
                lifecycle.unknown(session, claim, verdict)


def start(limit: int = 64) -> list[SubmitClaim]:
    """Bring waiting jobs to their providers."""
    claimed = send(give(limit))
    for claim in claimed:
        answer(claim, Accepted(provider_ref=claim.attempt_id))
    return claimed


def end(count: int) -> None:
    """Let that many generations end."""
    make_due()
    with transaction() as session:
        for claim in claims.due(session, Step.POLL, count):
            lifecycle.produced(session, claim, Succeeded(output={"prompts": []}))


def make_due() -> None:
    with transaction() as session:
        session.execute(update(JobStep).values(due_at=clock.epoch() - 1))


def change(account_id: str, **values: Any) -> None:
    with transaction() as session:
        session.execute(update(ProviderAccount).where(ProviderAccount.id == account_id).values(**values))


def break_down(account_id: str, *, half_open: bool = True) -> None:
    now = clock.epoch()
    change(
        account_id, failures=BREAKER_THRESHOLD, trouble="down", open_until=now - 1 if half_open else now + 60
    )


def used(account_id: str) -> int:
    with transaction() as session:
        return session.scalar(
            select(func.coalesce(func.sum(JobStep.slots), 0)).where(
                JobStep.account_id == account_id, JobStep.step != Step.STORE
            )
        )


def live() -> int:
    with transaction() as session:
        return session.scalars(select(func.count()).select_from(JobStep)).one()


def ends_of(job_ids: list[str]) -> Counter[tuple[str, str | None]]:
    """How many ended how."""
    with transaction() as session:
        rows = session.execute(select(Job.status, Job.error).where(Job.id.in_(job_ids)))
        return Counter((status, (error or {}).get("code")) for status, error in rows)


def attempted() -> list[str]:
    """The jobs of all attempts, in their order."""
    with transaction() as session:
        return list(session.scalars(select(JobAttempt.job_id).order_by(JobAttempt.id)))


def accounts_of(claimed: list[SubmitClaim]) -> Counter[str]:
    return Counter(claim.account_id for claim in claimed)


def side_by_side(count: int, work: Callable[[], Any]) -> list[Any]:
    """Run it in that many threads that begin at the same moment; their results."""
    together, results, errors = threading.Barrier(count, timeout=WAIT_S), [], []

    def run() -> None:
        try:
            together.wait()
            results.append(work())
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert errors == []
    return results


# ---------------------------------------------------------------- how many at once


def test_full_accounts_queue_and_never_reject(user: Actor, make_account: MakeAccount) -> None:
    account = make_account(limit=3)
    mine = submit(user, 10)
    assert len(start()) == 3
    assert give() == []
    done = set()
    for _ in range(4):
        end(3)
        done |= {claim.job_id for claim in start()}
        assert used(account) <= 3
    with transaction() as session:
        states = Counter(session.scalars(select(Job.status).where(Job.id.in_(mine))))
    assert states == {Status.SUCCEEDED: 10}


def test_who_gives_out_slots_at_the_same_moment_gives_out_no_more(
    user: Actor, make_account: MakeAccount
) -> None:
    ids = [make_account(limit=5) for _ in range(3)]
    submit(user, 40)
    claimed = [claim for given in side_by_side(6, give) for claim in given]
    assert accounts_of(claimed) == dict.fromkeys(ids, 5)
    assert len({claim.job_id for claim in claimed}) == 15


def test_a_dead_workers_slots_come_back(user: Actor, make_account: MakeAccount) -> None:
    account = make_account(limit=4)
    submit(user, 8)
    died_before_sending, died_after_sending = give(2), send(give(2))
    assert give() == []
    make_due()
    with transaction() as session:
        assert lifecycle.recover(session) == 4
    assert used(account) == 2  # the two that may have been sent are being looked for
    again = give()
    assert len(again) == 2
    assert {claim.job_id for claim in again} == {claim.job_id for claim in died_before_sending}
    assert not {claim.job_id for claim in again} & {claim.job_id for claim in died_after_sending}


def test_a_lost_submit_keeps_its_slot_until_it_is_decided(user: Actor, make_account: MakeAccount) -> None:
    make_account(limit=1)
    submit(user, 2)
    (claim,) = send(give())
    answer(claim, Unknown(message="time-out"))
    assert give() == []
    make_due()
    with transaction() as session:
        (lost,) = claims.lost_submits(session, 10)
        lifecycle.accepted(session, lost, Accepted(provider_ref="found"), adopted=True)
    assert give() == []
    end(1)
    assert len(give()) == 1


def test_a_job_that_needs_several_slots_is_not_overtaken_for_ever(
    make_actor: MakeActor, make_account: MakeAccount
) -> None:
    account = make_account("kling", "kling", limit=4)
    small, big = make_actor(10_000), make_actor(10_000)
    picture = {"model": "kling/image", "input": {"prompt": "a fox"}}
    submit(small, 8, **picture)
    start()
    (wanted,) = submit(big, model="kling/image", input={"prompt": "a fox", "n": 3})
    end(1)
    assert start() == []  # a small one would fit, but then there would never be three slots
    end(2)
    assert {claim.job_id for claim in start()} == {wanted}
    assert used(account) == 4


def test_what_an_account_has_no_room_for_goes_to_another(user: Actor, make_account: MakeAccount) -> None:
    first, second = make_account(limit=2), make_account("fal", limit=3)
    submit(user, 10)
    assert accounts_of(start()) == {first: 2, second: 3}


@pytest.mark.timeout(240)  # some seconds on a machine of its own
def test_limits_hold_while_workers_are_killed(
    database_url: str, make_actor: MakeActor, make_account: MakeAccount
) -> None:
    work_through_kills(database_url, make_actor, make_account, jobs=160)


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_limits_hold_for_a_thousand_jobs_while_workers_are_killed(
    database_url: str, make_actor: MakeActor, make_account: MakeAccount
) -> None:
    work_through_kills(database_url, make_actor, make_account, jobs=1000)


def work_through_kills(
    database_url: str, make_actor: MakeActor, make_account: MakeAccount, jobs: int
) -> None:
    """3 accounts with 5 slots each, 6 processes of which one is killed after every 30 submits; a big user's backlog,
    and two small users, of whom one comes when half of it is done."""
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    ids = [make_account(limit=5) for _ in range(3)]
    big, small, late = make_actor(100_000), make_actor(1000), make_actor(1000)
    everything = [*submit(big, jobs - 20), *(mine := submit(small, 10))]
    environment = {
        "DATABASE_URL": database_url, "SECRET_KEY": "a secret for tests",
        "LEASE_S": "2", "RECONCILE_WINDOW_S": "4", "POLL_INTERVAL_S": "0.3",
    }  # fmt: skip
    before, after, theirs = 0, 0, list[str]()
    with (
        Provider(runs_s=0.3, busy=0.01, seed=seed) as provider,
        Workers(6, provider, environment) as workers,
    ):
        for goal in range(30, jobs - 50, 30):
            wait_until(
                lambda goal=goal: provider.submits.total() >= goal,  # type: ignore[misc]
                2 * WAIT_S,
                what=f"{goal} submits",
            )
            workers.kill9(chance.randrange(6))
            if not theirs and goal > jobs / 2:
                before = len(attempted())
                theirs = submit(late, 10)  # the first of them may be sent before the last is here
                after = len(attempted())
        wait_until(lambda: not live(), 3 * WAIT_S, what="the end of all jobs", every_s=0.1)
        assert workers.failed() == []
    everything += theirs
    assert max(provider.most.values()) <= 5
    assert max(provider.submits.values()) == 1
    ends = ends_of(everything)
    assert ends.total() == jobs
    assert set(ends) <= {("succeeded", None), ("failed", "submit_unknown")}, ends
    assert ends["succeeded", None] == provider.submits.total()  # whatever the provider took was found again
    assert [used(account) for account in ids] == [0, 0, 0]
    assert set(attempted()[:60]) >= set(mine)
    assert set(attempted()[before : after + 60]) >= set(theirs)
    submit(big, 20)
    for account in ids:  # whatever was lost there lately
        change(account, failures=0, open_until=0.0, trouble=None)
    assert accounts_of(give()) == dict.fromkeys(ids, 5)


def test_a_job_that_comes_while_slots_are_given_out_waits_for_its_best_account(
    engine: Engine, user: Actor, make_account: MakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flux schnell is fal's alone; what comes meanwhile could go to BFL, too, whose account nobody looks at then."""
    fal, bfl = make_account("fal"), make_account("bfl")
    submit(user, model="flux/schnell")
    look, comes_while = claims._loads, engine.dialect.name == "postgresql"  # on SQLite nothing can

    def look_slowly(*args: Any) -> Any:
        if comes_while:
            submit(user)
        return look(*args)

    with monkeypatch.context() as patch:
        patch.setattr(claims, "_loads", look_slowly)
        assert accounts_of(give()) == {fal: 1}
    if not comes_while:
        submit(user)
    assert accounts_of(give()) == {bfl: 1}


# ---------------------------------------------------------------- how many a minute


def test_submits_per_minute_are_counted_across_all_workers(user: Actor, make_account: MakeAccount) -> None:
    account = make_account(limit=100)
    change(account, max_submits_per_minute=6)
    submit(user, 20)
    claimed = [claim for given in side_by_side(4, lambda: give(4)) for claim in given]
    assert len(claimed) == 6
    for claim in send(claimed):
        answer(claim, Accepted(provider_ref="ref"))
    end(6)
    assert give() == []  # slots are free, but the minute is not over


def test_the_minute_passes(user: Actor, make_account: MakeAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    account = make_account(limit=100)
    change(account, max_submits_per_minute=6)
    submit(user, 20)
    assert (len(start(4)), len(start()), len(start())) == (4, 2, 0)
    really = clock.epoch
    monkeypatch.setattr(clock, "epoch", lambda: really() + 61)
    assert len(give()) == 6


def test_what_was_given_to_a_worker_that_died_counts_too(user: Actor, make_account: MakeAccount) -> None:
    account = make_account(limit=100)
    change(account, max_submits_per_minute=3)
    submit(user, 10)
    give(2)
    make_due()
    with transaction() as session:
        lifecycle.recover(session)
    assert len(give()) == 1


def test_another_account_takes_what_a_rate_holds_back(user: Actor, make_account: MakeAccount) -> None:
    slow, other = make_account(limit=100), make_account("fal", limit=100)
    change(slow, max_submits_per_minute=2, weight=50)
    submit(user, 10)
    assert accounts_of(start()) == {slow: 2, other: 8}


# ---------------------------------------------------------------- whose turn it is


def test_a_big_backlog_costs_a_small_user_no_turn(make_actor: MakeActor, make_account: MakeAccount) -> None:
    make_account(limit=4)
    big, small = make_actor(100_000), make_actor(100)
    submit(big, 300)
    start()
    (mine,) = submit(small)
    for _ in range(4):
        end(1)
        (next_one,) = start()
        if next_one.job_id == mine:
            break
    assert next_one.job_id == mine


def test_slots_go_round_between_users(make_actor: MakeActor, make_account: MakeAccount) -> None:
    make_account(limit=9)
    users = [make_actor(10_000) for _ in range(3)]
    for actor, count in zip(users, (50, 20, 2), strict=True):
        submit(actor, count)
    claimed = start()
    with transaction() as session:
        owners = Counter(session.scalars(select(Job.user_id).where(Job.id.in_([c.job_id for c in claimed]))))
    assert [owners[actor.user_id] for actor in users] == [4, 3, 2]


def test_a_heavier_user_gets_more_of_the_slots(make_actor: MakeActor, make_account: MakeAccount) -> None:
    make_account(limit=12)
    light, heavy = make_actor(10_000), make_actor(10_000)
    with transaction() as session:
        credits.set_weight(session, heavy.user_id, 3)
    submit(light, 20)
    submit(heavy, 20)
    claimed = start()
    with transaction() as session:
        owners = Counter(session.scalars(select(Job.user_id).where(Job.id.in_([c.job_id for c in claimed]))))
    assert owners == {light.user_id: 3, heavy.user_id: 9}


def test_of_one_user_the_urgent_goes_first_and_then_the_old(user: Actor, make_account: MakeAccount) -> None:
    make_account(limit=100)
    old = submit(user, 5)
    urgent = submit(user, 3, priority=2)
    assert [claim.job_id for claim in give()] == urgent + old


def test_jobs_for_a_closed_provider_hide_no_others(make_actor: MakeActor, make_account: MakeAccount) -> None:
    make_account(limit=2)
    closed = make_account("kling", "kling", limit=2)
    break_down(closed, half_open=False)
    user = make_actor(100_000)
    submit(user, 300, model="kling/text-to-video", priority=9)
    submit(user, 3)
    assert len(start()) == 2


def test_follow_ups_to_a_full_account_hide_no_others(user: Actor, make_account: MakeAccount) -> None:
    full, free = make_account(limit=1), make_account("fal", limit=2)
    pinned = submit(user, 200, priority=9)
    submit(user, 2)
    with transaction() as session:
        session.execute(update(JobStep).where(JobStep.job_id.in_(pinned)).values(pinned_account_id=full))
    assert accounts_of(start() + start()) == {full: 1, free: 2}


def test_what_is_not_due_yet_hides_no_others(user: Actor, make_account: MakeAccount) -> None:
    make_account(limit=2)
    later = submit(user, 200)
    with transaction() as session:
        session.execute(update(JobStep).values(due_at=clock.epoch() + 60))
    now = submit(user, 2)
    assert {claim.job_id for claim in start()} == set(now)
    assert not set(now) & set(later)


def test_with_more_users_than_are_looked_at_the_oldest_jobs_still_have_their_turn(
    make_actor: MakeActor, make_account: MakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_account(limit=2)
    monkeypatch.setattr(claims, "_PILES", 3)
    claims._firsts.cache_clear()
    users = sorted((make_actor(100) for _ in range(8)), key=lambda actor: actor.user_id, reverse=True)
    waiting = {submit(actor)[0] for actor in users}  # the first to come is the last by id
    served = []
    for _ in range(4):
        served += [claim.job_id for claim in start()]
        end(2)
    claims._firsts.cache_clear()
    assert set(served) == waiting


def test_canceled_while_being_chosen_is_left_out(user: Actor, make_account: MakeAccount) -> None:
    """A cancel that commits between the look at the queue and the intent."""
    make_account()
    gone, kept = submit(user, 2)
    chosen = claims.Waiting(gone, user.user_id, MODEL, 0, 0.0, 1, None)
    with transaction() as session:
        jobs.cancel(session, user, gone)
    with transaction() as session:
        given = claims._intend(session, [(chosen, "acc"), (chosen._replace(job_id=kept), "acc")])
    assert [claim.job_id for claim in given] == [kept]


def test_no_more_input_at_a_time_than_a_process_should_hold(
    user: Actor, make_account: MakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_account(limit=10)
    monkeypatch.setattr(claims, "MOST_INPUT_BYTES", 1000)
    large = [*submit(user, 2, input={"prompt": "x" * 450}), *submit(user, 1, input={"prompt": "x" * 1500})]
    last = submit(user, 2)
    given = [[claim.job_id for claim in give()] for _ in range(4)]
    assert given == [large[:2], large[2:], last, []]


def test_a_process_that_holds_large_inputs_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "MOST_INPUT_BYTES", 1000)
    claim = SubmitClaim(
        job_id="job", token="t", step=Step.SUBMIT, model=MODEL, account_id="acc", attempt_id="att", failures=0,
        refusals=0, cancel_requested=False, finished=False, input={}, input_bytes=500, callback_token="",
        pinned=False, hint=None, late_answer=None,
    )  # fmt: skip
    assert Submit().room([claim]) == Submit.most - 1
    assert Submit().room([claim, claim]) == 0


# ---------------------------------------------------------------- which account, and its breaker


def test_a_closed_breaker_and_a_pause_are_gone_round(user: Actor, make_account: MakeAccount) -> None:
    paused, open_ = make_account(limit=10, weight=9), make_account("fal", limit=3)
    break_down(paused, half_open=False)
    submit(user, 5)
    assert accounts_of(start()) == {open_: 3}


def test_exactly_one_probe_across_all_workers(user: Actor, make_account: MakeAccount) -> None:
    make_account(limit=10)
    submit(user, 20)
    running = start(4)  # what runs there already is no probe, and does not stand in its way
    break_down(running[0].account_id)
    probes = [claim for given in side_by_side(6, give) for claim in given]
    assert len(probes) == 1
    assert give() == []


def test_a_probe_that_fails_reopens_for_longer_and_one_that_works_closes(
    user: Actor, make_account: MakeAccount
) -> None:
    account = make_account(limit=10)
    submit(user, 30)
    break_down(account)
    pauses = []
    for verdict in (
        NotAccepted(trouble=Trouble.DOWN, message="no"),
        Unknown(message="no"),
        Unknown(message="no"),
    ):
        (probe,) = send(give())
        answer(probe, verdict)
        with transaction() as session:
            pauses.append(session.get_one(ProviderAccount, account).open_until - clock.epoch())
        assert give() == []
        change(account, open_until=clock.epoch() - 1)
        make_due()
    assert pauses[0] < pauses[1] < pauses[2] <= 60
    (probe,) = send(give())
    answer(probe, Accepted(provider_ref="ref"))
    assert len(give()) == 10 - 3  # two are looked for, one runs


def test_a_rejected_job_proves_that_its_account_works(user: Actor, make_account: MakeAccount) -> None:
    account = make_account(limit=10)
    submit(user, 5)
    break_down(account)
    (probe,) = send(give())
    answer(probe, Rejected(code="invalid_input", message="no"))
    assert len(give()) == 4


def test_a_job_refused_before_its_account_was_asked_proves_nothing(
    user: Actor, make_account: MakeAccount
) -> None:
    account = make_account(limit=10)
    submit(user, 5)
    break_down(account)
    (probe,) = send(give())
    answer(probe, Rejected(code="invalid_input", message="no such picture", asked=False))
    assert len(give()) == 1, "it is still tried one job at a time"


def test_an_account_that_may_not_use_a_model_serves_the_others(
    user: Actor, make_account: MakeAccount
) -> None:
    account = make_account(limit=10)
    submit(user, 5)
    (claim, *_) = send(give(1))
    answer(claim, NotAccepted(trouble=Trouble.MODEL, message="not in your plan"))
    with transaction() as session:
        row = session.get_one(ProviderAccount, account)
        assert (row.failures, row.trouble, row.open_until) == (0, None, 0.0)
        job = session.get_one(Job, claim.job_id)
        assert job.error == {"code": "provider_unavailable", "message": "not in your plan", "retryable": True}
    assert len(give()) == 4


NO_MODEL = NotAccepted(trouble=Trouble.MODEL, message="not in your plan")


def test_what_one_account_may_not_use_waits_for_another(user: Actor, make_account: MakeAccount) -> None:
    make_account(limit=1)
    other = make_account("fal", limit=1)
    change(other, open_until=clock.epoch() + 60)
    submit(user, 1)
    (claim,) = send(give())
    answer(claim, NO_MODEL)
    with transaction() as session:
        assert session.get_one(Job, claim.job_id).status == "queued"
    make_due()
    assert give() == [], "nobody is asked again who cannot"
    change(other, open_until=0.0)
    (again,) = send(give())
    assert (again.job_id, again.account_id) == (claim.job_id, other)
    answer(again, Accepted(provider_ref="ref"))


def test_a_model_that_no_account_may_use_fails_at_once_with_the_providers_reason(
    make_actor: MakeActor, make_account: MakeAccount
) -> None:
    accounts = {make_account(limit=1), make_account("fal", limit=1), make_account("fal", limit=1)}
    user = make_actor(100)
    (job_id,) = submit(user)
    asked = set()
    for _ in accounts:
        (claim,) = send(give())
        asked.add(claim.account_id)
        answer(claim, NO_MODEL)
        make_due()
    assert asked == accounts
    assert give() == []
    with transaction() as session:
        job = session.get_one(Job, job_id)
        assert (job.status, job.charged) == (Status.FAILED, 0)
        assert job.error == {"code": "provider_unavailable", "message": "not in your plan", "retryable": True}
        assert credits.balance(session, user.user_id) == credits.Balance(100, 0)
        assert credits.verify(session) == []


@pytest.mark.parametrize("trouble", [Trouble.CREDENTIALS, Trouble.BALANCE])
def test_who_has_refused_a_model_is_no_way_out_of_another_accounts_trouble(
    user: Actor, make_account: MakeAccount, trouble: Trouble
) -> None:
    make_account(limit=1)
    make_account("fal", limit=1)
    (job_id,) = submit(user)
    answer(*send(give()), NO_MODEL)
    make_due()
    answer(*send(give()), NotAccepted(trouble=trouble, message="no"))
    with transaction() as session:
        assert session.get_one(Job, job_id).status == Status.FAILED


def test_who_has_refused_a_model_is_not_asked_when_another_fails_by_chance(
    user: Actor, make_account: MakeAccount
) -> None:
    cannot, other = make_account(limit=5, weight=99), make_account("fal", limit=1)
    submit(user)
    (claim,) = send(give())
    assert claim.account_id == cannot
    answer(claim, NO_MODEL)
    make_due()
    (claim,) = start()
    make_due()
    with transaction() as session:
        (look,) = claims.due(session, Step.POLL, 1)
        chance = Failed(code="content_moderated", message="bad luck", retryable=True, try_again=True)
        lifecycle.failed(session, look, chance)
    make_due()
    assert accounts_of(give()) == {other: 1}


def test_what_an_account_has_refused_hides_no_others(
    user: Actor, make_account: MakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many jobs wait for the one account that may take them: the free one still finds those behind them, and the
    scheduler does not look at the others for it."""
    cannot, other = make_account(limit=40), make_account("fal", limit=1)
    change(other, open_until=clock.epoch() + 60)
    refused = submit(user, 40)
    for claim in send(give()):
        answer(claim, NO_MODEL)
    behind = submit(user, 2)
    make_due()
    looked: list[list[str]] = []
    jobs_of = claims._jobs
    monkeypatch.setattr(claims, "_TOPS", 4)
    monkeypatch.setattr(
        claims,
        "_jobs",
        lambda *args: looked.append([job.job_id for job in jobs_of(*args)]) or jobs_of(*args),
    )
    claims._firsts.cache_clear()
    given = give()
    claims._firsts.cache_clear()
    assert {claim.job_id for claim in given} == set(behind)
    assert accounts_of(given) == {cannot: 2}
    assert not {job_id for jobs in looked for job_id in jobs} & set(refused)


def test_a_probe_whose_worker_died_makes_way_for_another(user: Actor, make_account: MakeAccount) -> None:
    account = make_account(limit=10)
    submit(user, 5)
    break_down(account)
    assert (len(give()), give()) == (1, [])
    make_due()
    with transaction() as session:
        lifecycle.recover(session)
    assert len(give()) == 1


def test_a_wrong_key_is_probed_one_at_a_time_too(user: Actor, make_account: MakeAccount) -> None:
    wrong, right = make_account(limit=10), make_account("fal", limit=1)
    change(wrong, failures=1, trouble="credentials", open_until=clock.epoch() - 1)
    submit(user, 10)
    assert accounts_of(give()) == {wrong: 1, right: 1}


def test_unknown_answers_open_the_breaker(user: Actor, make_account: MakeAccount) -> None:
    make_account(limit=100)
    submit(user, 20)
    for claim in send(give(BREAKER_THRESHOLD)):
        answer(claim, Unknown(message="time-out"))
    assert give() == []


def test_retry_after_pauses_the_account_not_the_job(user: Actor, make_account: MakeAccount) -> None:
    busy, other = make_account(limit=10, weight=99), make_account("fal", limit=10)
    (job_id,) = submit(user)
    (claim,) = send(give())
    assert claim.account_id == busy
    answer(claim, NotAccepted(trouble=Trouble.BUSY, message="429", retry_after_s=100))
    with transaction() as session:
        assert session.get_one(JobStep, job_id).due_at < clock.epoch() + 2
    make_due()
    assert [(again.job_id, again.account_id) for again in give()] == [(job_id, other)]
    submit(user, 3)
    assert accounts_of(give()) == {other: 3}


def test_nothing_goes_elsewhere_unless_it_was_provably_not_sent(
    user: Actor, make_account: MakeAccount
) -> None:
    make_account(limit=10)
    make_account("fal", limit=10)
    (job_id,) = submit(user)
    (claim,) = send(give())
    answer(claim, Unknown(message="time-out"))
    for _ in range(3):
        make_due()
        with transaction() as session:
            lifecycle.recover(session)
        assert give() == []
    with transaction() as session:
        attempts = session.execute(
            select(JobAttempt.account_id, JobAttempt.outcome).filter_by(job_id=job_id)
        ).all()
    assert attempts == [(claim.account_id, Outcome.UNKNOWN)]


def test_an_attempt_keeps_its_account_whatever_happens_to_it(user: Actor, make_account: MakeAccount) -> None:
    account, other = make_account(limit=10, weight=99), make_account("fal", limit=10)
    submit(user)
    (claim,) = start()
    assert claim.account_id == account
    change(account, enabled=False)
    break_down(account, half_open=False)
    make_due()
    with transaction() as session:
        (look,) = claims.due(session, Step.POLL, 10)
    assert look.account_id == account
    submit(user)
    assert accounts_of(give()) == {other: 1}


def test_a_follow_up_waits_for_its_account(user: Actor, make_account: MakeAccount) -> None:
    account = make_account("midjourney", "midjourney", limit=2)
    make_account("midjourney", "midjourney", limit=2)
    (parent,) = submit(user, model="midjourney/imagine")
    change(account, weight=99)
    (first,) = start()
    assert first.account_id == account
    end(1)
    with transaction() as session:
        session.execute(
            update(Job).where(Job.id == parent).values(actions=[{"id": "upsample_1", "label": "U1"}])
        )
    (follow_up,) = submit(user, model="midjourney/action", input={"action": "upsample_1"}, parent_id=parent)
    break_down(account, half_open=False)
    assert give() == []
    change(account, failures=0, open_until=0.0)
    (claim,) = give()
    assert (claim.job_id, claim.account_id, claim.pinned) == (follow_up, account, True)
    assert claim.parent is not None
    assert claim.parent.provider_ref == first.attempt_id


def test_a_follow_up_whose_account_is_used_up_fails_instead_of_waiting(
    user: Actor, make_account: MakeAccount
) -> None:
    account = make_account(limit=2)
    make_account("fal", limit=2)
    free, pinned = submit(user, 2)
    with transaction() as session:
        session.execute(update(JobStep).values(pinned_account_id=None))
        session.execute(update(JobStep).where(JobStep.job_id == pinned).values(pinned_account_id=account))
    change(account, weight=99)
    claimed = send(give())
    for claim in claimed:
        answer(replace(claim, account_id=account), NotAccepted(trouble=Trouble.BALANCE, message="no money"))
    with transaction() as session:
        states = [session.get_one(Job, job_id).status for job_id in (free, pinned)]
    assert states == [Status.QUEUED, Status.FAILED]


# ---------------------------------------------------------------- what it costs


@pytest.fixture
def crowd(engine: Engine, make_account: MakeAccount) -> str:
    """Half of the work belongs to one of twenty users, a tenth of it waits. Returns the account that it is at."""
    account = make_account(limit=100_000)
    for number in range(20):
        size = 1000 if number == 0 else 50
        add_running(f"user-{number}", MODEL, account, 2 * size)
        add_waiting(f"user-{number}", MODEL, size)
        add_waiting(f"user-{number}", "flux/dev", size)
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.exec_driver_sql("ANALYZE")  # as it does by itself, a little later
    return account


def test_a_long_backlog_takes_few_statements_and_no_search(engine: Engine, crowd: str) -> None:
    with statements(engine) as sent:
        assert len(give(64)) == 64
    assert len(sent) <= 10, [statement[:60] for statement, _ in sent]
    look = next(pair for pair in sent if "each_user" in pair[0])
    steps = plan(engine, *look)
    assert "ix_job_step_waiting" in steps
    assert "Seq Scan on job_step" not in steps
    assert "SCAN job_step" not in steps
    assert "TEMP B-TREE" not in steps


def test_submits_left_behind_are_found_without_a_search(engine: Engine, crowd: str) -> None:
    with statements(engine) as sent, transaction() as session:
        assert lifecycle.recover(session) == 0
    if engine.dialect.name == "postgresql":  # SQLite may take another index that does nearly as well
        assert "ix_job_step_submitting" in plan(engine, *sent[0])
    assert "SCAN job_step" not in plan(engine, *sent[0])


def test_a_batch_of_polls_takes_two_statements(engine: Engine, crowd: str) -> None:
    with statements(engine) as sent, transaction() as session:
        assert len(claims.due(session, Step.POLL, 1000)) == 1000
    assert len(sent) == 2
