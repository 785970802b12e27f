"""What the steps share: adapters by account, and asking many while recording in batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TypeVar

from sqlalchemy.orm import Session

from common.errors import LeaseLost
from common.providers.base import Adapter, Http
from common.providers.registry import adapter_for
from common.services import accounts, lifecycle
from common.services.claims import Claim
from workers import engine
from workers.engine import in_transaction
from workers.http import shared

log = logging.getLogger(__name__)

C = TypeVar("C", bound=Claim)
V = TypeVar("V")

_adapters: dict[str, tuple[float, Adapter, Http]] = {}


def stopping() -> bool:
    """Whether this process has been told to stop: nothing new is claimed any more."""
    current = engine.running()
    return current is not None and current.stopping


async def adapters(claims: Iterable[Claim]) -> dict[str, tuple[Adapter, Http]]:
    """The adapter and the HTTP client for each account that these claims name, by account id."""
    wanted = {claim.account_id for claim in claims}
    loaded = await in_transaction(accounts.load, wanted)
    for account in loaded.values():
        known = _adapters.get(account.id)
        if known is None or known[0] != account.version:
            adapter = adapter_for(account.adapter, account.credentials)
            _adapters[account.id] = (account.version, adapter, shared().at(account.credentials.base_url))
    return {account_id: _adapters[account_id][1:] for account_id in loaded}


async def answers(asking: Sequence[asyncio.Task[list[tuple[C, V]]]]) -> AsyncIterator[list[tuple[C, V]]]:
    """Answers in the order they come, as many at a time as have gathered while the last ones were written."""
    ready: asyncio.Queue[list[tuple[C, V]]] = asyncio.Queue()
    for task in asking:
        task.add_done_callback(lambda done: ready.put_nowait(_result(done)))
    left = len(asking)
    while left:
        gathered = await ready.get()
        left -= 1
        while not ready.empty():
            gathered = gathered + ready.get_nowait()
            left -= 1
        if gathered:
            yield gathered


def _result(task: asyncio.Task[list[tuple[C, V]]]) -> list[tuple[C, V]]:
    """What a finished question found; one that broke leaves its claims to their leases."""
    if task.cancelled():
        return []
    error = task.exception()
    if error is not None:
        log.error("asking failed; the leases will run out", exc_info=error)
        return []
    return task.result()


async def record(answered: Sequence[tuple[C, V]], write: Callable[[Session, C, V], None]) -> None:
    """Write a batch of answers in one transaction; if that breaks, each in its own, so that one hurts no other."""
    try:
        await in_transaction(_write_all, answered, write)
    except Exception:
        log.exception("a batch of %d could not be written together", len(answered))
        for pair in answered:
            try:
                await in_transaction(_write_all, [pair], write)
            except Exception:
                log.exception("job %s: the answer could not be written", pair[0].job_id)


def _write_all(
    session: Session, answered: Sequence[tuple[C, V]], write: Callable[[Session, C, V], None]
) -> None:
    held = {claim.job_id for claim in lifecycle.still_held(session, [claim for claim, _ in answered])}
    for claim, answer in answered:
        if claim.job_id not in held:
            log.warning("job %s: the lease was lost, the answer is dropped", claim.job_id)
            continue
        try:
            write(session, claim, answer)
        except LeaseLost:
            log.warning("job %s: the lease was lost while writing", claim.job_id)
