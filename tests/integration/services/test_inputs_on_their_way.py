"""While a job's media come, nothing counts as sent: slow ones delay a job, and lose none, whoever's it is."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from common import settings, storage
from common.crypto import seal
from common.db import transaction
from common.models import Job, JobAttempt, JobStep, ObjectDeletion, ProviderAccount
from common.services import deletions, jobs, lifecycle
from common.services.users import Actor
from common.words import Outcome
from tests.integration.services.life import Seen, cancel, make_due
from tests.simulators.bfl import Bfl
from tests.simulators.frame import Fault, Stage
from tests.simulators.jimeng import Jimeng
from tests.simulators.media import MediaHost, png
from workers import http
from workers.media import inputs
from workers.media.inputs import Places
from workers.steps.removal import remove_some
from workers.steps.submit import Submit

MANY, ONE = "flux/2-max", "flux/kontext-pro"
LONG_S = 20.0
INLINE = base64.b64encode(png("inline", 64, 64)).decode()


@pytest.fixture
def world(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Bfl, MediaHost]]:
    """A provider that wants bytes, and a host of pictures."""
    media = MediaHost()
    bfl = Bfl(media)
    monkeypatch.setenv("MEDIA_DIR", str(tmp_path / "media"))
    monkeypatch.setenv("ALLOW_PRIVATE_ADDRESSES", "true")
    monkeypatch.setattr(inputs, "_places", Places(4, 3))
    bfl.account.key = "k"
    caches = (settings.settings, storage.storage, http.shared)
    with Stage([bfl, media]):
        for cache in caches:
            cache.cache_clear()
        yield bfl, media
        for cache in caches:
            cache.cache_clear()


@pytest.fixture
def user(
    world: tuple[Bfl, MediaHost], make_actor: Callable[..., Actor], make_account: Callable[..., str]
) -> Actor:
    account_at(make_account("bfl"), world[0].url)
    return make_actor(10_000)


def account_at(account_id: str, url: str, **secrets: str) -> None:
    values = {"base_url": url, **({"credentials": seal(secrets)} if secrets else {})}
    with transaction() as session:
        session.execute(update(ProviderAccount).where(ProviderAccount.id == account_id).values(values))


def order(actor: Actor, model: str, **given: Any) -> str:
    with transaction() as session:
        new = jobs.NewJob(model=model, input={"prompt": "a fox", **given})
        return jobs.accept(session, actor, new)[0].id


def pictures(media: MediaHost, count: int, lasts_s: float) -> list[str]:
    return [
        media.publish(f"{n}.png", "image/png", lambda n=n: png(f"picture {n}", 64, 64), lasts_s=lasts_s)  # type: ignore[misc]
        for n in range(count)
    ]


def attempts(job_id: str) -> list[str]:
    with transaction() as session:
        query = select(JobAttempt.outcome).where(JobAttempt.job_id == job_id).order_by(JobAttempt.number)
        return [str(outcome) for outcome in session.scalars(query)]


def status(job_id: str) -> str:
    with transaction() as session:
        return str(session.scalars(select(Job.status).where(Job.id == job_id)).one())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG_S):
        while not condition():
            await asyncio.sleep(0.02)


def at_work(story: Callable[[Submit], Awaitable[None]]) -> None:
    """The real flow of one process while the story goes on."""

    async def main() -> None:
        flow = Submit()
        flow.start(lambda: False, lambda: None)
        try:
            await story(flow)
        finally:
            await flow.close(1.0)
            await http.shared().close()

    asyncio.run(main())


def test_what_is_cut_while_its_pictures_come_goes_back_to_the_queue(
    world: tuple[Bfl, MediaHost], user: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    bfl, media = world
    monkeypatch.setattr(Submit, "longest_s", 0.3)
    job_id = order(user, MANY, images=pictures(media, 8, 2.0))

    async def story(flow: Submit) -> None:
        await flow.fill()
        await asyncio.sleep(0.1)
        assert attempts(job_id) == [Outcome.INTENT]
        await until(lambda: not flow.in_flight)

    at_work(story)
    make_due()
    with transaction() as session:
        assert lifecycle.recover(session) == 1
    assert (attempts(job_id), status(job_id)) == ([Outcome.REJECTED], "queued")
    assert not bfl.asked("POST /v1/flux")


def test_slow_pictures_delay_their_own_job_and_no_other(world: tuple[Bfl, MediaHost], user: Actor) -> None:
    bfl, media = world
    slow = order(user, MANY, images=pictures(media, 8, 0.5))

    async def story(flow: Submit) -> None:
        await flow.fill()
        await asyncio.sleep(0.3)  # they are on their way
        quick = order(user, MANY, images=pictures(media, 3, 0.0))
        started = time.monotonic()
        await flow.fill()
        await until(lambda: status(quick) == "running")
        assert time.monotonic() - started < 1.2
        assert attempts(slow) == [Outcome.INTENT]
        await until(lambda: status(slow) == "running")

    at_work(story)
    assert attempts(slow) == [Outcome.ACCEPTED]
    assert len(bfl.asked("POST /v1/flux-2-max")) == 2


def test_pictures_that_never_come_in_time_are_no_lost_submit(
    world: tuple[Bfl, MediaHost], user: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    bfl, media = world
    monkeypatch.setattr(inputs, "PREPARE_S", 0.3)
    job_id = order(user, MANY, images=pictures(media, 2, 2.0))

    async def story(flow: Submit) -> None:
        await flow.fill()
        await until(lambda: not flow.in_flight)

    at_work(story)
    assert (attempts(job_id), status(job_id)) == ([Outcome.REJECTED], "queued")
    with transaction() as session:
        (account,) = session.scalars(select(ProviderAccount))
        assert (account.failures, account.open_until) == (0, 0.0), "no account is to blame"
    assert not bfl.asked("POST /v1/flux")


def test_a_stop_hands_on_what_waits_for_its_pictures(world: tuple[Bfl, MediaHost], user: Actor) -> None:
    bfl, media = world
    job_id = order(user, MANY, images=pictures(media, 2, 5.0))

    async def story(flow: Submit) -> None:
        await flow.fill()
        await asyncio.sleep(0.3)  # they are on their way
        await flow.close(1.0)

    started = time.monotonic()
    at_work(story)
    assert time.monotonic() - started < 3
    with transaction() as session:  # at once, not when the lease ends
        assert lifecycle.recover(session) == 1
    assert (attempts(job_id), status(job_id)) == ([Outcome.REJECTED], "queued")
    assert not bfl.asked("POST /v1/flux")


def test_who_cancels_while_the_pictures_come_is_not_sent(world: tuple[Bfl, MediaHost], user: Actor) -> None:
    bfl, media = world
    job_id = order(user, ONE, image=pictures(media, 1, 0.5)[0])

    async def story(flow: Submit) -> None:
        await flow.fill()
        cancel(user, job_id)
        await until(lambda: not flow.in_flight)

    at_work(story)
    assert Seen(user, job_id).end == ("canceled", "canceled", 0)
    assert not bfl.asked("POST /v1/flux")


def test_media_and_an_answer_that_take_longer_than_a_lease_keep_it(
    world: tuple[Bfl, MediaHost], user: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    bfl, media = world
    monkeypatch.setenv("LEASE_S", "0.9")
    settings.settings.cache_clear()
    job_id = order(user, ONE, image=pictures(media, 1, 1.5)[0])
    bfl.misbehave(Fault("slow", match="POST /v1/flux", seconds=1.5))

    async def story(flow: Submit) -> None:
        await flow.fill()
        while flow.in_flight:
            await asyncio.sleep(0.1)
            with transaction() as session:
                assert lifecycle.recover(session) == 0, "somebody else took it for left behind"

    at_work(story)
    assert (attempts(job_id), status(job_id)) == ([Outcome.ACCEPTED], "running")


# ---------------------------------------------------------------- addresses for those who take nothing else


@pytest.fixture
def jimeng(world: tuple[Bfl, MediaHost], make_account: Callable[..., str]) -> Iterator[Jimeng]:
    """Volcengine, with an account."""
    server = Jimeng(world[1])
    secrets = {"access_key": server.account.key, "secret_key": server.account.secret_key}
    with Stage([server]):
        account_at(make_account("jimeng", provider="jimeng"), server.url, **secrets)
        yield server


def submitted(job_id: str) -> None:
    async def story(flow: Submit) -> None:
        await flow.fill()
        await until(lambda: not flow.in_flight)

    at_work(story)


def test_a_picture_in_bytes_is_lent_an_address_for_a_day(jimeng: Jimeng, user: Actor, tmp_path: Path) -> None:
    submitted(order(user, "jimeng/text-to-image", images=[INLINE]))
    (task,) = jimeng.generations.values()
    assert "binary_data_base64" not in task.body
    (url,) = task.body["image_urls"]
    key = url.partition("/media/")[2]
    assert storage.storage().read(key, 10**6) == base64.b64decode(INLINE)
    with transaction() as session:
        assert deletions.orphans(session, list(storage.storage().listing("uploads/")), -1.0) == []
        assert deletions.backlog(session) == (0, 0.0)
        (owed,) = session.scalars(select(ObjectDeletion))
        assert 86_000 < owed.due_at - time.time() <= 86_400
        session.execute(update(ObjectDeletion).values(due_at=0.0))
    remove_some()
    assert storage.storage().read(key, 10**6) is None


def test_where_the_provider_cannot_reach_our_storage_the_job_says_so(
    jimeng: Jimeng, user: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = order(user, "jimeng/text-to-image", images=[INLINE])
    monkeypatch.setenv("ALLOW_PRIVATE_ADDRESSES", "false")
    settings.settings.cache_clear()
    submitted(job_id)
    assert Seen(user, job_id).end == ("failed", "invalid_input", 0)
    with transaction() as session:
        error = session.get_one(Job, job_id).error
        assert error is not None
        assert "cannot reach this platform's storage" in error["message"]
        assert not session.scalars(select(JobStep)).all()
    assert not jimeng.generations
