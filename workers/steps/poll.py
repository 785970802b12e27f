"""Poll: look at running generations, in batches, hundreds at once."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy.orm import Session

from common.providers.base import Adapter, Failed, Http, NoVerdict, PollVerdict, Running, Succeeded
from common.services import claims, lifecycle
from common.services.claims import Claim
from common.words import Step
from workers.flow import Answered
from workers.steps.recording import JobFlow, adapter_at, load_adapters
from workers.threads import in_transaction

log = logging.getLogger(__name__)

BATCH = 1000
ASKED_AT_ONCE = 150  # calls under way at one account


@dataclass(frozen=True, slots=True)
class Canceled:
    """The provider was asked to stop; whether it confirmed."""

    confirmed: bool


Seen = PollVerdict | Canceled


class Poll(JobFlow[Claim, Seen]):
    """Running generations that are due to be looked at."""

    step = Step.POLL
    most = 4000
    most_per_lane = 1000

    def __init__(self) -> None:
        super().__init__()
        self._gates: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(ASKED_AT_ONCE)
        )

    async def claim(self, limit: int, full: frozenset[str]) -> list[Claim]:
        """Those that are due, whoever's they are."""
        claimed = await in_transaction(claims.due, Step.POLL, min(limit, BATCH), full)
        if claimed:
            await load_adapters(claimed)
        return claimed

    def portions(self, claimed: list[Claim]) -> Iterator[list[Claim]]:
        """By account, as many as its API takes in one call; a cancel goes alone."""
        groups: defaultdict[str, list[Claim]] = defaultdict(list)
        for claim in claimed:
            if _is_cancel(claim):
                yield [claim]
            else:
                groups[claim.account_id].append(claim)
        for account_id, group in groups.items():
            at = adapter_at(account_id)
            size = at[0].batch_size if at else len(group)
            yield from (group[start : start + size] for start in range(0, len(group), size))

    async def ask(self, portion: list[Claim]) -> Answered[Claim, Seen]:
        """One call, or for a cancel the call that asks to stop."""
        account_id = portion[0].account_id
        at = adapter_at(account_id)
        if at is None:  # its credentials cannot be read: said in the log; tried again when the lease is over
            return []
        async with self._gates[account_id]:
            try:
                if _is_cancel(portion[0]):
                    return [(portion[0], await _cancel(*at, portion[0]))]
                return await _look(*at, portion)
            except Exception as error:
                log.exception("the %s adapter broke", at[0].name)
                broken = NoVerdict(message=f"internal error: {type(error).__name__}")
                return [(claim, broken) for claim in portion]

    async def record(self, answered: Answered[Claim, Seen]) -> None:
        """Those still running, the bulk, in one statement; every change on its own."""
        running = [(claim, seen) for claim, seen in answered if isinstance(seen, Running) and not claim.made]
        others = [(claim, seen) for claim, seen in answered if not isinstance(seen, Running) or claim.made]
        if running:
            await in_transaction(lifecycle.still_running, running)
        if others:
            await super().record(others)

    def write(self, session: Session, claim: Claim, answer: Seen) -> None:
        """One verdict that changes something."""
        if claim.made and not isinstance(answer, Canceled):
            lifecycle.asked_anew(session, claim, answer)
            return
        match answer:
            case Running():
                lifecycle.still_running(session, [(claim, answer)])
            case Succeeded():
                lifecycle.produced(session, claim, answer)
            case Failed():
                lifecycle.failed(session, claim, answer)
            case NoVerdict():
                lifecycle.no_verdict(session, claim, answer)
            case Canceled():
                lifecycle.cancel_answered(session, claim, confirmed=answer.confirmed)


def _is_cancel(claim: Claim) -> bool:
    """Whether the provider is to be asked to stop: it cannot any more where it has done its part."""
    return claim.cancel_requested and not claim.finished and not claim.made


async def _look(adapter: Adapter, http: Http, portion: list[Claim]) -> Answered[Claim, Seen]:
    seen = await adapter.poll(http, [claim.handle for claim in portion if claim.handle])
    nothing = NoVerdict(message="the answer did not mention this job")
    return [
        (claim, seen.get(claim.handle.provider_ref, nothing) if claim.handle else nothing)
        for claim in portion
    ]


async def _cancel(adapter: Adapter, http: Http, claim: Claim) -> Canceled | NoVerdict:
    answer = await adapter.cancel(http, claim.handle) if claim.handle else False
    return answer if isinstance(answer, NoVerdict) else Canceled(answer)
