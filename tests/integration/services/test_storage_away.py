"""The operator's storage is away while results wait: nothing is lost that lives on, and nothing is fetched in vain."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, select, update

from common import clock, settings, storage
from common.db import transaction
from common.models import Artifact, CreditAccount, Job, JobEvent, JobStep, LedgerEntry, ProviderAccount
from common.providers.base import Accepted, Output, Succeeded
from common.services import claims, credits, jobs, lifecycle
from common.services.users import Actor
from common.words import Status, Step
from tests.integration.services.life import MODEL, PRICE, make_due
from tests.simulators.bfl import Bfl
from tests.simulators.cos import Cos, error_xml
from tests.simulators.frame import Fault, Stage
from tests.simulators.media import MediaHost, png
from workers import http
from workers.steps import store
from workers.steps.poll import Poll
from workers.steps.store import Store

MakeActor, MakeAccount = Callable[..., Actor], Callable[..., str]
World = tuple[Cos, MediaHost, Bfl]
BATCH = 8  # results that a worker begins with at once
LONG_S = 600.0


@pytest.fixture
def world(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A bucket, a host of results, and a provider that has forgotten whatever it is asked about."""
    cos, media = Cos(), MediaHost()
    bfl = Bfl(media)
    bfl.account.key = "k"  # as all accounts of these tests have it
    with Stage([cos, media, bfl]):
        for name, value in {
            "STORAGE": "cos", "COS_BUCKET": cos.bucket, "COS_DOMAIN": cos.host, "COS_SCHEME": "http",
            "COS_SECRET_ID": cos.keys.secret_id, "COS_SECRET_KEY": cos.keys.secret_key,
            "ALLOW_PRIVATE_ADDRESSES": "true",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("qcloud_cos.cos_client.time.sleep", lambda _: None)
        monkeypatch.setattr(store, "_AWAY_S", 0.02)
        monkeypatch.setattr(store, "_LONGEST_AWAY_S", 0.1)
        for known in (settings.settings, storage.storage, http.shared):
            known.cache_clear()
        yield cos, media, bfl
        for known in (settings.settings, storage.storage, http.shared):
            known.cache_clear()


@pytest.fixture
def make_account(world: World, make_account: MakeAccount) -> MakeAccount:
    """Create accounts at that provider."""

    def make(**options: int) -> str:
        account_id = make_account(**options)
        with transaction() as session:
            session.execute(update(ProviderAccount).values(base_url=world[2].url))
        return account_id

    return make


def finished_at_the_provider(actor: Actor, media: MediaHost, lives: dict[str, float]) -> dict[str, str]:
    """A job for each prompt, whose result waits at a URL that lives so long; the URLs by job."""
    urls: dict[str, str] = {}
    with transaction() as session:
        for prompt in lives:
            jobs.accept(session, actor, jobs.NewJob(model=MODEL, input={"prompt": prompt}))
    with transaction() as session:
        claimed = claims.submits(session, len(lives))
    assert len(claimed) == len(lives)
    with transaction() as session:
        for claim in lifecycle.sending(session, claimed):
            lifecycle.accepted(session, claim, Accepted(provider_ref=claim.attempt_id))
    make_due()
    with transaction() as session:
        prompts = {claim.job_id: claim.input["prompt"] for claim in claimed}
        for looked in claims.due(session, Step.POLL, len(lives)):
            prompt = prompts[looked.job_id]
            url = media.publish("1.png", "image/png", lambda prompt=prompt: png(prompt))  # type: ignore[misc]
            urls[looked.job_id] = url
            output = Output(kind="image", url=url, lives_s=lives[prompt])
            lifecycle.produced(session, looked, Succeeded(outputs=(output,)))
    return urls


async def work(seconds: float, done: Callable[[], bool] = lambda: False) -> None:
    """A worker for so long, or until it is `done` or nothing waits. Providers are asked again without a pause."""
    flows, end = (Store(), Poll()), time.monotonic() + seconds
    while time.monotonic() < end and not done():
        taken = [await each(flow) for flow in flows]
        if not any(taken):
            with transaction() as session:
                if session.scalar(select(JobStep.job_id).limit(1)) is None:
                    break
            await asyncio.sleep(0.01)
    await http.shared().close()


async def each(flow: Store | Poll) -> bool:
    if isinstance(flow, Poll):
        with transaction() as session:
            session.execute(update(JobStep).where(JobStep.step == Step.POLL).values(due_at=0.0))
    taken = await flow.claim(16, frozenset())
    answers = await asyncio.gather(*(flow.ask(portion) for portion in flow.portions(taken)))  # type: ignore[arg-type]
    await flow.record([pair for answered in answers for pair in answered])  # type: ignore[arg-type]
    return bool(taken)


def downloads(media: MediaHost) -> int:
    """How often results were fetched so far."""
    return len(media.asked("GET /files/"))


def await_the_end(world: World, actor: Actor, count: int, dying: int) -> None:
    """`count` results wait for a bucket that is away; `dying` of their URLs die meanwhile."""
    cos, media, _ = world
    order = list(range(count))
    random.Random(7).shuffle(order)
    lives = {f"p{number}": LONG_S + number for number in order}
    lives |= {f"p{number}": 0.5 for number in range(dying)}
    urls = finished_at_the_provider(actor, media, lives)
    cos.misbehave(Fault("answer", times=1_000_000, status=503))
    asyncio.run(work(1.0))
    assert downloads(media) <= 2 * BATCH + 40, "what cannot be stored is not fetched again and again"
    with transaction() as session:
        assert not session.scalars(select(Artifact.id)).all()
        rows = session.execute(select(Job.id, Job.input)).all()
    for job_id, given in rows:
        if given["prompt"] in [f"p{number}" for number in range(dying)]:
            media.expire(urls[job_id])
    before = downloads(media)
    cos.behave()
    asyncio.run(work(60.0))
    _all_is_settled(actor, count, dying)
    assert downloads(media) - before <= count
    stored = [call.path for call in cos.asked("PUT /artifacts/") if call.status == 200]
    prompts = {str(job_id): given["prompt"] for job_id, given in rows}
    sequence = [prompts[path.split("/")[-2]] for path in stored if "thumbnail" not in path]
    wanted = sorted(sequence, key=lambda prompt: lives[prompt])
    assert len(sequence) == count - dying
    for rank, prompt in enumerate(sequence):  # those that are begun together may end in any order
        assert abs(wanted.index(prompt) - rank) < 2 * BATCH, (
            f"{prompt} is {rank}., before those that die sooner"
        )


def _all_is_settled(actor: Actor, count: int, dying: int) -> None:
    with transaction() as session:
        found = session.execute(select(Job.status, Job.error, Job.charged)).all()
        assert credits.verify(session) == []
        account = session.get_one(CreditAccount, actor.user_id)
        kinds = session.scalars(select(LedgerEntry.kind).where(LedgerEntry.job_id.is_not(None))).all()
        assert (account.held, kinds.count("release")) == (0, dying)
    failed = [row for row in found if row.status == Status.FAILED]
    assert {(row.error["code"], row.charged) for row in failed} <= {("storage_failed", 0)}
    assert len(failed) == dying
    assert [(row.status, row.charged) for row in found].count((Status.SUCCEEDED, PRICE)) == count - dying


def test_results_wait_for_the_storage(world: World, make_actor: MakeActor, make_account: MakeAccount) -> None:
    make_account(limit=100)
    await_the_end(world, make_actor(100_000), count=24, dying=3)


@pytest.mark.chaos
def test_two_hundred_results_wait_for_the_storage(
    world: World, make_actor: MakeActor, make_account: MakeAccount
) -> None:
    make_account(limit=1000)
    await_the_end(world, make_actor(100_000), count=200, dying=20)


def failures() -> int:
    with transaction() as session:
        return session.scalars(select(JobStep.failures)).one()


def test_outages_do_not_use_up_what_a_source_may_refuse(
    world: World, make_actor: MakeActor, make_account: MakeAccount
) -> None:
    cos, media, _ = world
    make_account()
    actor = make_actor(1000)
    finished_at_the_provider(actor, media, {"p": LONG_S})
    media.misbehave(Fault("answer", times=1, status=403))
    cos.misbehave(Fault("answer", times=1_000_000, status=503))
    asyncio.run(work(30.0, done=lambda: failures() > store._STUBBORN))
    cos.behave()
    assert failures() > store._STUBBORN
    with transaction() as session:
        assert session.scalars(select(JobStep.refusals)).one() == 0
    media.misbehave(Fault("answer", times=1, status=403))
    asyncio.run(work(30.0))
    _all_is_settled(actor, 1, 0)


def test_a_result_that_alone_cannot_be_stored_lets_the_others_try(
    world: World, make_actor: MakeActor, make_account: MakeAccount
) -> None:
    """Whatever COS says about the one whose source dies first, it may not be the only one that tries."""
    cos, media, _ = world
    make_account()
    actor = make_actor(1000)
    urls = finished_at_the_provider(actor, media, {"first": LONG_S, "second": LONG_S + 1})
    first = next(iter(urls))
    cos.misbehave(Fault("answer", f"/{first}/", times=1_000_000, status=503))
    asyncio.run(work(30.0, done=lambda: bool(artifacts())))
    assert len(artifacts()) == 1
    cos.behave()
    make_due()
    asyncio.run(work(30.0))
    _all_is_settled(actor, 2, 0)


def artifacts() -> list[str]:
    with transaction() as session:
        return list(session.scalars(select(Artifact.job_id)))


@pytest.mark.parametrize("code", ["InvalidArgument", "EntityTooLarge"])
def test_one_object_that_the_storage_refuses_jams_nobody(
    world: World, make_actor: MakeActor, make_account: MakeAccount, code: str
) -> None:
    cos, media, _ = world
    make_account(limit=100)
    actor = make_actor(1000)
    urls = finished_at_the_provider(actor, media, {f"p{number}": LONG_S + number for number in range(6)})
    refused = next(iter(urls))  # its source dies first
    cos.misbehave(Fault("answer", f"PUT /artifacts/{_today()}/{refused}/", times=1000, status=400,
                        body=error_xml(code)))  # fmt: skip
    asyncio.run(work(10.0, done=lambda: len(artifacts()) == 5 and failures() == 2))
    assert refused not in artifacts()
    assert downloads(media) == 5 + 2, "it pauses before it is tried again"
    with transaction() as session:
        step = session.scalars(select(JobStep)).one()
        assert (step.step, step.failures, step.refusals, step.lease_token) == (Step.STORE, 2, 0, None)
        assert 1.0 < step.due_at - clock.epoch() <= 2.0
        notes = session.execute(select(JobEvent.kind, JobEvent.detail)).all()
        assert [note.kind for note in notes] == ["storage_refused"]
        assert code in notes[0].detail
        session.execute(update(JobStep).values(due_at=0.0, failures=20))
    asyncio.run(work(5.0, done=lambda: failures() == 21))
    with transaction() as session:
        assert session.scalars(select(JobStep.due_at)).one() - clock.epoch() <= store._LONGEST_REFUSED_S
    cos.behave()
    make_due()
    asyncio.run(work(10.0))
    _all_is_settled(actor, 6, 0)


def _today() -> str:
    return clock.now().strftime("%Y/%m/%d")


@pytest.mark.parametrize(("patience_s", "asked"), [(0, 1), (7, 4), (30, 6), (60, 8)])
def test_what_a_source_refuses_is_asked_for_again_for_a_while(
    world: World, make_actor: MakeActor, make_account: MakeAccount, monkeypatch: pytest.MonkeyPatch,
    patience_s: float, asked: int,
) -> None:  # fmt: skip
    """After 1, 2, 4, 8, 15, 15 … seconds: then the provider is asked, and here it has forgotten the job."""
    _, media, _ = world
    monkeypatch.setenv("SOURCE_PATIENCE_S", str(patience_s))
    settings.settings.cache_clear()
    make_account()
    actor = make_actor(1000)
    finished_at_the_provider(actor, media, {"p": LONG_S})
    media.misbehave(Fault("answer", times=100, status=404))
    pauses = list(waits(media, asked))
    assert pauses == [1, 2, 4, 8, 15, 15, 15][: asked - 1]
    asyncio.run(work(30.0))
    _all_is_settled(actor, 1, 1)
    assert downloads(media) == asked


def waits(media: MediaHost, asked: int) -> Iterator[int]:
    """How long the worker waits after each download, until so many were made; here nobody waits."""
    for number in range(1, asked):
        asyncio.run(work(5.0, done=lambda: downloads(media) == number))  # noqa: B023 - called at once
        with transaction() as session:
            due_at = session.scalars(select(JobStep.due_at)).one()
            yield round(due_at - clock.epoch())
            session.execute(update(JobStep).values(due_at=0.0))


def test_a_source_that_refuses_for_some_seconds_loses_nothing(
    world: World, make_actor: MakeActor, make_account: MakeAccount
) -> None:
    _, media, bfl = world
    make_account()
    actor = make_actor(1000)
    finished_at_the_provider(actor, media, {"p": LONG_S})
    media.misbehave(Fault("answer", times=5, status=403))
    assert list(waits(media, 6)) == [1, 2, 4, 8, 15]
    asyncio.run(work(5.0))
    _all_is_settled(actor, 1, 0)
    assert bfl.asked("GET /v1/get_result") == []


def test_bodies_that_are_no_media_count_after_a_few(
    world: World, make_actor: MakeActor, make_account: MakeAccount
) -> None:
    _, media, bfl = world
    make_account()
    actor = make_actor(1000)
    finished_at_the_provider(actor, media, {"p": LONG_S})
    media.misbehave(Fault("answer", times=100, status=200, body=b"<html>Sorry</html>"))
    assert list(waits(media, store._BAD_BODIES)) == [1, 2]
    asyncio.run(work(30.0))
    _all_is_settled(actor, 1, 1)
    assert downloads(media) == store._BAD_BODIES
    assert len(bfl.asked("GET /v1/get_result")) >= lifecycle.GONE_LIMIT


@pytest.mark.parametrize(("status", "is_over"), [(410, False), (403, True)])
def test_an_address_whose_time_is_over_is_believed_at_once(
    world: World, make_actor: MakeActor, make_account: MakeAccount, status: int, is_over: bool
) -> None:
    """But the provider is asked all the same."""
    _, media, bfl = world
    make_account()
    actor = make_actor(1000)
    finished_at_the_provider(actor, media, {"p": -1.0 if is_over else LONG_S})
    media.misbehave(Fault("answer", times=100, status=status))
    asyncio.run(work(30.0))
    _all_is_settled(actor, 1, 1)
    assert downloads(media) == 1
    assert len(bfl.asked("GET /v1/get_result")) >= lifecycle.GONE_LIMIT
