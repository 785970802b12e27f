"""A result whose address has died is asked for anew: at simulated providers, through the real engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from common import clock, settings, storage
from common.crypto import seal
from common.db import transaction
from common.models import Artifact, Job, JobAttempt, JobEvent, JobStep, LedgerEntry, ProviderAccount
from common.providers.base import Failed, NoVerdict, Output, Running, Succeeded
from common.services import claims, doctor, jobs, lifecycle
from common.services.users import Actor
from common.words import TERMINAL, Status, Step
from tests.integration.services.life import (
    PICTURE,
    Seen,
    cancel,
    claim_poll,
    claim_store,
    make_due,
    picture,
    run,
)
from tests.simulators.frame import Fault
from tests.simulators.pace import Pace
from tests.simulators.provider import Provider
from tests.simulators.world import World
from workers import http
from workers.steps import store
from workers.steps.poll import Poll
from workers.steps.store import Store
from workers.steps.submit import Submit

MakeActor = Callable[..., Actor]
AWAY = Fault("answer", times=1_000_000, status=503)
HOUR_S = 3601.0


@pytest.fixture
def world(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """All services, and a platform that stores in their bucket."""
    caches = (settings.settings, storage.storage, http.shared)
    with World(image=Pace(0, 0.05), video=Pace(0, 0.05)) as simulated:
        for name, value in simulated.environment(storage="cos").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SOURCE_PATIENCE_S", "1")
        monkeypatch.setattr("qcloud_cos.cos_client.time.sleep", lambda _: None)
        monkeypatch.setattr(store, "_AWAY_S", 0.02)
        monkeypatch.setattr(store, "_LONGEST_AWAY_S", 0.1)
        for cache in caches:
            cache.cache_clear()
        simulated.bfl.settle_s = 0.0  # nobody waits between two looks here
        yield simulated
        for cache in caches:
            cache.cache_clear()


def open_account(make_account: Callable[..., str], adapter: str, its: Provider[Any]) -> None:
    """An account at a simulated provider."""
    account: Any = its.account
    secrets = dict.fromkeys(("access_key", "api_key", "api_secret"), account.key)
    if adapter == "jimeng":
        secrets["secret_key"] = account.secret_key
    account_id = make_account(adapter, provider="flux" if adapter == "bfl" else adapter)
    with transaction() as session:
        session.execute(
            update(ProviderAccount)
            .where(ProviderAccount.id == account_id)
            .values(base_url=its.url, credentials=seal(secrets))
        )


def order(actor: Actor, model: str, **given: Any) -> str:
    with transaction() as session:
        new = jobs.NewJob(model=model, input={"prompt": "a fox", **given})
        return jobs.accept(session, actor, new)[0].id


@pytest.fixture
def film(world: World, make_actor: MakeActor, make_account: Callable[..., str]) -> tuple[Actor, str]:
    """A film of Jimeng's that cannot be stored, since the bucket is away."""
    open_account(make_account, "jimeng", world.jimeng)
    actor = make_actor(1000)
    job_id = order(actor, "jimeng/text-to-video", duration_s=5)
    world.cos.misbehave(AWAY)
    asyncio.run(work(lambda: waits_for_the_storage(job_id)))
    return actor, job_id


# ---------------------------------------------------------------- what passes


async def work(done: Callable[[], bool], seconds: float = 20.0) -> None:
    """A worker that waits for nothing, until all is done. Who looks sees no status before `storing` again."""
    flows, end = (Submit(), Poll(), Store()), time.monotonic() + seconds
    seen: set[str] = set()
    while not done():
        assert time.monotonic() < end, "it does not end"
        make_due()
        for flow in flows:
            taken = await flow.claim(16, frozenset())  # type: ignore[attr-defined]
            portions = flow.portions(taken)  # type: ignore[attr-defined]
            answers = await asyncio.gather(*(flow.ask(portion) for portion in portions))  # type: ignore[attr-defined]
            await flow.record([pair for answered in answers for pair in answered])  # type: ignore[attr-defined]
        with transaction() as session:
            now = {str(status) for status in session.scalars(select(Job.status))}
            assert Status.STORING not in seen or now <= {Status.STORING, *TERMINAL}
            seen |= now
            assert doctor.totals(session).leaked == 0
    await http.shared().close()


def step_of(job_id: str) -> JobStep | None:
    with transaction() as session:
        return session.get(JobStep, job_id)


def waits_for_the_storage(job_id: str) -> bool:
    step = step_of(job_id)
    return step is not None and step.step == Step.STORE and step.failures > 1


def is_over(job_id: str) -> bool:
    return step_of(job_id) is None


def pass_time(seconds: float = HOUR_S) -> None:
    """Let so much time have passed, for all that we have written down about jobs."""
    with transaction() as session:
        for attempt in session.scalars(select(JobAttempt).where(JobAttempt.outputs.is_not(None))):
            attempt.outputs = [
                {**output, "expires_at": output["expires_at"] - seconds} for output in attempt.outputs
            ]
        session.execute(
            update(JobStep).values(
                expires_at=JobStep.expires_at - seconds, deadline_at=JobStep.deadline_at - seconds
            )
        )
        for event in session.scalars(select(JobEvent)):
            event.created_at -= timedelta(seconds=seconds)


def noted(job_id: str) -> list[str]:
    with transaction() as session:
        query = select(JobEvent.kind).where(JobEvent.job_id == job_id).order_by(JobEvent.id)
        return list(session.scalars(query))


def ledger(job_id: str) -> list[str]:
    with transaction() as session:
        query = select(LedgerEntry.kind).where(LedgerEntry.job_id == job_id).order_by(LedgerEntry.id)
        return list(session.scalars(query))


def assert_stored_once(world: World, actor: Actor, job_id: str) -> None:
    seen = Seen(actor, job_id)
    assert (seen.status, seen.settlements, ledger(job_id)) == (Status.SUCCEEDED, 1, ["hold", "capture"])
    assert world.submits("a fox") == 1
    with transaction() as session:
        stored = session.scalars(
            select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.number)
        ).all()
        assert [world.cos.content(each.key) for each in stored] == world.made_for("a fox")


def assert_failed_free(world: World, actor: Actor, job_id: str) -> None:
    assert Seen(actor, job_id).end == (Status.FAILED, "storage_failed", 0)
    assert ledger(job_id) == ["hold", "release"]
    assert world.submits("a fox") == 1


# ---------------------------------------------------------------- the storage was away for longer than addresses live


def test_an_absence_longer_than_the_address_lives(world: World, film: tuple[Actor, str]) -> None:
    """The address is dead, the record is not: Jimeng is asked once more, and nobody pays twice."""
    actor, job_id = film
    pass_time(2 * HOUR_S)
    world.jimeng.expire_links()
    with transaction() as session:
        assert lifecycle.past_deadline(session) == 0
    world.cos.behave()
    asyncio.run(work(lambda: is_over(job_id)))
    assert_stored_once(world, actor, job_id)
    assert noted(job_id) == ["asked_anew"]


def test_an_absence_of_many_hours(world: World, film: tuple[Actor, str]) -> None:
    """As long as Jimeng remembers, each dead address is replaced by a living one, once an hour."""
    actor, job_id = film
    for hour in range(1, 11):
        pass_time()
        world.jimeng.expire_links()
        asyncio.run(work(lambda: len(noted(job_id)) == hour and waits_for_the_storage(job_id)))  # noqa: B023
    world.cos.behave()
    asyncio.run(work(lambda: is_over(job_id)))
    assert_stored_once(world, actor, job_id)


def test_it_is_asked_so_often_and_not_for_ever(world: World, film: tuple[Actor, str]) -> None:
    actor, job_id = film
    for _ in range(lifecycle.ANEW_LIMIT):
        pass_time()
        world.jimeng.expire_links()
        before = len(noted(job_id))
        asyncio.run(work(lambda: len(noted(job_id)) > before and waits_for_the_storage(job_id)))  # noqa: B023
    pass_time()
    world.jimeng.expire_links()
    asyncio.run(work(lambda: is_over(job_id)))
    assert_failed_free(world, actor, job_id)
    assert len(noted(job_id)) == lifecycle.ANEW_LIMIT


def test_the_record_is_gone_too(world: World, film: tuple[Actor, str]) -> None:
    actor, job_id = film
    pass_time()
    world.jimeng.expire_links()
    world.jimeng.record_life_s = 0.0
    world.cos.behave()
    asyncio.run(work(lambda: is_over(job_id)))
    assert_failed_free(world, actor, job_id)


@pytest.mark.parametrize(
    ("adapter", "model", "gives_new_ones"),
    [
        ("jimeng", "jimeng/text-to-image", True),
        ("kling", "kling/text-to-video", True),
        ("bfl", "flux/pro-1.1", False),
        ("midjourney", "midjourney/imagine", False),
    ],
)
def test_what_each_provider_says_when_asked_again(
    world: World, make_actor: MakeActor, make_account: Callable[..., str], adapter: str, model: str,
    gives_new_ones: bool,
) -> None:  # fmt: skip
    """Who names the same dead address again has nothing to give, and the job fails at once."""
    its = getattr(world, adapter)
    open_account(make_account, adapter, its)
    actor = make_actor(1000)
    job_id = order(actor, model)
    world.cos.misbehave(AWAY)
    asyncio.run(work(lambda: waits_for_the_storage(job_id)))
    its.expire_links()
    pass_time(30 * 86_400.0)
    world.cos.behave()
    asyncio.run(work(lambda: is_over(job_id)))
    (assert_stored_once if gives_new_ones else assert_failed_free)(world, actor, job_id)
    assert noted(job_id) == ["asked_anew"]


# ---------------------------------------------------------------- sources that refuse


def test_fresh_addresses_that_refuse_too(world: World, film: tuple[Actor, str]) -> None:
    """Asked once, not again: the new address has its own patience, and that is the end."""
    actor, job_id = film
    world.media.misbehave(Fault("answer", times=1000, status=404))
    before = len(world.media.asked("GET /files/"))
    world.jimeng.expire_links()
    world.cos.behave()
    asyncio.run(work(lambda: is_over(job_id)))
    assert_failed_free(world, actor, job_id)
    assert noted(job_id) == ["asked_anew"]
    assert len(world.media.asked("GET /files/")) - before == 2 + 2  # a second of patience: two tries


def test_a_fresh_address_that_is_gone_at_once_is_not_asked_for_again(
    world: World, film: tuple[Actor, str]
) -> None:
    actor, job_id = film
    pass_time()
    world.media.misbehave(Fault("answer", times=1000, status=410))
    world.jimeng.expire_links()
    world.cos.behave()
    asyncio.run(work(lambda: is_over(job_id)))
    assert_failed_free(world, actor, job_id)
    assert noted(job_id) == ["asked_anew"]


def test_only_what_is_missing_is_fetched_from_new_addresses(
    world: World, make_actor: MakeActor, make_account: Callable[..., str]
) -> None:
    """What is stored already stays as it is, under the same keys."""
    open_account(make_account, "jimeng", world.jimeng)
    actor = make_actor(1000)
    job_id = order(actor, "jimeng/text-to-image", force_single=False)
    world.media.misbehave(Fault("answer", "/1.", times=1000, status=403))
    asyncio.run(work(lambda: len(artifacts(job_id)) == 1 and step_of(job_id).refusals > 0))  # type: ignore[union-attr]
    (first,) = artifacts(job_id)
    (task,) = world.jimeng.made("a fox")
    old = list(task.results or ())
    assert len(old) > 2
    pass_time(86_401.0)
    world.jimeng.expire_links()
    world.media.behave()
    asyncio.run(work(lambda: is_over(job_id)))
    assert_stored_once(world, actor, job_id)
    assert artifacts(job_id)[0] == first
    assert len(artifacts(job_id)) == len(old)
    with transaction() as session:
        (outputs,) = session.scalars(select(JobAttempt.outputs)).all()
    assert [output["url"] for output in outputs] == [old[0], *(task.results or ())[1:]]


def artifacts(job_id: str) -> list[tuple[str, str]]:
    with transaction() as session:
        query = select(Artifact.id, Artifact.key).where(Artifact.job_id == job_id).order_by(Artifact.number)
        return [(row.id, row.key) for row in session.execute(query)]


# ---------------------------------------------------------------- while it is asked


def ask_anew(actor: Actor) -> tuple[str, claims.Claim]:
    """A job whose provider is being asked for new addresses."""
    job_id, claim = run(actor)
    with transaction() as session:
        lifecycle.produced(session, claim, Succeeded(outputs=(PICTURE,)))
    with transaction() as session:
        lifecycle.source_gone(session, claim_store(), [], "404", expired=False)
    claim = claim_poll()
    assert (claim.made, Seen(actor, job_id).status) == (True, Status.STORING)
    return job_id, claim


def test_no_slot_is_taken_meanwhile(actor: Actor) -> None:
    job_id, _ = ask_anew(actor)
    with transaction() as session:
        assert list(doctor.figures(session).slots_used.values()) == [0]
    assert Seen(actor, job_id).step == Step.POLL


def test_who_cancels_meanwhile_pays_as_for_what_is_made(actor: Actor) -> None:
    """The provider is not asked to stop what it has done."""
    job_id, claim = ask_anew(actor)
    cancel(actor, job_id)
    assert Seen(actor, job_id).end == (Status.CANCELED, "canceled", 20)
    fresh = Succeeded(outputs=(Output(kind="image", url="https://example.com/2.png"),))
    with transaction() as session:
        lifecycle.asked_anew(session, claim, fresh)
    with transaction() as session:
        lifecycle.stored(session, claim_store(), [picture()])
    seen = Seen(actor, job_id)
    assert (seen.end, seen.late, seen.artifacts) == ((Status.CANCELED, "canceled", 20), True, 1)


@pytest.mark.parametrize(
    "seen", [Running(progress=3), NoVerdict(message="503"), NoVerdict(message="429", retry_after_s=9)]
)
def test_an_answer_that_tells_nothing_is_asked_for_again(actor: Actor, seen: Any) -> None:
    job_id, claim = ask_anew(actor)
    for _ in range(2 * lifecycle.GONE_LIMIT):
        with transaction() as session:
            lifecycle.asked_anew(session, claim, seen)
        now = Seen(actor, job_id)
        assert (now.status, now.step) == (Status.STORING, Step.POLL)
        claim = claim_poll()
    with transaction() as session:
        session.execute(update(JobStep).values(deadline_at=0))
    with transaction() as session:
        lifecycle.past_deadline(session)
    now = Seen(actor, job_id)
    assert (now.end, now.waiting) == ((Status.FAILED, "storage_failed", 0), False)


@pytest.mark.parametrize(
    ("verdict", "times"),
    [
        (Failed(code="content_moderated", message="no", try_again=True), 1),
        (Succeeded(output={"prompts": []}), 1),
        (Succeeded(outputs=(PICTURE,)), 1),  # the same address
        (NoVerdict(message="not found", gone=True), lifecycle.GONE_LIMIT),
    ],
)
def test_an_answer_that_brings_nothing_ends_it_free(actor: Actor, verdict: Any, times: int) -> None:
    job_id, claim = ask_anew(actor)
    for number in range(1, times + 1):
        with transaction() as session:
            lifecycle.asked_anew(session, claim, verdict)
        if number < times:
            claim = claim_poll()
    seen = Seen(actor, job_id)
    assert (seen.end, seen.waiting) == ((Status.FAILED, "storage_failed", 0), False)
    assert ledger(job_id) == ["hold", "release"]


# ---------------------------------------------------------------- results at the account's own server


@pytest.mark.parametrize("keeps", [True, False])
def test_a_private_proxy_keeps_its_results_itself(
    world: World, make_actor: MakeActor, make_account: Callable[..., str], monkeypatch: pytest.MonkeyPatch,
    keeps: bool,
) -> None:  # fmt: skip
    """Its own address is the operator's choice; any other private one stays refused."""
    monkeypatch.setenv("ALLOW_PRIVATE_ADDRESSES", "false")
    settings.settings.cache_clear()
    world.midjourney.keeps_results = keeps
    open_account(make_account, "midjourney", world.midjourney)
    actor = make_actor(1000)
    job_id = order(actor, "midjourney/imagine")
    asyncio.run(work(lambda: is_over(job_id)))
    (assert_stored_once if keeps else assert_failed_free)(world, actor, job_id)
    assert world.media.leaks == []
    assert world.media.asked("GET /files/") == []


def test_no_other_provider_keeps_results_at_its_own_address(
    world: World, make_actor: MakeActor, make_account: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLOW_PRIVATE_ADDRESSES", "false")
    settings.settings.cache_clear()
    monkeypatch.setattr(world.media, "publish", lambda *_, **__: f"{world.jimeng.url}/1.png")
    open_account(make_account, "jimeng", world.jimeng)
    actor = make_actor(1000)
    job_id = order(actor, "jimeng/text-to-image")
    asyncio.run(work(lambda: is_over(job_id)))
    assert Seen(actor, job_id).end == (Status.FAILED, "storage_failed", 0)
    assert world.jimeng.asked("GET /1.png") == []


def test_pauses_stay_bounded_however_often_it_failed(actor: Actor) -> None:
    job_id, claim = run(actor)
    with transaction() as session:
        lifecycle.produced(session, claim, Succeeded(outputs=(PICTURE,)))
    with transaction() as session:
        lifecycle.partly_stored(session, replace(claim_store(), failures=5000), [])
    due_at = Seen(actor, job_id).due_at
    assert due_at is not None
    assert 0 < due_at - clock.epoch() <= 60
