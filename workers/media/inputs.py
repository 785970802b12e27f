"""The media that a job's input names, as its provider wants them: addresses, or bytes that we fetch ourselves."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from common.providers.base import Adapter, JsonObject, Media, Output
from common.providers.inputs import inline_base64, is_address, media_fields
from workers.media.download import Limits, fetch
from workers.media.errors import SourceRefused, SourceTrouble
from workers.media.look import inspect

LIMITS = Limits(max_bytes=20 * 1024 * 1024, total_s=60.0, idle_s=10.0, resumes=1)
_AT_ONCE = 4  # pictures of this process in memory
_room = asyncio.Semaphore(_AT_ONCE)


async def media_of(
    session: aiohttp.ClientSession,
    adapter: Adapter,
    schema: JsonObject,
    given: Mapping[str, Any],
    *,
    allow_private: bool,
) -> dict[str, Media]:
    """What `Submission.media` holds for this input. `session` is `AioHttp.downloads`.

    Raises SourceGone or SourceRefused for an input that will not do, SourceTrouble where another try may work.
    """
    named = dict(_named(schema, given))
    pictures = [value for value, kind in named.items() if kind == "image"]
    as_addresses = adapter.fetches_addresses and all(map(is_address, pictures))
    media = {}
    for value, kind in named.items():
        if kind != "image" or as_addresses:
            media[value] = Media(url=value)
        else:
            async with _room:
                media[value] = await _picture(session, value, allow_private)
    return media


def _named(schema: JsonObject, given: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Every value that names a medium, with its kind."""
    for name, kind in media_fields(schema).items():
        value = given.get(name)
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                yield one, kind


async def _picture(session: aiohttp.ClientSession, value: str, allow_private: bool) -> Media:
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


def _read(path: Path, promised: Output) -> Media:
    found = inspect(path, promised)
    if found.kind != "image":
        raise SourceRefused(f"a picture is wanted, and this is {found.content_type}")
    return Media(base64=base64.b64encode(path.read_bytes()).decode(), content_type=found.content_type)
