"""Jimeng (即梦) through Volcengine's visual API: CVSync2Async tasks with signed requests.

Facts: fact sheet jimeng.md, part A, sections named below.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlsplit

from common import clock
from common.providers.base import (
    Accepted,
    Credentials,
    Failed,
    Handle,
    Http,
    JsonObject,
    ModelSpec,
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
from common.providers.inputs import (
    choice,
    decimal,
    either,
    form,
    picture,
    pictures,
    switch,
    together,
    when,
    whole,
    without,
    words,
)
from common.providers.reading import given, integer, items, obj, ref, retry_after_s, text, web_url
from common.providers.remote import RemoteAdapter, one_by_one, said, undocumented
from common.words import ErrorCode

TEXT_TO_IMAGE, IMAGE_TO_IMAGE = "jimeng/text-to-image", "jimeng/image-to-image"
TEXT_TO_VIDEO, IMAGE_TO_VIDEO = "jimeng/text-to-video", "jimeng/image-to-video"
_FILMS = (TEXT_TO_VIDEO, IMAGE_TO_VIDEO)

_IMAGE_LIVES_S, _VIDEO_LIVES_S = 86_400.0, 3600.0  # section A4

# ---------------------------------------------------------------- the catalogue

_V40 = "jimeng_t2i_v40"
_V3X = ("jimeng_t2i_v31", "jimeng_t2i_v30")
_I2I_V30 = "jimeng_i2i_v30"
_ONLY_V40 = ("images", "size", "min_ratio", "max_ratio", "scale", "force_single")
_ONLY_V3X = ("seed", "use_pre_llm")
_VIDEO_KEYS = {"720p": "jimeng_t2v_v30", "1080p": "jimeng_t2v_v30_1080p"}
_FIRST_KEYS = {
    "720p": "jimeng_i2v_first_v30",
    "1080p": "jimeng_i2v_first_v30_1080",
}  # not _1080p (section A6)
_FIRST_TAIL_KEYS = {"720p": "jimeng_i2v_first_tail_v30", "1080p": "jimeng_i2v_first_tail_v30_1080"}
_SEED = whole("Seed", "For repeatable results; -1 is random.", -1, 2**31 - 1)
_PROMPT = words("Prompt", "What to make.", longest=800, required=True)

_FILM_PRICE: JsonObject = {"by": ["duration_s"], "table": {"5": 30, "10": 60}}

MODELS = (
    ModelSpec(
        id=TEXT_TO_IMAGE,
        kind="image",
        title="Jimeng Text to Image",
        input_schema=form(
            "Jimeng Text to Image",
            {
                "prompt": _PROMPT,
                "req_key": choice("Version", "Jimeng's own model.", (_V40, *_V3X), _V40),
                "images": pictures("Reference pictures", "4.0 only; up to 15 MB each.", 1, 10),
                "width": whole("Width", "In pixels, together with height.", 512, 7094),
                "height": whole("Height", "In pixels, together with width.", 512, 7094),
                "size": whole("Area", "In pixels, instead of width and height; 4.0 only.", 1024**2, 4096**2),
                "min_ratio": decimal("Narrowest", "Width over height at least; 4.0 only.", 1 / 3, 3),
                "max_ratio": decimal("Widest", "Width over height at most; 4.0 only.", 1 / 3, 3),
                "scale": decimal("Closeness to the prompt", "4.0 only; 0.5 if absent.", 0, 1),
                "force_single": switch("One picture only", "4.0 only: otherwise it may make several.", True),
                "seed": {**_SEED, "description": "3.1 and 3.0 only; -1 is random."},
                "use_pre_llm": switch("Expand the prompt", "3.1 and 3.0 only; yes if absent."),
            },
            rules=(
                when("req_key", _V3X, without(*_ONLY_V40), without(*_ONLY_V3X)),
                together("width", "height"),
                either("size", "width", "height"),
            ),
        ),
        price={"credits": 10},
        expected_s=10,
        first_poll_s=3,
        poll_every_s=3,
    ),
    ModelSpec(
        id=IMAGE_TO_IMAGE,
        kind="image",
        title="Jimeng Image to Image",
        input_schema=form(
            "Jimeng Image to Image",
            {
                "prompt": _PROMPT,
                "image": picture("Picture", "What is changed; up to 4.7 MB and 4096 pixels a side."),
                "scale": decimal("Closeness to the prompt", "0.5 if absent.", 0, 1),
                "seed": _SEED,
                "width": whole("Width", "In pixels, together with height.", 512, 2016),
                "height": whole("Height", "In pixels, together with width.", 512, 2016),
            },
            required=("prompt", "image"),
            rules=(together("width", "height"),),
        ),
        price={"credits": 10},
        expected_s=10,
        first_poll_s=3,
        poll_every_s=3,
    ),
    ModelSpec(
        id=TEXT_TO_VIDEO,
        kind="video",
        title="Jimeng Text to Video",
        input_schema=form(
            "Jimeng Text to Video",
            {
                "prompt": _PROMPT,
                "resolution": choice("Resolution", "720p or 1080p.", tuple(_VIDEO_KEYS), "720p"),
                "duration_s": choice("Duration", "In seconds.", (5, 10), 5),
                "aspect_ratio": choice(
                    "Aspect ratio",
                    "Width to height.",
                    ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9"),
                    "16:9",
                ),
                "seed": _SEED,
            },
        ),
        price=_FILM_PRICE,
        expected_s=90,
        first_poll_s=20,
        poll_every_s=8,
    ),
    ModelSpec(
        id=IMAGE_TO_VIDEO,
        kind="video",
        title="Jimeng Image to Video",
        input_schema=form(
            "Jimeng Image to Video",
            {
                "prompt": _PROMPT,
                "image": picture("First frame", "Up to 4.7 MB; its ratio is the film's."),
                "tail_image": picture("Last frame", "Where the film ends."),
                "resolution": choice("Resolution", "720p or 1080p.", tuple(_FIRST_KEYS), "720p"),
                "duration_s": choice("Duration", "In seconds.", (5, 10), 5),
                "seed": _SEED,
            },
            required=("prompt", "image"),
        ),
        price=_FILM_PRICE,
        expected_s=90,
        first_poll_s=20,
        poll_every_s=8,
    ),
)

QUIRKS = (
    "A submit whose answer is lost cannot be found again: such a job fails as `submit_unknown`, with a release.",
    "An account has one or two generations at a time, more only by agreement with Volcengine.",
    "A film's address dies after an hour, a picture's after a day, the task after twelve hours.",
    "With `force_single` off, 4.0 may make several pictures of one prompt, and Volcengine charges each.",
    "Moderation of what was made is a matter of chance: another try may pass, and the error says so.",
)


# ---------------------------------------------------------------- signing (section A2)

_REGION, _SERVICE, _VERSION = "cn-north-1", "cv", "2022-08-31"
_UNRESERVED = "-_.~"


def sign(
    method: str, url: str, body: bytes, *, access_key: str, secret_key: str, at: datetime
) -> dict[str, str]:
    """The headers of a request signed with Volcengine's V4 scheme. `at` is in UTC."""
    moment = at.strftime("%Y%m%dT%H%M%SZ")
    headers = {
        "Content-Type": "application/json",
        "Host": _host(url),
        "X-Content-Sha256": hashlib.sha256(body).hexdigest(),
        "X-Date": moment,
    }
    scope = f"{moment[:8]}/{_REGION}/{_SERVICE}/request"
    digest = hashlib.sha256(canonical_request(method, url, headers).encode()).hexdigest()
    to_sign = f"HMAC-SHA256\n{moment}\n{scope}\n{digest}"
    signature = _hmac(signing_key(secret_key, moment[:8]), to_sign).hex()
    names = ";".join(sorted(name.lower() for name in headers))
    return {
        **headers,
        "Authorization": f"HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, "
        f"Signature={signature}",
    }


def canonical_request(method: str, url: str, headers: Mapping[str, str]) -> str:
    """Steps 3 to 5: the request as both sides write it. All given headers are signed."""
    parts = urlsplit(url)
    pairs = [
        (quote(name, safe=_UNRESERVED), quote(value, safe=_UNRESERVED))
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    query = "&".join(f"{name}={value}" for name, value in sorted(pairs))  # sorted as they are written
    lines = sorted((name.lower(), value.strip()) for name, value in headers.items())
    block = "".join(f"{name}:{value}\n" for name, value in lines)
    signed = ";".join(name for name, _ in lines)
    body_hash = headers["X-Content-Sha256"]
    return "\n".join((method, parts.path or "/", query, block, signed, body_hash))


def signing_key(secret_key: str, date: str) -> bytes:
    """Step 7. The secret is taken as it is, although it looks like base64."""
    key = secret_key.encode()
    for part in (date, _REGION, _SERVICE, "request"):
        key = _hmac(key, part)
    return key


def _hmac(key: bytes, message: str) -> bytes:
    return hmac.new(key, message.encode(), hashlib.sha256).digest()


def _host(url: str) -> str:
    """The Host header as clients send it: without user name and without the default ports."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    return host.removesuffix(":80").removesuffix(":443")


# ---------------------------------------------------------------- the adapter


class Jimeng(RemoteAdapter):
    """One Volcengine account. A lost submit cannot be found again: there is no id of ours and no list (A8)."""

    name = "jimeng"
    provider = "jimeng"
    secret_names = ("access_key", "secret_key")
    models = tuple(spec.id for spec in MODELS)
    official_url = "https://visual.volcengineapi.com"
    max_concurrency = 2

    def __init__(self, credentials: Credentials, now: Callable[[], float] = clock.epoch) -> None:
        super().__init__(credentials)
        self._now = now

    async def _submit(self, http: Http, submission: Submission) -> SubmitVerdict:
        body = _body(submission)
        return _submitted(await self._send(http, "CVSync2AsyncSubmitTask", body), body["req_key"])

    async def _poll(self, http: Http, handles: Sequence[Handle]) -> dict[str, PollVerdict]:
        return await one_by_one(handles, lambda handle: self._look(http, handle))

    async def _look(self, http: Http, handle: Handle) -> PollVerdict:
        """Ask with the req_key of the submit, without which the task is not found (section A4)."""
        body = {
            "req_key": handle.memo.get("req_key") or _DEFAULT_KEYS[handle.model],
            "task_id": handle.provider_ref,
            "req_json": json.dumps({"return_url": True}, separators=(",", ":")),
        }
        return _seen(await self._send(http, "CVSync2AsyncGetResult", body), handle)

    async def _send(self, http: Http, action: str, body: JsonObject) -> Reply:
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
        return await http.send("POST", url, headers=headers, body=content)


# ---------------------------------------------------------------- submit


_DEFAULT_KEYS = {
    TEXT_TO_IMAGE: _V40,
    IMAGE_TO_IMAGE: _I2I_V30,
    TEXT_TO_VIDEO: _VIDEO_KEYS["720p"],
    IMAGE_TO_VIDEO: _FIRST_KEYS["720p"],
}


def _pictures(submission: Submission) -> JsonObject:
    """The pictures in their order: addresses, or bytes if one of them has none."""
    wanted = submission.input
    named = [value for name in ("image", "tail_image") if (value := wanted.get(name)) is not None]
    media = [submission.media[value] for value in (*named, *(wanted.get("images") or ()))]
    if not media:
        return {}
    if all(medium.url for medium in media):
        return {"image_urls": [medium.url for medium in media]}
    return {"binary_data_base64": [medium.base64 for medium in media]}


def _body(submission: Submission) -> JsonObject:
    """Section A6: each req_key with the fields it knows."""
    wanted = submission.input
    if submission.model == TEXT_TO_VIDEO:
        return {
            "req_key": _VIDEO_KEYS[wanted.get("resolution", "720p")],
            "prompt": wanted["prompt"],
            "seed": int(wanted.get("seed", -1)),
            "frames": 24 * int(wanted.get("duration_s", 5)) + 1,
            "aspect_ratio": wanted.get("aspect_ratio", "16:9"),
        }
    if submission.model == IMAGE_TO_VIDEO:
        keys = _FIRST_TAIL_KEYS if wanted.get("tail_image") is not None else _FIRST_KEYS
        return {
            "req_key": keys[wanted.get("resolution", "720p")],
            "prompt": wanted["prompt"],
            "seed": int(wanted.get("seed", -1)),
            "frames": 24 * int(wanted.get("duration_s", 5)) + 1,
            **_pictures(submission),
        }
    if submission.model == IMAGE_TO_IMAGE:
        sizes = {
            name: int(wanted[name]) for name in ("seed", "width", "height") if wanted.get(name) is not None
        }
        return {
            "req_key": _I2I_V30,
            **given({"prompt": wanted["prompt"], "scale": wanted.get("scale")}),
            **sizes,
            **_pictures(submission),
        }
    req_key = wanted.get("req_key", _V40)
    unknown = _ONLY_V3X if req_key == _V40 else _ONLY_V40
    fields = {name: value for name, value in wanted.items() if name not in (*unknown, "req_key", "images")}
    for name in ("width", "height", "size", "seed"):
        if fields.get(name) is not None:
            fields[name] = int(fields[name])
    body = {"req_key": req_key, **given(fields), **_pictures(submission)}
    if req_key == _V40 and submission.callback_url:  # the one with a documented callback (section A7)
        body |= {"callback_url": submission.callback_url, "return_url": True}
    return body


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


def _submitted(reply: Reply, req_key: str) -> SubmitVerdict:
    """Whatever the code, if it is not 10000 there is no task and nothing runs (section A3)."""
    code, message = _code(reply), _words(reply)
    if code is None:
        return _gateway(reply)
    if code == 10000:
        task_id = ref(obj(reply.object().get("data")).get("task_id"))
        if task_id is None or not 200 <= reply.status < 300:
            return Unknown(message=said(reply))
        return Accepted(provider_ref=task_id, memo={"req_key": req_key})
    if code in _MODERATED:
        return Rejected(code=ErrorCode.CONTENT_MODERATED, message=message)
    if code in _LIMITS:
        return NotAccepted(
            trouble=Trouble.BUSY, message=message, retry_after_s=retry_after_s(reply, _PAUSE_S)
        )
    if code in (*_INTERNAL, *_CHECKS_BROKE):
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


def _seen(reply: Reply, handle: Handle) -> PollVerdict:
    """The order of checks of section A4: body, code, status, media."""
    code, data = _code(reply), obj(reply.object().get("data"))
    if code is None or (code == 10000 and reply.status != 200):
        return NoVerdict(message=said(reply), retry_after_s=retry_after_s(reply))
    if code != 10000:
        return _refused(code, reply, done=data.get("status") == "done")
    match data.get("status"):
        case "in_queue" | "generating":
            return Running()
        case "done":
            outputs = tuple(_outputs(data, handle))
            return Succeeded(outputs=outputs) if outputs else NoVerdict(message="done, but without a result")
        case "not_found" | "expired" as status:
            return NoVerdict(message=f"the provider says {status}", gone=True)
        case other:
            return NoVerdict(message=f"unknown status {text(other, 50)!r}")


def _refused(code: int, reply: Reply, *, done: bool) -> PollVerdict:
    """The verdict on a query's code: about the job where it can only be that, else about this look alone."""
    message = _words(reply)
    if code in _MODERATED:
        return Failed(code=ErrorCode.CONTENT_MODERATED, message=message, retryable=_MODERATED[code])
    if code == _INVALID:
        return Failed(code=ErrorCode.INVALID_INPUT, message=message)
    if code in _LIMITS:
        return NoVerdict(message=message, retry_after_s=retry_after_s(reply, _PAUSE_S))
    if done or code in _CHECKS_BROKE:  # `done` is success only with 10000 (section A4)
        return Failed(code=ErrorCode.PROVIDER_FAILED, message=message, retryable=True)
    return NoVerdict(message=message, retry_after_s=retry_after_s(reply))


def _outputs(data: JsonObject, handle: Handle) -> Iterator[Output]:
    """URLs where there are any; without return_url a task comes as base64 only (section A4)."""
    video = web_url(data.get("video_url"))
    if video is not None:
        yield Output(kind="video", url=video, lives_s=_VIDEO_LIVES_S)
        return
    urls = [url for url in map(web_url, items(data.get("image_urls"))) if url]
    yield from (Output(kind="image", url=url, lives_s=_IMAGE_LIVES_S) for url in urls)
    if not urls:
        kind = "video" if handle.model in _FILMS else "image"
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
