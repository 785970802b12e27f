"""Poll: look at running generations, in batches, hundreds at once."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator

from sqlalchemy.orm import Session

from common.providers.base import Adapter, Failed, Http, NoVerdict, PollVerdict, Running, Succeeded
from common.services import claims, lifecycle
from common.services.claims import Claim
from common.words import Step
from workers.engine import in_transaction
from workers.steps.batches import adapters, answers, record, stopping

log = logging.getLogger(__name__)

BATCH = 1000
AT_ONCE = 200


class _Canceled:
    """The provider was asked to stop; whether it confirmed."""

    def __init__(self, *, confirmed: bool) -> None:
        self.confirmed = confirmed


_Seen = PollVerdict | _Canceled


async def poll_due() -> int:
    """Look at everything that is due. Returns how many were looked at."""
    done = 0
    while not stopping():
        due = await in_transaction(claims.due, Step.POLL, BATCH)
        if not due:
            break
        await _look_at_all(due)
        done += len(due)
    return done


async def _look_at_all(due: list[Claim]) -> None:
    by_account = await adapters(due)
    gate = asyncio.Semaphore(AT_ONCE)
    asking = [
        asyncio.create_task(_ask(gate, adapter, http, batch))
        for adapter, http, batch in _batches(due, by_account)
    ]
    async for answered in answers(asking):
        await _record(answered)


def _batches(
    due: list[Claim], by_account: dict[str, tuple[Adapter, Http]]
) -> Iterator[tuple[Adapter, Http, list[Claim]]]:
    """The claims by account, in portions that its API takes in one call; a cancel goes alone."""
    groups: dict[str, list[Claim]] = defaultdict(list)
    for claim in due:
        if claim.account_id not in by_account:
            continue  # its credentials cannot be read: said in the log; the lease runs out and it is tried again
        if claim.cancel_requested and not claim.finished:
            yield *by_account[claim.account_id], [claim]
        else:
            groups[claim.account_id].append(claim)
    for account_id, group in groups.items():
        adapter, http = by_account[account_id]
        for start in range(0, len(group), adapter.batch_size):
            yield adapter, http, group[start : start + adapter.batch_size]


async def _ask(
    gate: asyncio.Semaphore, adapter: Adapter, http: Http, batch: list[Claim]
) -> list[tuple[Claim, _Seen]]:
    async with gate:
        try:
            if batch[0].cancel_requested and not batch[0].finished:
                return [(batch[0], await _cancel(adapter, http, batch[0]))]
            return await _poll(adapter, http, batch)
        except Exception as error:
            log.exception("the %s adapter broke", adapter.name)
            return [(claim, NoVerdict(message=f"internal error: {type(error).__name__}")) for claim in batch]


async def _poll(adapter: Adapter, http: Http, batch: list[Claim]) -> list[tuple[Claim, _Seen]]:
    seen = await adapter.poll(http, [claim.handle for claim in batch if claim.handle])
    nothing = NoVerdict(message="the answer did not mention this job")
    return [
        (claim, seen.get(claim.handle.provider_ref, nothing) if claim.handle else nothing) for claim in batch
    ]


async def _cancel(adapter: Adapter, http: Http, claim: Claim) -> _Canceled:
    confirmed = await adapter.cancel(http, claim.handle) if claim.handle else False
    return _Canceled(confirmed=confirmed)


async def _record(answered: list[tuple[Claim, _Seen]]) -> None:
    """Those still running, the bulk, in one statement; every change on its own."""
    running = [(claim, seen) for claim, seen in answered if isinstance(seen, Running)]
    others = [(claim, seen) for claim, seen in answered if not isinstance(seen, Running)]
    if running:
        await in_transaction(lifecycle.still_running, running)
    if others:
        await record(others, _write)


def _write(session: Session, claim: Claim, seen: _Seen) -> None:
    match seen:
        case Succeeded():
            lifecycle.produced(session, claim, seen)
        case Failed():
            lifecycle.failed(session, claim, seen)
        case NoVerdict():
            lifecycle.no_verdict(session, claim, seen)
        case _Canceled():
            lifecycle.cancel_answered(session, claim, confirmed=seen.confirmed)
