"""One entry for each legacy task table: what its words and columns are in ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from common.providers.reading import obj
from common.services.legacy.source import Row, number, parsed, text
from common.words import ErrorCode, Status

Reader: TypeAlias = Callable[[Any], Any]

_LONGEST_INPUT = 8000  # longer texts are pictures; they stay in the legacy table


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTable:
    """How to read one table of tasks. Columns may be missing; several names: the first that says something."""

    name: str
    provider: str
    source: str  # its name in `generated_files.source_type`
    kind: str  # what the results are
    config: str  # whose account had the tasks
    model: Callable[[Row], str]
    final: Mapping[str, Status]
    inputs: Mapping[str, tuple[Reader, tuple[str, ...]]]
    cloud: str  # the column for what is in the operator's storage, if it is filled
    url: str  # the column for the provider's own URL
    finished: tuple[str, ...]
    reason: tuple[str, ...]
    reference: Callable[[Row], str | None]
    memo: Callable[[Row, str, str], dict[str, Any]] | None = None
    cost: str | None = "credits_cost"
    polls_as: Mapping[str, str] = field(default_factory=dict)  # models that are asked about like another one
    hopeless: Mapping[str, tuple[ErrorCode, str]] = field(
        default_factory=dict
    )  # unfinished, and never will be


# ---------------------------------------------------------------- readers


def words(value: Any) -> str | None:
    """A text of a bearable length."""
    found = text(value)
    return found if found and len(found) <= _LONGEST_INPUT else None


def link(value: Any) -> str | None:
    """A web address."""
    found = words(value)
    return found if found and found.startswith(("https://", "http://")) else None


def links(value: Any) -> list[str] | None:
    """A list of web addresses."""
    found = parsed(value)
    return [address for item in found if (address := link(item))] if isinstance(found, list) else None


def integer(value: Any) -> int | None:
    """A whole number."""
    found = number(value)
    return int(found) if found is not None and found == int(found) else None


def side(position: int) -> Reader:
    """Width (0) or height (1) out of `1024x768` or `{"width": …, "height": …}`."""

    def read(value: Any) -> int | None:
        found = parsed(value) if not isinstance(value, str) or value[:1] in '{["' else value
        if isinstance(found, str):
            parts = found.lower().split("x")
            return integer(parts[position]) if len(parts) == 2 else None
        return integer(obj(found).get(("width", "height")[position]))

    return read


# ---------------------------------------------------------------- models and references


def _by_action(models: Mapping[str, str], otherwise: str) -> Callable[[Row], str]:
    return lambda row: models.get((text(row.get("action")) or "").upper(), otherwise)


def flux_model(row: Row) -> str:
    """Ours for one of fal's: `fal-ai/flux-pro/kontext/max/multi` is `flux/kontext-max`."""
    path = (text(row.get("model")) or "").lower()
    for part, ours in _FLUX:
        if part in path:
            return f"flux/{ours}"
    return f"flux/{path.rsplit('/', 1)[-1][:100] or 'unknown'}"


_FLUX = (
    ("kontext/max", "kontext-max"),
    ("kontext", "kontext-pro"),
    ("ultra", "pro-1.1-ultra"),
    ("schnell", "schnell"),
    ("flux-2-pro", "2-pro"),
    ("flux-pro", "pro-1.1"),
    ("dev", "dev"),
)


def _column(name: str) -> Callable[[Row], str | None]:
    return lambda row: text(row.get(name))


def _of_midjourney(row: Row) -> str | None:
    """The id is the proxy's own, except for a task that never reached it."""
    found = text(row.get("id"))
    return found if found and found.isdigit() else None


def _of_lip_sync(row: Row) -> str | None:
    return text(obj(parsed(row.get("properties"))).get("external_task_id"))


def _nothing(row: Row) -> None:
    return None


def _kling_path(row: Row, reference: str, base_url: str) -> dict[str, Any]:
    """Kling is asked about a task where it was created."""
    action = (text(row.get("action")) or "").upper()
    return {"path": f"/v1/videos/{'image2video' if action == 'IMAGE_TO_VIDEO' else 'text2video'}"}


def _fal_urls(row: Row, reference: str, base_url: str) -> dict[str, Any]:
    """Where fal shows a request: below owner and app of the model as it was called."""
    app = "/".join((text(row.get("model")) or "").strip("/").split("/")[:2])
    root = f"{base_url.rstrip('/')}/{app}/requests/{reference}"
    return {"status_url": f"{root}/status", "response_url": root, "cancel_url": f"{root}/cancel"}


TABLES = (
    TaskTable(
        name="mj_tasks",
        provider="midjourney",
        source="midjourney",
        kind="image",
        config="mj_config",
        model=_by_action(
            {"IMAGINE": "midjourney/imagine", "BLEND": "midjourney/blend", "DESCRIBE": "midjourney/describe"},
            "midjourney/action",
        ),
        final={"SUCCESS": Status.SUCCEEDED, "FAILURE": Status.FAILED, "FAILED": Status.FAILED,
               "CANCEL": Status.CANCELED},
        inputs={"prompt": (words, ("prompt",)), "mode": (words, ("mode",))},
        cloud="cloud_image_url",
        url="image_url",
        finished=("finish_time", "updated_at"),
        reason=("fail_reason",),
        reference=_of_midjourney,
        hopeless={"MODAL": (ErrorCode.TIMEOUT, "It waited for its user's second step, which nobody can take now.")},
    ),
    TaskTable(
        name="kling_tasks",
        provider="kling",
        source="kling",
        kind="video",
        config="kling_config",
        model=_by_action({"IMAGE_TO_VIDEO": "kling/image-to-video"}, "kling/text-to-video"),
        final={"succeed": Status.SUCCEEDED, "failed": Status.FAILED},
        inputs={
            "prompt": (words, ("prompt",)),
            "negative_prompt": (words, ("negative_prompt",)),
            "model_name": (words, ("model_name", "model")),
            "mode": (words, ("mode",)),
            "duration_s": (integer, ("duration",)),
            "aspect_ratio": (words, ("aspect_ratio",)),
            "cfg_scale": (number, ("cfg_scale",)),
            "image": (link, ("input_image", "image_url")),
            "tail_image": (link, ("image_tail",)),
        },
        cloud="cloud_video_url",
        url="video_url",
        finished=("finish_time", "updated_at"),
        reason=("fail_reason", "task_status_msg"),
        reference=_column("external_task_id"),
        memo=_kling_path,
    ),
    TaskTable(
        name="jimeng_tasks",
        provider="jimeng",
        source="jimeng",
        kind="video",
        config="jimeng_config",
        model=_by_action({"IMAGE_TO_VIDEO": "jimeng/image-to-video"}, "jimeng/text-to-video"),
        final={"succeed": Status.SUCCEEDED, "failed": Status.FAILED},
        inputs={
            "prompt": (words, ("prompt",)),
            "duration_s": (integer, ("duration",)),
            "aspect_ratio": (words, ("aspect_ratio",)),
            "image": (link, ("image_url", "input_image")),  # not the result
        },
        cloud="cloud_video_url",
        url="video_url",
        finished=("complete_time", "finish_time", "updated_at"),
        reason=("fail_reason",),
        reference=_column("external_task_id"),
    ),
    TaskTable(
        name="dreamwork_tasks",
        provider="jimeng",
        source="dreamwork",
        kind="image",
        config="dreamwork_config",
        model=_by_action({"IMAGE_TO_IMAGE": "jimeng/image-to-image"}, "jimeng/text-to-image"),
        final={"SUCCESS": Status.SUCCEEDED, "FAILURE": Status.FAILED},
        inputs={
            "prompt": (words, ("prompt",)),
            "width": (side(0), ("size",)),
            "height": (side(1), ("size",)),
            "scale": (number, ("guidance_scale",)),
            "seed": (integer, ("seed",)),
            "image": (link, ("input_image",)),
        },
        cloud="cloud_image_url",
        url="image_url",
        finished=("finish_time", "updated_at"),
        reason=("fail_reason",),
        reference=_nothing,  # the call is synchronous: whatever has not ended never will
    ),
    TaskTable(
        name="flux_tasks",
        provider="flux",
        source="flux",
        kind="image",
        config="flux_config",
        model=flux_model,
        final={"SUCCESS": Status.SUCCEEDED, "COMPLETED": Status.SUCCEEDED, "FAILED": Status.FAILED,
               "CANCELLED": Status.CANCELED},
        inputs={
            "prompt": (words, ("prompt",)),
            "aspect_ratio": (words, ("aspect_ratio",)),
            "width": (side(0), ("image_size",)),
            "height": (side(1), ("image_size",)),
            "n": (integer, ("num_images",)),
            "seed": (integer, ("seed",)),
            "steps": (integer, ("num_inference_steps",)),
            "guidance": (number, ("guidance_scale",)),
            "output_format": (words, ("output_format",)),
            "image": (link, ("uploaded_image_url", "input_image_url")),
            "images": (links, ("input_image_urls",)),
        },
        cloud="cloud_image_url",
        url="image_url",
        finished=("completed_at", "updated_at"),
        reason=("error_message",),
        reference=_column("request_id"),
        memo=_fal_urls,
        polls_as={"flux/kontext-pro": "flux/pro-1.1", "flux/kontext-max": "flux/pro-1.1"},  # by the URLs in the memo
        cost=None,  # the newest code never charges for Flux
    ),
    TaskTable(
        name="kling_lip_sync_tasks",
        provider="kling",
        source="kling_lip_sync",
        kind="video",
        config="kling_lip_sync_config",
        model=_by_action({}, "kling/lip-sync"),
        final={"succeed": Status.SUCCEEDED, "failed": Status.FAILED},
        inputs={
            "mode": (words, ("mode",)),
            "video": (link, ("video_input",)),
            "text": (words, ("text",)),
            "voice_id": (words, ("voice_id",)),
            "voice_language": (words, ("voice_language",)),
            "voice_speed": (number, ("voice_speed",)),
            "audio": (link, ("audio_file",)),
        },
        cloud="cloud_video_url",
        url="video_url",  # overwritten with the cloud's URL where the upload worked
        finished=("finish_time", "updated_at"),
        reason=("fail_reason", "task_status_msg"),
        reference=_of_lip_sync,
    ),
)  # fmt: skip
