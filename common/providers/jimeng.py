"""Jimeng (即梦) through Volcengine's visual API: CVSync2Async tasks with signed requests.

Facts: fact sheet jimeng.md, part A, sections named below.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from common import clock
from common.providers.base import (
    Accepted,
    Credentials,
    Failed,
    Handle,
    Http,
    JsonObject,
    NotAccepted,
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
    Unknown,
)
from common.providers.jimeng_models import FILMS, GROUP, MODELS, V40
from common.providers.jimeng_requests import DEFAULT_KEYS, calls_back, only_addresses, request_of
from common.providers.jimeng_signing import sign
from common.providers.reading import integer, items, obj, ref, retry_after_s, text, web_url
from common.providers.remote import RemoteAdapter, one_by_one, said, undocumented
from common.words import ErrorCode

_VERSION = "2022-08-31"
_IMAGE_LIVES_S, _VIDEO_LIVES_S = 86_400.0, 3600.0  # section A4
_LOOK_BYTES = 64 * 1024 * 1024  # of an answer that brings pictures in base64 after all (section A4)


class Jimeng(RemoteAdapter):
    """One Volcengine account. A lost submit cannot be asked for: there is no id of ours and no list (section A8)."""

    name = "jimeng"
    provider = "jimeng"
    secret_names = ("access_key", "secret_key")
    models = tuple(spec.id for spec in MODELS)
    official_url = "https://visual.volcengineapi.com"
    max_concurrency = 2
    finds_by_callback = True  # of images 4.x, the only ones that call back (section A7)

    def __init__(self, credentials: Credentials, now: Callable[[], float] = clock.epoch) -> None:
        super().__init__(credentials)
        self._now = now

    @classmethod
    def codes(cls) -> Mapping[int | str, str]:
        """Section A5."""
        return {
            _INVALID: ErrorCode.INVALID_INPUT,
            **dict.fromkeys(_MODERATED, ErrorCode.CONTENT_MODERATED),
            **dict.fromkeys(_GATEWAY_FINAL, ErrorCode.PROVIDER_REJECTED),
            **dict.fromkeys(_LIMITS, Trouble.BUSY),
            **dict.fromkeys(_CHECKS_BROKE, ErrorCode.PROVIDER_FAILED),
            **dict.fromkeys(_INTERNAL, Trouble.DOWN),
            **dict.fromkeys((_DENIED, *_GATEWAY_CREDENTIALS), Trouble.CREDENTIALS),
        }

    def only_addresses(self, model: str, given: Mapping[str, Any]) -> bool:
        """Section A6."""
        return only_addresses(model, given)

    async def _submit(self, http: Http, submission: Submission) -> SubmitVerdict:
        body = request_of(submission)
        return _submitted(await self._send(http, "CVSync2AsyncSubmitTask", body), body)

    async def _poll(self, http: Http, handles: Sequence[Handle]) -> dict[str, PollVerdict]:
        return await one_by_one(handles, lambda handle: self._look(http, handle))

    async def _look(self, http: Http, handle: Handle) -> PollVerdict:
        """Ask with the req_key of the submit, without which the task is not found (section A4)."""
        body = {
            "req_key": handle.memo.get("req_key") or DEFAULT_KEYS[handle.model],
            "task_id": handle.provider_ref,
            "req_json": json.dumps({"return_url": True}, separators=(",", ":")),
        }
        return _seen(await self._send(http, "CVSync2AsyncGetResult", body, _LOOK_BYTES), handle)

    def adopt(self, callback: JsonObject, submission: Submission) -> Accepted | None:
        """The task_id in a callback's body (section A7); it says no req_key, so that is the submission's."""
        found = ref(callback.get("task_id"))
        if found is None or "code" not in callback or not calls_back(submission):
            return None
        return Accepted(
            provider_ref=found, memo=_memo(submission.input.get("req_key", V40), submission.input)
        )

    async def _send(self, http: Http, action: str, body: JsonObject, most_bytes: int | None = None) -> Reply:
        """Action and Version must be in the query (section A1); exactly the signed bytes are sent."""
        url = f"{self.base_url}/?Action={action}&Version={_VERSION}"
        content = json.dumps(body, separators=(",", ":")).encode()
        secrets = self.credentials.secrets
        headers = sign(
            "POST",
            url,
            content,
            access_key=secrets.get("access_key", ""),
            secret_key=secrets.get("secret_key", ""),
            at=datetime.fromtimestamp(self._now(), UTC),
        )
        return await http.send("POST", url, headers=headers, body=content, most_bytes=most_bytes)


# ---------------------------------------------------------------- submit

_MODERATED = {
    50411: False,  # code: whether another try may pass, because the output was at fault (section A5)
    50412: False,
    50413: False,
    50511: True,
    50512: False,
    50516: True,
    50517: True,
    50518: False,
    50519: True,
}
_CHANCE_TRIES = 2  # "yes, 1-2 times" (section A5)
_CODES = range(50000, 60000)  # where all codes of errors lie
_LIMITS = (50429, 50430)
_INTERNAL = (50500, 50501)
_CHECKS_BROKE = (50520, 50521, 50522)
_INVALID = 50215
_DENIED = 50400
_ARREARS = re.compile("arrear|overdue|balance|欠费|余额", re.IGNORECASE)

# The gateway's own errors (section A5): a wrong key or signature is the account's trouble, the others are final.
_GATEWAY_CREDENTIALS = (100009, 100010, 100013)
_GATEWAY_FINAL = (100002, 100007)


def _memo(req_key: str, wanted: Mapping[str, Any]) -> JsonObject:
    """What looking needs (section A4), and how many pictures credits are held for where it may be several."""
    return {"req_key": req_key, **({"most": GROUP} if wanted.get("force_single") is False else {})}


def _submitted(reply: Reply, body: JsonObject) -> SubmitVerdict:
    """Whatever the code, if it is not 10000 there is no task and nothing runs (section A3)."""
    code, message = _code(reply), _words(reply)
    if code is None:
        return _gateway(reply)
    if code == 10000:
        task_id = ref(obj(reply.object().get("data")).get("task_id"))
        if task_id is None or not 200 <= reply.status < 300:
            return Unknown(message=said(reply))
        return Accepted(provider_ref=task_id, memo=_memo(body["req_key"], body))
    if code in _MODERATED:
        tries = _CHANCE_TRIES if _MODERATED[code] else 0
        return Rejected(code=ErrorCode.CONTENT_MODERATED, message=message, tries=tries)
    if code in _CHECKS_BROKE:  # the checks', not the account's: one delayed try is harmless (section A5)
        return Rejected(code=ErrorCode.PROVIDER_FAILED, message=message, tries=1)
    if code in _LIMITS:
        return NotAccepted(
            trouble=Trouble.BUSY, message=message, retry_after_s=retry_after_s(reply, _PAUSE_S)
        )
    if code in _INTERNAL:
        return NotAccepted(trouble=Trouble.DOWN, message=message)
    if code == _INVALID:
        return Rejected(code=ErrorCode.INVALID_INPUT, message=message)
    if code == _DENIED:
        broke = _ARREARS.search(message)
        return NotAccepted(trouble=Trouble.BALANCE if broke else Trouble.CREDENTIALS, message=message)
    if 200 <= reply.status < 300 and code in _CODES:
        return Rejected(code=ErrorCode.PROVIDER_REJECTED, message=message)
    return undocumented(reply, message)


def _gateway(reply: Reply) -> SubmitVerdict:
    error = obj(obj(reply.object().get("ResponseMetadata")).get("Error"))
    code = integer(error.get("CodeN"))
    message = f"{text(error.get('Code'))}: {text(error.get('Message'))} (code {code})"
    if code in _GATEWAY_CREDENTIALS:
        return NotAccepted(trouble=Trouble.CREDENTIALS, message=message)
    if code in _GATEWAY_FINAL:
        return Rejected(code=ErrorCode.PROVIDER_REJECTED, message=message)
    return undocumented(reply, message if error else "")


# ---------------------------------------------------------------- poll

_PAUSE_S = 2.0  # after a limit: the advised pace of a single look (section A8)
# So many internal errors in a row are final: the documents of pictures advise against retries, those of films advise
# bounded ones (section A5); a second and a third look tell at least whether it was the look that broke.
_INTERNAL_LIMITS = {False: 3, True: 5}  # by whether it is a film


def _seen(reply: Reply, handle: Handle) -> PollVerdict:
    """The order of checks of section A4: body, code, status, media."""
    code, data = _code(reply), obj(reply.object().get("data"))
    if code is None or (code == 10000 and reply.status != 200):
        return NoVerdict(message=said(reply), retry_after_s=retry_after_s(reply))
    if code != 10000:
        return _refused(code, reply, handle, done=data.get("status") == "done")
    match data.get("status"):
        case "in_queue" | "generating":
            return Running()
        case "done":
            outputs = tuple(_outputs(data, handle))
            if not outputs:
                return NoVerdict(message="done, but without a result")
            most = integer(
                handle.memo.get("most")
            )  # pictures that credits are held for; each is charged (section A8)
            return Succeeded(outputs=outputs, share=(min(len(outputs), most), most) if most else None)
        case "not_found" | "expired" as status:
            return NoVerdict(message=f"the provider says {status}", gone=True)
        case other:
            return NoVerdict(message=f"unknown status {text(other, 50)!r}")


def _refused(code: int, reply: Reply, handle: Handle, *, done: bool) -> PollVerdict:
    """The verdict on a query's code: about the job where it can only be that, else about this look alone."""
    message = _words(reply)
    if code in _MODERATED:
        by_chance = _MODERATED[code]
        return Failed(
            code=ErrorCode.CONTENT_MODERATED, message=message, retryable=by_chance, try_again=by_chance
        )
    if code == _INVALID:
        return Failed(code=ErrorCode.INVALID_INPUT, message=message)
    if code in _LIMITS:
        return NoVerdict(message=message, retry_after_s=retry_after_s(reply, _PAUSE_S))
    if done or code in _CHECKS_BROKE:  # `done` is success only with 10000 (section A4)
        return Failed(code=ErrorCode.PROVIDER_FAILED, message=message, retryable=True)
    final_after = _INTERNAL_LIMITS[handle.model in FILMS] if code in _INTERNAL else None
    return NoVerdict(message=message, retry_after_s=retry_after_s(reply), final_after=final_after)


def _outputs(data: JsonObject, handle: Handle) -> Iterator[Output]:
    """URLs where there are any; without return_url a task comes as base64 only (section A4)."""
    video = web_url(data.get("video_url"))
    if video is not None:
        yield Output(kind="video", url=video, lives_s=_VIDEO_LIVES_S)
        return
    urls = [url for url in map(web_url, items(data.get("image_urls"))) if url]
    yield from (Output(kind="image", url=url, lives_s=_IMAGE_LIVES_S) for url in urls)
    if not urls:
        kind = "video" if handle.model in FILMS else "image"
        inline = filter(_is_inline, items(data.get("binary_data_base64")))
        yield from (Output(kind=kind, base64=item, lives_s=_IMAGE_LIVES_S) for item in inline)


def _is_inline(value: object) -> bool:
    """Whether it can be base64; whether it is a picture the bytes will tell."""
    return isinstance(value, str) and bool(value) and value.isascii() and value.isprintable()


def _code(reply: Reply) -> int | None:
    """The visual API's code; None for the gateway's envelope and for anything else."""
    return integer(reply.object().get("code"))


def _words(reply: Reply) -> str:
    return f"{text(reply.object().get('message')) or 'no message'} (code {_code(reply)})"
