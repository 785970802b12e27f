"""Removing objects from the storage, and finding those that nobody knows of."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from common import clock
from common.db import transaction
from common.errors import StorageUnavailable
from common.services import deletions
from common.services.deletions import Deletion
from common.storage import ROOMS, day_prefix, pages, storage

log = logging.getLogger(__name__)

_LOOK_BACK = 8  # days; what was left before was found on its own day, or by the operator's command
_AT_ONCE = 8
_DRAFTS = ("wxiai-*.part", "wxiai-*.upload")  # files on their way into the storage


def remove_some() -> bool:
    """Remove objects that are to be removed; whether there may be more of them."""
    with transaction() as session:
        claimed = deletions.due(session)
    with ThreadPoolExecutor(_AT_ONCE, "removal") as pool:
        errors = list(pool.map(_remove, claimed))
    with transaction() as session:
        deletions.done(session, [each for each, error in zip(claimed, errors, strict=True) if error is None])
        kept = [(each, error) for each, error in zip(claimed, errors, strict=True) if error is not None]
        deletions.failed(session, kept)
    if kept:
        log.warning("%d objects could not be removed yet: %s", len(kept), kept[0][1])
    return bool(claimed) and not kept


def _remove(deletion: Deletion) -> str | None:
    """Why it did not work, if it did not."""
    try:
        storage().delete(deletion.key)
    except StorageUnavailable as error:
        return str(error)
    except ValueError:  # no key of ours: there is nothing to remove
        log.error("an impossible key was to be removed")
    return None


# ---------------------------------------------------------------- what nobody knows of


def lately() -> list[str]:
    """Where objects of the last days are."""
    now = clock.now()
    days = [now - timedelta(days=number) for number in range(_LOOK_BACK)]
    return [day_prefix(room, day) for day in days for room in ROOMS]


def forget_orphans(prefixes: Iterable[str], stopping: Callable[[], bool]) -> int:
    """Have what nothing knows of removed; how many objects that were. A storage that is away ends it for today."""
    count = 0
    try:
        for page in pages(storage(), prefixes):
            if stopping():
                break
            with transaction() as session:
                found = deletions.orphans(session, page, deletions.ORPHAN_S)
                deletions.forget(session, [each.key for each in found])
            count += len(found)
    except StorageUnavailable as error:
        log.warning("orphans are looked for another day: %s", error)
    return count


def sweep(older_than_s: float = deletions.ORPHAN_S) -> int:
    """Remove what killed processes left half-written, on this machine and in the storage; how many there were."""
    removed = 0
    for pattern in _DRAFTS:
        for file in Path(tempfile.gettempdir()).glob(pattern):
            with suppress(OSError):
                if file.stat().st_mtime < time.time() - older_than_s:
                    file.unlink()
                    removed += 1
    try:
        removed += storage().sweep(older_than_s)
    except StorageUnavailable as error:
        log.warning("half-written objects stay for another day: %s", error)
    return removed
