"""Flux at Black Forest Labs. Facts: fact sheet flux_bfl.md, sections named below."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from common.providers import flux
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
from common.providers.flux import chosen_size, whole_of
from common.providers.hosts import host_of, trusted
from common.providers.reading import given, items, number, obj, ref, retry_after_s, text, web_url
from common.providers.remote import RemoteAdapter, no_verdict, one_by_one, said, undocumented
from common.words import ErrorCode

_PATHS = {
    flux.PRO_1_1: "/v1/flux-pro-1.1",
    flux.ULTRA: "/v1/flux-pro-1.1-ultra",
    flux.DEV: "/v1/flux-dev",
    flux.KONTEXT: "/v1/flux-kontext-pro",
    flux.KONTEXT_MAX: "/v1/flux-kontext-max",
    flux.KONTEXT_MULTI: "/v1/flux-kontext-pro",
    flux.FILL: "/v1/flux-pro-1.0-fill",
    flux.EXPAND: "/v1/flux-pro-1.0-expand",
    flux.PRO_2: "/v1/flux-2-pro",
    flux.MAX_2: "/v1/flux-2-max",
    flux.FLEX_2: "/v1/flux-2-flex",
    flux.KLEIN_4B: "/v1/flux-2-klein-4b",
    flux.KLEIN_9B: "/v1/flux-2-klein-9b",
}
_DOMAINS = ("bfl.ai",)
_REGIONAL = re.compile(r"api\.[a-z]+\d*\.bfl\.ai")
_LIVES_S = 600.0  # section 4.3
_NOT_FOUND = re.compile(r"\btask not found\b", re.IGNORECASE)
_MODERATED = re.compile(r"moderat|policy|nsfw", re.IGNORECASE)


class Bfl(RemoteAdapter):
    """One BFL account."""

    name = "bfl"
    provider = "flux"
    secret_names = ("api_key",)
    models = tuple(_PATHS)
    official_url = "https://api.bfl.ai"
    fetches_addresses = False  # some models take base64 only (section 3)
    max_concurrency = 24  # active tasks per account (section 5)

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(credentials)
        # A submit with a webhook is answered without polling_url; only at a regional host is that harmless (4.1).
        self.finds_by_callback = bool(_REGIONAL.fullmatch(host_of(self.base_url)))

    @classmethod
    def codes(cls) -> Mapping[int | str, str]:
        """Sections 4.2 and 5."""
        return {
            "Request Moderated": ErrorCode.CONTENT_MODERATED,
            "Content Moderated": ErrorCode.CONTENT_MODERATED,
            "Error": ErrorCode.PROVIDER_FAILED,
            "Failed": ErrorCode.PROVIDER_FAILED,
            "HTTP 400": ErrorCode.INVALID_INPUT,
            "HTTP 422": ErrorCode.INVALID_INPUT,
            "HTTP 401": Trouble.CREDENTIALS,
            "HTTP 403": Trouble.CREDENTIALS,
            "HTTP 402": Trouble.BALANCE,
            "HTTP 429": Trouble.BUSY,
        }

    async def _submit(self, http: Http, submission: Submission) -> SubmitVerdict:
        body = _body(submission)
        if self.finds_by_callback and submission.callback_url:
            body["webhook_url"] = submission.callback_url
        reply = await http.send(
            "POST", self.base_url + _PATHS[submission.model], headers=self._key(), json=body
        )
        return self._submitted(reply)

    def _submitted(self, reply: Reply) -> SubmitVerdict:
        """Section 5; `detail` is a string or a list."""
        if not 200 <= reply.status < 300:
            return _refused(reply)
        body = reply.object()
        provider_ref = ref(body.get("id"))
        if provider_ref is None:
            return Unknown(message=said(reply))
        polling_url = trusted(body.get("polling_url"), self.base_url, _DOMAINS, any_port=True)
        cost = number(body.get("cost"))
        return Accepted(
            provider_ref=provider_ref,
            memo=given({"polling_url": polling_url}),
            cost=None if cost is None else f"{cost:.10g}",
        )

    async def _poll(self, http: Http, handles: Sequence[Handle]) -> dict[str, PollVerdict]:
        return await one_by_one(handles, lambda handle: self._look(http, handle))

    async def _look(self, http: Http, handle: Handle) -> PollVerdict:
        """Poll where the answer to the submit said: another region does not know the task (section 1)."""
        polling_url = trusted(handle.memo.get("polling_url"), self.base_url, _DOMAINS, any_port=True)
        own = f"{self.base_url}/v1/get_result?id={quote(handle.provider_ref, safe='')}"
        reply = await http.send("GET", polling_url or own, headers=self._key())
        verdict, about = _seen(reply), ref(reply.object().get("id"))
        if about not in (None, handle.provider_ref) and not isinstance(verdict, NoVerdict):
            return NoVerdict(message="The answer is about another task.")
        return verdict

    def adopt(self, callback: JsonObject, submission: Submission) -> Accepted | None:
        """The id in a webhook's body (section 6, unverified: the poll decides)."""
        found = ref(callback.get("id"))
        return Accepted(provider_ref=found) if found and "status" in callback else None

    def _key(self) -> dict[str, str]:
        return {"x-key": self.credentials.secrets.get("api_key", "")}


# ---------------------------------------------------------------- submit


def _body(submission: Submission) -> JsonObject:
    """Section 3. `safety_tolerance` is an integer here."""
    wanted = submission.input
    body: JsonObject = {
        "prompt": wanted["prompt"],
        **{name: whole_of(wanted, name) for name in ("seed", "steps", "safety_tolerance", *flux.SIDES)},
        **{name: wanted.get(name) for name in ("guidance", "raw", "prompt_upsampling", "output_format")},
        "image_prompt_strength": wanted.get("image_prompt_strength"),
        **_pictures(submission),
    }
    if submission.model in (flux.ULTRA, *_SHAPED):
        body["aspect_ratio"] = wanted.get("aspect_ratio")
    elif submission.model not in _PAINTED and (size := chosen_size(wanted)) is not None:
        body["width"], body["height"] = size
    return given(body)


_SHAPED = (flux.KONTEXT, flux.KONTEXT_MAX, flux.KONTEXT_MULTI)
_PAINTED = (flux.FILL, flux.EXPAND)


def _pictures(submission: Submission) -> JsonObject:
    """`image` and `mask` to paint in, `image_prompt` to resemble, else `input_image`, `input_image_2` and so on."""
    image, mask = submission.medium("image"), submission.medium("mask")
    if submission.model in _PAINTED:
        return {"image": image and image.base64, "mask": mask and mask.base64}
    if submission.model == flux.ULTRA:
        return {"image_prompt": image and image.base64}
    all_of_them = [image] if image else submission.mediums("images")
    return {
        "input_image" + (f"_{number}" if number > 1 else ""): medium.url_or_base64
        for number, medium in enumerate(all_of_them, 1)
    }


def _refused(reply: Reply) -> SubmitVerdict:
    message = said(reply, _detail(reply.object()))
    match reply.status:
        case 400 | 422 if _MODERATED.search(message):
            return Rejected(code=ErrorCode.CONTENT_MODERATED, message=message)
        case 429:  # nothing was created (section 5)
            pause_s = retry_after_s(reply, 1.0)
            return NotAccepted(trouble=Trouble.BUSY, message=message, retry_after_s=pause_s)
        case _:
            return undocumented(reply, _detail(reply.object()))


def _detail(body: JsonObject) -> str:
    detail = body.get("detail")
    if isinstance(detail, list):
        return "; ".join(filter(None, map(_sentence, detail)))
    return text(detail) or text(body.get("message")) or text(body.get("error"))


def _sentence(problem: object) -> str:
    """One validation problem: where and what."""
    field = ".".join(text(part) for part in items(obj(problem).get("loc"))[1:])
    return f"{field}: {text(obj(problem).get('msg'))}".strip(": ")


# ---------------------------------------------------------------- poll


def _seen(reply: Reply) -> PollVerdict:
    """A body with a status is the verdict, whatever the HTTP status (section 4.2)."""
    body = reply.object()
    match body.get("status"):
        case "Pending" | "Reasoning" | "Generating":
            return Running(progress=_progress(body), preview_url=web_url(body.get("preview")))
        case "Ready":
            return _ready(obj(body.get("result")))
        case "Request Moderated" | "Content Moderated" as status:
            return Failed(code=ErrorCode.CONTENT_MODERATED, message=_why(status, body))
        case "Error" | "Failed" as status:
            return Failed(code=ErrorCode.PROVIDER_FAILED, message=_why(status, body), retryable=True)
        case "Task not found" as status:
            return NoVerdict(message=status, gone=True)
        case _ if reply.status == 404 and _NOT_FOUND.search(
            _detail(body)
        ):  # any other 404 is not about the task
            return no_verdict(reply, _detail(body), gone=True)
        case other:
            return no_verdict(reply, f"unknown status {text(other, 50)!r}" if other else _detail(body))


def _ready(result: JsonObject) -> PollVerdict:
    url = web_url(result.get("sample"))
    if url is None:
        return NoVerdict(message="ready, but without a sample")
    return Succeeded(outputs=(Output(kind="image", url=url, lives_s=_LIVES_S),))


def _progress(body: JsonObject) -> int | None:
    part = number(body.get("progress"))
    return None if part is None else int(max(0.0, min(0.99, part)) * 100)


def _why(status: str, body: JsonObject) -> str:
    details = obj(body.get("details"))
    reasons = [text(reason) for reason in items(details.get("Moderation Reasons"))]
    reasons += [text(details.get("error")), text(body.get("details")), text(body.get("error"))]
    why = "; ".join(filter(None, reasons))
    return f"{status}: {why}" if why else status
