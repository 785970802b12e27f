"""What the steps share: a flow over job steps, adapters by account, and writing answers down in batches."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import TypeVar

from sqlalchemy.orm import Session

from common.providers.base import Adapter, Http
from common.providers.registry import adapter_for
from common.services import accounts, claims, lifecycle
from common.services.claims import Claim
from workers.flow import AWAY, Answered, Flow
from workers.http import shared
from workers.threads import in_transaction

log = logging.getLogger(__name__)

C = TypeVar("C", bound=Claim)
V = TypeVar("V")

_adapters: dict[str, tuple[float, Adapter, Http]] = {}


class JobFlow(Flow[C, V]):
    """A flow whose claims are job steps; its lanes are the provider accounts."""

    @abstractmethod
    def write(self, session: Session, claim: C, answer: V) -> None:
        """Write one answer down, in a transaction that may hold others."""

    def lost(self, session: Session, claim: C, answer: V) -> None:
        """What an answer is still good for that came after its lease was lost: nothing, as a rule."""

    def lane(self, claim: C) -> str:
        """The account."""
        return claim.account_id

    def renew(self, session: Session, claims_held: Sequence[C]) -> None:
        """Hold these for another lease."""
        claims.renew(session, claims_held)

    def put_back(self, session: Session, claims_held: Sequence[C]) -> None:
        """Let somebody else have these at once."""
        claims.put_back(session, claims_held)

    async def record(self, answered: Answered[C, V]) -> None:
        """Write a batch in one transaction; if that breaks, each in its own, so that one hurts no other.

        Raises what says that the database is away: the flow tries again.
        """
        try:
            await in_transaction(self._write_all, answered)
        except AWAY:
            raise
        except Exception:
            log.exception("%d answers could not be written together", len(answered))
            for pair in answered:
                await self._record_one(pair)

    async def _record_one(self, pair: tuple[C, V]) -> None:
        try:
            await in_transaction(self._write_all, [pair])
        except AWAY:
            raise
        except Exception:
            log.exception("job %s: the answer could not be written", pair[0].job_id)

    def _write_all(self, session: Session, answered: Answered[C, V]) -> None:
        held = lifecycle.still_held(session, [claim for claim, _ in answered])
        held_ids = {claim.job_id for claim in held}
        for claim, answer in answered:
            if claim.job_id not in held_ids:
                log.warning("job %s: the lease was lost before the answer came", claim.job_id)
                self.lost(session, claim, answer)
        answers = {claim.job_id: answer for claim, answer in answered}
        for claim in held:  # in an order that no other transaction crosses
            self.write(session, claim, answers[claim.job_id])


async def load_adapters(claimed: Iterable[Claim]) -> None:
    """Have `adapter_at` know the accounts that these claims name, as their rows are now."""
    loaded = await in_transaction(accounts.load, {claim.account_id for claim in claimed})
    for account in loaded.values():
        known = _adapters.get(account.id)
        if known is None or known[0] != account.version:
            adapter = adapter_for(account.adapter, account.credentials)
            _adapters[account.id] = (account.version, adapter, shared().at(account.credentials.base_url))


def adapter_at(account_id: str) -> tuple[Adapter, Http] | None:
    """The adapter and the HTTP client of an account; None where its credentials cannot be read."""
    known = _adapters.get(account_id)
    return known[1:] if known else None
