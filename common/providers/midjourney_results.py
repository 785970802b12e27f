"""What a midjourney-proxy server's tasks mean. Facts: fact sheet midjourney_proxy.md, sections 5 to 7."""

from __future__ import annotations

import re
from collections.abc import Iterator

from common.providers.base import (
    Action,
    Failed,
    JsonObject,
    NoVerdict,
    Output,
    PollVerdict,
    Running,
    Succeeded,
    Trouble,
)
from common.providers.reading import items, obj, size, text, web_url
from common.words import ErrorCode

_IN_GRID = 4
_IMAGE_LIVES_S = 86_400.0  # Discord's signed links die after about a day (section 10)

_KEYCAP = re.compile(r"[0-9]\ufe0f?\u20e3")
_PERCENT = re.compile(r"(\d{1,3})\s*%")
_MODERATED = re.compile(r"banned|denied|sensitive|moderat|敏感|违规|违禁", re.IGNORECASE)
_INVALID = re.compile(r"invalid parameter|参数", re.IGNORECASE)
_CANCELED = re.compile(r"取消|cancel", re.IGNORECASE)
# Quota and account texts of section 6, read as those of a submit are (section 4).
_OF_THE_ACCOUNT = (
    (re.compile("并发数已达上限|队列数已达上限|队列已满"), Trouble.BUSY, ErrorCode.PROVIDER_UNAVAILABLE),
    (re.compile("绘图次数|额度|余额|quota", re.IGNORECASE), Trouble.BALANCE, ErrorCode.ACCOUNT_EXHAUSTED),
    (re.compile("账号|账户|account", re.IGNORECASE), Trouble.DOWN, ErrorCode.PROVIDER_UNAVAILABLE),
)


def seen(task: JsonObject, *, in_words: bool = False, split: bool = False) -> PollVerdict:
    """The verdict on one task object (sections 5 and 6). `in_words`: its result is not media. `split`: a grid
    is wanted as four pictures."""
    match task.get("status"):
        case "NOT_START" | "SUBMITTED" | "MODAL":
            return Running(progress=_progress(task))
        case "IN_PROGRESS":
            return Running(progress=_progress(task), preview_url=web_url(task.get("imageUrl")))
        case "SUCCESS":
            return _told(task) if in_words else _succeeded(task, split=split)
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


def _succeeded(task: JsonObject, *, split: bool) -> PollVerdict:
    actions = tuple(_actions(task))
    is_grid = {"upsample_1", "upsample_4"} <= {action.id for action in actions}
    outputs = tuple(_videos(task)) or tuple(_four(task) if split and is_grid else _image(task))
    if not outputs:
        return NoVerdict(message="the task is finished but names no result")
    return Succeeded(outputs=outputs, actions=actions, output=seed_in(task.get("seed")))


def seed_in(told: object) -> JsonObject | None:
    """A seed as a job's output has it (section 5, TA); None where none is told."""
    seed = text(told, 20)
    return {"seed": int(seed)} if seed.isascii() and seed.isdecimal() else None


def has_untold_seed(task: JsonObject, verdict: Succeeded) -> bool:
    """Whether the server may be asked for the seed (section 2): a picture by TA, whose mark are its buttons."""
    drawn = bool(verdict.outputs) and all(output.kind == "image" for output in verdict.outputs)
    return drawn and verdict.output is None and bool(items(task.get("buttons")))


def _four(task: JsonObject) -> Iterator[Output]:
    """A grid's pictures apart: as the server has them (TA), else cut out of the grid, in the order of U1 to U4."""
    urls = [web_url(obj(item).get("url")) for item in items(task.get("imageUrls"))]
    apart = [url for url in urls if url is not None]
    if len(apart) == _IN_GRID and len(set(apart)) == _IN_GRID:
        yield from (Output(kind="image", url=url, lives_s=_IMAGE_LIVES_S) for url in apart)
        return
    for whole in _image(task):
        yield from (
            Output(kind="image", url=whole.url, lives_s=_IMAGE_LIVES_S, tile=n)
            for n in range(1, _IN_GRID + 1)
        )


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
    for words, trouble, code in _OF_THE_ACCOUNT:
        if words.search(reason):
            return Failed(code=code, message=reason, retryable=True, trouble=trouble)
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
