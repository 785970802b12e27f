"""The media that a job's input names, as its provider wants them: addresses, or bytes that we fetch ourselves.

Bytes are fetched to the disk, where slow ones wait at nobody's expense. They come into memory when all are there and
there is room for them, and stay until the provider has answered.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from common.errors import StorageUnavailable
from common.media import MediaInfo
from common.providers.base import Adapter, JsonObject, Media, Output
from common.providers.inputs import PICTURE_BYTES, inline_base64, is_address, is_upload, named_media
from common.services.uploads import Source
from common.storage import storage
from workers.media.download import Limits, StoredFile, fetch
from workers.media.errors import SourceGone, SourceRefused, SourceTrouble
from workers.media.look import inspect
from workers.room import INLINE, Places

LIMITS = Limits(max_bytes=PICTURE_BYTES, total_s=60.0, idle_s=10.0, resumes=1)
PREPARE_S = 150.0  # for all media of one job, waiting for places and for memory among it
FETCHES, FETCHES_OF_A_JOB = 32, 4  # at once in this process; results are fetched over the same connections
# For each byte of a picture: its base64, and once more the same while that is put together, or as a data URL.
_BYTES_PER_BYTE = 8 / 3
_BLOCK_BYTES = 3 * 256 * 1024  # base64 of threes can be strung together

_places = Places(FETCHES, FETCHES_OF_A_JOB)

Lend = Callable[[Path, MediaInfo], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picture:
    """A picture that has been fetched and looked at."""

    file: StoredFile
    info: MediaInfo


def is_at_hand(adapter: Adapter, schema: JsonObject, given: Mapping[str, Any]) -> bool:
    """Whether the provider itself fetches all that this input names, as it is named: nothing has to be waited for."""
    return all(
        is_address(value) and (kind != "image" or adapter.fetches_addresses)
        for _, kind, value in named_media(schema, given)
    )


@asynccontextmanager
async def media_of(
    session: aiohttp.ClientSession,
    adapter: Adapter,
    schema: JsonObject,
    given: Mapping[str, Any],
    *,
    uploads: Mapping[str, Source],
    allow_private: bool,
    lend: Lend | None = None,
) -> AsyncIterator[dict[str, Media]]:
    """What `Submission.media` holds for this input, and the memory for it as long as the `with` lasts.

    `session` is `AioHttp.downloads`; `uploads` has those it names. `lend`, given where pictures must be addresses,
    makes one of a picture. Raises SourceGone or SourceRefused for an input that will not do, SourceTrouble where
    another try may work, and that after PREPARE_S at the latest.
    """
    async with AsyncExitStack() as memory:
        try:
            async with asyncio.timeout(PREPARE_S):
                media = await _prepared(session, adapter, schema, given, uploads, allow_private, lend, memory)
        except TimeoutError:
            raise SourceTrouble(f"the inputs were not at hand within {PREPARE_S:g} s") from None
        yield media


async def _prepared(
    session: aiohttp.ClientSession,
    adapter: Adapter,
    schema: JsonObject,
    given: Mapping[str, Any],
    uploads: Mapping[str, Source],
    allow_private: bool,
    lend: Lend | None,
    memory: AsyncExitStack,
) -> dict[str, Media]:
    kinds = {value: kind for _, kind, value in named_media(schema, given)}
    addresses = {value: _address(value, uploads) for value in kinds}
    pictures = [value for value, kind in kinds.items() if kind == "image"]
    ours: list[str] = []  # whose bytes we need
    if lend is not None:
        ours = [value for value in pictures if not (is_upload(value) or is_address(value))]
    elif not (adapter.fetches_addresses and all(addresses[value] for value in pictures)):
        ours = pictures
    media = {value: Media(url=_required(addresses[value])) for value in kinds if value not in ours}
    async with AsyncExitStack() as files:
        fetched = await _fetched(session, [v for v in ours if not is_upload(v)], allow_private, files)
        if lend is None:
            return media | (await _in_memory(ours, fetched, uploads, memory) if ours else {})
        lent = {value: Media(url=await lend(each.file.path, each.info)) for value, each in fetched.items()}
        return media | lent


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


# ---------------------------------------------------------------- to the disk


async def _fetched(
    session: aiohttp.ClientSession, values: Collection[str], allow_private: bool, files: AsyncExitStack
) -> dict[str, _Picture]:
    """All of them, or the first error. `files` removes them again."""
    job = object()

    async def one(value: str) -> _Picture:
        if not is_address(value):  # it came with the job: nobody has to be asked for it
            return await _picture(session, value, allow_private, files)
        async with _places.one(job):
            return await _picture(session, value, allow_private, files)

    tasks = [asyncio.create_task(one(value)) for value in values]
    try:
        return dict(zip(values, await asyncio.gather(*tasks), strict=True))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _picture(
    session: aiohttp.ClientSession, value: str, allow_private: bool, files: AsyncExitStack
) -> _Picture:
    url, inline = (value, None) if is_address(value) else (None, inline_base64(value))
    output = Output(kind="image", url=url, base64=inline)
    file = await fetch(session, output, allow_private=allow_private, limits=LIMITS)
    files.callback(file.discard)
    try:
        return _Picture(file=file, info=await asyncio.to_thread(_looked_at, file.path, output))
    except SourceTrouble as error:
        if url is None:  # what the user sent will not become whole
            raise SourceRefused(str(error)) from None
        raise


def _looked_at(path: Path, promised: Output) -> MediaInfo:
    found = inspect(path, promised)
    if found.kind != "image":
        raise SourceRefused(f"a picture is wanted, and this is {found.content_type}")
    return found


# ---------------------------------------------------------------- into memory


async def _in_memory(
    values: Collection[str],
    fetched: Mapping[str, _Picture],
    uploads: Mapping[str, Source],
    memory: AsyncExitStack,
) -> dict[str, Media]:
    """The pictures' bytes, once there is room for them, which `memory` gives back."""
    sizes = [fetched[value].file.bytes if value in fetched else uploads[value].bytes for value in values]
    await memory.enter_async_context(INLINE.held(round(_BYTES_PER_BYTE * sum(sizes))))
    media = {}
    for value in values:  # one after the other: each takes a moment's memory of its own
        if value in fetched:
            media[value] = await asyncio.to_thread(_read, fetched[value])
        else:
            media[value] = await asyncio.to_thread(_kept, value, uploads[value])
    return media


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
    view = memoryview(content)
    blocks = (view[start : start + _BLOCK_BYTES] for start in range(0, len(view), _BLOCK_BYTES))
    return _in_base64(blocks, source.content_type)


def _read(picture: _Picture) -> Media:
    with picture.file.path.open("rb") as file:
        return _in_base64(iter(partial(file.read, _BLOCK_BYTES), b""), picture.info.content_type)


def _in_base64(blocks: Iterator[bytes | memoryview], content_type: str) -> Media:
    text = "".join(base64.b64encode(block).decode() for block in blocks)
    return Media(base64=text, content_type=content_type)
