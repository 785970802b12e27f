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
from common.errors import StorageRefused, StorageUnavailable
from common.providers.base import Output
from common.providers.registry import ADAPTERS, adapters_for
from common.services import claims, lifecycle
from common.services.claims import StoreClaim
from common.services.lifecycle import Stored
from common.settings import settings
from common.storage import storage
from common.storage.keys import artifact_key, thumbnail_key
from common.words import Step
from workers.flow import Answered
from workers.http import Home, shared
from workers.media import (
    THUMBNAIL_EXTENSION,
    THUMBNAIL_TYPE,
    MediaInfo,
    SourceExpired,
    SourceGone,
    SourceRefused,
    SourceTrouble,
    StoredFile,
    cut,
    fetch,
    inspect,
    thumbnail,
)
from workers.steps.recording import JobFlow, adapter_at, load_adapters
from workers.threads import in_storage_thread, in_transaction

log = logging.getLogger(__name__)

# A body that is no media counts when it has come so often in a row: one page of a media host in trouble is no verdict.
_BAD_BODIES = 3
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 15.0  # after a refusal of the source; doubles
_GRACE_S = 60.0  # after the promised life of a URL, before its refusal to answer counts as final
_AWAY_S, _LONGEST_AWAY_S = 1.0, 30.0  # our storage, before it is tried again
_LONGEST_REFUSED_S = 300.0  # one object that our storage refuses, before it is tried again
_STUBBORN = 8  # failures of one result after which another one tries whether our storage is back


@dataclass(slots=True)
class Kept:
    """What is in storage now. `gone`: why the source gives no more; `later`: why not yet; neither: it is all there."""

    results: list[Stored] = field(default_factory=list)
    gone: str | None = None
    expired: bool = False  # its time was over, as was known before
    later: str | None = None
    pause_s: float | None = None  # before it is tried again; None: as failures go
    refusals: int | None = None  # of the source in a row, where that has changed
    is_refused: bool = False  # by our storage, and it alone


class Outage:
    """Whether our storage is away, as far as this process has seen.

    While it is, nothing is fetched from providers only to be thrown away: one result at a time tries whether it is
    back, and the others wait, those first whose source dies first.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    def seen(self) -> float:
        """The storage did not take something. Returns for how long it is left alone."""
        pause_s = _doubled(_AWAY_S, self._failures, _LONGEST_AWAY_S)
        self._failures += 1
        self._until = time.monotonic() + pause_s
        return pause_s

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
        claimed = await in_transaction(claims.results_to_store, room, full) if room else []
        if at_home := [claim for claim in claimed if _may_be_at_home(claim)]:
            await load_adapters(at_home)
        return claimed

    async def ask(self, portion: list[StoreClaim]) -> Answered[StoreClaim, Kept]:
        """Transfer what is missing; when the process stops, what is done is kept and the rest handed on."""
        (claim,) = portion
        kept = Kept()
        try:
            await self._transfer(claim, kept)
        except asyncio.CancelledError:
            kept.later, kept.pause_s = "the worker stops", 0.0
        return [(claim, kept)]

    def write(self, session: Session, claim: StoreClaim, answer: Kept) -> None:
        """All, some (to be tried again), or never."""
        if answer.gone is not None:
            log.warning("job %s: %s", claim.job_id, answer.gone)
            lifecycle.source_gone(session, claim, answer.results, answer.gone, expired=answer.expired)
        elif answer.later is None:
            lifecycle.stored(session, claim, answer.results)
        elif answer.is_refused:
            log.error("job %s: %s", claim.job_id, answer.later)
            pause_s = _doubled(1.0, claim.failures, _LONGEST_REFUSED_S)
            lifecycle.storage_refused(session, claim, answer.results, answer.later, retry_in_s=pause_s)
        else:
            log.warning("job %s: not stored yet: %s", claim.job_id, answer.later)
            lifecycle.partly_stored(
                session, claim, answer.results, retry_in_s=answer.pause_s, refusals=answer.refusals
            )

    async def _transfer(self, claim: StoreClaim, kept: Kept) -> None:
        for number, raw in enumerate(claim.outputs, start=1):
            if number in claim.stored:
                continue
            try:
                kept.results.append(await _store_one(claim, number, raw))
                self._outage.over()
            except StorageRefused as error:
                kept.later, kept.is_refused = str(error), True
            except StorageUnavailable as error:
                pause_s = self._outage.seen()
                # Whatever is the matter with this one, it must not be the only one that tries.
                kept.later, kept.pause_s = str(error), 2 * pause_s if claim.failures >= _STUBBORN else 0.0
                kept.refusals = 0  # the source has given it
            except (SourceGone, SourceRefused) as error:
                _refused(claim, kept, error, raw)
            except SourceTrouble as error:
                kept.later = str(error)
                if clock.epoch() > _dies_at(claim, raw) + _GRACE_S:
                    kept.gone, kept.expired = f"The provider's result could not be fetched: {error}", True
            if kept.later or kept.gone:
                return


def _refused(claim: StoreClaim, kept: Kept, error: SourceGone | SourceRefused, raw: dict[str, Any]) -> None:
    """A dead URL is believed at once where its time was over, else when it was refused for SOURCE_PATIENCE_S."""
    before = 0 if kept.results else claim.refusals
    if isinstance(error, SourceRefused):
        if before + 1 >= _BAD_BODIES:
            kept.gone = f"The provider's result cannot be stored: {error}"
    else:
        kept.expired = isinstance(error, SourceExpired) or clock.epoch() > _dies_at(claim, raw)
        waited_s = sum(_pause_s(number) for number in range(before))
        if kept.expired or waited_s >= settings().source_patience_s:
            kept.gone = f"The provider's result is gone: {error}"
    kept.later, kept.pause_s, kept.refusals = str(error), _pause_s(before), before + 1


def _pause_s(before: int) -> float:
    """How long after a refusal, with so many in a row before it, the source is left alone."""
    return _doubled(_PAUSE_S, before, _LONGEST_PAUSE_S)


def _doubled(first: float, times: int, most: float) -> float:
    return min(first * 2.0 ** min(times, 16), most)


def _dies_at(claim: StoreClaim, raw: dict[str, Any]) -> float:
    return float(raw.get("expires_at") or claim.expires_at)


def _may_be_at_home(claim: StoreClaim) -> bool:
    """Whether an API that serves this model may keep its results itself."""
    return any(ADAPTERS[name].keeps_results for name in adapters_for(claim.model))


def _home(claim: StoreClaim) -> Home | None:
    """The account's own server, if its results may be there."""
    at = adapter_at(claim.account_id) if _may_be_at_home(claim) else None
    if at is None or not at[0].keeps_results or not at[0].credentials.base_url:
        return None
    return shared().home(at[0].credentials.base_url)


async def _store_one(claim: StoreClaim, number: int, raw: dict[str, Any]) -> Stored:
    output = Output(**{name: value for name, value in raw.items() if name != "expires_at"})
    fetched = await fetch(
        shared().downloads, output, allow_private=settings().allow_private_addresses, home=_home(claim)
    )
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
