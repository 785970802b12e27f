"""Removing objects from the storage: owed in the transaction that forgets them, done until it has worked.

A storage that is away for days loses nothing of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from common import clock
from common.ids import new_id, since
from common.models import Artifact, JobEvent, JobStep, ObjectDeletion, Upload
from common.settings import settings
from common.storage import StoredObject

_LEASE_S = 120.0
_LONGEST_PAUSE_S = 3600.0
_BATCH = 200
ORPHAN_S = 86_400.0  # younger objects may still be written down
RESULTS_EXPIRED = "results_expired"  # what a job's timeline tells


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """An object that this worker may remove now."""

    id: str
    token: str
    key: str
    tries: int


# ---------------------------------------------------------------- owing


def forget(session: Session, keys: Iterable[str], *, in_s: float = 0.0) -> None:
    """Have these objects removed from the storage, once this transaction has committed and so much time has passed."""
    due = clock.now() + timedelta(seconds=in_s)
    rows = [
        {"id": new_id("del"), "key": key, "due_at": due.timestamp(), "tries": 0, "created_at": due}
        for key in dict.fromkeys(keys)
        if key
    ]
    if rows:
        session.execute(insert(ObjectDeletion), rows)


def forget_results(session: Session, job_ids: Collection[str]) -> None:
    """Forget these jobs' artifacts and have their objects removed; what is a legacy program's stays there."""
    kept = session.execute(
        select(Artifact.key, Artifact.thumbnail_key).where(Artifact.job_id.in_(job_ids))
    ).all()
    forget(session, (key for row in kept for key in row if key))
    session.execute(delete(Artifact).where(Artifact.job_id.in_(job_ids)))


def expire(session: Session) -> bool:
    """Forget results older than RETENTION_DAYS, some at a time; whether there may be more."""
    days = settings().retention_days
    if not days:
        return False
    oldest = since("art", clock.epoch() - timedelta(days=days).total_seconds())
    old = select(Artifact.job_id).where(Artifact.id < oldest, Artifact.key != "")
    rows = session.scalars(old.order_by(Artifact.id).limit(_BATCH)).all()
    job_ids = set(rows)
    live = set(session.scalars(select(JobStep.job_id).where(JobStep.job_id.in_(job_ids))))
    ended = sorted(job_ids - live)
    forget_results(session, ended)
    told = f"the results were kept for {days} days"
    session.add_all(
        JobEvent(id=new_id("evt"), job_id=job_id, kind=RESULTS_EXPIRED, detail=told, created_at=clock.now())
        for job_id in ended
    )
    return len(rows) == _BATCH and bool(ended)


# ---------------------------------------------------------------- removing


def due(session: Session, limit: int = _BATCH) -> list[Deletion]:
    """Claim deletions that are due; a worker that dies lets them become due again."""
    now, token = clock.epoch(), secrets.token_hex(8)
    picked = (
        select(ObjectDeletion.id)
        .where(ObjectDeletion.due_at <= now)
        .order_by(ObjectDeletion.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = session.execute(
        update(ObjectDeletion)
        .where(ObjectDeletion.id.in_(picked))
        .values(due_at=now + _LEASE_S, lease_token=token)
        .returning(ObjectDeletion.id, ObjectDeletion.key, ObjectDeletion.tries)
        .execution_options(synchronize_session=False)
    ).all()
    return [Deletion(id=row.id, token=token, key=row.key, tries=row.tries) for row in rows]


def any_due(session: Session) -> bool:
    """Whether there is anything to remove."""
    query = select(ObjectDeletion.id).where(ObjectDeletion.due_at <= clock.epoch())
    return session.scalar(query.limit(1)) is not None


def done(session: Session, removed: Sequence[Deletion]) -> None:
    """These objects are gone."""
    session.execute(delete(ObjectDeletion).where(ObjectDeletion.id.in_([each.id for each in removed])))


def failed(session: Session, kept: Sequence[tuple[Deletion, str]]) -> None:
    """These could not be removed, and why: again later, less often each time."""
    for deletion, error in kept:
        pause_s = min(5.0 * 2.0 ** min(deletion.tries, 16), _LONGEST_PAUSE_S)
        session.execute(
            update(ObjectDeletion)
            .where(ObjectDeletion.id == deletion.id, ObjectDeletion.lease_token == deletion.token)
            .values(
                due_at=clock.epoch() + pause_s,
                tries=deletion.tries + 1,
                last_error=error[:500],
                lease_token=None,
            )
        )


def backlog(session: Session) -> tuple[int, float]:
    """How many objects are still to be removed, and for how many seconds the oldest of them has been.

    What is only lent until a later moment does not count yet.
    """
    count, oldest = session.execute(
        select(func.count(), func.min(ObjectDeletion.created_at)).where(
            ObjectDeletion.created_at <= clock.now()
        )
    ).one()
    return count, max(0.0, clock.epoch() - oldest.timestamp()) if oldest else 0.0


# ---------------------------------------------------------------- orphans


def orphans(session: Session, found: Sequence[StoredObject], older_than_s: float) -> list[StoredObject]:
    """Those of these objects that nothing knows of: their worker died before it could write them down, or late.

    What is younger may still be written down; what a job that lives, or that is still watched, has stored is its own.
    """
    old = [each for each in found if each.modified_at <= clock.epoch() - older_than_s]
    owners = {each.key: _owner(each.key) for each in old}
    ids = {owner for owner in owners.values() if owner is not None}
    known = set(session.scalars(select(Upload.key).where(Upload.id.in_(ids), Upload.deleted_at.is_(None))))
    known.update(
        key
        for row in session.execute(
            select(Artifact.key, Artifact.thumbnail_key).where(Artifact.job_id.in_(ids))
        )
        for key in row
    )
    live = set(session.scalars(select(JobStep.job_id).where(JobStep.job_id.in_(ids))))
    keys = [each.key for each in old]
    known.update(session.scalars(select(ObjectDeletion.key).where(ObjectDeletion.key.in_(keys))))
    return [
        each for each in old if owners[each.key] is not None and owners[each.key] not in live and each.key not in known
    ]  # fmt: skip


def _owner(key: str) -> str | None:
    """The job or upload in a key of ours (`common.storage.keys`); None for what somebody else keeps there."""
    room, *day, last = key.split("/")
    if room == "artifacts" and len(day) == 4 and day[3].startswith("job_"):
        return day[3]
    if room == "uploads" and len(day) == 3 and last.startswith("upl_"):
        return last.partition(".")[0]
    return None
