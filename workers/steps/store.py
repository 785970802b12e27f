"""Store: copy what a provider made into the operator's storage, before anybody is told that it succeeded."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
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
    cut,
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
_AWAY_S, _LONGEST_AWAY_S = 1.0, 30.0  # our storage, before it is tried again


@dataclass(slots=True)
class Kept:
    """What is in storage now. `lost`: why the rest never will be; `later`: why not yet; neither: it is all there."""

    results: list[Stored] = field(default_factory=list)
    lost: str | None = None
    later: str | None = None
    refused: bool = False  # by the source
    at_once: bool = False  # it is tried again as soon as anything is


class Outage:
    """Whether our storage is away, as far as this process has seen.

    While it is, nothing is fetched from providers only to be thrown away: one result at a time tries whether it is
    back, and the others wait, those first whose source dies first.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    def seen(self) -> None:
        """The storage did not take something."""
        pause_s = min(_AWAY_S * 2.0 ** min(self._failures, 16), _LONGEST_AWAY_S)
        self._failures += 1
        self._until = time.monotonic() + pause_s

    def over(self) -> None:
        """The storage took something."""
        self._failures, self._until = 0, 0.0

    def room(self, most: int, in_flight: int) -> int:
        """How many results may be begun now, of at most `most`."""
        if not self._failures:
            return most
        return 0 if in_flight or time.monotonic() < self._until else 1


class Store(JobFlow[StoreClaim, Kept]):
    """Finished generations, a few at a time: each may be large."""

    step = Step.STORE
    most = 16
    most_per_lane = 12
    longest_s = 3600.0  # a large video over a slow line

    def __init__(self) -> None:
        super().__init__()
        self._outage = Outage()

    async def claim(self, limit: int, full: frozenset[str]) -> list[StoreClaim]:
        """Those whose URLs die first before the others."""
        room = self._outage.room(min(limit, self.most // 2), self.in_flight)
        return await in_transaction(claims.results_to_store, room, full) if room else []

    async def ask(self, portion: list[StoreClaim]) -> Answered[StoreClaim, Kept]:
        """Transfer what is missing; when the process stops, what is done is kept and the rest handed on."""
        (claim,) = portion
        kept = Kept()
        try:
            await self._transfer(claim, kept)
        except asyncio.CancelledError:
            kept.later, kept.at_once = "the worker stops", True
        return [(claim, kept)]

    def write(self, session: Session, claim: StoreClaim, answer: Kept) -> None:
        """All, some (to be tried again), or never."""
        if answer.lost is not None:
            lifecycle.unstorable(session, claim, answer.results, answer.lost)
        elif answer.later is not None:
            log.warning("job %s: not stored yet: %s", claim.job_id, answer.later)
            retry_in_s = 0.0 if answer.at_once else None
            lifecycle.partly_stored(
                session, claim, answer.results, retry_in_s=retry_in_s, refused=answer.refused
            )
        else:
            lifecycle.stored(session, claim, answer.results)

    async def _transfer(self, claim: StoreClaim, kept: Kept) -> None:
        try:
            for number, raw in enumerate(claim.outputs, start=1):
                if number not in claim.stored:
                    kept.results.append(await _store_one(claim, number, raw))
                    self._outage.over()
        except StorageUnavailable as error:
            self._outage.seen()
            kept.later, kept.at_once = str(error), True
        except (SourceGone, SourceRefused) as error:
            _refused(claim, kept, error)
        except SourceTrouble as error:
            if clock.epoch() > claim.expires_at + _GRACE_S:
                kept.lost = f"The provider's result could not be fetched: {error}"
            else:
                kept.later = str(error)


def _refused(claim: StoreClaim, kept: Kept, error: SourceGone | SourceRefused) -> None:
    """Final after some times in a row. A dead URL is believed at once where its time was over."""
    is_gone = isinstance(error, SourceGone)
    if claim.refusals + 1 < _REFUSALS and not (is_gone and clock.epoch() > claim.expires_at):
        kept.later, kept.refused = str(error), True
    elif is_gone:
        kept.lost = f"The provider's result is gone: {error}"
    else:
        kept.lost = f"The provider's result cannot be stored: {error}"


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
    if output.tile is not None:
        fetched = cut(fetched, output.tile)
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
