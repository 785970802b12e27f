"""Midjourney through a midjourney-proxy compatible server.

Midjourney has no official API; two open-source families speak this protocol, and both are served. "NZ"
(novicezk/midjourney-proxy) follows up by /submit/change, "TA" (trueai-org/midjourney-proxy) by the customId of
a button. Facts: fact sheet midjourney_proxy.md, sections named below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar
from urllib.parse import quote

from common.providers.base import (
    Accepted,
    Credentials,
    Handle,
    Http,
    JsonObject,
    NotAccepted,
    NotSent,
    NoVerdict,
    PollVerdict,
    Rejected,
    Reply,
    Submission,
    SubmitVerdict,
    Succeeded,
    Trouble,
    Unanswered,
    Unknown,
)
from common.providers.midjourney_models import ACTION, IN_WORDS, MODELS
from common.providers.midjourney_requests import PREPARED, echo, window_prompt
from common.providers.midjourney_results import has_untold_seed, seed_in, seen
from common.providers.reading import integer, items, obj, ref, retry_after_s, text
from common.providers.remote import RemoteAdapter, no_verdict, one_by_one, said, undocumented
from common.words import ErrorCode

V = TypeVar("V", SubmitVerdict, Accepted)
_SEED_S = (
    10.0  # TA lets one wait for Discord's answer up to a minute (section 2), and the picture waits with it
)


class Midjourney(RemoteAdapter):
    """One midjourney-proxy server. The secret is optional: a server may run without one (section 1)."""

    name = "midjourney"
    provider = "midjourney"
    secret_names = ()
    models = tuple(spec.id for spec in MODELS)
    max_concurrency = 3  # both families draw three at a time per Discord account (section 9)
    batch_size = 100
    can_find = True
    find_sends = ("mask",)  # a found window is answered with it
    fetches_addresses = False  # base64Array takes data URLs only (section 3)
    keeps_results = True  # in the proxy's own storage (section 10)
    finds_by_callback = True  # notifyHook brings the whole task, also one that /task/list has forgotten

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(credentials)
        self._root = f"{self.base_url.removesuffix('/mj').rstrip('/')}/mj"

    @classmethod
    def codes(cls) -> Mapping[int | str, str]:
        """Sections 1, 4 and 6."""
        return {
            4: ErrorCode.INVALID_INPUT,
            24: ErrorCode.CONTENT_MODERATED,
            "[Banned prompt detected]": ErrorCode.CONTENT_MODERATED,
            "Image denied": ErrorCode.CONTENT_MODERATED,
            "[Invalid parameter]": ErrorCode.INVALID_INPUT,
            "任务超时": ErrorCode.PROVIDER_FAILED,
            "[Internal Server Error]": ErrorCode.PROVIDER_FAILED,
            23: Trouble.BUSY,
            **dict.fromkeys(_QUOTA_BUSY, Trouble.BUSY),
            3: Trouble.DOWN,
            9: Trouble.DOWN,
            "绘图次数": Trouble.BALANCE,
            "HTTP 401": Trouble.CREDENTIALS,
            "HTTP 403": Trouble.CREDENTIALS,
        }

    async def _submit(self, http: Http, submission: Submission) -> SubmitVerdict:
        prepared = PREPARED[submission.model](submission)
        if isinstance(prepared, Rejected):
            return prepared
        path, body = prepared
        reply = await self._send(http, "POST", path, {**body, **echo(submission)})
        window = _window(reply)
        if window is not None:
            return _remembering(submission, await self._confirm(http, submission, *window))
        return _remembering(submission, _submitted(reply, follows_up=submission.model == ACTION))

    async def _confirm(
        self, http: Http, submission: Submission, provider_ref: str, prompt: str
    ) -> SubmitVerdict:
        """Answer the window of code 21: the task exists, but draws only after /submit/modal (section 4, TA).

        Where no answer says that it was taken the submit is unknown, and find() looks whether the window is still
        open. Polls never answer it: TA shows a task as MODAL also while it waits in the queue after /submit/modal,
        and would queue it once more (v11.10.3: `SubmitModal`, `RedisQueueUpdateProgress`).
        """
        body = {"taskId": provider_ref, "prompt": window_prompt(submission, prompt), **echo(submission)}
        mask = submission.medium("mask")
        if mask is not None:
            body["maskBase64"] = mask.data_url
        reply = await self._send(http, "POST", "/submit/modal", body)
        if _ok(reply) and integer(reply.object().get("code")) in _TAKEN:
            return Accepted(provider_ref=provider_ref)
        return _submitted(reply, follows_up=True)

    async def _poll(self, http: Http, handles: Sequence[Handle]) -> dict[str, PollVerdict]:
        refs = [handle.provider_ref for handle in handles]
        reply = await self._send(http, "POST", "/task/list-by-condition", {"ids": refs})
        tasks = reply.json()
        if reply.status != 200 or not isinstance(tasks, list):
            return dict.fromkeys(refs, no_verdict(reply))
        by_ref = {ref(obj(task).get("id")): obj(task) for task in tasks}
        # Unknown ids are silently left out (section 3); a restart of NZ loses them all (section 5).
        gone = NoVerdict(message="the server does not know this task", gone=True)
        verdicts = {
            handle.provider_ref: seen(
                by_ref[handle.provider_ref],
                in_words=handle.model in IN_WORDS,
                split=handle.memo.get("split") is True,
            )
            if handle.provider_ref in by_ref
            else gone
            for handle in handles
        }
        return verdicts | await self._seeds(http, handles, by_ref, verdicts)

    async def _seeds(
        self,
        http: Http,
        handles: Sequence[Handle],
        tasks: Mapping[str | None, JsonObject],
        verdicts: Mapping[str, PollVerdict],
    ) -> dict[str, PollVerdict]:
        """The verdicts on finished pictures that did not say their seed, with the seed if the server tells it."""
        lacking = {
            known: verdict
            for known, verdict in verdicts.items()
            if isinstance(verdict, Succeeded) and has_untold_seed(tasks[known], verdict)
        }
        if not lacking:
            return {}

        async def with_seed(handle: Handle) -> PollVerdict:
            verdict = lacking[handle.provider_ref]
            return replace(verdict, output=seed_in(await self._seed(http, handle.provider_ref)))

        return await one_by_one([handle for handle in handles if handle.provider_ref in lacking], with_seed)

    async def _seed(self, http: Http, provider_ref: str) -> object:
        """Ask for a picture's seed, once (section 2, TA). Whatever comes of it, the picture is there."""
        path = f"/task/{quote(provider_ref, safe='')}/image-seed"
        try:
            reply = await self._send(http, "GET", path, timeout_s=_SEED_S)
        except (NotSent, Unanswered):
            return None
        told = reply.object()
        return told.get("result") if _ok(reply) and integer(told.get("code")) == 1 else None

    async def _find(self, http: Http, submission: Submission) -> Accepted | NoVerdict:
        """Match `state` in the listing (TA: the latest 100) and in the queue (NZ only; section 9)."""
        listed = await self._send(http, "GET", "/task/list")
        found = _match(listed, submission)
        if found is None:
            found = _match(await self._send(http, "GET", "/task/queue"), submission)
        if found is not None:
            return await self._adopted(http, submission, found)
        asked = listed.status == 200 and isinstance(listed.json(), list)
        return NoVerdict(message="no task has this reference", gone=True) if asked else no_verdict(listed)

    async def _adopted(self, http: Http, submission: Submission, task: JsonObject) -> Accepted | NoVerdict:
        """A found task. While its window is open nothing is drawn: it is adopted once that has been answered."""
        provider_ref = str(ref(task.get("id")))
        if task.get("status") != "MODAL":
            return _remembering(submission, Accepted(provider_ref=provider_ref))
        if submission.input.get("mask") and not submission.media:
            return NoVerdict(message="its window is open, and the mask for it cannot be had now")
        proposed = text(obj(task.get("properties")).get("finalPrompt")) or text(task.get("prompt"))
        verdict = await self._confirm(http, submission, provider_ref, proposed)
        if isinstance(verdict, Accepted):
            return _remembering(submission, verdict)
        return NoVerdict(message=f"its window is open: {verdict.message}")

    async def _cancel(self, http: Http, handle: Handle) -> Reply:
        return await self._send(http, "POST", f"/task/{quote(handle.provider_ref, safe='')}/cancel")

    def _confirmed(self, reply: Reply) -> bool:
        """TA with an admin's token: 200 and an empty body (section 9). NZ has no such call."""
        if reply.status != 200:
            return False
        return not reply.body.strip() or integer(reply.object().get("code")) == 1

    def adopt(self, callback: JsonObject, submission: Submission) -> Accepted | None:
        """The id in the task object that notifyHook sends (section 8). An open window is left to find()."""
        found = ref(callback.get("id"))
        if not found or callback.get("status") in (None, "MODAL"):
            return None
        return _remembering(submission, Accepted(provider_ref=found))

    async def _send(
        self, http: Http, method: str, path: str, body: JsonObject | None = None, timeout_s: float = 30.0
    ) -> Reply:
        secret = self.credentials.secrets.get("api_secret")
        headers = {"mj-api-secret": secret} if secret else {}
        return await http.send(method, self._root + path, headers=headers, json=body, timeout_s=timeout_s)


# ---------------------------------------------------------------- submit

_TAKEN = (1, 21, 22)
_QUOTA_BUSY = ("并发数已达上限", "队列数已达上限", "队列已满")
_QUOTA_SPENT = ("绘图次数", "额度", "余额")
_NO_ACCOUNT = ("账号", "账户", "account")
_RATE = re.compile(r"rate|limit|too many|频", re.IGNORECASE)


def _remembering(submission: Submission, verdict: V) -> V:
    """What the polls have to know of the job's input."""
    if isinstance(verdict, Accepted) and submission.input.get("split"):
        return replace(verdict, memo={"split": True})
    return verdict


def _window(reply: Reply) -> tuple[str, str] | None:
    """The task and the proposed prompt, where code 21 asks for /submit/modal (TA).

    In NZ's documents 21 means that the same upscale exists already, shown by a status or an image.
    """
    body = reply.object()
    properties, provider_ref = obj(body.get("properties")), ref(body.get("result"))
    if not _ok(reply) or integer(body.get("code")) != 21 or provider_ref is None:
        return None
    exists = "finalPrompt" not in properties and ("status" in properties or "imageUrl" in properties)
    return None if exists else (provider_ref, text(properties.get("finalPrompt")))


def _submitted(reply: Reply, *, follows_up: bool) -> SubmitVerdict:
    """The verdict on a submit's answer: HTTP 200 even for refusals, so `code` decides (section 4)."""
    body = reply.object()
    code, description = integer(body.get("code")), text(body.get("description"))
    if reply.status == 403 and _RATE.search(reply.text()):  # TA's rate limit (section 1)
        return NotAccepted(trouble=Trouble.BUSY, message=said(reply), retry_after_s=retry_after_s(reply))
    if reply.status >= 500 or reply.status in (401, 403, 429) or code is None:
        return undocumented(reply, description)
    if code in _TAKEN:
        found = ref(body.get("result"))
        return Accepted(provider_ref=found) if found and _ok(reply) else Unknown(message=said(reply))
    return _refused(code, f"{description or said(reply)} (code {code})", body, follows_up=follows_up)


def _refused(code: int, message: str, body: JsonObject, *, follows_up: bool) -> SubmitVerdict:
    match code:
        case 3 if follows_up and not _has(message, _NO_ACCOUNT):
            return Rejected(code=ErrorCode.PROVIDER_REJECTED, message=message)  # the parent is gone there
        case 3 | 9:
            trouble = Trouble.BUSY if _has(message, _QUOTA_BUSY) else Trouble.DOWN
            return NotAccepted(trouble=trouble, message=message)
        case 4 if _has(message, _QUOTA_BUSY):
            return NotAccepted(trouble=Trouble.BUSY, message=message)
        case 4 if _has(message, _QUOTA_SPENT):
            return NotAccepted(trouble=Trouble.BALANCE, message=message)
        case 4:
            return Rejected(code=ErrorCode.INVALID_INPUT, message=message)
        case 23:
            return NotAccepted(trouble=Trouble.BUSY, message=message)
        case 24:
            banned = text(obj(body.get("properties")).get("bannedWord"))
            return Rejected(
                code=ErrorCode.CONTENT_MODERATED, message=f"{message}: {banned}" if banned else message
            )
        case _:
            return Unknown(message=message)


def _ok(reply: Reply) -> bool:
    return 200 <= reply.status < 300


def _has(message: str, parts: Sequence[str]) -> bool:
    return any(part in message.lower() for part in parts)


def _match(reply: Reply, submission: Submission) -> JsonObject | None:
    """The task with our reference."""
    for task in map(obj, items(reply.json()) if reply.status == 200 else []):
        if task.get("state") == submission.reference and ref(task.get("id")):
            return task
    return None
