"""Store: copy what a provider made into the operator's storage, before anybody is told that it succeeded."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from common import clock
from common.errors import StorageUnavailable
from common.providers.base import Output
from common.services import claims, lifecycle
from common.services.claims import StoreClaim
from common.services.lifecycle import Stored
from common.settings import settings
from common.storage import storage
from common.storage.keys import artifact_key, thumbnail_key
from common.words import Step
from workers.flow import Answered
from workers.http import shared
from workers.media import (
    THUMBNAIL_EXTENSION,
    THUMBNAIL_TYPE,
    MediaInfo,
    SourceGone,
    SourceRefused,
    SourceTrouble,
    StoredFile,
    fetch,
    inspect,
    thumbnail,
)
from workers.steps.recording import JobFlow
from workers.threads import in_storage_thread, in_transaction

log = logging.getLogger(__name__)

_REFUSALS = (
    3  # in a row before they count: one page of a media host in trouble is no verdict on what was made
)
_GRACE_S = 60.0  # after the promised life of a URL, before its refusal to answer counts as final


@dataclass(slots=True)
class Kept:
    """What is in storage now. `lost`: why the rest never will be; `later`: why not yet; neither: it is all there."""

    results: list[Stored] = field(default_factory=list)
    lost: str | None = None
    later: str | None = None
    interrupted: bool = False


class Store(JobFlow[StoreClaim, Kept]):
    """Finished generations, a few at a time: each may be large."""

    step = Step.STORE
    most = 16
    most_per_lane = 12
    longest_s = 3600.0  # a large video over a slow line

    async def claim(self, limit: int, full: frozenset[str]) -> list[StoreClaim]:
        """Those whose URLs die first before the others."""
        return await in_transaction(claims.results_to_store, min(limit, self.most // 2), full)

    async def ask(self, portion: list[StoreClaim]) -> Answered[StoreClaim, Kept]:
        """Transfer what is missing; when the process stops, what is done is kept and the rest handed on."""
        (claim,) = portion
        kept = Kept()
        try:
            await _transfer(claim, kept)
        except asyncio.CancelledError:
            kept.later, kept.interrupted = "the worker stops", True
        return [(claim, kept)]

    def write(self, session: Session, claim: StoreClaim, answer: Kept) -> None:
        """All, some (to be tried again), or never."""
        if answer.lost is not None:
            lifecycle.unstorable(session, claim, answer.results, answer.lost)
        elif answer.later is not None:
            log.warning("job %s: not stored yet: %s", claim.job_id, answer.later)
            lifecycle.partly_stored(session, claim, answer.results, 0.0 if answer.interrupted else None)
        else:
            lifecycle.stored(session, claim, answer.results)


async def _transfer(claim: StoreClaim, kept: Kept) -> None:
    try:
        for number, raw in enumerate(claim.outputs, start=1):
            if number not in claim.stored:
                kept.results.append(await _store_one(claim, number, raw))
    except SourceGone as error:
        kept.lost = f"The provider's result is gone: {error}"
    except SourceRefused as error:
        if claim.failures < _REFUSALS:
            kept.later = str(error)
        else:
            kept.lost = f"The provider's result cannot be stored: {error}"
    except SourceTrouble as error:
        if clock.epoch() > claim.expires_at + _GRACE_S:
            kept.lost = f"The provider's result could not be fetched: {error}"
        else:
            kept.later = str(error)
    except StorageUnavailable as error:
        kept.later = str(error)


async def _store_one(claim: StoreClaim, number: int, raw: dict[str, Any]) -> Stored:
    output = Output(**{name: value for name, value in raw.items() if name != "expires_at"})
    fetched = await fetch(shared().downloads, output, allow_private=settings().allow_private_addresses)
    putting = asyncio.ensure_future(in_storage_thread(_put, claim, number, output, fetched))
    try:
        return await asyncio.shield(putting)
    finally:
        # A canceled upload goes on in its thread: the file must stay until that is over.
        putting.add_done_callback(lambda _: fetched.path.unlink(missing_ok=True))


def _put(claim: StoreClaim, number: int, output: Output, fetched: StoredFile) -> Stored:
    """Look at the file, upload it and its thumbnail. The keys are the same on every try."""
    info = inspect(fetched.path, output)
    created = datetime.fromtimestamp(claim.created_at, UTC)
    key = artifact_key(claim.job_id, created, number, info.extension)
    storage().put(key, fetched.path, info.content_type)
    return Stored(
        number=number,
        kind=info.kind,
        key=key,
        url=storage().url(key),
        thumbnail_key=_put_thumbnail(claim, number, created, fetched.path, info),
        content_type=info.content_type,
        bytes=fetched.bytes,
        sha256=fetched.sha256,
        width=info.width,
        height=info.height,
        duration_s=info.duration_s,
    )


def _put_thumbnail(
    claim: StoreClaim, number: int, created: datetime, path: Path, info: MediaInfo
) -> str | None:
    small = thumbnail(path, info)
    if small is None:
        return None
    key = thumbnail_key(claim.job_id, created, number, THUMBNAIL_EXTENSION)
    with tempfile.NamedTemporaryFile() as file:
        file.write(small)
        file.flush()
        storage().put(key, Path(file.name), THUMBNAIL_TYPE)
    return key
