"""Flux through fal.ai's queue. Facts: fact sheet flux_fal.md, sections named below."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from urllib.parse import quote, urlencode, urlsplit

from common.providers import flux
from common.providers.base import (
    Accepted,
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
from common.providers.hosts import trusted
from common.providers.reading import given, items, obj, ref, size, text, web_url
from common.providers.remote import RemoteAdapter, no_verdict, one_by_one, said, undocumented
from common.words import ErrorCode

_PATHS = {
    flux.PRO_1_1: "fal-ai/flux-pro/v1.1",
    flux.ULTRA: "fal-ai/flux-pro/v1.1-ultra",
    flux.DEV: "fal-ai/flux/dev",
    flux.SCHNELL: "fal-ai/flux/schnell",
    flux.DEV_FROM_IMAGE: "fal-ai/flux/dev/image-to-image",
    flux.KONTEXT: "fal-ai/flux-pro/kontext",
    flux.KONTEXT_MAX: "fal-ai/flux-pro/kontext/max",
    flux.KONTEXT_MULTI: "fal-ai/flux-pro/kontext/multi",
    flux.PRO_2: "fal-ai/flux-2-pro",
}
_DOMAINS = ("fal.run", "falrun.com")
_URLS = {"status_url": "/status", "response_url": "", "cancel_url": "/cancel"}
_LIVES_S = 3600.0  # the files' own life is the account's setting (section 6); an hour is safe
_LOCKED = re.compile(r"locked|balance|top[ _]up", re.IGNORECASE)
_BY_FAL = re.compile(r"admin lock", re.IGNORECASE)  # locked, but not for want of money (section 8.2)
_REQUEST_ID = re.compile(r"[\w-]{1,100}")


class Fal(RemoteAdapter):
    """One fal account. Concurrency is not refused but queued there (section 8.3)."""

    name = "fal"
    provider = "flux"
    secret_names = ("key",)
    models = tuple(_PATHS)
    official_url = "https://queue.fal.run"
    fetches_addresses = True
    max_concurrency = 40
    finds_by_callback = True  # the webhook of a lost submit brings its request_id (section 11)

    @classmethod
    def codes(cls) -> Mapping[int | str, str]:
        """Section 8."""
        return {
            "content_policy_violation": ErrorCode.CONTENT_MODERATED,
            **dict.fromkeys(sorted(_NOT_THE_INPUT | _CANCELED), ErrorCode.PROVIDER_FAILED),
            "HTTP 422": ErrorCode.INVALID_INPUT,
            "HTTP 401": Trouble.CREDENTIALS,
            "HTTP 403 Exhausted balance": Trouble.BALANCE,
            "HTTP 429": Trouble.BUSY,
        }

    async def _submit(self, http: Http, submission: Submission) -> SubmitVerdict:
        url = f"{self.base_url}/{_path(submission)}"
        if submission.callback_url:
            url += f"?{urlencode({'fal_webhook': submission.callback_url})}"
        return self._submitted(await http.send("POST", url, headers=self._key(), json=_body(submission)))

    def _submitted(self, reply: Reply) -> SubmitVerdict:
        if not 200 <= reply.status < 300:
            return _refused(reply)
        body = reply.object()
        request_id = ref(body.get("request_id"))
        if request_id is None:
            return Unknown(message=said(reply))
        urls = {name: trusted(body.get(name), self.base_url, _DOMAINS) for name in _URLS}
        return Accepted(provider_ref=request_id, memo=given(urls))

    async def _poll(self, http: Http, handles: Sequence[Handle]) -> dict[str, PollVerdict]:
        return await one_by_one(handles, lambda handle: self._look(http, handle))

    async def _look(self, http: Http, handle: Handle) -> PollVerdict:
        reply = await http.send("GET", self._url(handle, "status_url"), headers=self._key())
        body = reply.object()
        if ref(body.get("request_id")) not in (None, handle.provider_ref):
            return NoVerdict(message="The answer is about another request.")
        match body.get("status"):
            case "IN_QUEUE" | "IN_PROGRESS":
                return Running()
            case "COMPLETED":  # success, failure and cancel alike: only the result tells (section 4)
                result = await http.send("GET", self._url(handle, "response_url"), headers=self._key())
                return _result(result, body)
            case "FAILED" | "CANCELED" | "CANCELLED" as status:
                return _broken(body) or Failed(code=ErrorCode.PROVIDER_FAILED, message=status, retryable=True)
            case _:
                return no_verdict(reply, _detail(body), gone=_denies(reply))

    async def _cancel(self, http: Http, handle: Handle) -> Reply:
        return await http.send("PUT", self._url(handle, "cancel_url"), headers=self._key())

    def _confirmed(self, reply: Reply) -> bool:
        """Only OK means that it left the queue; a running one decides for itself (section 7)."""
        return 200 <= reply.status < 300 and reply.object().get("status") == "OK"

    def adopt(self, callback: JsonObject, submission: Submission) -> Accepted | None:
        """The request_id in a webhook's body (section 9); its URLs are the usual ones."""
        found = ref(callback.get("request_id"))
        return Accepted(provider_ref=found) if found and _REQUEST_ID.fullmatch(found) else None

    def _url(self, handle: Handle, name: str) -> str:
        """The URL that the submit's answer gave, else built: owner and app only, without the sub-path (section 2)."""
        request = quote(handle.provider_ref, safe="")
        told = trusted(handle.memo.get(name), self.base_url, _DOMAINS)
        if told and request in urlsplit(told).path.split("/"):  # a result does not say which request it is of
            return told
        app = "/".join(_PATHS.get(handle.model, "").split("/")[:2])
        return f"{self.base_url}/{app}/requests/{request}{_URLS[name]}"

    def _key(self) -> dict[str, str]:
        return {"Authorization": f"Key {self.credentials.secrets.get('key', '')}"}


# ---------------------------------------------------------------- submit


def _path(submission: Submission) -> str:
    """With or without pictures, some models are two applications here (section 10)."""
    path, wanted = _PATHS[submission.model], submission.input
    if submission.model == flux.KONTEXT and not wanted.get("image"):
        return f"{path}/text-to-image"
    return f"{path}/edit" if submission.model == flux.PRO_2 and wanted.get("images") else path


_SHAPED = (flux.ULTRA, flux.KONTEXT, flux.KONTEXT_MAX, flux.KONTEXT_MULTI)


def _body(submission: Submission) -> JsonObject:
    """Section 10. `safety_tolerance` is a string from "1" up, and a size has two numbers."""
    wanted, model = submission.input, submission.model
    tolerance, image = whole_of(wanted, "safety_tolerance"), submission.medium("image")
    size = None if model in (*_SHAPED, flux.DEV_FROM_IMAGE) else chosen_size(wanted)
    return given(
        {
            "prompt": wanted["prompt"],
            "image_url": image and image.url_or_data_url,
            "image_urls": [each.url_or_data_url for each in submission.mediums("images")] or None,
            "image_size": size and {"width": size[0], "height": size[1]},
            "aspect_ratio": wanted.get("aspect_ratio") if model in _SHAPED else None,
            "strength": wanted.get("strength"),
            "image_prompt_strength": wanted.get("image_prompt_strength"),
            "raw": wanted.get("raw"),
            "num_images": whole_of(wanted, "n"),
            "num_inference_steps": whole_of(wanted, "steps"),
            "guidance_scale": wanted.get("guidance"),
            "seed": whole_of(wanted, "seed"),
            "enhance_prompt": wanted.get("prompt_upsampling"),
            "safety_tolerance": None if tolerance is None else str(max(1, tolerance)),
            "output_format": wanted.get("output_format"),
        }
    )


def _refused(reply: Reply) -> SubmitVerdict:
    """Sections 8.1 and 8.2."""
    words = _detail(reply.object())
    message = said(reply, words)
    match reply.status:
        case 403 if _LOCKED.search(message) and not _BY_FAL.search(message):
            return NotAccepted(trouble=Trouble.BALANCE, message=message)
        case 404:  # an unknown model or app, which no other try will know
            return Rejected(code=ErrorCode.PROVIDER_REJECTED, message=message)
        case 400 | 422 if _types(reply) & _NOT_OURS:
            return Rejected(code=ErrorCode.PROVIDER_REJECTED, message=message)
        case 400 | 422 if "content_policy_violation" in _types(reply):
            return Rejected(code=ErrorCode.CONTENT_MODERATED, message=message)
        case _:
            return undocumented(reply, words)


# ---------------------------------------------------------------- poll

# What a 422 may also carry although the input is not at fault (section 8.1).
_NOT_THE_INPUT = frozenset(
    {
        "internal_server_error",
        "generation_timeout",
        "downstream_service_error",
        "downstream_service_unavailable",
        "no_media_generated",
    }
)
_CANCELED = frozenset({"client_cancelled", "client_disconnected"})
_NOT_OURS = frozenset(
    {"invalid_api_key"}
)  # of the service behind the model: neither the input nor another try helps


def _result(reply: Reply, status: JsonObject) -> PollVerdict:
    """The verdict on a completed request: the result replays the model's own answer (section 5).

    What is not an answer of the model (a busy gateway, a result that has expired) tells nothing by itself; then
    the error that the status named counts, if it named one.
    """
    if reply.status == 200 and "images" in reply.object():
        return _images(reply.object())
    types = _types(reply)
    if reply.object() and (reply.status in (400, 422, 499) or reply.status >= 500):
        verdict = _classified(types, said(reply, _detail(reply.object())), reply.status)
        if verdict is not None:
            return _as_told(verdict, reply)
    return _broken(status) or no_verdict(reply, _detail(reply.object()), gone=_denies(reply))


def _denies(reply: Reply) -> bool:
    """A 404 in fal's own words (section 8.1, dialect a); that of a gateway on the way says nothing of the request."""
    return reply.status == 404 and isinstance(reply.object().get("detail"), str)


def _as_told(verdict: Failed, reply: Reply) -> Failed:
    """What fal itself says about another try counts more than what the type of an error suggests (section 8.1)."""
    says = reply.headers.get("x-fal-needs-retry") or reply.headers.get("x-fal-retryable")
    if verdict.code != ErrorCode.PROVIDER_FAILED or says not in ("true", "false"):
        return verdict
    return replace(verdict, retryable=says == "true")


def _images(body: JsonObject) -> PollVerdict:
    """The pictures but for those that the checker has blacked out, each by its flag: a "success" that shows nothing
    (section 5). Those are not charged; where they are all, nothing is."""
    images = items(body.get("images"))
    flags = [flag is True for flag in items(body.get("has_nsfw_concepts"))][: len(images)]
    shown = [image for image, is_black in zip_longest(images, flags, fillvalue=False) if not is_black]
    if images and not shown:
        return Failed(code=ErrorCode.CONTENT_MODERATED, message="The safety checker blocked the picture.")
    outputs = tuple(
        Output(
            kind="image",
            url=url,
            lives_s=_LIVES_S,
            content_type=text(image.get("content_type"), 100) or None,
            width=size(image.get("width")),
            height=size(image.get("height")),
        )
        for image in map(obj, shown)
        if (url := web_url(image.get("url")))
    )
    if not outputs:
        return NoVerdict(message="completed, but without a picture")
    return Succeeded(outputs=outputs, share=(len(shown), len(images)) if len(shown) < len(images) else None)


def _broken(status: JsonObject) -> Failed | None:
    """The failure that a status body names itself."""
    types, words = {text(status.get("error_type"), 100)} - {""}, text(status.get("error"))
    if not types and not words:
        return None
    message = ": ".join(filter(None, (*types, words)))
    return _classified(types, message, 0) or Failed(
        code=ErrorCode.PROVIDER_FAILED, message=message, retryable=True
    )


def _classified(types: set[str], message: str, status: int) -> Failed | None:
    """The verdict by the named types of error; None where nothing is named and the status says nothing either."""
    if "content_policy_violation" in types:
        return Failed(code=ErrorCode.CONTENT_MODERATED, message=message)
    if types & (_CANCELED | _NOT_OURS):
        return Failed(code=ErrorCode.PROVIDER_FAILED, message=message)
    if types & _NOT_THE_INPUT:
        return Failed(code=ErrorCode.PROVIDER_FAILED, message=message, retryable=True)
    if status == 422 or "bad_request" in types:
        return Failed(code=ErrorCode.INVALID_INPUT, message=message)
    if status != 400 and types:
        return Failed(code=ErrorCode.PROVIDER_FAILED, message=message, retryable=True)
    return None


# ---------------------------------------------------------------- the two dialects of errors (section 8.1)


def _types(reply: Reply) -> set[str]:
    body = reply.object()
    named = [body.get("error_type"), reply.headers.get("x-fal-error-type")]
    named += [obj(problem).get("type") for problem in items(body.get("detail"))]
    return {kind for kind in named if isinstance(kind, str) and kind}


def _detail(body: JsonObject) -> str:
    detail = body.get("detail")
    if isinstance(detail, list):
        return "; ".join(filter(None, map(_sentence, detail)))
    return text(detail) or text(body.get("error"))


def _sentence(problem: object) -> str:
    """One problem of a model: where and what."""
    field = ".".join(text(part) for part in items(obj(problem).get("loc"))[1:])
    return f"{field}: {text(obj(problem).get('msg'))}".strip(": ")
