"""Reconcile: look for submits whose answer was lost. They are adopted or given up, never sent again."""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy.orm import Session

from common.providers.base import Accepted, Adapter, Http
from common.services import claims, lifecycle
from common.services.claims import SubmitClaim
from workers.engine import in_transaction
from workers.steps.batches import adapters, answers, record, stopping
from workers.steps.submit import submission

log = logging.getLogger(__name__)

BATCH = 64


async def reconcile_due() -> int:
    """Look for every lost submit that is due. Returns how many were looked for."""
    done = 0
    while not stopping():
        lost = await in_transaction(claims.lost_submits, BATCH)
        if not lost:
            break
        by_account = await adapters(lost)
        asking = [asyncio.create_task(_look(claim, by_account.get(claim.account_id))) for claim in lost]
        async for answered in answers(asking):
            await record(answered, _write)
        done += len(lost)
    return done


async def _look(
    claim: SubmitClaim, at: tuple[Adapter, Http] | None
) -> list[tuple[SubmitClaim, tuple[Accepted | None, bool]]]:
    """What was found, and whether it may still appear."""
    if at is None:
        return [(claim, (None, True))]
    adapter, http = at
    may_appear = adapter.can_find or adapter.finds_by_callback
    hinted = adapter.adopt(claim.hint) if claim.hint else None
    if hinted is not None:
        return [(claim, (hinted, True))]
    if not adapter.can_find:
        return [(claim, (None, may_appear))]
    try:
        found = await adapter.find(http, submission(claim))
    except Exception:
        log.exception("job %s: the adapter broke while looking for a lost submit", claim.job_id)
        return [(claim, (None, may_appear))]
    return [(claim, (found if isinstance(found, Accepted) else None, may_appear))]


def _write(session: Session, claim: SubmitClaim, looked: tuple[Accepted | None, bool]) -> None:
    found, may_appear = looked
    if found is not None:
        lifecycle.accepted(session, claim, found, adopted=True)
    else:
        lifecycle.not_found_yet(session, claim, can_appear=may_appear)
