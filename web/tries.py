"""Tries of SDKs that repeat by themselves: which one this request is, and whether its first one was refused.

A first try that got no job is noted: its next one is then known not to be the repeat of an equal call that got one.
It may be refused before its body was looked at, so what it asked for is not known; the same bytes are.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

from flask import g, request
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from common.errors import AppError, Kind
from web import rates
from web.parsing import SMALL_BODY, raw_body

_HEADER = "x-stainless-retry-count"  # of the SDKs that OpenAI and others generate: 0, then 1, 2 …
_COMES_WITHIN_S = 180  # these wait two minutes at most, if they are told to
_REPEATED = (Kind.CONFLICT, Kind.LIMITED, Kind.UNAVAILABLE)


def number() -> int | None:
    """The how manieth try this request is; None where it does not say."""
    said = request.headers.get(_HEADER, "")
    return int(said) if said.isdecimal() and len(said) < 4 else None


def was_refused() -> bool:
    """Whether the first try of this further one got no job; of the note of it only this request may make use."""
    if "first_try_refused" not in g:
        g.first_try_refused = bool(number()) and rates.take(_what(), _COMES_WITHIN_S)
    refused: bool = g.first_try_refused
    return refused


def note_refusal(error: Exception) -> None:
    """This request has got no job: note it, if it is a first try, or one known to be as good, that will be repeated."""
    has_key = "Idempotency-Key" in request.headers
    if not has_key and _is_repeated(error) and (number() == 0 or g.get("first_try_refused")):
        rates.note(_what(), _COMES_WITHIN_S)


def _is_repeated(error: Exception) -> bool:
    """What is answered 409, 429 or 503; where the database broke off nobody knows whether there is a job."""
    return isinstance(error, PoolTimeout) or (isinstance(error, AppError) and error.kind in _REPEATED)


def _what() -> str:
    """The same for two tries of a call: whose they are, what they call, and their bytes.

    Forms have another boundary each time, and large bodies are not read only to be refused: they go by their length.
    """
    mark = str(request.content_length).encode()
    if request.mimetype != "multipart/form-data" and 0 < (request.content_length or 0) <= SMALL_BODY:
        with suppress(AppError, HTTPException):
            mark = raw_body()
    said = (request.headers.get("Authorization", "").encode(), request.path.encode(), mark)
    return hashlib.sha256(b"\0".join(said)).hexdigest()
