"""A file out of a request, bare or in a form, into a temporary one: in blocks, bounded in size, time and number."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, cast

import gevent
from flask import request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType
from werkzeug.formparser import FormDataParser

from common.errors import InvalidInput, MalformedRequest, TooLarge, Unavailable

LONGEST_S = 900.0  # 32 MiB at 300 kbit/s
_AT_ONCE = 32  # of this process: each has a temporary file
_BLOCK_BYTES = 64 * 1024
_FORM_BYTES = 8 * _BLOCK_BYTES  # of a form's text, and of a block of its file while werkzeug looks through it
_NAME_LENGTH = 255
_room = BoundedSemaphore(_AT_ONCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A file that has arrived whole. `name` is what the sender calls it, and means nothing."""

    path: Path
    name: str | None
    bytes: int
    sha256: str


@contextmanager
def received_file() -> Iterator[Received]:
    """The request's file; it is removed with the end of the `with`.

    Raises TooLarge, MalformedRequest, InvalidInput, UnsupportedMediaType, and Unavailable where too many come at once.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Compressed bodies are not supported.")
    if not _room.acquire(blocking=False):
        raise Unavailable("Too many uploads at once; try again later.")
    try:
        with _Draft() as draft:
            late = MalformedRequest(f"The file did not arrive within {LONGEST_S:g} s.")
            with gevent.Timeout(LONGEST_S, late):
                _receive(draft)
            yield draft.finished()
    except OSError as error:
        raise Unavailable(f"The file cannot be kept: {error.strerror or type(error).__name__}.") from None
    finally:
        _room.release()


def _receive(draft: _Draft) -> None:
    body = _Body()
    if not request.mimetype.startswith("multipart/"):
        while block := body.read(_BLOCK_BYTES):
            draft.write(block)
        return
    try:
        # Silent, it would take the rest of a broken form for all of it.
        form = FormDataParser(
            cast(Any, draft.part), silent=False, max_form_memory_size=_FORM_BYTES, max_form_parts=8
        )
        _, fields, files = form.parse(cast(Any, body), request.mimetype, None, request.mimetype_params)
    except (
        ValueError,
        RequestEntityTooLarge,
    ):  # the latter for what is between the boundaries and in no file
        raise MalformedRequest("The form is broken: no boundary, a wrong one, or no end.") from None
    for name in [*fields, *files]:
        if name != "file":
            raise InvalidInput("The form has one field, `file`.", param=_shown(name) or "file")
    if "file" not in files:
        raise InvalidInput("file is required, as a file.", param="file")


class _Body:
    """The request's body, counted: under gunicorn werkzeug notices neither one that goes on nor one that breaks off."""

    def __init__(self) -> None:
        self._most, self._said = request.max_content_length, request.content_length
        if self._said is None and self._most is not None:
            request.max_content_length = self._most + 1
        self._stream = request.stream
        self._size = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes, none at the end. Raises TooLarge, MalformedRequest."""
        block = self._stream.read(size)
        self._size += len(block)
        if self._most is not None and self._size > self._most:
            raise TooLarge
        if not block and size and self._said is not None and self._size < self._said:
            raise MalformedRequest("The body ended before its announced length.")
        return block


class _Draft:
    """The temporary file while it grows, with its running SHA-256."""

    def __init__(self) -> None:
        handle, name = tempfile.mkstemp(prefix="wxiai-", suffix=".upload")
        self._file = os.fdopen(handle, "wb")
        self._path = Path(name)
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._parts = 0
        self._name: str | None = None

    def __enter__(self) -> _Draft:
        return self

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)
        self._file.close()

    def part(self, *, filename: str | None = None, **_: Any) -> _Draft:
        """Where a form's file goes (werkzeug's `stream_factory`). Raises InvalidInput for a second one."""
        self._parts += 1
        if self._parts > 1:
            raise InvalidInput("One file at a time.", param="file")
        self._name = _shown(re.split(r"[/\\]", filename or "")[-1])
        return self

    def write(self, block: bytes) -> int:
        """Append."""
        self._sha256.update(block)
        self._size += len(block)
        return self._file.write(block)

    def seek(self, place: int) -> None:
        """Werkzeug rewinds what it has written; nobody reads it from here."""

    def finished(self) -> Received:
        """The whole file."""
        self._file.flush()
        return Received(path=self._path, name=self._name, bytes=self._size, sha256=self._sha256.hexdigest())


def _shown(name: str) -> str | None:
    """A name as it may be kept and shown."""
    return "".join(filter(str.isprintable, name))[:_NAME_LENGTH].strip() or None
