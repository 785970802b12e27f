"""The operator's storage is away while results wait: nothing is lost that lives on, and nothing is fetched in vain."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, select, update

from common import settings, storage
from common.db import transaction
from common.models import Artifact, CreditAccount, Job, JobStep, LedgerEntry
from common.providers.base import Accepted, Output, Succeeded
from common.services import claims, credits, jobs, lifecycle
from common.services.users import Actor
from common.words import Status, Step
from tests.integration.services.life import MODEL, PRICE, make_due
from tests.simulators.cos import Cos
from tests.simulators.frame import Fault, Stage
from tests.simulators.media import MediaHost, png
from workers import http
from workers.steps import store
from workers.steps.store import Store

MakeActor, MakeAccount = Callable[..., Actor], Callable[..., str]
BATCH = 8  # results that a worker begins with at once
LONG_S = 600.0


@pytest.fixture
def world(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Cos, MediaHost]]:
    """A bucket, and a host of results."""
    cos, media = Cos(), MediaHost()
    with Stage([cos, media]):
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
        yield cos, media
        for known in (settings.settings, storage.storage, http.shared):
            known.cache_clear()


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
    """A worker for so long, or until it is `done` or nothing waits."""
    flow, end = Store(), time.monotonic() + seconds
    while time.monotonic() < end and not done():
        taken = await flow.claim(16, frozenset())
        answers = await asyncio.gather(*(flow.ask([claim]) for claim in taken))
        await flow.record([pair for answered in answers for pair in answered])
        if not taken:
            with transaction() as session:
                if session.scalar(select(JobStep.job_id).limit(1)) is None:
                    break
            await asyncio.sleep(0.01)
    await http.shared().close()


def downloads(media: MediaHost) -> int:
    """How often results were fetched so far."""
    return len(media.asked("GET /files/"))


def await_the_end(world: tuple[Cos, MediaHost], actor: Actor, count: int, dying: int) -> None:
    """`count` results wait for a bucket that is away; `dying` of their URLs die meanwhile."""
    cos, media = world
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


def test_results_wait_for_the_storage(
    world: tuple[Cos, MediaHost], make_actor: MakeActor, make_account: MakeAccount
) -> None:
    make_account(limit=100)
    await_the_end(world, make_actor(100_000), count=24, dying=3)


@pytest.mark.chaos
def test_two_hundred_results_wait_for_the_storage(
    world: tuple[Cos, MediaHost], make_actor: MakeActor, make_account: MakeAccount
) -> None:
    make_account(limit=1000)
    await_the_end(world, make_actor(100_000), count=200, dying=20)


def failures() -> int:
    with transaction() as session:
        return session.scalars(select(JobStep.failures)).one()


def test_outages_do_not_use_up_what_a_source_may_refuse(
    world: tuple[Cos, MediaHost], make_actor: MakeActor, make_account: MakeAccount
) -> None:
    cos, media = world
    make_account()
    actor = make_actor(1000)
    finished_at_the_provider(actor, media, {"p": LONG_S})
    cos.misbehave(Fault("answer", times=1_000_000, status=503))
    asyncio.run(work(30.0, done=lambda: failures() > store._REFUSALS))
    cos.behave()
    assert failures() > store._REFUSALS
    with transaction() as session:
        assert session.scalars(select(JobStep.refusals)).one() == 0
        session.execute(update(JobStep).values(due_at=0.0))
    media.misbehave(Fault("answer", times=store._REFUSALS - 1, status=403))
    for _ in range(store._REFUSALS + 1):
        asyncio.run(work(0.2))
        make_due()
    _all_is_settled(actor, 1, 0)


def test_what_a_source_refuses_for_good_costs_nothing(
    world: tuple[Cos, MediaHost], make_actor: MakeActor, make_account: MakeAccount
) -> None:
    _, media = world
    make_account()
    actor = make_actor(1000)
    finished_at_the_provider(actor, media, {"p": LONG_S})
    media.misbehave(Fault("answer", times=100, status=404))
    for _ in range(store._REFUSALS):
        with transaction() as session:
            assert session.scalars(select(JobStep.job_id)).all()
        asyncio.run(work(0.1))
        make_due()
    _all_is_settled(actor, 1, 1)
    assert downloads(media) == store._REFUSALS
