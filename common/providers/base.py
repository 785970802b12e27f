"""What the engine and a provider adapter say to each other: values in, values out.

An adapter is pure. It gets credentials once, an `Http` per call, and returns one of the verdicts below.
It knows no database, no queue and no other provider. The engine turns verdicts into status changes.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol, TypeAlias

JsonObject: TypeAlias = dict[str, Any]


# ---------------------------------------------------------------- transport


class NotSent(Exception):
    """The request provably never reached the other side (refused, unresolved, handshake failed)."""


class Unanswered(Exception):
    """The request may have arrived, but no complete answer came back (time-out, reset, cut body)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete HTTP answer. `headers` has lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The parsed body, or None where it is no JSON: an adapter must expect either."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):  # the latter for brackets nested thousands deep
            return None

    def object(self) -> JsonObject:
        """The parsed body if it is a JSON object, else an empty one."""
        parsed = self.json()
        return parsed if isinstance(parsed, dict) else {}

    def text(self, limit: int = 500) -> str:
        """The body as text for an error message, trimmed."""
        return self.body[:limit].decode("utf-8", "replace").strip()


class Http(Protocol):
    """One try, bounded in time and size, redirects not followed. Never repeats anything by itself."""

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
        most_bytes: int | None = None,
    ) -> Reply:
        """Raises NotSent or Unanswered; any HTTP status is a Reply.

        `timeout_s`: how long it may take to answer what was sent; sending a large body has a time of its own.
        `most_bytes`: of an answer that may be larger than usual, because it brings media.
        """


# ---------------------------------------------------------------- credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """One account's way in: `secrets` holds the names the adapter declares, e.g. access_key, secret_key."""

    base_url: str
    secrets: Mapping[str, str] = field(repr=False)


# ---------------------------------------------------------------- submit


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """What is needed to ask about a running generation again. `memo` is whatever the adapter put in `Accepted`."""

    model: str
    reference: str
    provider_ref: str
    memo: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """An input picture, film or sound as the provider gets it: where it may fetch it, or the bytes in base64."""

    url: str | None = None
    base64: str | None = field(default=None, repr=False)
    content_type: str | None = None  # of the bytes

    @property
    def data_url(self) -> str:
        """The bytes as `data:image/png;base64,…`. Raises ValueError where there is only an address."""
        if self.base64 is None:
            raise ValueError("this medium is known by its address only")
        return f"data:{self.content_type};base64,{self.base64}"

    @property
    def url_or_base64(self) -> str:
        """The address, or else the bare base64."""
        return self.url or self.base64 or ""

    @property
    def url_or_data_url(self) -> str:
        """The address, or else the data URL."""
        return self.url or self.data_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One attempt. `reference` is the attempt's id, unique for ever; `input` has passed the model's schema.

    `media` has, for every value of an input field that names a medium (`inputs.picture` and its like), what the
    provider gets: all of one submission have addresses if the adapter `fetches_addresses` and every value is one, or
    if it takes `only_addresses`; otherwise all pictures have their bytes. Films and sounds always have addresses.
    """

    model: str
    input: Mapping[str, Any]
    reference: str
    callback_url: str | None = None
    parent: Handle | None = None  # the finished generation that this one continues
    media: Mapping[str, Media] = field(default_factory=dict)

    def medium(self, name: str) -> Media | None:
        """What one media field names, or None where it is not given."""
        value = self.input.get(name)
        return self.media[value] if value is not None else None

    def mediums(self, name: str) -> list[Media]:
        """What a list of media names, in its order."""
        return [self.media[value] for value in self.input.get(name) or ()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The provider took the job. `cost` is its own figure where it says one, in its own unit."""

    provider_ref: str
    memo: Mapping[str, Any] = field(default_factory=dict)
    cost: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A definite no: the same job will be refused again. `code` is one of the job error codes.

    `tries`: it was chance, as far as its provider's documents go, so that the job is worth so many tries more.
    """

    code: str
    message: str
    asked: bool = True  # False: decided here, so that it says nothing about the account
    tries: int = 0


class Trouble(StrEnum):
    """Why nothing was accepted this time, though the job itself may be fine."""

    BUSY = "busy"  # rate or concurrency limit: later, or another account
    DOWN = "down"  # connection refused, maintenance: later, or another account
    CREDENTIALS = "credentials"  # wrong or disabled key, not permitted: another account
    BALANCE = "balance"  # the operator's money at the provider is used up: another account
    MODEL = "model"  # this account may not use this model, but others: another account; this one is well
    INPUT = "input"  # what the input names could not be fetched: later; no account is to blame


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAccepted:
    """Provably nothing was started, so the job may safely be tried again, here or elsewhere.

    `doubted`: the same call may pass when it is made anew; only the second time in a row it is the account's trouble.
    """

    trouble: Trouble
    message: str
    retry_after_s: float | None = None
    doubted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """It may or may not have been accepted. Never resent; reconciled or failed."""

    message: str


SubmitVerdict: TypeAlias = Accepted | Rejected | NotAccepted | Unknown


# ---------------------------------------------------------------- poll


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One result at the provider: a URL that dies after `lives_s` seconds, or the bytes themselves as base64."""

    kind: str  # image | video | audio
    url: str | None = None
    base64: str | None = field(default=None, repr=False)
    lives_s: float = 3600.0
    content_type: str | None = None  # as promised by the provider; the bytes decide
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    tile: int | None = None  # 1-4: only this quarter of a grid of two by two, counted like reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A follow-up that the result offers, e.g. U1. `token` is the provider's own name for it."""

    id: str
    label: str
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Still working. `progress` is 0-99 where the provider says one."""

    progress: int | None = None
    preview_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """Finished: media to store, or (`output`) something that is not media.

    `memo` is added to the handle's: what a job that continues this one needs to know. `share` says that only so many
    of so many parts of what the price is for were made: no more is charged.
    """

    outputs: tuple[Output, ...] = ()
    output: JsonObject | None = None
    actions: tuple[Action, ...] = ()
    cost: str | None = None
    share: tuple[int, int] | None = None
    memo: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The provider's final no. `code` is one of the job error codes.

    `try_again`: it was chance and cost nothing, so that the platform itself may try again a little. `trouble`: it is
    not the job that was at fault but the account, so that it is paused and the job tried again, elsewhere if need be.
    """

    code: str
    message: str
    retryable: bool = False
    try_again: bool = False
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoVerdict:
    """This look told nothing.

    `gone`: the provider, in its own words and not by a mere 404, denies knowing the job: several in a row are a
    failure. `final_after`: it says that something broke, which may be the look or the job: so many in a row are a
    failure, too. What lies between and is neither (a time-out, a gateway's error) does not count, and forgives nothing.
    """

    message: str
    gone: bool = False
    retry_after_s: float | None = None
    final_after: int | None = None


PollVerdict: TypeAlias = Running | Succeeded | Failed | NoVerdict


# ---------------------------------------------------------------- the adapter


class Adapter(ABC):
    """One provider API. All can submit and poll; of the rest the defaults say 'it cannot'."""

    name: ClassVar[str]  # registry key and provider_account.adapter
    provider: ClassVar[str]  # midjourney | kling | jimeng | flux
    secret_names: ClassVar[tuple[str, ...]]  # which secrets make an account usable
    models: ClassVar[tuple[str, ...]]  # the catalogue ids that this API serves
    official_url: ClassVar[str | None] = None
    max_concurrency: ClassVar[int]  # default limit of one account
    batch_size: ClassVar[int] = 1  # how many handles one poll() call may hold
    can_find: ClassVar[bool] = False  # whether find() can answer
    fetches_addresses: ClassVar[bool] = (
        True  # whether it takes the addresses of pictures, not only their bytes
    )
    keeps_results: ClassVar[bool] = False  # whether results may lie at the account's own address
    finds_by_callback: bool = (
        False  # whether a lost submit may reveal itself by calling back; some say it per account
    )
    find_sends: ClassVar[
        tuple[str, ...]
    ] = ()  # fields of the input whose media find() may have to send again

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials

    @classmethod
    def codes(cls) -> Mapping[int | str, str]:
        """The provider's own codes and words, each with what it means here when a job is submitted or has failed: a
        job error code, or a Trouble. For documents; the conformance tables hold it to what the adapter does."""
        return {}

    @classmethod
    def usable(cls, secrets: Mapping[str, str]) -> bool:
        """Whether these secrets are a whole set. Names: midjourney `api_secret` (optional), kling `access_key` and
        `secret_key` or `api_key`, jimeng `access_key secret_key`, bfl `api_key`, fal `key`."""
        return all(secrets.get(name) for name in cls.secret_names)

    def only_addresses(self, model: str, given: Mapping[str, Any]) -> bool:
        """Whether this job's pictures must be addresses: what is bytes is then put where the provider can fetch it."""
        return False

    @abstractmethod
    async def submit(self, http: Http, submission: Submission) -> SubmitVerdict:
        """Start one generation, exactly one HTTP attempt of the creating call. Never raises for an HTTP answer."""

    @abstractmethod
    async def poll(self, http: Http, handles: Sequence[Handle]) -> Mapping[str, PollVerdict]:
        """Look at up to `batch_size` generations; verdicts by provider_ref, a missing one counts as NoVerdict."""

    async def find(self, http: Http, submission: Submission) -> Accepted | NoVerdict:
        """Look for a lost submit by its reference. NoVerdict(gone=True): asked properly, and it is not there (yet).

        `media` is there only where the input has one of `find_sends`, and only if it could be had.
        """
        return NoVerdict(message="this provider cannot be asked by reference")

    async def cancel(self, http: Http, handle: Handle) -> bool | NoVerdict:
        """Ask the provider to stop. True only where it confirms that nothing will be made or charged.

        NoVerdict: nobody could be asked now; another try may reach the provider.
        """
        return False

    def adopt(self, callback: JsonObject, submission: Submission) -> Accepted | None:
        """What a callback to a lost attempt's own URL reveals; a hint that is polled, never believed.

        `submission` is what was asked for, without its media. None: nothing; who can is asked by reference instead.
        """
        return None


# ---------------------------------------------------------------- the catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One entry of the catalogue: what a user may call, what it takes, what it costs, how long it runs.

    `price` is data so that an operator can change it: {"credits": 20}, optionally {"by": ["mode", "duration"],
    "table": {"std/5": 50}} (values of those inputs joined by "/"), {"plus": {"images": 15}} (so many more for each of
    its items) and {"times": "n"} (all of it multiplied by that input).
    `input_schema` is JSON Schema 2020-12 with `default`s; unknown fields are refused.
    """

    id: str
    kind: str  # image | video | text
    title: str
    input_schema: JsonObject
    price: JsonObject
    expected_s: float  # typical duration
    first_poll_s: float
    poll_every_s: float
    deadline_s: float | None = None  # None: the operator's JOB_DEADLINE_S
    action: str = "generate"
    slots: str | None = None  # input that says how many slots a job takes at the account (Kling images: n)
    follows: tuple[str, ...] = ()  # it continues a finished job of one of these models, its `parent_id`
    parent_or: str | None = None  # the input that may stand in place of the parent

    @property
    def provider(self) -> str:
        return self.id.partition("/")[0]
