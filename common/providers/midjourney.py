"""Midjourney through a midjourney-proxy compatible server.

Midjourney has no official API; two open-source families speak this protocol, and both are served. "NZ"
(novicezk/midjourney-proxy) follows up by /submit/change, "TA" (trueai-org/midjourney-proxy) by the customId of
a button. Facts: fact sheet midjourney_proxy.md, sections named below.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from common.providers.base import (
    Accepted,
    Action,
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
    Unanswered,
    Unknown,
)
from common.providers.inputs import choice, form, picture, pictures, whole, words
from common.providers.reading import given, integer, items, obj, ref, retry_after_s, size, text, web_url
from common.providers.remote import RemoteAdapter, no_verdict, said, undocumented
from common.words import ErrorCode

IMAGINE, ACTION, BLEND = "midjourney/imagine", "midjourney/action", "midjourney/blend"
DESCRIBE, SHORTEN = "midjourney/describe", "midjourney/shorten"
_IN_WORDS = (DESCRIBE, SHORTEN)  # their results are prompts, not media
_DIMENSIONS = {"2:3": "PORTRAIT", "1:1": "SQUARE", "3:2": "LANDSCAPE"}  # section 3, blend

_IMAGE_LIVES_S = 86_400.0  # Discord's signed links die after about a day (section 10)

# ---------------------------------------------------------------- the catalogue

_PROMPT = "What to draw. Midjourney's own flags (--v 7, --niji 6, --stylize 100 …) may stand at its end."
_RATIO = {
    "type": "string",
    "title": "Aspect ratio",
    "description": "Width to height, e.g. 16:9; sent as --ar.",
    "pattern": r"^[1-9][0-9]{0,2}:[1-9][0-9]{0,2}$",
    "maxLength": 7,
}

_BOT = choice("Bot", "Which bot draws, where the server offers both.", ("MID_JOURNEY", "NIJI_JOURNEY"))

MODELS = (
    ModelSpec(
        id=IMAGINE,
        kind="image",
        title="Midjourney Imagine",
        input_schema=form(
            "Midjourney Imagine",
            {
                "prompt": words("Prompt", _PROMPT, longest=6000, required=True),
                "negative_prompt": words("Negative prompt", "What to leave out; sent as --no.", longest=2000),
                "aspect_ratio": _RATIO,
                "seed": whole("Seed", "For repeatable results; sent as --seed.", 0, 4_294_967_295),
                "mode": choice(
                    "Mode",
                    "Speed, which sets the price. A speed flag in the prompt gives way to it.",
                    ("fast", "relax", "turbo"),
                    "fast",
                ),
                "images": pictures("Reference pictures", "What the picture is to look like.", 1, 5),
                "bot_type": _BOT,
            },
        ),
        price={"by": ["mode"], "table": {"turbo": 10, "fast": 5, "relax": 2}},
        expected_s=60,
        first_poll_s=5,
        poll_every_s=3,
        action="imagine",
    ),
    ModelSpec(
        id=ACTION,
        kind="image",
        title="Midjourney Action",
        input_schema=form(
            "Midjourney Action",
            {
                "action": {
                    "type": "string",
                    "title": "Action",
                    "description": "The id of one of the parent job's `actions`, e.g. upsample_1.",
                    "pattern": "^[a-z0-9_]+$",
                    "maxLength": 64,
                },
                "prompt": words(
                    "Prompt",
                    "For actions that ask for one (custom zoom, remix); otherwise the parent's stays.",
                    longest=6000,
                ),
                "mask": picture(
                    "Mask", "For vary_region: a PNG whose white parts are painted again, with a prompt."
                ),
            },
            required=("action",),
        ),
        # One price: the protocol has no way to choose an action's speed, so a `mode` would only change the price.
        price={"credits": 5},
        expected_s=45,
        first_poll_s=3,
        poll_every_s=3,
        action="action",
        follows=(IMAGINE, ACTION, BLEND),
    ),
    ModelSpec(
        id=BLEND,
        kind="image",
        title="Midjourney Blend",
        input_schema=form(
            "Midjourney Blend",
            {
                "images": pictures("Pictures", "What is blended into one picture.", 2, 5),
                "aspect_ratio": choice("Aspect ratio", "Width to height.", tuple(_DIMENSIONS), "1:1"),
                "bot_type": _BOT,
            },
            required=("images",),
        ),
        price={"credits": 5},  # as a fast imagine, which it is at Midjourney
        expected_s=60,
        first_poll_s=5,
        poll_every_s=3,
        action="blend",
    ),
    ModelSpec(
        id=DESCRIBE,
        kind="text",
        title="Midjourney Describe",
        input_schema=form(
            "Midjourney Describe",
            {"image": picture("Picture", "What prompts are found for."), "bot_type": _BOT},
            required=("image",),
        ),
        price={"credits": 1},  # takes no time of the subscription's
        expected_s=15,
        first_poll_s=3,
        poll_every_s=3,
        action="describe",
    ),
    ModelSpec(
        id=SHORTEN,
        kind="text",
        title="Midjourney Shorten",
        input_schema=form(
            "Midjourney Shorten",
            {
                "prompt": words("Prompt", "What shorter prompts are found for.", longest=6000, required=True),
                "bot_type": _BOT,
            },
        ),
        price={"credits": 1},
        expected_s=15,
        first_poll_s=3,
        poll_every_s=3,
        action="shorten",
    ),
)

QUIRKS = (
    "Midjourney has no API: a midjourney-proxy server drives a Discord account. Servers of the novicezk family (NZ) "
    "know imagine, change, blend and describe; buttons, vary_region and shorten need one of the trueai family (TA).",
    "A server that keeps its tasks in memory forgets them when it restarts; their jobs fail with a release.",
    "A cancel is confirmed by TA with an admin's secret only, and Discord may go on drawing.",
    "Speed flags inside a prompt give way to `mode`, which sets the price.",
    "Pictures always go to the server as bytes: addresses are fetched by the worker first.",
)


# ---------------------------------------------------------------- the adapter


class Midjourney(RemoteAdapter):
    """One midjourney-proxy server. The secret is optional: a server may run without one (section 1)."""

    name = "midjourney"
    provider = "midjourney"
    secret_names = ()
    models = tuple(spec.id for spec in MODELS)
    max_concurrency = 3  # both families draw three at a time per Discord account (section 9)
    batch_size = 100
    can_find = True
    fetches_addresses = False  # base64Array takes data URLs only (section 3)
    finds_by_callback = True  # notifyHook brings the whole task, also one that /task/list has forgotten

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(credentials)
        self._root = f"{self.base_url.removesuffix('/mj').rstrip('/')}/mj"

    async def _submit(self, http: Http, submission: Submission) -> SubmitVerdict:
        prepared = _PREPARED[submission.model](submission)
        if isinstance(prepared, Rejected):
            return prepared
        path, body = prepared
        reply = await self._send(http, "POST", path, {**body, **_echo(submission)})
        window = _window(reply)
        if window is not None:
            return await self._confirm(http, submission, *window)
        return _submitted(reply, follows_up=submission.model == ACTION)

    async def _confirm(
        self, http: Http, submission: Submission, provider_ref: str, prompt: str
    ) -> SubmitVerdict:
        """Answer the window of code 21: the task exists, but draws only after /submit/modal (section 4, TA)."""
        wanted = submission.input.get("prompt") or prompt
        mask = submission.medium("mask") if submission.media else None
        body = {"taskId": provider_ref, "prompt": wanted, **_echo(submission)}
        if mask is not None:
            body["maskBase64"] = mask.data_url
        try:
            reply = await self._send(http, "POST", "/submit/modal", body)
        except Unanswered:
            return Accepted(provider_ref=provider_ref)  # polling will tell
        verdict = _submitted(reply, follows_up=True)
        return Accepted(provider_ref=provider_ref) if isinstance(verdict, (Accepted, Unknown)) else verdict

    async def _poll(self, http: Http, handles: Sequence[Handle]) -> dict[str, PollVerdict]:
        refs = [handle.provider_ref for handle in handles]
        reply = await self._send(http, "POST", "/task/list-by-condition", {"ids": refs})
        tasks = reply.json()
        if reply.status != 200 or not isinstance(tasks, list):
            return dict.fromkeys(refs, no_verdict(reply))
        by_ref = {ref(obj(task).get("id")): obj(task) for task in tasks}
        # Unknown ids are silently left out (section 3); a restart of NZ loses them all (section 5).
        gone = NoVerdict(message="the server does not know this task", gone=True)
        return {
            handle.provider_ref: _seen(by_ref[handle.provider_ref], in_words=handle.model in _IN_WORDS)
            if handle.provider_ref in by_ref
            else gone
            for handle in handles
        }

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

    async def _adopted(self, http: Http, submission: Submission, task: JsonObject) -> Accepted:
        """A found task. Its window may be open still: who lost the submit's answer never saw that it asks."""
        provider_ref = str(ref(task.get("id")))
        if task.get("status") == "MODAL":
            proposed = text(obj(task.get("properties")).get("finalPrompt")) or text(task.get("prompt"))
            await self._confirm(http, submission, provider_ref, proposed)
        return Accepted(provider_ref=provider_ref)

    async def _cancel(self, http: Http, handle: Handle) -> Reply:
        return await self._send(http, "POST", f"/task/{quote(handle.provider_ref, safe='')}/cancel")

    def _confirmed(self, reply: Reply) -> bool:
        """TA with an admin's token: 200 and an empty body (section 9). NZ has no such call."""
        if reply.status != 200:
            return False
        return not reply.body.strip() or integer(reply.object().get("code")) == 1

    def adopt(self, callback: JsonObject) -> Accepted | None:
        """The id in the task object that notifyHook sends (section 8)."""
        found = ref(callback.get("id"))
        return Accepted(provider_ref=found) if found and "status" in callback else None

    async def _send(self, http: Http, method: str, path: str, body: JsonObject | None = None) -> Reply:
        secret = self.credentials.secrets.get("api_secret")
        headers = {"mj-api-secret": secret} if secret else {}
        return await http.send(method, self._root + path, headers=headers, json=body)


# ---------------------------------------------------------------- submit

_SPEED = re.compile(r"\s*(?:--|—|–)\s*(?:fast|relax|turbo)\b", re.IGNORECASE)
_CHANGES = {"upsample": "UPSCALE", "variation": "VARIATION"}
_CHANGE = re.compile(r"(upsample|variation)_([1-4])|reroll")
_SIMPLE = re.compile(r"[UV][1-4]|R")  # NZ's own names of the same actions (section 3, simple-change)

_QUOTA_BUSY = ("并发数已达上限", "队列数已达上限", "队列已满")
_QUOTA_SPENT = ("绘图次数", "额度", "余额")
_NO_ACCOUNT = ("账号", "账户", "account")
_RATE = re.compile(r"rate|limit|too many|频", re.IGNORECASE)


def _echo(submission: Submission) -> JsonObject:
    return given({"state": submission.reference, "notifyHook": submission.callback_url})


def _imagine(submission: Submission) -> tuple[str, JsonObject]:
    wanted = submission.input
    body = given({"prompt": prompt_of(wanted), "botType": wanted.get("bot_type")})
    if references := submission.mediums("images"):
        body["base64Array"] = [reference.data_url for reference in references]
    return "/submit/imagine", body


def _blend(submission: Submission) -> tuple[str, JsonObject]:
    wanted = submission.input
    body = {
        "base64Array": [part.data_url for part in submission.mediums("images")],
        "dimensions": _DIMENSIONS[wanted.get("aspect_ratio", "1:1")],
        "botType": wanted.get("bot_type"),
    }
    return "/submit/blend", given(body)


def _describe(submission: Submission) -> tuple[str, JsonObject]:
    shown = submission.medium("image")
    body = {"base64": shown.data_url if shown else None, "botType": submission.input.get("bot_type")}
    return "/submit/describe", given(body)


def _shorten(submission: Submission) -> tuple[str, JsonObject]:
    wanted = submission.input
    return "/submit/shorten", given({"prompt": wanted["prompt"], "botType": wanted.get("bot_type")})


def prompt_of(wanted: Mapping[str, Any]) -> str:
    """The prompt with everything else as the flags that both dialects accept.

    Speed flags of the user's own are taken out: `mode` sets the price, so it alone sets the speed.
    """
    parts = [_SPEED.sub("", str(wanted["prompt"])).strip()]
    if wanted.get("negative_prompt"):
        parts.append(f"--no {_SPEED.sub('', wanted['negative_prompt']).strip()}")
    if wanted.get("aspect_ratio"):
        parts.append(f"--ar {wanted['aspect_ratio'].strip()}")
    if wanted.get("seed") is not None:
        parts.append(f"--seed {int(wanted['seed'])}")
    if wanted.get("mode"):
        parts.append(f"--{wanted['mode']}")
    return " ".join(parts)


def _action(submission: Submission) -> tuple[str, JsonObject] | Rejected:
    """Where to send a follow-up and what: the button's customId, or NZ's change where there are no buttons."""
    parent, wanted = submission.parent, str(submission.input.get("action", ""))
    if parent is None:
        return Rejected(code=ErrorCode.INVALID_INPUT, message="An action needs a finished parent job.")
    token = text(obj(parent.memo.get("actions")).get(wanted))
    if token and _NEEDS_MASK.search(token) and not submission.input.get("mask"):
        return Rejected(code=ErrorCode.INVALID_INPUT, message=f"{wanted} needs a `mask`.")
    if token and not _SIMPLE.fullmatch(token):
        return "/submit/action", {"taskId": parent.provider_ref, "customId": token}
    change = _CHANGE.fullmatch(wanted)
    if change is None:
        return Rejected(code=ErrorCode.INVALID_INPUT, message=f"The parent offers no action {wanted!r}.")
    if wanted == "reroll":
        return "/submit/change", {"taskId": parent.provider_ref, "action": "REROLL"}
    return "/submit/change", {
        "taskId": parent.provider_ref,
        "action": _CHANGES[change[1]],
        "index": int(change[2]),
    }


_PREPARED: dict[str, Callable[[Submission], tuple[str, JsonObject] | Rejected]] = {
    IMAGINE: _imagine,
    ACTION: _action,
    BLEND: _blend,
    DESCRIBE: _describe,
    SHORTEN: _shorten,
}


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
    if code in (1, 21, 22):
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


# ---------------------------------------------------------------- poll

_KEYCAP = re.compile(r"[0-9]\ufe0f?\u20e3")
_PERCENT = re.compile(r"(\d{1,3})\s*%")
_MODERATED = re.compile(r"banned|denied|sensitive|moderat|敏感|违规|违禁", re.IGNORECASE)
_INVALID = re.compile(r"invalid parameter|参数", re.IGNORECASE)
_CANCELED = re.compile(r"取消|cancel", re.IGNORECASE)


def _seen(task: JsonObject, *, in_words: bool = False) -> PollVerdict:
    """The verdict on one task object (sections 5 and 6). `in_words`: its result is not media."""
    match task.get("status"):
        case "NOT_START" | "SUBMITTED" | "MODAL":
            return Running(progress=_progress(task))
        case "IN_PROGRESS":
            return Running(progress=_progress(task), preview_url=web_url(task.get("imageUrl")))
        case "SUCCESS":
            return _told(task) if in_words else _succeeded(task)
        case "FAILURE":
            return _failed(text(task.get("failReason")))
        case "CANCEL":
            return _failed(text(task.get("failReason")) or "canceled at the provider")
        case other:
            return NoVerdict(message=f"unknown status {text(other, 50)!r}")


def _progress(task: JsonObject) -> int | None:
    """A percentage out of texts such as "46%", "Waiting to start" and ""."""
    found = _PERCENT.search(text(task.get("progress")))
    return min(99, int(found[1])) if found else None


def _succeeded(task: JsonObject) -> PollVerdict:
    outputs = tuple(_videos(task)) or tuple(_image(task))
    if not outputs:
        return NoVerdict(message="the task is finished but names no result")
    return Succeeded(outputs=outputs, actions=tuple(_actions(task)))


def _told(task: JsonObject) -> PollVerdict:
    """The prompts that /describe and /shorten find: one text, each behind a keycap digit (section 5)."""
    found = text(obj(task.get("properties")).get("finalPrompt"))
    lead, *numbered = _KEYCAP.split(found)
    prompts = [part.strip() for part in numbered or [lead] if part.strip()]
    if not prompts:
        return NoVerdict(message="the task is finished but names no prompts")
    return Succeeded(output={"prompts": prompts})


def _image(task: JsonObject) -> Iterator[Output]:
    """The grid or the single picture; TA's four separate pictures are the same once more (`imageUrls`)."""
    url = web_url(task.get("imageUrl"))
    if url is not None:
        yield Output(
            kind="image",
            url=url,
            lives_s=_IMAGE_LIVES_S,
            width=size(task.get("width")),
            height=size(task.get("height")),
        )


def _videos(task: JsonObject) -> Iterator[Output]:
    links = [obj(item).get("url") for item in items(task.get("videoUrls"))] or [task.get("videoUrl")]
    for url in map(web_url, links):
        if url is not None:
            yield Output(kind="video", url=url, lives_s=_IMAGE_LIVES_S)


def _failed(reason: str) -> Failed:
    """The failReason families of section 6."""
    if _MODERATED.search(reason):
        return Failed(code=ErrorCode.CONTENT_MODERATED, message=reason)
    if _INVALID.search(reason):
        return Failed(code=ErrorCode.INVALID_INPUT, message=reason)
    return Failed(
        code=ErrorCode.PROVIDER_FAILED,
        message=reason or "the provider gave no reason",
        retryable=not _CANCELED.search(reason),
    )


# ---------------------------------------------------------------- actions

_BUTTON = re.compile(r"MJ::job::([a-z0-9_]+)::(\d+)", re.IGNORECASE)
_OUTPAINT = re.compile(r"MJ::outpaint::(\d+)", re.IGNORECASE)
_ZOOMS = {"50": "zoom_out_2x", "75": "zoom_out_1_5x", "100": "make_square"}
_NUMBERED = ("upsample", "variation", "video_virtual_upscale")
_VERSION = re.compile(
    r"_v\d+(?:r\d+)?(?=_|$)"
)  # upsample_v6r1_2x_subtle: the version changes, the action does not
_UNUSABLE = re.compile(r"::(?:bookmark|picreader)\b|bookmark", re.IGNORECASE)  # make nothing
_NEEDS_MASK = re.compile(r"::inpaint\b", re.IGNORECASE)
_LABEL = re.compile(r"([UV])([1-4])")
_SLUG = re.compile(r"[^a-z0-9]+")
_GRID_ACTIONS = ("IMAGINE", "VARIATION", "REROLL", "BLEND")  # what NZ's /submit/change takes (section 3)


def _actions(task: JsonObject) -> Iterator[Action]:
    """What may follow: TA's buttons; for NZ, which sends none, what its /submit/change offers on a grid."""
    buttons = [obj(button) for button in items(task.get("buttons"))]
    if not buttons and task.get("action") in _GRID_ACTIONS:
        yield from _CHANGE_ACTIONS
        return
    known: set[str] = set()
    for button in buttons:
        token, label = text(button.get("customId"), 300), text(button.get("label"), 80)
        found = action_id(label, token)
        if token and found and found not in known and not _UNUSABLE.search(token):
            known.add(found)
            yield Action(id=found, label=label or text(button.get("emoji"), 20) or found, token=token)


def follow_ups(buttons: object) -> tuple[Action, ...]:
    """What may follow a task whose buttons somebody else has kept."""
    return tuple(_actions({"buttons": buttons}))


_CHANGE_ACTIONS = (
    *(Action(id=f"upsample_{n}", label=f"U{n}", token=f"U{n}") for n in range(1, 5)),
    *(Action(id=f"variation_{n}", label=f"V{n}", token=f"V{n}") for n in range(1, 5)),
    Action(id="reroll", label="🔄", token="R"),
)


def action_id(label: str, custom_id: str) -> str:
    """A stable id for a button: what it does, whatever the Midjourney version calls it (section 7)."""
    if button := _BUTTON.match(custom_id):
        name = _VERSION.sub("", button[1].lower())
        return f"{name}_{button[2]}" if name in _NUMBERED else name[:64]
    if outpaint := _OUTPAINT.match(custom_id):
        return _ZOOMS.get(outpaint[1], f"zoom_out_{outpaint[1]}")
    if custom_id.lower().startswith("mj::customzoom"):
        return "custom_zoom"
    if _NEEDS_MASK.search(custom_id):
        return "vary_region"
    if named := _LABEL.fullmatch(label):
        return f"{'upsample' if named[1] == 'U' else 'variation'}_{named[2]}"
    return _slug(label) or _slug(custom_id)


def _slug(value: str) -> str:
    return _SLUG.sub("_", value.lower()).strip("_")[:64].strip("_")
