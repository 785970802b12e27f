"""Midjourney's tasks: how they go, what is told of them, and the buttons under their results.

Facts: fact sheet midjourney_proxy.md, sections named below.
"""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from typing import Any, Literal

from PIL import Image

from tests.simulators.media import png
from tests.simulators.pace import Generation

Dialect = Literal["TA", "NZ"]
Kind = Literal["grid", "single", "video", "prompts"]

_CELL = 512  # pixels of one picture's side, if it is square
_PREVIEW_STEPS = (25, 50, 75)  # percent
_WAITS_UNTIL = 5  # percent
_FAMILIES = ("fail", "moderate-input", "moderate-output", "timeout")


@dataclass(slots=True)
class MidjourneyTask(Generation):
    """One task. `window` says that it waits for /submit/modal, `source` which picture an upscale enlarges."""

    action: str = "IMAGINE"
    dialect: Dialect = "TA"
    kind: Kind = "grid"
    mode: str = "FAST"
    bot: str = "MID_JOURNEY"
    hook: str = ""
    parent: str | None = None
    source: str | None = None
    window: bool = False
    answered: bool = False  # the window was there and has been answered
    needs_mask: bool = False
    remix: bool = False
    instant: bool = False  # finished as soon as it is there
    seed_is_known: bool = False  # Discord is asked for it only when a client asks
    hash: str = field(default_factory=lambda: str(uuid.uuid4()))
    singles: list[str] = field(default_factory=list)  # URLs of a grid's four pictures
    previews: dict[int, str] = field(default_factory=dict)  # URLs, by percent

    @property
    def sent_at(self) -> float:
        """When the command reaches Discord, in epoch seconds."""
        return self.made_at + self.held_s + self.queue_s / 2

    @property
    def percent(self) -> int:
        """How far it is, 0 to 100."""
        return int(100 * (self.progress() or 0.0))

    @property
    def status(self) -> str:
        """The words of section 6."""
        if self.canceled:
            return "FAILURE"
        if self.window:
            return "MODAL"
        if self.instant:
            return "SUCCESS"
        if time.time() < self.sent_at:
            return "MODAL" if self.answered else "NOT_START"  # TA's queue leaves an answered window as it is
        progress = self.progress()
        if progress is None:
            return "SUBMITTED"
        if progress < 1 and not self.is_refused:
            return "IN_PROGRESS"
        return "FAILURE" if self.fail_reason else "SUCCESS"

    @property
    def is_refused(self) -> bool:
        """Whether Midjourney will not even begin."""
        return self.wants("moderate-input") or bool(_invalid(self.prompt))

    @property
    def occupies(self) -> bool:
        """Whether it takes one of the account's places."""
        return not self.window and self.status not in ("SUCCESS", "FAILURE")

    @property
    def fail_reason(self) -> str | None:
        """Why it fails, in the families of section 6; None where it will not."""
        if self.canceled:
            return "取消任务"
        if invalid := _invalid(self.prompt):
            return f"[Invalid parameter] {invalid}"
        family = next((directive for directive in _FAMILIES if self.wants(directive)), None)
        match family:
            case "fail":
                return "[Internal Server Error] Midjourney could not complete your request"
            case "moderate-output" if self.dialect == "TA":
                return "Image denied: the result was removed by the AI moderator"
            case "moderate-input" | "moderate-output":
                return "[Banned prompt detected] Sorry, please try a different prompt"
            case "timeout":
                return "任务超时"
        return None

    @property
    def cell(self) -> tuple[int, int]:
        """Width and height of one picture, as --ar wants it."""
        return _cell(self.prompt)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the result."""
        width, height = self.cell
        return (2 * width, 2 * height) if self.kind == "grid" else (width, height)

    def picture(self, number: int = 1) -> str:
        """What the picture with this number, 1 to 4, is drawn from."""
        return self.source or f"{self.prompt} {self.id} {number}"

    @property
    def preview_step(self) -> int | None:
        """The last step of drawing that can be seen; None before the first."""
        return max((step for step in _PREVIEW_STEPS if step <= self.percent), default=None)

    @property
    def moments(self) -> list[float]:
        """When its status or progress changes, in epoch seconds."""
        steps = [self.starts_at + self.run_s * percent / 100 for percent in _PREVIEW_STEPS]
        return [self.made_at, self.sent_at, self.starts_at, *steps, self.done_at]

    @property
    def rank(self) -> int:
        """The sender's ordering guard (section 8), in steps of what can be seen of the drawing."""
        order = {"NOT_START": 0, "MODAL": 0, "SUBMITTED": 1, "IN_PROGRESS": 3}
        rank = order.get(self.status, 1000)
        return rank + (self.preview_step or 0) if rank == order["IN_PROGRESS"] else rank

    @property
    def progress_text(self) -> str:
        """Percentages, and what else stands there (section 5)."""
        match self.status:
            case "SUCCESS":
                return "100%"
            case "FAILURE":
                return ""
            case "IN_PROGRESS" if self.percent >= _WAITS_UNTIL:
                return f"{self.percent}%"
            case "IN_PROGRESS":
                return "Waiting to start"
        return "0%"

    @property
    def final_prompt(self) -> str:
        """Midjourney's own version of the prompt; for /describe and /shorten it is the result (section 5)."""
        if self.kind != "prompts":
            return self.prompt if "--v " in self.prompt else f"{self.prompt} --v 7"
        ideas = (f"{number}\ufe0f\u20e3 {idea} {self.id[-3:]}" for number, idea in enumerate(_IDEAS, 1))
        return "\n\n".join(ideas)

    @property
    def seed(self) -> str:
        """What --seed would make the same picture again."""
        return str(uuid.UUID(self.hash).int % 2**32)

    def told(self) -> dict[str, Any]:
        """The task object (section 5), without the addresses of its media."""
        status = self.status
        is_over = status in ("SUCCESS", "FAILURE")
        has_begun = is_over or status == "IN_PROGRESS"
        finished_at = self.starts_at if self.is_refused else min(self.done_at, time.time())
        task: dict[str, Any] = {
            "id": self.id,
            "action": self.action,
            "status": status,
            "prompt": self.prompt,
            "promptEn": self.prompt,
            "description": f"/{self.action.lower()} {self.prompt}".strip(),
            "state": self.reference,
            "submitTime": _ms(self.made_at),
            "startTime": _ms(self.starts_at) if has_begun else None,
            "finishTime": _ms(finished_at) if is_over else None,
            "progress": self.progress_text,
            "imageUrl": None,
            "failReason": self.fail_reason if status == "FAILURE" else None,
            "properties": {"notifyHook": self.hook, "discordInstanceId": "1118", "messageHash": self.hash},
        }
        if has_begun or self.window:
            task["properties"]["finalPrompt"] = self.final_prompt
        if self.dialect == "TA":
            task |= {"parentId": self.parent, "botType": self.bot, "mode": self.mode, "buttons": []}
            if status == "SUCCESS":
                width, height = self.size
                seed = self.seed if self.seed_is_known else None
                task |= {"buttons": list(buttons(self)), "width": width, "height": height, "seed": seed}
        return task


def _ms(moment: float) -> int:
    return int(1000 * moment)


_IDEAS = (
    "a quiet picture in soft light --ar 1:1",
    "the same, painted with a broad brush --ar 1:1",
    "a photograph from far away --ar 1:1",
    "a drawing in black ink --ar 1:1",
)

# ---------------------------------------------------------------- flags in the prompt

_FLAG = re.compile(r"--(ar|aspect|v|version|fast|relax|turbo)\b(?:[ ]+(\S+))?")
_VERSIONS = ("1", "2", "3", "4", "5", "5.0", "5.1", "5.2", "6", "6.0", "6.1", "7", "7.0")


def mode_of(prompt: str) -> str | None:
    """The speed that the prompt asks for."""
    modes = [flag.upper() for flag, _ in _FLAG.findall(prompt) if flag in ("fast", "relax", "turbo")]
    return modes[-1] if modes else None


@lru_cache(10_000)
def _invalid(prompt: str) -> str:
    """What Midjourney would not understand; empty where there is nothing."""
    for flag, value in _FLAG.findall(prompt):
        if flag in ("v", "version") and value not in _VERSIONS:
            return f"--{flag} {value}"
        if flag in ("ar", "aspect") and not re.fullmatch(r"[1-9]\d{0,2}:[1-9]\d{0,2}", value):
            return f"--{flag} {value}"
    return ""


@lru_cache(10_000)
def _cell(prompt: str) -> tuple[int, int]:
    for flag, value in _FLAG.findall(prompt):
        if flag in ("ar", "aspect") and not _invalid(prompt):
            wide, high = map(int, value.split(":"))
            stretch = math.sqrt(min(max(wide / high, 1 / 8), 8))
            return 8 * round(_CELL * stretch / 8), 8 * round(_CELL / stretch / 8)
    return _CELL, _CELL


@lru_cache(64)
def grid(sources: tuple[str, ...], width: int, height: int) -> bytes:
    """A PNG of four pictures, each as `media.png` draws it alone."""
    whole = Image.new("RGB", (2 * width, 2 * height))
    for index, source in enumerate(sources):
        with Image.open(BytesIO(png(source, width, height))) as cell:
            whole.paste(cell.convert("RGB"), (index % 2 * width, index // 2 * height))
    buffer = BytesIO()
    whole.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


# ---------------------------------------------------------------- buttons (section 7)


@dataclass(frozen=True, slots=True)
class Press:
    """What a button does."""

    action: str
    kind: Kind
    window: bool = False
    needs_mask: bool = False
    may_remix: bool = False


_PRESSES: tuple[tuple[re.Pattern[str], Press], ...] = tuple(
    (re.compile(pattern), press)
    for pattern, press in (
        (r"MJ::JOB::upsample(_v\w+)?::[1-4]::.+", Press("UPSCALE", "single")),
        (r"MJ::JOB::variation::[1-4]::.+", Press("VARIATION", "grid", may_remix=True)),
        (r"MJ::JOB::(high|low)_variation::1::.+", Press("VARIATION", "grid", may_remix=True)),
        (r"MJ::JOB::reroll::0::.+", Press("REROLL", "grid", may_remix=True)),
        (r"MJ::Outpaint::(50|75)::1::.+", Press("OUTPAINT", "grid")),
        (r"MJ::CustomZoom::.+", Press("ZOOM", "grid", window=True)),
        (r"MJ::Inpaint::1::.+", Press("INPAINT", "grid", window=True, needs_mask=True)),
        (r"MJ::JOB::pan_(left|right|up|down)::1::.+", Press("PAN", "grid")),
        (r"MJ::JOB::animate_(high|low)::1::.+", Press("VIDEO", "video")),
        (r"MJ::JOB::video_virtual_upscale::[1-4]::.+", Press("VIDEO_UPSCALE", "video")),
        (r"MJ::Job::PicReader::[1-4]", Press("IMAGINE", "grid", window=True)),
    )
)


def press(task: MidjourneyTask, custom_id: str) -> Press | None:
    """What this button under the task does; None where there is no such button, or it draws nothing."""
    if all(button["customId"] != custom_id for button in buttons(task)):
        return None
    return next((found for pattern, found in _PRESSES if pattern.fullmatch(custom_id)), None)


def buttons(task: MidjourneyTask) -> Iterable[dict[str, Any]]:
    """What stands under the task's result."""
    for custom_id, emoji, label in _labels(task):
        yield {"customId": custom_id, "emoji": emoji, "label": label, "style": 2, "type": 2}


def _labels(task: MidjourneyTask) -> Iterable[tuple[str, str, str]]:
    job, alone = "MJ::JOB", f"{task.hash}::SOLO"
    match task.kind:
        case "grid":
            yield from ((f"{job}::upsample::{n}::{task.hash}", "", f"U{n}") for n in range(1, 5))
            yield f"{job}::reroll::0::{alone}", "🔄", ""
            yield from ((f"{job}::variation::{n}::{task.hash}", "", f"V{n}") for n in range(1, 5))
        case "single":
            yield f"{job}::upsample_v6r1_2x_subtle::1::{alone}", "", "Upscale (Subtle)"
            yield f"{job}::upsample_v6r1_2x_creative::1::{alone}", "", "Upscale (Creative)"
            yield f"{job}::low_variation::1::{alone}", "🪄", "Vary (Subtle)"
            yield f"{job}::high_variation::1::{alone}", "🪄", "Vary (Strong)"
            yield f"MJ::Inpaint::1::{alone}", "🖌️", "Vary (Region)"
            yield f"MJ::Outpaint::50::1::{alone}", "🔍", "Zoom Out 2x"
            yield f"MJ::Outpaint::75::1::{alone}", "🔍", "Zoom Out 1.5x"
            yield f"MJ::CustomZoom::{task.hash}", "🔍", "Custom Zoom"
            for way, arrow in (("left", "⬅️"), ("right", "➡️"), ("up", "⬆️"), ("down", "⬇️")):
                yield f"{job}::pan_{way}::1::{alone}", arrow, ""
            yield f"{job}::animate_high::1::{alone}", "", "Animate (High motion)"
            yield f"{job}::animate_low::1::{alone}", "", "Animate (Low motion)"
            yield f"MJ::BOOKMARK::{task.hash}", "❤️", ""
        case "video":
            yield from ((f"{job}::video_virtual_upscale::{n}::{task.hash}", "", f"U{n}") for n in range(1, 5))
        case "prompts" if task.action == "DESCRIBE":
            yield from ((f"MJ::Job::PicReader::{n}", f"{n}\ufe0f\u20e3", "") for n in range(1, 5))
