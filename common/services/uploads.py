"""Media that users bring for the inputs of their jobs: kept once for each user and content, used by id.

The row is written before the object and says afterwards that the object is there, so that no process can die and
leave an object that nobody knows of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, Text, cast, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from common import clock
from common.errors import Conflict, InvalidInput, NotFound, TooManyUploads
from common.ids import new_id
from common.media import MediaInfo
from common.models import Job, JobStep, Upload
from common.providers.base import JsonObject
from common.providers.inputs import PICTURE_BYTES, is_upload, media_fields, named_media
from common.providers.registry import MODELS
from common.services import deletions
from common.services.users import Actor
from common.settings import settings
from common.storage import storage, upload_key
from common.words import TERMINAL

MOST = 1000  # of one user
MOST_BYTES = 4 * 1024**3
_UNSTORED_LIVES = timedelta(days=1)
_DELETED_STAYS = timedelta(days=1)  # for whoever was about to store it
_ADDRESS_LIVES_S = 86_400  # a provider may fetch what it is given when the job's turn comes
_BATCH = 200
_WORDS = {"image": "a picture", "video": "a film", "audio": "a sound"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUpload:
    """A file that has arrived and been looked at."""

    name: str | None
    bytes: int
    sha256: str
    info: MediaInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where an upload is: its object, and an address that providers can fetch it from, if there is one."""

    key: str
    content_type: str
    bytes: int
    sha256: str
    url: str | None


# ---------------------------------------------------------------- bring


def begin(session: Session, actor: Actor, new: NewUpload) -> Upload:
    """The upload of this content: the one that the user has, or a new one that is not stored yet.

    Raises TooManyUploads.
    """
    known = session.scalar(_of_content(actor.user_id, new.sha256))
    if known is not None:
        return known
    _require_room(session, actor.user_id, new.bytes)
    upload_id, now = new_id("upl"), clock.now()
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    session.execute(
        dialect.insert(Upload)
        .values(
            id=upload_id,
            user_id=actor.user_id,
            name=new.name,
            kind=new.info.kind,
            content_type=new.info.content_type,
            bytes=new.bytes,
            sha256=new.sha256,
            width=new.info.width,
            height=new.info.height,
            duration_s=new.info.duration_s,
            key=upload_key(upload_id, now, new.info.extension),
            created_at=now,
        )
        .on_conflict_do_nothing()  # the same content, sent twice at once: both go on with one row
    )
    made = session.scalar(_of_content(actor.user_id, new.sha256))
    if made is None:
        raise _deleted_meanwhile()
    return made


def _of_content(user_id: str, sha256: str) -> Select[Upload]:
    return select(Upload).where(
        Upload.user_id == user_id, Upload.sha256 == sha256, Upload.deleted_at.is_(None)
    )


def _require_room(session: Session, user_id: str, more: int) -> None:
    """Two at once may both find the last place; there are never many more than allowed."""
    mine = select(func.count(), func.coalesce(func.sum(Upload.bytes), 0)).where(
        Upload.user_id == user_id, Upload.deleted_at.is_(None)
    )
    count, size = session.execute(mine).one()
    if count >= MOST:
        raise TooManyUploads(f"You keep {count} uploads, which is as many as you may; delete some.")
    if int(size) + more > MOST_BYTES:
        raise TooManyUploads(f"Your uploads may have {MOST_BYTES} bytes together; delete some.")


def stored(session: Session, upload_id: str) -> Upload:
    """The object is in storage now: the upload may be used. Raises Conflict where it was deleted meanwhile."""
    session.execute(
        update(Upload)
        .where(Upload.id == upload_id, Upload.stored_at.is_(None), Upload.deleted_at.is_(None))
        .values(stored_at=clock.now())
        .execution_options(synchronize_session=False)
    )
    made = session.get(Upload, upload_id, populate_existing=True)
    if made is None or made.deleted_at is not None:
        raise _deleted_meanwhile()
    return made


def _deleted_meanwhile() -> Conflict:
    return Conflict("This upload was deleted meanwhile; send it again.")


# ---------------------------------------------------------------- show and delete


def get(session: Session, actor: Actor, upload_id: str) -> Upload:
    """One of the actor's own uploads. Raises NotFound."""
    found = session.scalar(_usable().where(Upload.id == upload_id, Upload.user_id == actor.user_id))
    if found is None:
        raise NotFound("There is no such upload.")
    return found


def page(
    session: Session, actor: Actor, *, kind: str | None, limit: int, after: str | None
) -> tuple[list[Upload], bool]:
    """The actor's uploads, newest first, from behind the upload `after`; and whether there are more."""
    query = _usable().where(Upload.user_id == actor.user_id)
    if kind is not None:
        query = query.where(Upload.kind == kind)
    if after is not None:
        query = query.where(Upload.id < after)
    rows = list(session.scalars(query.order_by(Upload.id.desc()).limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def _usable() -> Select[Upload]:
    return select(Upload).where(Upload.stored_at.is_not(None), Upload.deleted_at.is_(None))


def remove(session: Session, actor: Actor, upload_id: str) -> None:
    """Delete an upload. Raises NotFound, and Conflict while a job that is not finished uses it."""
    found = get(session, actor, upload_id)
    if _is_used(session, found):
        raise Conflict("A job that is not finished uses this upload.")
    _forget(session, [found])


def _is_used(session: Session, upload: Upload) -> bool:
    """Whether a live job names it. The jobs say it themselves: nothing is kept beside them that could be wrong."""
    with_media = [model_id for model_id, spec in MODELS.items() if media_fields(spec.input_schema)]
    query = (
        select(Job.id)
        .join(JobStep, JobStep.job_id == Job.id)
        .where(
            JobStep.user_id == upload.user_id,
            JobStep.model.in_(with_media),
            Job.status.not_in(TERMINAL),
            cast(Job.input, Text).contains(upload.id, autoescape=True),
        )
    )
    return session.scalar(query.limit(1)) is not None


def _forget(session: Session, found: list[Upload]) -> None:
    now = clock.now()
    for upload in found:
        upload.deleted_at = now
    session.flush()
    deletions.forget(session, [upload.key for upload in found])


# ---------------------------------------------------------------- use


def require(session: Session, user_id: str, schema: JsonObject, given: Mapping[str, Any]) -> None:
    """Raises InvalidInput, which names the field, where a checked input names an upload that it cannot use."""
    named = [one for one in named_media(schema, given) if is_upload(one[2])]
    if not named:
        return
    ids = {upload_id for _, _, upload_id in named}
    rows = session.scalars(_usable().where(Upload.id.in_(ids), Upload.user_id == user_id))
    mine = {upload.id: upload for upload in rows}
    for name, kind, upload_id in named:
        unfit = _why_unfit(kind, mine.get(upload_id))
        if unfit is not None:
            raise InvalidInput(f"input.{name}: {unfit}", param=f"input.{name}")


def _why_unfit(kind: str, upload: Upload | None) -> str | None:
    if upload is None:
        return "there is no such upload."
    if upload.kind != kind:
        return f"{_WORDS[kind]} is wanted, and this upload is {upload.content_type}."
    if kind == "image" and upload.bytes > PICTURE_BYTES:
        return f"a picture may have at most {PICTURE_BYTES} bytes; this upload has {upload.bytes}."
    if kind != "image" and not settings().is_reachable(storage().url(upload.key)):
        return f"providers fetch {_WORDS[kind]} by its address, and cannot reach this platform's storage."
    return None


def sources(session: Session, ids: list[str]) -> dict[str, Source]:
    """Where these uploads are, without those that are deleted."""
    return {
        upload.id: Source(
            key=upload.key,
            content_type=upload.content_type,
            bytes=upload.bytes,
            sha256=upload.sha256,
            url=_address(upload.key),
        )
        for upload in session.scalars(_usable().where(Upload.id.in_(ids)))
    }


def _address(key: str) -> str | None:
    """Where a provider may fetch the object, signed where the bucket is private; None where it cannot."""
    url = storage().url(key)
    if not settings().is_reachable(url):
        return None
    return storage().signed_url(key, _ADDRESS_LIVES_S) if settings().cos_signed_url_s else url


def lend(session: Session, extension: str) -> tuple[str, str] | None:
    """A key for a medium that came inside a job and that its provider wants to fetch, and the address it will have.

    It is no upload that anybody sees, and its removal is owed before it is there. None where no provider could reach
    it.
    """
    key = upload_key(new_id("upl"), clock.now(), extension)
    url = _address(key)
    if url is None:
        return None
    deletions.forget(session, [key], in_s=_ADDRESS_LIVES_S)
    return key, url


# ---------------------------------------------------------------- clean up


def sweep(session: Session) -> bool:
    """Give up what never came into storage, and forget what was deleted long ago; whether there may be more."""
    unstored = select(Upload).where(
        Upload.stored_at.is_(None),
        Upload.deleted_at.is_(None),
        Upload.created_at < clock.now() - _UNSTORED_LIVES,
    )
    given_up = list(session.scalars(unstored.limit(_BATCH).with_for_update(skip_locked=True)))
    _forget(session, given_up)
    session.execute(delete(Upload).where(Upload.deleted_at < clock.now() - _DELETED_STAYS))
    return len(given_up) == _BATCH
