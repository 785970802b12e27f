"""What a midjourney-proxy server is asked for. Facts: fact sheet midjourney_proxy.md, section 3."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from common.providers.base import JsonObject, Rejected, Submission
from common.providers.midjourney_models import ACTION, BLEND, DESCRIBE, DIMENSIONS, IMAGINE, SHORTEN
from common.providers.reading import given, obj, text
from common.words import ErrorCode

# Servers make -- of a typed dash; one with a blank behind it is prose.
_SPEED = re.compile(r"\s*(?:--\s*|—|–)(?:fast|relax|turbo)\b", re.IGNORECASE)
_CHANGES = {"upsample": "UPSCALE", "variation": "VARIATION"}
_CHANGE = re.compile(r"(upsample|variation)_([1-4])|reroll")
_SIMPLE = re.compile(r"[UV][1-4]|R")  # NZ's own names of the same actions (section 3, simple-change)

_NEEDS_MASK = re.compile(r"::inpaint\b", re.IGNORECASE)


def echo(submission: Submission) -> JsonObject:
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
        "dimensions": DIMENSIONS[wanted.get("aspect_ratio", "1:1")],
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
    parts = [_without_speed(str(wanted["prompt"]))]
    if wanted.get("negative_prompt"):
        parts.append(f"--no {_without_speed(wanted['negative_prompt'])}")
    if wanted.get("aspect_ratio"):
        parts.append(f"--ar {wanted['aspect_ratio'].strip()}")
    if wanted.get("seed") is not None:
        parts.append(f"--seed {int(wanted['seed'])}")
    if wanted.get("mode"):
        parts.append(f"--{wanted['mode']}")
    return " ".join(parts)


def window_prompt(submission: Submission, proposed: str) -> str:
    """What is written into an action's window: the user's prompt, else the one it proposes.

    Without speed flags, also the parent's: an action has one price, so the server's own speed applies.
    """
    return _without_speed(str(submission.input.get("prompt") or "")) or _without_speed(proposed)


def _without_speed(prompt: str) -> str:
    return _SPEED.sub("", prompt).strip()


def _action(submission: Submission) -> tuple[str, JsonObject] | Rejected:
    """Where to send a follow-up and what: the button's customId, or NZ's change where there are no buttons."""
    parent, wanted = submission.parent, str(submission.input.get("action", ""))
    if parent is None:
        return Rejected(
            code=ErrorCode.INVALID_INPUT, message="An action needs a finished parent job.", asked=False
        )
    token = text(obj(parent.memo.get("actions")).get(wanted))
    if problem := _misfit(wanted, token, submission):
        return Rejected(code=ErrorCode.INVALID_INPUT, message=problem, asked=False)
    if token and not _SIMPLE.fullmatch(token):
        return "/submit/action", {"taskId": parent.provider_ref, "customId": token}
    change = _CHANGE.fullmatch(wanted)
    if change is None:
        return Rejected(
            code=ErrorCode.INVALID_INPUT, message=f"The parent offers no action {wanted!r}.", asked=False
        )
    if wanted == "reroll":
        return "/submit/change", {"taskId": parent.provider_ref, "action": "REROLL"}
    return "/submit/change", {
        "taskId": parent.provider_ref,
        "action": _CHANGES[change[1]],
        "index": int(change[2]),
    }


def _misfit(wanted: str, token: str, submission: Submission) -> str | None:
    """What the input gives though this action has no use for it, or does not give though it must."""
    takes_mask = bool(_NEEDS_MASK.search(token))
    if takes_mask and not submission.input.get("mask"):
        return f"{wanted} needs a `mask`."
    if submission.input.get("mask") and not takes_mask:
        return f"{wanted} takes no `mask`; only vary_region does."
    if submission.input.get("prompt") and (wanted.startswith("upsample") or _SIMPLE.fullmatch(token)):
        return f"{wanted} takes no `prompt`."
    return None


PREPARED: dict[str, Callable[[Submission], tuple[str, JsonObject] | Rejected]] = {
    IMAGINE: _imagine,
    ACTION: _action,
    BLEND: _blend,
    DESCRIBE: _describe,
    SHORTEN: _shorten,
}
