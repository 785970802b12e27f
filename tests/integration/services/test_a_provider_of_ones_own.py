"""The provider of `docs/adding-a-provider.md` does jobs through the real engine, against a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiohttp import web
from sqlalchemy import Engine, update

from common import settings, storage
from common.db import transaction
from common.models import Artifact, ProviderAccount
from common.services import jobs
from common.services.users import Actor
from tests.integration.services.life import Seen, make_due
from tests.simulators.frame import Simulator, Stage, json_answer
from tests.simulators.media import MediaHost, png
from tests.unit.providers import guide
from workers import http
from workers.steps.poll import Poll
from workers.steps.store import Store
from workers.steps.submit import Submit

WAIT_S = 20.0


class ExampleServer(Simulator):
    """The imaginary service: a picture is drawn by the second look; who asks for a ghost is refused at the end."""

    name: ClassVar[str] = "example"

    def __init__(self, media: MediaHost) -> None:
        super().__init__()
        self.media = media
        self.looks: dict[str, int] = {}
        self.orders: dict[str, Any] = {}

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [web.post("/v2/pictures", self.take), web.get("/v2/pictures/{id}", self.show)]

    async def take(self, request: web.Request) -> web.Response:
        order = await request.json()
        if order["prompt"] == "nothing":
            return json_answer({"error": "prompt too vague"}, 422)
        made = f"p{len(self.orders)}"
        self.orders[made] = order
        return json_answer({"id": made}, 201)

    async def show(self, request: web.Request) -> web.Response:
        made = request.match_info["id"]
        self.looks[made] = self.looks.get(made, 0) + 1
        if self.looks[made] < 2:
            return json_answer({"state": "drawing"})
        prompt = self.orders[made]["prompt"]
        if prompt == "a ghost":
            return json_answer({"state": "blocked", "why": "no ghosts"})
        return json_answer(
            {"state": "done", "url": self.media.publish("1.png", "image/png", lambda: png(prompt))}
        )


@pytest.fixture
def server(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExampleServer]:
    """The service, and a platform that knows its provider."""
    media = MediaHost()
    served = ExampleServer(media)
    monkeypatch.setenv("MEDIA_DIR", str(tmp_path))
    monkeypatch.setenv("ALLOW_PRIVATE_ADDRESSES", "true")
    caches = (settings.settings, storage.storage, http.shared)
    with guide.registered(), Stage([served, media]):
        for cache in caches:
            cache.cache_clear()
        yield served
        for cache in caches:
            cache.cache_clear()


async def work(done: Callable[[], bool]) -> None:
    """A worker, until all is done."""
    flows, end = (Submit(), Poll(), Store()), time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < end, "the jobs do not end"
        make_due()
        for flow in flows:
            taken = await flow.claim(16, frozenset())
            answers = await asyncio.gather(*(flow.ask(portion) for portion in flow.portions(taken)))
            await flow.record([pair for answered in answers for pair in answered])
    await http.shared().close()


def order(actor: Actor, prompt: str, **given: Any) -> str:
    with transaction() as session:
        new = jobs.NewJob(model="example/picture", input={"prompt": prompt, **given})
        return jobs.accept(session, actor, new)[0].id


def test_jobs_are_done(
    server: ExampleServer, make_actor: Callable[..., Actor], make_account: Callable[..., str]
) -> None:
    account = make_account("example", provider="example")
    with transaction() as session:
        session.execute(
            update(ProviderAccount).where(ProviderAccount.id == account).values(base_url=server.url)
        )
    actor = make_actor(100)
    fox = order(actor, "a fox", quality="fine")
    ghost, vague = order(actor, "a ghost"), order(actor, "nothing")
    asyncio.run(work(lambda: not any(Seen(actor, each).waiting for each in (fox, ghost, vague))))
    assert Seen(actor, fox).end == ("succeeded", None, 12)
    assert Seen(actor, ghost).end == ("failed", "content_moderated", 0)
    assert Seen(actor, vague).end == ("failed", "invalid_input", 0)
    with transaction() as session:
        (artifact,) = session.query(Artifact).all()
        assert (artifact.job_id, artifact.content_type, artifact.kind) == (fox, "image/png", "image")
    assert all(made["external_id"].startswith("att_") for made in server.orders.values())
