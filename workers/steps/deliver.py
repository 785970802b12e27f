"""Deliver: send what the outbox owes to receivers. One that fails or is slow delays no other."""

from __future__ import annotations

import asyncio
import logging

from common.providers.base import NotSent, Reply, Unanswered
from common.services import webhooks
from common.services.webhooks import Parcel
from workers.engine import in_transaction
from workers.http import shared
from workers.steps.batches import stopping

log = logging.getLogger(__name__)

BATCH = 50
TIMEOUT_S = 10.0
_LONGEST_RETRY_AFTER_S = 86_400.0


async def deliver_due() -> int:
    """Send every delivery that is due. Returns how many were tried."""
    done = 0
    while not stopping():
        parcels = await in_transaction(webhooks.due, BATCH)
        if not parcels:
            break
        await asyncio.gather(*(_deliver(parcel) for parcel in parcels))
        done += len(parcels)
    return done


async def _deliver(parcel: Parcel) -> None:
    """One try: post, and write down how it went."""
    try:
        reply = await shared().send_guarded(
            "POST", parcel.url, headers=parcel.headers, body=parcel.body, timeout_s=TIMEOUT_S
        )
    except (NotSent, Unanswered) as error:
        await in_transaction(webhooks.refused, parcel, str(error), status=None, retry_after_s=None)
        return
    if 200 <= reply.status < 300:  # a redirect is a refusal: it could lead anywhere
        await in_transaction(webhooks.delivered, parcel)
    else:
        message = f"the receiver answered {reply.status}"
        await in_transaction(
            webhooks.refused, parcel, message, status=reply.status, retry_after_s=_retry_after_s(reply)
        )


def _retry_after_s(reply: Reply) -> float | None:
    value = reply.headers.get("retry-after", "")
    return min(float(value), _LONGEST_RETRY_AFTER_S) if value.isdigit() else None
