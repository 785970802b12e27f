"""Uploads: media that users bring for the inputs of their jobs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from flask import Blueprint, Response

from common import media
from common.db import again, reading, transaction
from common.errors import InvalidInput, StorageUnavailable, Unavailable
from common.media import Damaged, MediaInfo, Unusable
from common.services import uploads
from common.services.presentation import upload_object
from common.services.uploads import NewUpload
from common.services.users import Actor
from common.storage import LocalStorage, storage
from web import rates, schemas, shapes
from web.answers import JsonResponse, answer, listing
from web.aside import aside
from web.endpoints import Access, endpoint
from web.receiving import Received, received_file

log = logging.getLogger(__name__)
blueprint = Blueprint("uploads", __name__, url_prefix="/v1/uploads")


@blueprint.post("")
@endpoint(
    access=Access.USER, takes_file=True, returns=shapes.Upload, status=201, also=(200,), errors=(409, 429)
)
def create(actor: Actor) -> Response:
    """Upload a picture (PNG, JPEG, GIF, WebP), a film (MP4, QuickTime, WebM) or a sound (MP3, M4A, WAV).

    Send the bare bytes, or a form with one field `file`. What it is, its bytes tell; names and types that are sent
    along are not believed. The id may then stand in every media input of your jobs. The same content again answers
    200 with the upload that you have.
    """
    rates.count_upload(actor)
    with received_file() as received:
        shown, is_new = _keep(actor, received, _looked_at(received))
    return answer(shown, 201 if is_new else 200, {"Location": f"/v1/uploads/{shown['id']}"})


def _looked_at(received: Received) -> MediaInfo:
    """What the file is. Raises InvalidInput."""
    try:
        return aside(media.inspect, received.path)
    except (Unusable, Damaged) as error:
        raise InvalidInput(f"This cannot be used: {error}.", param="file") from None


def _keep(actor: Actor, received: Received, info: MediaInfo) -> tuple[dict[str, Any], bool]:
    """The upload with its object in storage, and whether it was not there before. No transaction waits for storage."""
    new = NewUpload(name=received.name, bytes=received.bytes, sha256=received.sha256, info=info)

    def begin() -> tuple[str, str, dict[str, Any], bool]:
        with transaction() as session:
            upload = uploads.begin(session, actor, new)
            return upload.id, upload.key, upload_object(upload), upload.stored_at is not None

    def end() -> dict[str, Any]:
        with transaction() as session:
            return upload_object(uploads.stored(session, upload_id))

    upload_id, key, shown, is_there = again(begin)
    if is_there:
        return shown, False
    _put(key, received.path, info.content_type)
    return again(end), True


def _put(key: str, path: Path, content_type: str) -> None:
    """Raises Unavailable. The SDK of COS waits as greenlets do, and its connections are bound to this thread; a disk
    that is waited for would hold up everybody."""
    kept = storage()
    try:
        if isinstance(kept, LocalStorage):
            aside(kept.put, key, path, content_type)
        else:
            kept.put(key, path, content_type)
    except StorageUnavailable as error:
        log.error("an upload was not stored: %s", error)
        raise Unavailable("The storage cannot be reached; try again later.") from None


@blueprint.get("")
@endpoint(access=Access.USER, query=schemas.UploadsQuery, returns=shapes.Upload, many=True)
def index(actor: Actor, query: schemas.UploadsQuery) -> dict[str, Any]:
    """List your uploads, newest first."""
    with reading() as session:
        found, has_more = uploads.page(session, actor, kind=query.kind, limit=query.limit, after=query.after)
        return listing([upload_object(upload) for upload in found], has_more=has_more)


@blueprint.get("/<upload_id>")
@endpoint(access=Access.USER, returns=shapes.Upload, errors=(404,))
def one(actor: Actor, upload_id: str) -> dict[str, Any]:
    """Show an upload."""
    with reading() as session:
        return upload_object(uploads.get(session, actor, upload_id))


@blueprint.delete("/<upload_id>")
@endpoint(access=Access.USER, status=204, errors=(404, 409))
def delete(actor: Actor, upload_id: str) -> Response:
    """Delete an upload. One that a job uses which is not finished answers 409."""
    with transaction() as session:
        uploads.remove(session, actor, upload_id)
    return JsonResponse(status=204)
