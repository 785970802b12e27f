"""Fetching one output of a provider into a temporary file: bounded in size, time and memory."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import TypeVar

import aiohttp
from yarl import URL

from common.addresses import AddressRefused
from common.media import HEAD_BYTES, NOT_MEDIA, sniff
from common.providers.base import Output
from workers.addresses import check_url, parse_url
from workers.http import Home
from workers.media.errors import SourceExpired, SourceGone, SourceRefused, SourceTrouble

CHUNK_BYTES = 64 * 1024
_BLOCK_BYTES = 4 * CHUNK_BYTES  # written at once: fewer hops between loop and thread
_HEADERS = {"Accept": "image/*, video/*, audio/*, */*;q=0.5"}
_REDIRECTS = (301, 302, 303, 307, 308)
_BUSY = (408, 425, 429)
_NETWORK = (aiohttp.ClientError, TimeoutError, ConnectionError)  # any other OSError is our own disk
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

# Hashing and writing release the GIL. Its own threads: the loop's are busy with names and storage.
_threads = ThreadPoolExecutor(2, "media")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one fetch may take at most."""

    max_bytes: int = 2 * 1024**3
    total_s: float = 1800.0
    idle_s: float = 30.0  # without a byte
    connect_s: float = 5.0
    redirects: int = 3
    resumes: int = 4  # continuations of a transfer that broke
    pause_s: float = 0.5  # before the first of them; doubles


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A complete temporary file. Whoever got it removes it."""

    path: Path
    bytes: int
    sha256: str

    def discard(self) -> None:
        """Remove the file; again is fine."""
        self.path.unlink(missing_ok=True)


async def fetch(
    session: aiohttp.ClientSession,
    output: Output,
    *,
    allow_private: bool,
    limits: Limits = Limits(),
    folder: Path | None = None,
    home: Home | None = None,
) -> StoredFile:
    """Bring one output here: from its URL, or out of its base64.

    `session` is `AioHttp.downloads`; nothing of the provider's account goes along. `folder` is where the
    temporary file is made, by default the system's. `home`: the account's own server, which may be at a private
    address, if the output may be there. Raises SourceGone, SourceRefused or SourceTrouble, and then leaves nothing
    behind.
    """
    draft = _Draft(folder, limits.max_bytes)
    try:
        async with asyncio.timeout(limits.total_s):
            if output.url:
                await _Transfer(session, output.url, draft, allow_private, limits, home).run()
            else:
                await _in_thread(_decode, output.base64 or "", draft)
        return draft.finished()
    except TimeoutError:
        raise SourceTrouble(f"the transfer took longer than {limits.total_s:g} s") from None
    except OSError as error:
        raise SourceTrouble(f"cannot write: {error.strerror or type(error).__name__}") from None
    finally:
        draft.close()


class _Draft:
    """The temporary file while it grows, with its running SHA-256. Removed by `close` unless finished.

    A cancelled transfer may leave a write behind in its thread, hence the lock.
    """

    def __init__(self, folder: Path | None, max_bytes: int) -> None:
        handle, name = tempfile.mkstemp(prefix="wxiai-", suffix=".part", dir=folder)
        self._file = os.fdopen(handle, "wb", buffering=0)
        self._path = Path(name)
        self._max_bytes = max_bytes
        self._kept = False
        self._sha256 = hashlib.sha256()
        self._lock = threading.Lock()
        self.size = 0

    def write(self, block: bytes | bytearray) -> None:
        """Append. Raises SourceRefused (too large, does not begin like media), OSError (the disk)."""
        self.check_size(self.size + len(block))
        if not self.size and sniff(bytes(block[:HEAD_BYTES])) is None:
            raise SourceRefused(NOT_MEDIA)
        with self._lock:
            if not self._file.closed:
                _write_all(self._file, block)
                self._sha256.update(block)
                self.size += len(block)

    def check_size(self, size: int) -> None:
        """Raises SourceRefused for more bytes than allowed."""
        if size > self._max_bytes:
            raise SourceRefused(f"the file is larger than {self._max_bytes} bytes")

    def restart(self) -> None:
        """Forget everything written."""
        with self._lock:
            self._file.seek(0)
            self._file.truncate()
            self._sha256 = hashlib.sha256()
            self.size = 0

    def finished(self) -> StoredFile:
        """What was written, now the caller's. Raises SourceTrouble where that is nothing."""
        if not self.size:
            raise SourceTrouble("the file is empty")
        self._kept = True
        return StoredFile(path=self._path, bytes=self.size, sha256=self._sha256.hexdigest())

    def close(self) -> None:
        """Close the file, and remove it unless it was handed over."""
        with self._lock:
            self._file.close()
        if not self._kept:
            self._path.unlink(missing_ok=True)


def _write_all(file: RawIOBase, block: bytes | bytearray) -> None:
    """A raw write may take less than it is given, e.g. on a disk that has just become full."""
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) or 0 :]


class _Broke(Exception):
    """The transfer ended early; what has arrived may be continued."""


class _Transfer:
    """One URL on its way into a draft, continued a few times where it breaks off."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, draft: _Draft, allow_private: bool, limits: Limits,
        home: Home | None,
    ) -> None:  # fmt: skip
        self._session = session
        self._url = url
        self._draft = draft
        self._allow_private = allow_private
        self._limits = limits
        self._home = home
        self._timeout = aiohttp.ClientTimeout(total=None, connect=limits.connect_s, sock_read=limits.idle_s)
        self._begun = False  # the first byte of a body was promised
        self._whole: int | None = None  # bytes of the complete file, where the server says it
        self._validator = ""  # names this very version of the file, so that parts of two are never joined

    async def run(self) -> None:
        """Raises SourceGone, SourceRefused or SourceTrouble."""
        for resumed in range(self._limits.resumes + 1):
            try:
                return await self._once()
            except _Broke as error:
                if not self._begun or resumed == self._limits.resumes:
                    raise SourceTrouble(str(error)) from None
            await asyncio.sleep(self._limits.pause_s * 2**resumed)
        return None

    async def _once(self) -> None:
        try:
            async with await self._open() as response:
                self._place(response)
                self._begun = True
                await self._copy(response)
        except _NETWORK as error:
            raise _Broke(f"the transfer broke: {_reason(error)}") from None
        if self._whole is not None and self._draft.size != self._whole:
            raise _Broke(f"{self._draft.size} of {self._whole} bytes came")

    async def _copy(self, response: aiohttp.ClientResponse) -> None:
        block = bytearray()
        try:
            while chunk := await response.content.read(CHUNK_BYTES):
                block += chunk
                if len(block) > _BLOCK_BYTES - CHUNK_BYTES:
                    full, block = block, bytearray()
                    await _in_thread(self._draft.write, full)
        finally:  # what came before a break is kept
            if block:
                await _in_thread(self._draft.write, block)

    async def _open(self) -> aiohttp.ClientResponse:
        """The first answer that is no redirect; every address on the way is checked.

        What leaves the account's own server does not come back to it: a stranger would have named it.
        """
        target, home = self._checked(self._url, self._home)
        for _ in range(self._limits.redirects + 1):
            response = await self._request(target, home)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response
            response.close()
            target, home = self._checked(location, home, base=target)
        raise SourceRefused(f"more than {self._limits.redirects} redirects")

    async def _request(self, target: URL, home: Home | None) -> aiohttp.ClientResponse:
        session = home.session if home else self._session
        try:
            return await session.get(
                target, headers=self._headers(), allow_redirects=False, timeout=self._timeout
            )
        except (AddressRefused, aiohttp.InvalidURL, UnicodeError):
            raise SourceRefused(AddressRefused.__doc__) from None

    def _checked(self, url: str, home: Home | None, base: URL | None = None) -> tuple[URL, Home | None]:
        """The address, and the home that it is at."""
        try:
            parsed = parse_url(url)
            target = base.join(parsed) if base else parsed
            home = home if home and home.has(target) else None
            return check_url(target, allow_private=self._allow_private or home is not None), home
        except AddressRefused as error:
            raise SourceRefused(str(error)) from None

    def _headers(self) -> Mapping[str, str]:
        if not (self._draft.size and self._validator):
            return _HEADERS
        return {**_HEADERS, "Range": f"bytes={self._draft.size}-", "If-Range": self._validator}

    def _place(self, response: aiohttp.ClientResponse) -> None:
        """Make the draft fit what this answer will bring. Raises _Broke or one of the Source errors."""
        self._check_status(response.status)
        validator = _validator(response.headers)
        if response.status == 206:
            self._whole = self._continued(response, validator)
        else:
            self._draft.restart()
            self._whole = response.content_length
            self._validator = validator
        self._draft.check_size(self._whole or 0)

    def _check_status(self, status: int) -> None:
        if status in (200, 206):
            return
        if status == 416:
            self._validator = ""  # what we have is of no use to this server: begin anew
            raise _Broke("the server refuses to continue")
        if status >= 500 or status in _BUSY:
            raise _Broke(f"the server of the file answers {status}")
        if status == 410:
            raise SourceExpired("the server of the file answers 410")
        if status >= 400:
            raise SourceGone(f"the server of the file answers {status}")
        raise SourceTrouble(f"the server of the file answers {status}")

    def _continued(self, response: aiohttp.ClientResponse, validator: str) -> int | None:
        """The size of the whole file, of which this answer brings the rest."""
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        same = self._draft.size > 0 and validator in ("", self._validator)
        if not match or int(match[1]) != self._draft.size or not (same or match[1] == "0"):
            self._validator = ""  # some other part, or a part of some other file
            raise _Broke("the server continues something else")
        return int(match[3]) if match[3] != "*" else None


def _validator(headers: Mapping[str, str]) -> str:
    """A strong ETag, else the date; "" where neither can prove that two parts belong together."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _decode(text: str, draft: _Draft) -> None:
    """Write what base64, bare or as a data URL, stands for."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    draft.check_size(len(text) * 3 // 4 - 2)
    try:
        draft.write(base64.b64decode(text))
    except (binascii.Error, ValueError):
        raise SourceRefused("the provider's base64 cannot be read") from None


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or type(error.os_error).__name__
    return "no byte in time" if isinstance(error, TimeoutError) else type(error).__name__


async def _in_thread(call: Callable[..., _T], *args: object) -> _T:
    return await asyncio.get_running_loop().run_in_executor(_threads, call, *args)
