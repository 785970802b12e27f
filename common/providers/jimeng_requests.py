"""What Jimeng is asked for: each req_key with the fields it knows. Facts: fact sheet jimeng.md, section A6."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from common.providers.base import JsonObject, Submission
from common.providers.jimeng_models import (
    IMAGE_TO_IMAGE,
    IMAGE_TO_VIDEO,
    INPAINT,
    ONLY_V3X,
    ONLY_V4X,
    TEXT_TO_IMAGE,
    TEXT_TO_VIDEO,
    UPSCALE,
    V4X,
    V40,
    V46,
    VIDEO_PRO,
)
from common.providers.reading import given

_TEXT_KEYS = {"720p": "jimeng_t2v_v30", "1080p": "jimeng_t2v_v30_1080p"}
_FIRST_KEYS = {
    "720p": "jimeng_i2v_first_v30",
    "1080p": "jimeng_i2v_first_v30_1080",
}  # not _1080p (section A6)
_FIRST_TAIL_KEYS = {"720p": "jimeng_i2v_first_tail_v30", "1080p": "jimeng_i2v_first_tail_v30_1080"}
_I2I_V30, _INPAINT = "jimeng_i2i_v30", "jimeng_image2image_dream_inpaint"
_UPSCALE, _PRO = "jimeng_i2i_seed3_tilesr_cvtob", "jimeng_ti2v_v30_pro"

# Of a model whose job was taken over without its own.
DEFAULT_KEYS = {
    TEXT_TO_IMAGE: V40,
    IMAGE_TO_IMAGE: _I2I_V30,
    INPAINT: _INPAINT,
    UPSCALE: _UPSCALE,
    TEXT_TO_VIDEO: _TEXT_KEYS["720p"],
    IMAGE_TO_VIDEO: _FIRST_KEYS["720p"],
    VIDEO_PRO: _PRO,
}


def only_addresses(model: str, given: Mapping[str, Any]) -> bool:
    """Whether pictures must be addresses: 4.x has no other field for them (section A6)."""
    return _is_version_4(model, given)


def request_of(submission: Submission) -> JsonObject:
    """The body of the creating call."""
    return _BODIES[submission.model](submission)


def calls_back(submission: Submission) -> bool:
    """Whether it is made by a product with a documented callback (section A7)."""
    return _is_version_4(submission.model, submission.input)


def _is_version_4(model: str, given: Mapping[str, Any]) -> bool:
    return model == TEXT_TO_IMAGE and given.get("req_key", V40) in V4X


def _text_to_image(submission: Submission) -> JsonObject:
    wanted = submission.input
    req_key = wanted.get("req_key", V40)
    unknown = ONLY_V3X if req_key in V4X else ONLY_V4X
    fields = {name: value for name, value in wanted.items() if name not in (*unknown, "req_key", "images")}
    references = [medium.url for medium in submission.mediums("images")]
    body = {
        "req_key": req_key,
        **given(_whole(fields, "width", "height", "size", "seed")),
        **({"image_urls": references} if references else {}),
    }
    if req_key == V46 and body.get("scale") is not None:
        body["scale"] = max(1, round(100 * body["scale"]))  # 1 to 100 there, 0 to 1 in all others
    if calls_back(submission) and submission.callback_url:
        body |= {"callback_url": submission.callback_url, "return_url": True}
    return body


def _image_to_image(submission: Submission) -> JsonObject:
    fields = _chosen(submission, "prompt", "scale", "seed", "width", "height")
    return {"req_key": _I2I_V30, **_whole(fields, "seed", "width", "height"), **_pictures(submission)}


def _inpaint(submission: Submission) -> JsonObject:
    """The picture first, its mask second."""
    return {
        "req_key": _INPAINT,
        **_whole(_chosen(submission, "prompt", "seed"), "seed"),
        **_pictures(submission),
    }


def _upscale(submission: Submission) -> JsonObject:
    fields = _chosen(submission, "resolution", "scale")
    return {"req_key": _UPSCALE, **_whole(fields, "scale"), **_pictures(submission)}


def _text_to_video(submission: Submission) -> JsonObject:
    wanted = submission.input
    req_key = _TEXT_KEYS[wanted.get("resolution", "720p")]
    return {"req_key": req_key, **_film(wanted), "aspect_ratio": wanted.get("aspect_ratio", "16:9")}


def _image_to_video(submission: Submission) -> JsonObject:
    wanted = submission.input
    keys = _FIRST_TAIL_KEYS if wanted.get("tail_image") is not None else _FIRST_KEYS
    return {"req_key": keys[wanted.get("resolution", "720p")], **_film(wanted), **_pictures(submission)}


def _video_pro(submission: Submission) -> JsonObject:
    wanted = submission.input
    frame = _pictures(submission)
    ratio = {} if frame else {"aspect_ratio": wanted.get("aspect_ratio", "16:9")}
    return {"req_key": _PRO, **_film(wanted), **ratio, **frame}


def _film(wanted: Mapping[str, Any]) -> JsonObject:
    seconds = int(wanted.get("duration_s", 5))
    return {"prompt": wanted["prompt"], "seed": int(wanted.get("seed", -1)), "frames": 24 * seconds + 1}


def _chosen(submission: Submission, *names: str) -> JsonObject:
    return given({name: submission.input.get(name) for name in names})


def _whole(fields: JsonObject, *names: str) -> JsonObject:
    """JSON Schema lets 5.0 pass as an integer; Jimeng does not."""
    return {
        name: int(value) if name in names and value is not None else value for name, value in fields.items()
    }


def _pictures(submission: Submission) -> JsonObject:
    """The pictures in their order: addresses, or bytes if one of them has none."""
    wanted = submission.input
    named = [value for name in ("image", "tail_image", "mask") if (value := wanted.get(name)) is not None]
    media = [submission.media[value] for value in named]
    if not media:
        return {}
    if all(medium.url for medium in media):
        return {"image_urls": [medium.url for medium in media]}
    return {"binary_data_base64": [medium.base64 for medium in media]}


_BODIES: dict[str, Callable[[Submission], JsonObject]] = {
    TEXT_TO_IMAGE: _text_to_image,
    IMAGE_TO_IMAGE: _image_to_image,
    INPAINT: _inpaint,
    UPSCALE: _upscale,
    TEXT_TO_VIDEO: _text_to_video,
    IMAGE_TO_VIDEO: _image_to_video,
    VIDEO_PRO: _video_pro,
}
