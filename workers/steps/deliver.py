"""Deliver: send what the outbox owes to receivers. One that fails or is slow delays no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from common.providers.base import NotSent, Unanswered
from common.providers.reading import retry_after_s
from common.services import webhooks
from common.services.webhooks import Parcel, Places
from common.words import Step
from workers.flow import Answered, Flow
from workers.http import shared
from workers.threads import in_transaction

BATCH = 50
TIMEOUT_S = 10.0
_LONGEST_RETRY_AFTER_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Response:
    """What a receiver said: an HTTP status, or why there was none."""

    status: int | None
    error: str
    retry_after_s: float | None = None


class Deliver(Flow[Parcel, Response]):
    """Webhooks that are due."""

    step = Step.DELIVER
    most = 200
    most_per_lane = 20  # one that is slow is slow for itself

    async def claim(self, limit: int, full: frozenset[str]) -> list[Parcel]:
        """Signed and ready to be posted. Whoever has all its places waits within the claim, too."""
        held = self.held()
        places = Places(
            most=self.most,
            per_receiver=self.most_per_lane,
            receivers=Counter(parcel.receiver for parcel in held),
            users=Counter(parcel.user_id for parcel in held),
        )
        self._hungry = self._hungry or bool(places.full_users())
        return await in_transaction(webhooks.due, min(limit, BATCH), places)

    def lane(self, claim: Parcel) -> str:
        """The receiver."""
        return claim.receiver

    async def ask(self, portion: list[Parcel]) -> Answered[Parcel, Response]:
        """One try."""
        (parcel,) = portion
        try:
            reply = await shared().send_guarded(
                "POST", parcel.url, headers=parcel.headers, body=parcel.body, timeout_s=TIMEOUT_S
            )
        except (NotSent, Unanswered) as error:
            return [(parcel, Response(None, str(error)))]
        said = f"the receiver answered {reply.status}"
        return [
            (parcel, Response(reply.status, said, retry_after_s(reply, longest_s=_LONGEST_RETRY_AFTER_S)))
        ]

    async def record(self, answered: Answered[Parcel, Response]) -> None:
        """All in one transaction."""
        await in_transaction(_write_all, answered)

    def renew(self, session: Session, claims: Sequence[Parcel]) -> None:
        """Hold these for another lease."""
        webhooks.renew(session, claims)

    def put_back(self, session: Session, claims: Sequence[Parcel]) -> None:
        """Let somebody else try these at once."""
        webhooks.put_back(session, claims)


def _write_all(session: Session, answered: Answered[Parcel, Response]) -> None:
    for parcel, said in answered:
        if (
            said.status is not None and 200 <= said.status < 300
        ):  # a redirect is a refusal: it could lead anywhere
            webhooks.delivered(session, parcel, status=said.status)
        else:
            webhooks.refused(
                session, parcel, said.error, status=said.status, retry_after_s=said.retry_after_s
            )
