"""Who uses the simulators: our real adapters over the workers' HTTP client, and somebody who takes webhooks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any, Self

from common.ids import new_id
from common.providers.base import (
    Accepted,
    Credentials,
    Failed,
    Handle,
    Media,
    NoVerdict,
    PollVerdict,
    Reply,
    Submission,
    Succeeded,
)
from common.providers.registry import MODELS, adapter_for
from common.services.catalog import with_defaults
from workers.http import AioHttp

PATIENCE_S = 10.0


class Customer:
    """One account at a simulated provider, used as the workers use it."""

    def __init__(self, adapter: str, base_url: str, secrets: Mapping[str, str]) -> None:
        self.adapter = adapter_for(adapter, Credentials(base_url=base_url, secrets=secrets))
        self._http = AioHttp(allow_private=True)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._http.close())
        self._runner.close()

    def submit(
        self,
        model: str,
        prompt: str,
        *,
        callback_url: str | None = None,
        parent: Handle | None = None,
        media: Mapping[str, Media] | None = None,
        **given: Any,
    ) -> Any:
        """The verdict on a job with the catalogue's defaults."""
        return self._runner.run(
            self._submit(model, {"prompt": prompt, **given}, callback_url, parent, media or {})
        )

    def find(
        self,
        model: str,
        reference: str | None,
        prompt: str = "",
        *,
        media: Mapping[str, Media] | None = None,
        **given: Any,
    ) -> Accepted | NoVerdict:
        """Look for a lost submit."""
        lost = self.lost(model, prompt, reference=reference or "", media=media or {}, **given)
        http = self._http.at(self.adapter.credentials.base_url)
        return self._runner.run(self.adapter.find(http, lost))

    def lost(
        self,
        model: str,
        prompt: str,
        *,
        reference: str = "",
        media: Mapping[str, Media] | None = None,
        **given: Any,
    ) -> Submission:
        """A submit whose answer was lost, as it is looked for."""
        wanted = with_defaults(MODELS[model], {"prompt": prompt, **given})
        return Submission(model=model, input=wanted, reference=reference, media=media or {})

    async def _submit(
        self,
        model: str,
        given: Mapping[str, Any],
        callback_url: str | None,
        parent: Handle | None,
        media: Mapping[str, Media],
    ) -> Any:
        submission = Submission(
            model=model,
            input=with_defaults(MODELS[model], given),
            reference=new_id("att"),
            callback_url=callback_url,
            parent=parent,
            media=media,
        )
        return await self.adapter.submit(self._http.at(self.adapter.credentials.base_url), submission)

    def poll(self, model: str, accepted: Accepted) -> PollVerdict:
        """One look."""
        return self.poll_all(model, [accepted])[accepted.provider_ref]

    def poll_all(self, model: str, accepted: Iterable[Accepted]) -> Mapping[str, PollVerdict]:
        """One look at several of them."""
        http = self._http.at(self.adapter.credentials.base_url)
        return self._runner.run(self.adapter.poll(http, [handle(model, each) for each in accepted]))

    def follow(self, model: str, accepted: Accepted) -> tuple[PollVerdict, list[PollVerdict]]:
        """Look until it is over: the last verdict, and all before it."""
        assert isinstance(accepted, Accepted), accepted
        seen: list[PollVerdict] = []
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            verdict = self.poll(model, accepted)
            if isinstance(verdict, Succeeded | Failed):
                return verdict, seen
            seen.append(verdict)
            time.sleep(0.02)
        raise TimeoutError(f"still {seen[-1]}")

    def made(self, model: str, prompt: str, **given: Any) -> tuple[PollVerdict, list[PollVerdict]]:
        """Submit and follow."""
        return self.follow(model, self.submit(model, prompt, **given))

    def cancel(self, model: str, accepted: Accepted) -> bool:
        http = self._http.at(self.adapter.credentials.base_url)
        return self._runner.run(self.adapter.cancel(http, handle(model, accepted)))

    def ask(self, method: str, url: str, json: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Any request, without the adapter."""
        return self._runner.run(self._http.send(method, url, json=json, headers=headers))


def handle(model: str, accepted: Accepted) -> Handle:
    return Handle(model=model, reference="att_test", provider_ref=accepted.provider_ref, memo=accepted.memo)
