"""The media that a job's input names, as its provider wants them: addresses, or bytes that we fetch ourselves."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from common.errors import StorageUnavailable
from common.providers.base import Adapter, JsonObject, Media, Output
from common.providers.inputs import PICTURE_BYTES, inline_base64, is_address, is_upload, named_media
from common.services.uploads import Source
from common.storage import storage
from workers.media.download import Limits, fetch
from workers.media.errors import SourceGone, SourceRefused, SourceTrouble
from workers.media.look import inspect

LIMITS = Limits(max_bytes=PICTURE_BYTES, total_s=60.0, idle_s=10.0, resumes=1)
_AT_ONCE = 4  # pictures of this process in memory
_room = asyncio.Semaphore(_AT_ONCE)


async def media_of(
    session: aiohttp.ClientSession,
    adapter: Adapter,
    schema: JsonObject,
    given: Mapping[str, Any],
    *,
    uploads: Mapping[str, Source],
    allow_private: bool,
) -> dict[str, Media]:
    """What `Submission.media` holds for this input. `session` is `AioHttp.downloads`; `uploads` has those it names.

    Raises SourceGone or SourceRefused for an input that will not do, SourceTrouble where another try may work.
    """
    named = {value: kind for _, kind, value in named_media(schema, given)}
    addresses = {value: _address(value, uploads) for value in named}
    pictures = [value for value, kind in named.items() if kind == "image"]
    as_addresses = adapter.fetches_addresses and all(addresses[value] for value in pictures)
    media = {}
    for value, kind in named.items():
        if kind != "image" or as_addresses:
            media[value] = Media(url=_required(addresses[value]))
        else:
            async with _room:
                media[value] = await _picture(session, value, uploads, allow_private)
    return media


def _address(value: str, uploads: Mapping[str, Source]) -> str | None:
    """Where a provider may fetch it, or None. Raises SourceGone."""
    return _source(value, uploads).url if is_upload(value) else value if is_address(value) else None


def _source(upload_id: str, uploads: Mapping[str, Source]) -> Source:
    if upload_id not in uploads:
        raise SourceGone(f"the upload {upload_id} was deleted")
    return uploads[upload_id]


def _required(address: str | None) -> str:
    if address is None:
        raise SourceRefused("the provider cannot reach this platform's storage")
    return address


async def _picture(
    session: aiohttp.ClientSession, value: str, uploads: Mapping[str, Source], allow_private: bool
) -> Media:
    if is_upload(value):
        return await asyncio.to_thread(_kept, value, _source(value, uploads))
    url, inline = (value, None) if is_address(value) else (None, inline_base64(value))
    output = Output(kind="image", url=url, base64=inline)
    fetched = await fetch(session, output, allow_private=allow_private, limits=LIMITS)
    try:
        return await asyncio.to_thread(_read, fetched.path, output)
    except SourceTrouble as error:
        if url is None:  # what the user sent will not become whole
            raise SourceRefused(str(error)) from None
        raise
    finally:
        fetched.discard()


def _kept(upload_id: str, source: Source) -> Media:
    """The bytes of an upload, which were looked at when it came."""
    try:
        content = storage().read(source.key, PICTURE_BYTES)
    except StorageUnavailable as error:
        raise SourceTrouble(str(error)) from None
    if content is None:
        raise SourceGone(f"the upload {upload_id} is not in storage any more")
    if hashlib.sha256(content).hexdigest() != source.sha256:
        raise SourceRefused(f"the upload {upload_id} was changed in storage")
    return _in_base64(content, source.content_type)


def _read(path: Path, promised: Output) -> Media:
    found = inspect(path, promised)
    if found.kind != "image":
        raise SourceRefused(f"a picture is wanted, and this is {found.content_type}")
    return _in_base64(path.read_bytes(), found.content_type)


def _in_base64(content: bytes, content_type: str) -> Media:
    return Media(base64=base64.b64encode(content).decode(), content_type=content_type)
