"""Store: copy what a provider made into the operator's storage, before anybody is told that it succeeded."""

from __future__ import annotations

import asyncio
import logging
import tempfile
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
from workers import engine
from workers.engine import in_transaction
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
from workers.steps.batches import record, stopping

log = logging.getLogger(__name__)

AT_ONCE = 8  # transfers under way in one process
_GRACE_S = 60.0  # after the promised life of a URL, before its refusal to answer counts as final


async def store_due() -> int:
    """Start a transfer for everything due, a few at a time; long ones go on after the tick."""
    done = 0
    while not stopping():
        current = engine.running()
        free = AT_ONCE - (current.background if current else 0)
        if free <= 0:
            await asyncio.sleep(0.1)
            continue
        due = await in_transaction(claims.results_to_store, free)
        if not due:
            break
        transfers = [_start(claim) for claim in due]
        await asyncio.wait(transfers, timeout=5.0, return_when=asyncio.FIRST_COMPLETED)
        done += len(due)
    return done


def _start(claim: StoreClaim) -> asyncio.Task[None]:
    current = engine.running()
    work = _store_while_renewing(claim)
    return current.spawn(work) if current else asyncio.create_task(work)


async def _store_while_renewing(claim: StoreClaim) -> None:
    renewing = asyncio.create_task(_renew(claim))
    results: list[Stored] = []
    try:
        await _store(claim, results)
    except asyncio.CancelledError:  # the process is stopping: hand the rest on at once
        await record(
            [(claim, 0.0)],
            lambda session, held, delay: lifecycle.partly_stored(session, held, results, delay),
        )
        raise
    except Exception:
        log.exception("job %s: storing broke; its lease will run out", claim.job_id)
    finally:
        renewing.cancel()


async def _renew(claim: StoreClaim) -> None:
    """Keep the lease while a transfer takes long."""
    while True:
        await asyncio.sleep(settings().lease_s / 3)
        try:
            await in_transaction(claims.renew, claim)
        except Exception:
            log.warning("job %s: the lease could not be renewed this time", claim.job_id)


async def _store(claim: StoreClaim, results: list[Stored]) -> None:
    """Store what is missing, and report: all, some (to be tried again), or never."""
    try:
        for number, raw in enumerate(claim.outputs, start=1):
            if number not in claim.stored:
                results.append(await _store_one(claim, number, raw))
    except SourceGone as error:
        message = f"The provider's result is gone: {error}"
        await record(
            [(claim, message)], lambda session, held, text: lifecycle.unstorable(session, held, results, text)
        )
    except SourceRefused as error:
        message = f"The provider's result cannot be stored: {error}"
        await record(
            [(claim, message)], lambda session, held, text: lifecycle.unstorable(session, held, results, text)
        )
    except (SourceTrouble, StorageUnavailable) as error:
        await record([(claim, error)], lambda session, held, trouble: _later(session, held, results, trouble))
    else:
        await record([(claim, None)], lambda session, held, _: lifecycle.stored(session, held, results))


def _later(session: Session, claim: StoreClaim, results: list[Stored], trouble: Exception) -> None:
    """Try again, unless the source has not answered for longer than it was promised to live."""
    if isinstance(trouble, SourceTrouble) and clock.epoch() > claim.expires_at + _GRACE_S:
        lifecycle.unstorable(
            session, claim, results, f"The provider's result could not be fetched: {trouble}"
        )
        return
    log.warning("job %s: not stored yet: %s", claim.job_id, trouble)
    lifecycle.partly_stored(session, claim, results)


async def _store_one(claim: StoreClaim, number: int, raw: dict[str, Any]) -> Stored:
    output = Output(**{name: value for name, value in raw.items() if name != "expires_at"})
    fetched = await fetch(shared().downloads, output, allow_private=settings().allow_private_addresses)
    try:
        return await asyncio.to_thread(_put, claim, number, output, fetched)
    finally:
        fetched.path.unlink(missing_ok=True)


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
