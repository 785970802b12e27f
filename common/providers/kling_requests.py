"""What is sent to Kling to create a task, by both of its APIs. Facts: fact sheet kling.md, sections 4 and 5.1.

Bodies of the paths that the sheet only names, and of several shots, follow what users of the official legacy API
publish: unverified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from common.providers.base import JsonObject, Media, Rejected, Submission
from common.providers.kling_models import (
    EFFECTS,
    EXTEND,
    IMAGE_TO_VIDEO,
    LIP_SYNC,
    MULTI_IMAGE_TO_IMAGE,
    MULTI_IMAGE_TO_VIDEO,
    NEW,
    NEW_PATHS,
    TRY_ON,
)
from common.providers.reading import given, ref
from common.words import ErrorCode

_PICTURES = {  # fields that name one picture, and Kling's names for them
    "image": "image",
    "tail_image": "image_tail",
    "mask": "static_mask",
    "cloth_image": "cloth_image",
    "scene_image": "scene_image",
    "style_image": "style_image",
}
_RESOLUTIONS = {"std": "720p", "pro": "1080p", "4k": "4k"}
_AUDIO = {"on": "native", "off": "off"}


def is_new(submission: Submission) -> bool:
    """Whether the job's version belongs to the new API."""
    return submission.model in NEW_PATHS and submission.input.get("model_name") in NEW


# ---------------------------------------------------------------- legacy


def legacy_body(submission: Submission) -> JsonObject | Rejected:
    """The body for the legacy API; or why there is none."""
    if not _shots_fill_the_film(submission):
        return _refused("The shots of multi_prompt must together last as long as duration_s says.")
    body = _shaped(submission, _plain(submission))
    if body is None:
        return _refused("Kling told no id of the parent's video; it cannot be continued.")
    hooks = {"callback_url": submission.callback_url, "external_task_id": submission.reference}
    return {**body, **given(hooks)}


def _refused(message: str) -> Rejected:
    return Rejected(code=ErrorCode.INVALID_INPUT, message=message, asked=False)


def _shots_fill_the_film(submission: Submission) -> bool:
    """No schema can say this. What is paid for is `duration_s`, so no shot may go beyond it."""
    shots = submission.input.get("multi_prompt")
    return shots is None or sum(shot["duration_s"] for shot in shots) == submission.input.get("duration_s")


def _plain(submission: Submission) -> JsonObject:
    """The input in Kling's own names. `duration` is always a string: numbers are refused by some versions."""
    body = given(submission.input)
    if "duration_s" in body:
        body["duration"] = str(int(body.pop("duration_s")))
    if "n" in body:
        body["n"] = int(body["n"])
    for ours, theirs in _PICTURES.items():
        if ours in body:
            del body[ours]
            body[theirs] = _picture(submission.medium(ours))
    if "dynamic_masks" in body:
        body["dynamic_masks"] = [
            {**area, "mask": _picture(submission.media[area["mask"]])} for area in body["dynamic_masks"]
        ]
    if "multi_prompt" in body:
        body["multi_prompt"] = list(_shots(body["multi_prompt"]))
    return body


def _shots(wanted: Sequence[Mapping[str, Any]]) -> Iterator[JsonObject]:
    for index, shot in enumerate(wanted, 1):
        yield {"index": index, "prompt": shot["prompt"], "duration": str(int(shot["duration_s"]))}


def _shaped(submission: Submission, body: JsonObject) -> JsonObject | None:
    """With the pictures and films where this path has them."""
    shape = _SHAPES.get(submission.model)
    return body if shape is None else shape(submission, body)


def _multi_image_to_video(submission: Submission, body: JsonObject) -> JsonObject:
    return {**_without(body, "images"), "image_list": [{"image": each} for each in _pictures(submission)]}


def _multi_image_to_image(submission: Submission, body: JsonObject) -> JsonObject:
    subjects = [{"subject_image": each} for each in _pictures(submission)]
    return {**_without(body, "images"), "subject_image_list": subjects}


def _try_on(submission: Submission, body: JsonObject) -> JsonObject:
    return {**_without(body, "image"), "human_image": body.get("image")}


def _extend(submission: Submission, body: JsonObject) -> JsonObject | None:
    video_id = _parents_video(submission)
    return None if video_id is None else {**body, "video_id": video_id}


def _lip_sync(submission: Submission, body: JsonObject) -> JsonObject | None:
    """Everything about the speech stands in `input`."""
    film, sound = submission.medium("video"), submission.medium("audio")
    video_id = None if film else _parents_video(submission)
    if film is None and video_id is None:
        return None
    speech = {
        "video_id": video_id,
        "video_url": film.url if film else None,
        "mode": "audio2video" if sound else "text2video",
        **{name: body.get(name) for name in ("text", "voice_id", "voice_language", "voice_speed")},
        "audio_type": "url" if sound else None,
        "audio_url": sound.url if sound else None,
    }
    return {"input": given(speech), **given({"watermark_info": body.get("watermark_info")})}


def _effects(submission: Submission, body: JsonObject) -> JsonObject:
    """One picture or two; `mode` goes with `model_name`, which only the old effects for two people take."""
    pictures = _pictures(submission)
    wanted = {
        "model_name": body.get("model_name"),
        "mode": body.get("mode") if "model_name" in body else None,
        "image": pictures[0] if len(pictures) == 1 else None,
        "images": pictures if len(pictures) > 1 else None,
        "duration": body.get("duration"),
    }
    outside = {name: body.get(name) for name in ("effect_scene", "watermark_info")}
    return {**given(outside), "input": given(wanted)}


_SHAPES: dict[str, Callable[[Submission, JsonObject], JsonObject | None]] = {
    MULTI_IMAGE_TO_VIDEO: _multi_image_to_video,
    MULTI_IMAGE_TO_IMAGE: _multi_image_to_image,
    TRY_ON: _try_on,
    EXTEND: _extend,
    LIP_SYNC: _lip_sync,
    EFFECTS: _effects,
}


def _parents_video(submission: Submission) -> str | None:
    """Kling's id of the film that the job continues, as the adapter remembered it when it was made."""
    return ref(submission.parent.memo.get("video_id")) if submission.parent else None


def _picture(medium: Media | None) -> str:
    """An address, or base64 without the prefix of a data URL (section 4.3)."""
    return medium.url_or_base64 if medium else ""


def _pictures(submission: Submission) -> list[str]:
    return [_picture(each) for each in submission.mediums("images")]


def _without(body: JsonObject, *names: str) -> JsonObject:
    return {name: value for name, value in body.items() if name not in names}


# ---------------------------------------------------------------- new


def new_path(submission: Submission) -> str:
    """The model stands in the path."""
    return f"{NEW_PATHS[submission.model]}/{submission.input['model_name']}"


def new_body(submission: Submission) -> JsonObject:
    """Section 5.1. Here `duration` is an integer."""
    wanted = submission.input
    settings = {
        "resolution": _RESOLUTIONS.get(wanted.get("mode", "std")),
        "aspect_ratio": wanted.get("aspect_ratio"),
        "duration": int(wanted.get("duration_s", 5)),
        "audio": _AUDIO.get(wanted.get("sound", "off")),
        "multi_shot": wanted.get("multi_shot"),
    }
    options = {
        "callback_url": submission.callback_url,
        "external_task_id": submission.reference,
        "watermark_info": wanted.get("watermark_info"),
    }
    what = (
        {"contents": _contents(submission)}
        if submission.model == IMAGE_TO_VIDEO
        else {"prompt": wanted["prompt"]}
    )
    return {**what, "settings": given(settings), "options": given(options)}


def _contents(submission: Submission) -> list[dict[str, Any]]:
    prompt = submission.input.get("prompt")
    frames = {"first_frame": submission.medium("image"), "last_frame": submission.medium("tail_image")}
    return [
        *([{"type": "prompt", "text": prompt}] if prompt else []),
        *({"type": kind, "url": _picture(frame)} for kind, frame in frames.items() if frame),
    ]
