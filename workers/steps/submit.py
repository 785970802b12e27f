"""Submit: give waiting jobs to providers, exactly once each."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_address
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from common.providers.base import (
    Accepted,
    Adapter,
    Http,
    NotAccepted,
    Rejected,
    Submission,
    SubmitVerdict,
    Trouble,
    Unknown,
)
from common.providers.registry import MODELS
from common.services import claims, lifecycle
from common.services.catalog import with_defaults
from common.services.claims import SubmitClaim
from common.settings import settings
from workers.engine import in_transaction
from workers.steps.batches import adapters, answers, record, stopping

log = logging.getLogger(__name__)

BATCH = 64


async def submit_due() -> int:
    """Submit until nothing waits that has a free slot. Returns how many were submitted."""
    done = 0
    while not stopping():
        claimed = await in_transaction(_claim)
        if not claimed:
            break
        await _submit(claimed)
        done += len(claimed)
    return done


def _claim(session: Session) -> list[SubmitClaim]:
    lifecycle.recover(session)
    return claims.submits(session, BATCH)


async def _submit(claimed: list[SubmitClaim]) -> None:
    by_account = await adapters(claimed)
    held = {claim.job_id for claim in await in_transaction(lifecycle.sending, claimed)}
    asking = [
        asyncio.create_task(_ask(claim, by_account.get(claim.account_id)))
        for claim in claimed
        if claim.job_id in held
    ]
    async for answered in answers(asking):
        await record(answered, _write)


async def _ask(
    claim: SubmitClaim, at: tuple[Adapter, Http] | None
) -> list[tuple[SubmitClaim, SubmitVerdict]]:
    if at is None:
        return [
            (
                claim,
                NotAccepted(trouble=Trouble.CREDENTIALS, message="The account's credentials cannot be read."),
            )
        ]
    adapter, http = at
    try:
        return [(claim, await adapter.submit(http, submission(claim)))]
    except Exception as error:
        log.exception("job %s: the adapter broke while submitting", claim.job_id)
        return [(claim, Unknown(message=f"Internal error while submitting: {type(error).__name__}"))]


def submission(claim: SubmitClaim) -> Submission:
    """What the provider is asked for; the attempt's id is the reference it is asked under."""
    return Submission(
        model=claim.model,
        input=with_defaults(MODELS[claim.model], claim.input),
        reference=claim.attempt_id,
        callback_url=_callback_url(claim.callback_token),
        parent=claim.parent,
    )


def _callback_url(token: str) -> str | None:
    """Where the provider may call; None where it could not reach us anyway."""
    base = settings().public_url
    if not settings().allow_private_addresses and _is_private(urlsplit(base).hostname or ""):
        return None
    return f"{base}/callbacks/{token}"


def _is_private(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))


def _write(session: Session, claim: SubmitClaim, verdict: SubmitVerdict) -> None:
    match verdict:
        case Accepted():
            lifecycle.accepted(session, claim, verdict)
        case Rejected():
            lifecycle.rejected(session, claim, verdict)
        case NotAccepted():
            lifecycle.not_accepted(session, claim, verdict)
        case Unknown():
            lifecycle.unknown(session, claim, verdict)
