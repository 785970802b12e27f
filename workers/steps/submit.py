"""Submit: give waiting jobs to providers, exactly once each."""

from __future__ import annotations

import logging
from dataclasses import replace

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from common.errors import Unavailable
from common.providers.base import (
    Accepted,
    Adapter,
    Http,
    Media,
    NotAccepted,
    Rejected,
    Submission,
    SubmitVerdict,
    Trouble,
    Unknown,
)
from common.providers.inputs import upload_ids
from common.providers.registry import MODELS
from common.services import claims, lifecycle, uploads
from common.services.catalog import with_defaults
from common.services.claims import SubmitClaim
from common.settings import settings
from common.words import ErrorCode, Step
from workers.flow import Answered
from workers.http import shared
from workers.media import SourceGone, SourceRefused, SourceTrouble
from workers.media.inputs import media_of
from workers.steps.recording import JobFlow, adapter_at, load_adapters
from workers.threads import in_transaction

log = logging.getLogger(__name__)

BATCH = 64
_UNREADABLE = NotAccepted(trouble=Trouble.CREDENTIALS, message="The account's credentials cannot be read.")


class Submit(JobFlow[SubmitClaim, SubmitVerdict]):
    """Waiting jobs, as far as their accounts have free slots. Never cut: a sent submit needs its answer."""

    step = Step.SUBMIT
    most = 256
    most_per_lane = 128
    may_be_cut = False

    async def claim(self, limit: int, full: frozenset[str]) -> list[SubmitClaim]:
        """Give out slots; then write down, before anything is sent, that it may have been."""
        claimed = await in_transaction(_claim, min(limit, BATCH), full)
        if not claimed:
            return []
        await load_adapters(claimed)
        if self.is_stopping():
            await in_transaction(self.put_back, claimed)
            return []
        return await in_transaction(lifecycle.sending, claimed)

    async def ask(self, portion: list[SubmitClaim]) -> Answered[SubmitClaim, SubmitVerdict]:
        """Exactly one creating call."""
        (claim,) = portion
        at = adapter_at(claim.account_id)
        return [(claim, await _submit(claim, at) if at else _UNREADABLE)]

    def write(self, session: Session, claim: SubmitClaim, answer: SubmitVerdict) -> None:
        """One verdict."""
        match answer:
            case Accepted():
                lifecycle.accepted(session, claim, answer)
            case Rejected():
                lifecycle.rejected(session, claim, answer)
            case NotAccepted():
                lifecycle.not_accepted(session, claim, answer)
            case Unknown():
                lifecycle.unknown(session, claim, answer)

    def lost(self, session: Session, claim: SubmitClaim, answer: SubmitVerdict) -> None:
        """The provider's yes helps whoever looks for this submit now."""
        if isinstance(answer, Accepted):
            lifecycle.answered_late(session, claim, answer)


def _claim(session: Session, limit: int, full: frozenset[str]) -> list[SubmitClaim]:
    lifecycle.recover(session)
    return claims.submits(session, limit, full)


async def _submit(claim: SubmitClaim, at: tuple[Adapter, Http]) -> SubmitVerdict:
    adapter, http = at
    try:
        asked = submission(claim)
        media = await media_for(adapter, asked)
    except Exception as error:  # nothing was sent, and the same would happen again
        log.exception("job %s: its submission could not be prepared", claim.job_id)
        message = f"Internal error before submitting: {type(error).__name__}"
        return Rejected(code=ErrorCode.INTERNAL, message=message, asked=False)
    if not isinstance(media, dict):
        return media
    try:
        return await adapter.submit(http, replace(asked, media=media))
    except Exception as error:
        log.exception("job %s: the adapter broke while submitting", claim.job_id)
        return Unknown(message=f"Internal error while submitting: {type(error).__name__}")


async def media_for(adapter: Adapter, asked: Submission) -> dict[str, Media] | Rejected | NotAccepted:
    """What the input names, fetched where the provider wants bytes; or why the job cannot be sent like this."""
    schema = MODELS[asked.model].input_schema
    brought = upload_ids(schema, asked.input)
    try:
        return await media_of(
            shared().downloads,
            adapter,
            schema,
            asked.input,
            uploads=await in_transaction(uploads.sources, brought) if brought else {},
            allow_private=settings().allow_private_addresses,
        )
    except (SourceGone, SourceRefused) as error:
        message = f"An input cannot be used: {error}"
        return Rejected(code=ErrorCode.INVALID_INPUT, message=message, asked=False)
    except (SourceTrouble, SQLAlchemyError, Unavailable) as error:
        reason = error if isinstance(error, SourceTrouble) else "the database does not say where it is"
        return NotAccepted(trouble=Trouble.INPUT, message=f"An input could not be fetched: {reason}")


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
    return f"{base}/callbacks/{token}" if settings().is_reachable(base) else None
