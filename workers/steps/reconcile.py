"""Reconcile: look for submits whose answer was lost. They are adopted or given up, never sent again."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

from sqlalchemy.orm import Session

from common.providers.base import Accepted, Adapter, Http, Submission
from common.services import claims, lifecycle
from common.services.claims import SubmitClaim
from common.words import Step
from workers.flow import Answered
from workers.steps.recording import JobFlow, adapter_at, load_adapters
from workers.steps.submit import submission, with_media
from workers.threads import in_transaction

log = logging.getLogger(__name__)

BATCH = 64


class Reconcile(JobFlow[SubmitClaim, Accepted | None]):
    """Lost submits."""

    step = Step.RECONCILE
    most = 256
    most_per_lane = 64

    async def claim(self, limit: int, full: frozenset[str]) -> list[SubmitClaim]:
        """Those that are due to be looked for."""
        claimed = await in_transaction(claims.lost_submits, min(limit, BATCH), full)
        if claimed:
            await load_adapters(claimed)
        return claimed

    async def ask(self, portion: list[SubmitClaim]) -> Answered[SubmitClaim, Accepted | None]:
        """What a late answer or a callback has told, else what the provider says when asked by our reference."""
        (claim,) = portion
        if claim.late_answer:
            return [(claim, Accepted(**claim.late_answer))]
        at = adapter_at(claim.account_id)
        return [(claim, await _look(claim, *at) if at else None)]

    def write(self, session: Session, claim: SubmitClaim, answer: Accepted | None) -> None:
        """Adopt it, or look again until the window has closed."""
        if answer is not None:
            lifecycle.accepted(session, claim, answer, adopted=True)
        else:
            lifecycle.not_found_yet(session, claim)


async def _look(claim: SubmitClaim, adapter: Adapter, http: Http) -> Accepted | None:
    try:
        asked = submission(claim)
        hinted = adapter.adopt(claim.hint, asked) if claim.hint else None
        if hinted is not None or not adapter.can_find:
            return hinted
        async with AsyncExitStack() as held:
            found = await adapter.find(http, await _with_what_it_sends(adapter, asked, held))
    except Exception:
        log.exception("job %s: the adapter broke while looking for a lost submit", claim.job_id)
        return None
    return found if isinstance(found, Accepted) else None


async def _with_what_it_sends(adapter: Adapter, asked: Submission, held: AsyncExitStack) -> Submission:
    """With the media of the input, where finding may have to send some; without any where they cannot be had."""
    if not any(asked.input.get(name) for name in adapter.find_sends):
        return asked
    ready = await with_media(adapter, asked, held)
    if isinstance(ready, Submission):
        return ready
    log.warning("the media of the lost submit %s cannot be had now: %s", asked.reference, ready.message)
    return asked
