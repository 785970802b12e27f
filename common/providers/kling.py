"""Kling (可灵): the legacy API (/v1/…, `model_name` in the body) and the new one (the model in the path).

Facts: fact sheet kling.md, sections named below.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from urllib.parse import quote

from jwt.algorithms import HMACAlgorithm
from jwt.api_jws import PyJWS

from common import clock
from common.providers.base import (
    Accepted,
    Credentials,
    Failed,
    Handle,
    Http,
    JsonObject,
    NotAccepted,
    NotSent,
    NoVerdict,
    Output,
    PollVerdict,
    Rejected,
    Reply,
    Running,
    Submission,
    SubmitVerdict,
    Succeeded,
    Trouble,
    Unanswered,
    Unknown,
)
from common.providers.kling_models import MODELS, PATHS, TEXT_TO_VIDEO
from common.providers.kling_requests import is_new, legacy_body, new_body, new_path
from common.providers.reading import (
    given,
    integer,
    items,
    number,
    obj,
    ref,
    retry_after_s,
    seconds,
    text,
    web_url,
)
from common.providers.remote import RemoteAdapter, no_verdict, one_by_one, said, undocumented
from common.words import ErrorCode

TASKS = "/tasks"  # the new generation's one path for looking
# Where tasks live. Kinds that this catalogue lacks come with imported jobs, at most.
_ELSEWHERE = ("/v1/videos/omni-video", "/v1/videos/advanced-lip-sync", "/v1/images/omni-image")
_LEGACY_PATHS = frozenset((*PATHS.values(), *_ELSEWHERE))
_HALVINGS = 3  # of a batch that is refused, before its tasks are asked about one by one
_LIVES_S = 86_400.0  # files are kept 30 days, but their URLs die earlier (section 8)

QUIRKS = (
    "Official hosts: https://api-beijing.klingai.com for accounts of China, https://api-singapore.klingai.com for "
    "all others; keys of one are said not to work at the other. The account's base URL decides.",
    "AccessKey and SecretKey serve the legacy API only; models 2.6, 3.0 and 3.0-turbo of the new API need an API key.",
    "HTTP 429 stands for what may be tried again (1302, 1303) as well as for what is final (1100, 1101, 1102, 1304), "
    "and errors may come with HTTP 200: only the code in the body counts.",
    "A token that is not yet or no longer valid (1003, 1004) is made anew once before the account pauses.",
    "Success is called `succeed` by the legacy API and `succeeded` by the new one.",
    "Pictures in base64 must come without the `data:` prefix.",
    "Nothing can be canceled at Kling, and no progress is told.",
    "A task failed by moderation has no code of its own: it is told by words in its message.",
    "A picture task takes as many of the account's places as it makes pictures.",
    "A film can be extended or lip-synced for 30 days, and only by the account that made it.",
    "A legacy task is asked about below the path where it was created.",
    "What is deducted is told in units or, by the new API, in units or money; it is recorded as it comes.",
    "With `shot_type` customize the shots of `multi_prompt` take the place of the prompt, and must together last "
    "`duration_s`. What stands in `shot_type`, `multi_prompt` and `voice_list` follows third-party publications.",
    "The inputs of extend, lip-sync, effects, image-expand, the models of several images and virtual-try-on follow "
    "third-party publications of the legacy API; they are unverified.",
    "Newer accounts may be offered lip-sync only at the path advanced-lip-sync, which needs a face recognition first.",
)


# ---------------------------------------------------------------- credentials


class _AnyKeyLength(HMACAlgorithm):
    """HS256 that takes keys as Kling hands them out, without a warning about short ones."""

    def check_key_length(self, key: bytes) -> str | None:
        return None


_JWS = PyJWS(algorithms=[])
_JWS.register_algorithm("HS256", _AnyKeyLength(hashlib.sha256))


def mint(access_key: str, secret_key: str, now: float) -> str:
    """The JWT that stands for an AccessKey and SecretKey for half an hour (section 2)."""
    claims = {"iss": access_key, "exp": int(now) + 1800, "nbf": int(now) - 5}
    payload = json.dumps(claims, separators=(",", ":")).encode()
    return _JWS.encode(payload, secret_key.encode(), algorithm="HS256")


# ---------------------------------------------------------------- the adapter


class Kling(RemoteAdapter):
    """One Kling account: an API key for everything, or AccessKey and SecretKey for the legacy API."""

    name = "kling"
    provider = "kling"
    secret_names = ("access_key", "secret_key", "api_key")
    models = tuple(spec.id for spec in MODELS)
    official_url = "https://api-beijing.klingai.com"
    max_concurrency = 5
    batch_size = 200
    can_find = True

    def __init__(self, credentials: Credentials, now: Callable[[], float] = clock.epoch) -> None:
        super().__init__(credentials)
        self._now = now

    @classmethod
    def codes(cls) -> Mapping[int | str, str]:
        """Section 6."""
        return {**_TROUBLES, **_REFUSALS, **dict.fromkeys(_UNKNOWN, ErrorCode.SUBMIT_UNKNOWN)}

    @classmethod
    def usable(cls, secrets: Mapping[str, str]) -> bool:
        """An API key, or both halves of the pair."""
        return bool(secrets.get("api_key") or (secrets.get("access_key") and secrets.get("secret_key")))

    async def _submit(self, http: Http, submission: Submission) -> SubmitVerdict:
        if not is_new(submission):
            path, body = PATHS[submission.model], legacy_body(submission)
            if isinstance(body, Rejected):
                return body
            return _submitted(await self._send(http, "POST", path, body), path)
        if not self.credentials.secrets.get("api_key"):
            message = f"{submission.input['model_name']} needs an API key; this account has AK/SK only."
            return NotAccepted(trouble=Trouble.MODEL, message=message)
        reply = await self._send(http, "POST", new_path(submission), new_body(submission))
        return _submitted(reply, TASKS)

    async def _poll(self, http: Http, handles: Sequence[Handle]) -> dict[str, PollVerdict]:
        by_path: dict[str, list[Handle]] = {}
        for handle in handles:
            by_path.setdefault(_path_of(handle), []).append(handle)
        groups = await asyncio.gather(*(self._group(http, path, group) for path, group in by_path.items()))
        return {provider_ref: verdict for seen in groups for provider_ref, verdict in seen.items()}

    async def _group(
        self, http: Http, path: str, handles: Sequence[Handle], halvings: int = _HALVINGS
    ) -> dict[str, PollVerdict]:
        """Generations of one path; trouble there spoils no others."""
        try:
            if path == TASKS:
                return await self._tasks(http, handles, halvings)
            return await self._legacy(http, path, handles)
        except (NotSent, Unanswered) as error:
            return dict.fromkeys((handle.provider_ref for handle in handles), NoVerdict(message=str(error)))

    async def _find(self, http: Http, submission: Submission) -> Accepted | NoVerdict:
        """Ask by external_task_id, which is the reference (section 8)."""
        external = quote(submission.reference, safe="")
        path = TASKS if is_new(submission) else PATHS[submission.model]
        where = f"{path}?external_task_ids={external}" if path == TASKS else f"{path}/{external}"
        reply = await self._send(http, "GET", where)
        if _code(reply) != 0:
            return no_verdict(reply, _words(reply), gone=_denies(reply))
        data = reply.object().get("data")
        for task in items(data) if path == TASKS else [obj(data)]:
            provider_ref = _id(obj(task))
            if provider_ref and _external(obj(task)) in ("", submission.reference):
                return Accepted(provider_ref=provider_ref, memo={"path": path})
        return NoVerdict(message="no task has this external id", gone=True)

    # -- looking

    async def _tasks(
        self, http: Http, handles: Sequence[Handle], halvings: int = _HALVINGS
    ) -> dict[str, PollVerdict]:
        """The new generation: all in one call (section 5.2); in smaller ones where that is refused."""
        refs = [handle.provider_ref for handle in handles]
        reply = await self._ask(http, f"{TASKS}?task_ids={','.join(quote(known, safe='') for known in refs)}")
        if isinstance(reply, NoVerdict):
            return dict.fromkeys(refs, reply)
        data = reply.object().get("data")
        if _code(reply) == 0 and isinstance(data, list):
            tasks = {_id(obj(task)): obj(task) for task in data}
            gone = NoVerdict(message="the provider does not know this task", gone=True)
            return {known: _seen(tasks[known]) if known in tasks else gone for known in refs}
        if len(handles) > 1 and _too_many(reply) and halvings:
            return await self._halves(http, handles, halvings - 1)
        if len(handles) > 1 and (_denies(reply) or _too_many(reply)):  # one id must not hide the others
            return await one_by_one(handles, lambda handle: self._alone(http, handle))
        return dict.fromkeys(refs, _nothing(reply))

    async def _halves(self, http: Http, handles: Sequence[Handle], halvings: int) -> dict[str, PollVerdict]:
        middle = len(handles) // 2
        halves = (handles[:middle], handles[middle:])
        seen = await asyncio.gather(*(self._group(http, TASKS, half, halvings) for half in halves))
        return seen[0] | seen[1]

    async def _alone(self, http: Http, handle: Handle) -> PollVerdict:
        return (await self._tasks(http, [handle]))[handle.provider_ref]

    async def _legacy(self, http: Http, path: str, handles: Sequence[Handle]) -> dict[str, PollVerdict]:
        """The legacy API: one by one, or for more than a few the latest 500 of the path first (section 4.1)."""
        seen: dict[str, PollVerdict] = {}
        if len(handles) > _FEW:
            page = await self._ask(http, f"{path}?pageNum=1&pageSize=500")
            if isinstance(page, NoVerdict):
                return dict.fromkeys((handle.provider_ref for handle in handles), page)
            tasks = {_id(obj(task)): obj(task) for task in items(page.object().get("data"))}
            on_page = [handle for handle in handles if handle.provider_ref in tasks]
            seen = {handle.provider_ref: _seen(tasks[handle.provider_ref]) for handle in on_page}
        left = [handle for handle in handles if isinstance(seen.get(handle.provider_ref, _UNSEEN), NoVerdict)]
        return seen | await one_by_one(left, lambda handle: self._single(http, path, handle))

    async def _single(self, http: Http, path: str, handle: Handle) -> PollVerdict:
        reply = await self._send(http, "GET", f"{path}/{quote(handle.provider_ref, safe='')}")
        if _code(reply) != 0:
            return _nothing(reply)
        return _seen(obj(reply.object().get("data")))

    async def _ask(self, http: Http, path: str) -> Reply | NoVerdict:
        """A look at many: the answer, or what is wrong with the account or the server at the moment."""
        reply = await self._send(http, "GET", path)
        code = _code(reply)
        troubled = code in _TROUBLES or code in _UNKNOWN or reply.status in (401, 429) or reply.status >= 500
        return _nothing(reply) if troubled else reply

    async def _send(self, http: Http, method: str, path: str, body: JsonObject | None = None) -> Reply:
        headers = {"Authorization": f"Bearer {self._bearer()}"}
        return await http.send(method, self.base_url + path, headers=headers, json=body)

    def _bearer(self) -> str:
        secrets = self.credentials.secrets
        if secrets.get("api_key"):
            return secrets["api_key"]
        return mint(secrets.get("access_key", ""), secrets.get("secret_key", ""), self._now())


_FEW = 3
_UNSEEN = NoVerdict(message="not on the page")


# ---------------------------------------------------------------- submit


def _path_of(handle: Handle) -> str:
    path = handle.memo.get("path")
    return path if path == TASKS or path in _LEGACY_PATHS else PATHS.get(handle.model, PATHS[TEXT_TO_VIDEO])


# HTTP 429 mixes what may be tried again with what is final, so `code` decides alone (section 6).
_TROUBLES: dict[int | str, Trouble] = {
    1000: Trouble.CREDENTIALS,
    1001: Trouble.CREDENTIALS,
    1002: Trouble.CREDENTIALS,
    1003: Trouble.CREDENTIALS,  # tokens are minted per request: these two mean that a clock is wrong, or was
    1004: Trouble.CREDENTIALS,
    1100: Trouble.CREDENTIALS,
    1101: Trouble.BALANCE,
    1102: Trouble.BALANCE,
    1103: Trouble.MODEL,
    1302: Trouble.BUSY,
    1303: Trouble.BUSY,
    1304: Trouble.CREDENTIALS,
}
_PAUSES_S = {1302: 1.0, 1303: 1.0}
_REFUSALS: dict[int | str, ErrorCode] = {
    1200: ErrorCode.INVALID_INPUT,
    1201: ErrorCode.INVALID_INPUT,
    1202: ErrorCode.INVALID_INPUT,
    1203: ErrorCode.INVALID_INPUT,
    1300: ErrorCode.CONTENT_MODERATED,
    1301: ErrorCode.CONTENT_MODERATED,
}
_TOKEN = (1003, 1004)  # worth one try with a fresh token (section 6)
_UNKNOWN = (5000, 5001, 5002)  # the submit may have worked
_NOT_FOUND = (1202, 1203)
_NOT_LIKE_THIS = (1200, 1201)


def _submitted(reply: Reply, path: str) -> SubmitVerdict:
    code = _code(reply)
    if code == 0 and 200 <= reply.status < 300:
        provider_ref = _id(obj(reply.object().get("data")))
        if provider_ref is None:
            return Unknown(message=said(reply))
        return Accepted(provider_ref=provider_ref, memo={"path": path})
    message = _words(reply)
    if code in _TROUBLES:
        pause_s = retry_after_s(reply, _PAUSES_S.get(code))
        return NotAccepted(
            trouble=_TROUBLES[code], message=message, retry_after_s=pause_s, doubted=code in _TOKEN
        )
    if code in _REFUSALS:
        return Rejected(code=_REFUSALS[code], message=message)
    if code in _UNKNOWN:
        return Unknown(message=message)
    return undocumented(reply, message)


# ---------------------------------------------------------------- answers


def _code(reply: Reply) -> int | None:
    """The envelope's code, which counts whatever the HTTP status (section 4.5). None: no envelope."""
    return integer(reply.object().get("code"))


def _words(reply: Reply) -> str:
    body = reply.object()
    message = text(body.get("message"))
    return f"{message} (code {_code(reply)})" if message else said(reply)


def _denies(reply: Reply) -> bool:
    """In Kling's own envelope: a 404 of anybody on the way says nothing of the task."""
    return _code(reply) in _NOT_FOUND


def _too_many(reply: Reply) -> bool:
    """Whether it may be the size of the batch that is refused, whose cap is not documented (section 5.2)."""
    return _code(reply) in _NOT_LIKE_THIS or reply.status in (413, 414)


def _nothing(reply: Reply) -> NoVerdict:
    """A look that told nothing; with a pause where the account asks too often."""
    pause_s = retry_after_s(reply, _PAUSES_S.get(_code(reply) or 0))
    return NoVerdict(message=_words(reply), gone=_denies(reply), retry_after_s=pause_s)


def _id(task: JsonObject) -> str | None:
    return ref(task.get("task_id")) or ref(task.get("id"))


def _external(task: JsonObject) -> str:
    return text(task.get("external_id")) or text(obj(task.get("task_info")).get("external_task_id"))


# ---------------------------------------------------------------- poll

_AMOUNT = re.compile(r"\d{1,12}(\.\d{1,9})?")
_MODERATED = re.compile(
    "风控|敏感|policy|risk|content", re.IGNORECASE
)  # there is no machine code (section 6)


def _seen(task: JsonObject) -> PollVerdict:
    """The verdict on one task of either generation: they differ in names only (section 3)."""
    status = task.get("task_status") or task.get("status")
    match status:
        case "submitted" | "processing":
            return Running()
        case "succeed" | "succeeded":
            return _succeeded(task)
        case "failed":
            return _failed(text(task.get("task_status_msg")) or text(task.get("message")))
        case other:
            return NoVerdict(message=f"unknown status {text(other, 50)!r}")


def _succeeded(task: JsonObject) -> PollVerdict:
    outputs = tuple(_outputs(task))
    if not outputs:
        return NoVerdict(message="the task is finished but names no result")
    return Succeeded(outputs=outputs, cost=_cost(task), memo=given({"video_id": _video_id(task)}))


def _video_id(task: JsonObject) -> str | None:
    """Kling's own id of the film, by which others go on from it."""
    films = [obj(video) for video in items(obj(task.get("task_result")).get("videos"))]
    films += [obj(output) for output in items(task.get("outputs")) if obj(output).get("type") == "video"]
    return next((known for film in films if (known := ref(film.get("id")))), None)


def _outputs(task: JsonObject) -> Iterator[Output]:
    result = obj(task.get("task_result"))
    images = sorted(map(obj, items(result.get("images"))), key=lambda image: integer(image.get("index")) or 0)
    found = [
        *(("video", obj(video)) for video in items(result.get("videos"))),
        *(("image", image) for image in images),
        *((text(obj(output).get("type")), obj(output)) for output in items(task.get("outputs"))),
    ]
    for kind, output in found:
        url = web_url(output.get("url"))
        if url is not None and kind in ("video", "image"):
            yield Output(kind=kind, url=url, lives_s=_LIVES_S, duration_s=seconds(output.get("duration")))


def _failed(reason: str) -> Failed:
    if _MODERATED.search(reason):
        return Failed(code=ErrorCode.CONTENT_MODERATED, message=reason)
    message = reason or "the provider gave no reason"
    return Failed(code=ErrorCode.PROVIDER_FAILED, message=message, retryable=True)


def _cost(task: JsonObject) -> str | None:
    """What was deducted: units of a pack, or money where none were (section 9)."""
    units = text(task.get("final_unit_deduction"), 64)
    money = text(obj(task.get("final_balance_deduction")).get("quota"), 64)
    if units or money:
        return next((each for each in (units, money) if number(each)), units or money)
    amounts = [text(obj(bill).get("amount"), 32) for bill in items(task.get("billing"))]
    if not amounts or not all(map(_AMOUNT.fullmatch, amounts)):
        return None
    return str(sum(map(Decimal, amounts)))
