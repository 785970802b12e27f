"""What all HTTP adapters share: transport failures as verdicts, undocumented answers, messages without secrets."""

from __future__ import annotations

import asyncio
import json
import re
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote

from common.providers.base import (
    Accepted,
    Adapter,
    Credentials,
    Failed,
    Handle,
    Http,
    NotAccepted,
    NotSent,
    NoVerdict,
    PollVerdict,
    Rejected,
    Reply,
    Submission,
    SubmitVerdict,
    Trouble,
    Unanswered,
    Unknown,
)
from common.providers.reading import TEXT_LIMIT, retry_after_s, text
from common.words import ErrorCode

MESSAGE_LIMIT = 500
AT_ONCE = 25  # single looks that one poll() has in the air
_SHORTEST_SECRET = 4
_TELLING = 8  # so much of a secret's beginning gives it away, also where a text was cut within it
_JWT = re.compile(r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]+")
V = TypeVar("V", SubmitVerdict, PollVerdict, "Accepted | NoVerdict")


class RemoteAdapter(Adapter):
    """An adapter over HTTP. Subclasses fill in the methods with an underscore, which may let NotSent and
    Unanswered escape: what those mean is decided here, once."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(credentials)
        self.base_url = credentials.base_url.rstrip("/")

    async def submit(self, http: Http, submission: Submission) -> SubmitVerdict:
        """Start one generation with one creating call. Never raises for anything a server can send."""
        verdict: SubmitVerdict
        try:
            verdict = await self._submit(http, submission)
        except NotSent as error:
            verdict = NotAccepted(trouble=Trouble.DOWN, message=f"The provider cannot be reached: {error}")
        except Unanswered as error:
            verdict = Unknown(message=f"The provider did not answer: {error}")
        token = (submission.callback_url or "").rpartition("/")[2]  # whoever knows it can call back
        return self._presentable(verdict, token)

    async def poll(self, http: Http, handles: Sequence[Handle]) -> Mapping[str, PollVerdict]:
        """Look at up to `batch_size` generations; verdicts by provider_ref."""
        try:
            seen = await self._poll(http, handles)
        except (NotSent, Unanswered) as error:
            seen = dict.fromkeys((handle.provider_ref for handle in handles), NoVerdict(message=str(error)))
        return {provider_ref: self._presentable(verdict) for provider_ref, verdict in seen.items()}

    async def find(self, http: Http, submission: Submission) -> Accepted | NoVerdict:
        """Look for a lost submit by its reference, where the provider can be asked."""
        try:
            found = await self._find(http, submission)
        except (NotSent, Unanswered) as error:
            found = NoVerdict(message=str(error))
        return self._presentable(found)

    async def cancel(self, http: Http, handle: Handle) -> bool | NoVerdict:
        """Ask the provider to stop; True only where it confirms, NoVerdict where it does not answer."""
        try:
            reply = await self._cancel(http, handle)
        except (NotSent, Unanswered) as error:
            return NoVerdict(message=f"no answer to the request to stop: {type(error).__name__}")
        if reply is None:
            return False
        busy = (
            reply.status == HTTPStatus.TOO_MANY_REQUESTS or reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        )
        return no_verdict(reply) if busy else self._confirmed(reply)

    @abstractmethod
    async def _submit(self, http: Http, submission: Submission) -> SubmitVerdict:
        """The creating call and what its answer means."""

    @abstractmethod
    async def _poll(self, http: Http, handles: Sequence[Handle]) -> dict[str, PollVerdict]:
        """The looking calls; verdicts by provider_ref."""

    async def _find(self, http: Http, submission: Submission) -> Accepted | NoVerdict:
        return NoVerdict(message="this provider cannot be asked by reference")

    async def _cancel(self, http: Http, handle: Handle) -> Reply | None:
        """The answer to the call that asks to stop; None where the provider has no such call."""
        return None

    def _confirmed(self, reply: Reply) -> bool:
        return False

    def _presentable(self, verdict: V, *private: str) -> V:
        """The verdict with its message fit to be shown to a user and kept."""
        if not isinstance(verdict, (Rejected, NotAccepted, Unknown, Failed, NoVerdict)):
            return verdict
        secrets = [*self.credentials.secrets.values(), *private]
        return replace(verdict, message=presentable(verdict.message, secrets))


async def one_by_one(
    handles: Sequence[Handle], look: Callable[[Handle], Awaitable[PollVerdict]]
) -> dict[str, PollVerdict]:
    """Look at each generation with a call of its own; a call that fails spoils no other."""
    if len(handles) == 1:  # nearly always, thousands of times a second: no task of its own
        return {handles[0].provider_ref: await _guarded(look, handles[0])}
    gate = asyncio.Semaphore(AT_ONCE)

    async def in_turn(handle: Handle) -> PollVerdict:
        async with gate:
            return await _guarded(look, handle)

    verdicts = await asyncio.gather(*map(in_turn, handles))
    return {handle.provider_ref: verdict for handle, verdict in zip(handles, verdicts, strict=True)}


async def _guarded(look: Callable[[Handle], Awaitable[PollVerdict]], handle: Handle) -> PollVerdict:
    try:
        return await look(handle)
    except (NotSent, Unanswered) as error:
        return NoVerdict(message=str(error))


# ---------------------------------------------------------------- messages


def presentable(message: str, secrets: Iterable[str]) -> str:
    """The message without secrets, however they are spelled and wherever it was cut; trimmed."""
    clean = text(message)
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            clean = _without(_spellings(secret), clean)
    return _JWT.sub("***", clean)[:MESSAGE_LIMIT]


def _spellings(secret: str) -> set[str]:
    """As it is, and as JSON and URLs spell it: a server may send back what it was sent in either."""
    in_json = json.dumps(secret)[1:-1]
    return {secret, in_json, in_json.replace("/", "\\/"), quote(secret, safe="")}


def _without(spellings: set[str], message: str) -> str:
    """The message with the secret, or as much of it as is there, blotted out."""
    for head in {spelled[:_TELLING] for spelled in spellings}:
        rests = [spelled[_TELLING:] for spelled in spellings if spelled.startswith(head)]
        first, *others = message.split(head)
        message = first + "".join(
            "***" + part[max(_shared(part, rest) for rest in rests) :] for part in others
        )
    return message


def _shared(one: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def said(reply: Reply, words: str = "") -> str:
    """What an answer says, for a message: its status, and `words` or else the body."""
    return f"HTTP {reply.status}: {words or reply.text(TEXT_LIMIT)}"


# ---------------------------------------------------------------- answers that no sheet explains


def undocumented(reply: Reply, words: str = "") -> SubmitVerdict:
    """The verdict on an answer to a submit that the provider's documents do not explain.

    Only what by the meaning of HTTP cannot have created anything counts as not accepted; the rest is unknown.
    """
    message = said(reply, words)
    match reply.status:
        case 401 | 403:
            return NotAccepted(trouble=Trouble.CREDENTIALS, message=message)
        case 402:
            return NotAccepted(trouble=Trouble.BALANCE, message=message)
        case 429:
            return NotAccepted(trouble=Trouble.BUSY, message=message, retry_after_s=retry_after_s(reply))
        case 301 | 307 | 308 | 404 | 405:  # not the provider's API: the account's base URL is wrong
            return NotAccepted(trouble=Trouble.DOWN, message=message)
        case 400 | 413 | 414 | 415 | 422:
            return Rejected(code=ErrorCode.INVALID_INPUT, message=message)
        case 408 | 499:  # cut off half-way
            return Unknown(message=message)
        case status if 400 <= status < 500:
            return Rejected(code=ErrorCode.PROVIDER_REJECTED, message=message)
        case _:
            return Unknown(message=message)


def no_verdict(reply: Reply, words: str = "", *, gone: bool = False) -> NoVerdict:
    """A look that told nothing, with the pause that the server asked for."""
    return NoVerdict(message=said(reply, words), gone=gone, retry_after_s=retry_after_s(reply))
