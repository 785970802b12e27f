"""Submit: give waiting jobs to providers, exactly once each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from common.errors import StorageUnavailable, Unavailable
from common.media import MediaInfo
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
from common.providers.inputs import upload_ids
from common.providers.registry import MODELS
from common.services import claims, lifecycle, uploads
from common.services.catalog import with_defaults
from common.services.claims import SubmitClaim
from common.settings import settings
from common.storage import storage
from common.words import ErrorCode, Step
from workers.flow import Answered
from workers.http import CREATING_S, MOVING_S, Patient, shared
from workers.media import SourceGone, SourceRefused, SourceTrouble
from workers.media.inputs import PREPARE_S, is_at_hand, media_of
from workers.steps.recording import JobFlow, adapter_at, load_adapters
from workers.threads import in_storage_thread, in_transaction

log = logging.getLogger(__name__)

BATCH = 64
_UNREADABLE = NotAccepted(trouble=Trouble.CREDENTIALS, message="The account's credentials cannot be read.")


class Submit(JobFlow[SubmitClaim, SubmitVerdict]):
    """Waiting jobs, as far as their accounts have free slots.

    An attempt is written down as sent when its media are at hand, just before the call. What is sent is never cut: it
    needs its answer. What still waits for its media is handed on when the process stops, or goes back to the queue
    when its lease ends: provably nothing was sent.
    """

    step = Step.SUBMIT
    most = 256
    most_per_lane = 128
    longest_s = (
        PREPARE_S + 2 * (CREATING_S + MOVING_S) + 30.0
    )  # Midjourney may ask back; more than all is to take
    may_be_cut = False

    def __init__(self) -> None:
        super().__init__()
        self._sent: set[str] = set()  # attempts that were written down as sent when they were claimed
        self._preparing: set[asyncio.Task[Any]] = set()

    def room(self, held: Iterable[SubmitClaim]) -> int:
        """None while those have large inputs: what a job brings as base64 is in its row, and so in memory."""
        held = list(held)
        is_full = sum(claim.input_bytes for claim in held) >= claims.MOST_INPUT_BYTES
        return 0 if is_full else super().room(held)

    async def claim(self, limit: int, full: frozenset[str]) -> list[SubmitClaim]:
        """Give out slots; then write down, before anything is sent, that it may have been.

        What has media to wait for is written down later.
        """
        claimed = await in_transaction(_claim, min(limit, BATCH), full)
        if not claimed:
            return []
        await load_adapters(claimed)
        if self.is_stopping():
            await in_transaction(self.put_back, claimed)
            return []
        ready = {claim.attempt_id: _is_ready(claim) for claim in claimed}
        at_once = [claim for claim in claimed if ready[claim.attempt_id]]
        sent = await in_transaction(lifecycle.sending, at_once) if at_once else []
        self._sent.update(claim.attempt_id for claim in sent)
        return [*sent, *(claim for claim in claimed if not ready[claim.attempt_id])]

    async def ask(self, portion: list[SubmitClaim]) -> Answered[SubmitClaim, SubmitVerdict]:
        """Exactly one creating call; or none, if the job was canceled or the process stops while its media come."""
        (claim,) = portion
        is_sent = claim.attempt_id in self._sent
        self._sent.discard(claim.attempt_id)
        at = adapter_at(claim.account_id)
        if at is None:
            return [(claim, _UNREADABLE)]
        async with AsyncExitStack() as held:
            prepared = _prepared if is_sent else self._waited_for
            asked = await prepared(claim, at[0], held)
            if asked is None:
                return []
            if not isinstance(asked, Submission):
                return [(claim, asked)]
            return [(claim, await _submit(claim, at, asked))]

    async def close(self, within_s: float) -> None:
        """Hand on what still waits for its media; let what is sent be answered in time."""
        await asyncio.sleep(0)  # as in `Flow.close`
        for task in self._preparing:
            task.cancel()
        await super().close(within_s)

    async def _waited_for(
        self, claim: SubmitClaim, adapter: Adapter, held: AsyncExitStack
    ) -> Submission | Rejected | NotAccepted | None:
        """As `_prepared`, then written down as sent; None where it must not be sent any more."""
        task = asyncio.current_task()
        assert task is not None
        self._preparing.add(task)
        try:
            asked = None if self.is_stopping() else await _prepared(claim, adapter, held)
        finally:
            self._preparing.discard(task)
        if self.is_stopping():
            await self._hand_on([claim])
            return None
        if isinstance(asked, Submission) and not await in_transaction(lifecycle.sending, [claim]):
            return None
        return asked

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


def _is_ready(claim: SubmitClaim) -> bool:
    """Whether it can be sent at once. (What cannot even be prepared is no reason to write anything down.)"""
    at, spec = adapter_at(claim.account_id), MODELS.get(claim.model)
    return at is not None and spec is not None and is_at_hand(at[0], spec.input_schema, claim.input)


async def _submit(claim: SubmitClaim, at: tuple[Adapter, Http], asked: Submission) -> SubmitVerdict:
    adapter, http = at
    try:
        return await adapter.submit(Patient(http), asked)
    except Exception as error:
        log.exception("job %s: the adapter broke while submitting", claim.job_id)
        return Unknown(message=f"Internal error while submitting: {type(error).__name__}")


# ---------------------------------------------------------------- what is asked for


async def _prepared(
    claim: SubmitClaim, adapter: Adapter, held: AsyncExitStack
) -> Submission | Rejected | NotAccepted:
    """All that the provider is asked for, media included, for which `held` keeps memory; or why it cannot be asked."""
    try:
        return await with_media(adapter, submission(claim), held)
    except Exception as error:  # nothing was sent, and the same would happen again
        log.exception("job %s: its submission could not be prepared", claim.job_id)
        message = f"Internal error before submitting: {type(error).__name__}"
        return Rejected(code=ErrorCode.INTERNAL, message=message, asked=False)


async def with_media(
    adapter: Adapter, asked: Submission, held: AsyncExitStack
) -> Submission | Rejected | NotAccepted:
    """The same with what its input names, fetched where the provider wants bytes, for which `held` keeps memory."""
    schema = MODELS[asked.model].input_schema
    brought = upload_ids(schema, asked.input)
    try:
        coming = media_of(
            shared().downloads,
            adapter,
            schema,
            asked.input,
            uploads=await in_transaction(uploads.sources, brought) if brought else {},
            allow_private=settings().allow_private_addresses,
            lend=_lent if adapter.only_addresses(asked.model, asked.input) else None,
        )
        return replace(asked, media=await held.enter_async_context(coming))
    except (SourceGone, SourceRefused) as error:
        message = f"An input cannot be used: {error}"
        return Rejected(code=ErrorCode.INVALID_INPUT, message=message, asked=False)
    except (SourceTrouble, SQLAlchemyError, Unavailable) as error:
        reason = error if isinstance(error, SourceTrouble) else "the database does not say where it is"
        return NotAccepted(trouble=Trouble.INPUT, message=f"An input could not be fetched: {reason}")


async def _lent(path: Path, info: MediaInfo) -> str:
    """An address, for a day, of a picture that came inside a job. Raises SourceRefused or SourceTrouble."""
    lent = await in_transaction(uploads.lend, info.extension)
    if lent is None:
        raise SourceRefused("the provider takes addresses only, and cannot reach this platform's storage")
    key, url = lent
    try:
        await in_storage_thread(storage().put, key, path, info.content_type)
    except StorageUnavailable as error:
        raise SourceTrouble(str(error)) from None
    return url


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
