"""What Jimeng's models take and cost. Facts: fact sheet jimeng.md, sections A6 and A8."""

from __future__ import annotations

from common.providers.base import JsonObject, ModelSpec
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

TEXT_TO_IMAGE, IMAGE_TO_IMAGE = "jimeng/text-to-image", "jimeng/image-to-image"
INPAINT, UPSCALE = "jimeng/inpaint", "jimeng/upscale"
TEXT_TO_VIDEO, IMAGE_TO_VIDEO, VIDEO_PRO = "jimeng/text-to-video", "jimeng/image-to-video", "jimeng/video-pro"
FILMS = (TEXT_TO_VIDEO, IMAGE_TO_VIDEO, VIDEO_PRO)

V40, V46 = "jimeng_t2i_v40", "jimeng_seedream46_cvtob"
V4X, V3X = (V40, V46), ("jimeng_t2i_v31", "jimeng_t2i_v30")
GROUP = 15  # pictures of one prompt at most, together with those that were sent
ONLY_V4X = ("images", "size", "min_ratio", "max_ratio", "scale", "force_single")
ONLY_V3X = ("seed", "use_pre_llm")
RESOLUTIONS = ("720p", "1080p")

_SEED = whole("Seed", "For repeatable results; -1 is random.", -1, 2**31 - 1)
_PROMPT = words("Prompt", "What to make.", longest=800, required=True)
_DURATION = choice("Duration", "In seconds.", (5, 10), 5)
_RATIO = choice("Aspect ratio", "Width to height.", ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9"), "16:9")
_FILM_PRICE: JsonObject = {"by": ["duration_s"], "table": {"5": 30, "10": 60}}


def _image(id: str, fields: JsonObject, title: str, price: JsonObject, **more: object) -> ModelSpec:
    made = form(title, fields, **more)  # type: ignore[arg-type]
    return ModelSpec(id=id, kind="image", title=title, input_schema=made, price=price, expected_s=10,
                     first_poll_s=3, poll_every_s=3)  # fmt: skip


def _film(id: str, fields: JsonObject, title: str, price: JsonObject, **more: object) -> ModelSpec:
    made = form(title, fields, **more)  # type: ignore[arg-type]
    return ModelSpec(id=id, kind="video", title=title, input_schema=made, price=price, expected_s=90,
                     first_poll_s=20, poll_every_s=8)  # fmt: skip


MODELS = (
    _image(
        TEXT_TO_IMAGE,
        {
            "prompt": _PROMPT,
            "req_key": choice("Version", "Jimeng's own model: 4.0, 4.6, 3.1 or 3.0.", (*V4X, *V3X), V40),
            "images": pictures(
                "Reference pictures", "4.0 (at most 10) and 4.6 (at most 14); up to 15 MB each.", 1, 14
            ),
            "width": whole("Width", "In pixels, together with height.", 512, 7094),
            "height": whole("Height", "In pixels, together with width.", 512, 7094),
            "size": whole("Area", "In pixels, instead of width and height; 4.x only.", 1024**2, 4096**2),
            "min_ratio": decimal("Narrowest", "Width over height at least; 4.x only.", 1 / 3, 3),
            "max_ratio": decimal("Widest", "Width over height at most; 4.x only.", 1 / 3, 3),
            "scale": decimal("Closeness to the prompt", "4.x only; 0.5 if absent.", 0, 1),
            "force_single": switch(
                "One picture only",
                f"4.x only: otherwise it may make several, at most {GROUP} together with those sent; each is charged.",
                True,
            ),
            "seed": {**_SEED, "description": "3.1 and 3.0 only; -1 is random."},
            "use_pre_llm": switch("Expand the prompt", "3.1 and 3.0 only; yes if absent."),
        },
        "Jimeng Text to Image",
        # What is held is for as many as there can be; what is charged, for as many as were made (section A8).
        {"by": ["force_single"], "table": {"true": 10, "false": 10 * GROUP}},
        rules=(
            when("req_key", V3X, without(*ONLY_V4X), without(*ONLY_V3X)),
            when("req_key", (V40,), {"properties": {"images": {"maxItems": 10}}}),
            together("width", "height"),
            either("size", "width", "height"),
        ),
    ),
    _image(
        IMAGE_TO_IMAGE,
        {
            "prompt": _PROMPT,
            "image": picture("Picture", "What is changed; up to 4.7 MB and 4096 pixels a side."),
            "scale": decimal("Closeness to the prompt", "0.5 if absent.", 0, 1),
            "seed": _SEED,
            "width": whole("Width", "In pixels, together with height.", 512, 2016),
            "height": whole("Height", "In pixels, together with width.", 512, 2016),
        },
        "Jimeng Image to Image",
        {"credits": 10},
        required=("prompt", "image"),
        rules=(together("width", "height"),),
    ),
    _image(
        INPAINT,
        {
            "prompt": _PROMPT,
            "image": picture("Picture", "What is changed; up to 4.7 MB and 4096 pixels a side."),
            "mask": picture("Mask", "As large as the picture; what is white is painted again."),
            "seed": {**_SEED, "description": "For repeatable results; 101 if absent."},
        },
        "Jimeng Inpaint",
        {"credits": 9},  # 0.20 CNY, where a picture of 10 credits is 0.22
        required=("prompt", "image", "mask"),
    ),
    _image(
        UPSCALE,
        {
            "image": picture("Picture", "What is enlarged; up to 4.7 MB and 4096 pixels a side."),
            "resolution": choice("Resolution", "4k or 8k.", ("4k", "8k"), "4k"),
            "scale": whole("Detail", "How much detail is added; 50 if absent.", 0, 100),
        },
        "Jimeng Upscale",
        {"credits": 18},  # 0.40 CNY
        required=("image",),
    ),
    _film(
        TEXT_TO_VIDEO,
        {
            "prompt": _PROMPT,
            "resolution": choice("Resolution", "720p or 1080p.", RESOLUTIONS, "720p"),
            "duration_s": _DURATION,
            "aspect_ratio": _RATIO,
            "seed": _SEED,
        },
        "Jimeng Text to Video",
        _FILM_PRICE,
    ),
    _film(
        IMAGE_TO_VIDEO,
        {
            "prompt": _PROMPT,
            "image": picture("First frame", "Up to 4.7 MB; its ratio is the film's."),
            "tail_image": picture("Last frame", "Where the film ends."),
            "resolution": choice("Resolution", "720p or 1080p.", RESOLUTIONS, "720p"),
            "duration_s": _DURATION,
            "seed": _SEED,
        },
        "Jimeng Image to Video",
        _FILM_PRICE,
        required=("prompt", "image"),
    ),
    _film(
        VIDEO_PRO,
        {
            "prompt": _PROMPT,
            "image": picture("First frame", "Up to 4.7 MB; its ratio is the film's."),
            "duration_s": _DURATION,
            "aspect_ratio": {**_RATIO, "description": "Width to height, where there is no first frame."},
            "seed": _SEED,
        },
        "Jimeng Video 3.0 Pro",
        # Twice the price of the others: Jimeng's own prices of films are not documented (section A8).
        {"by": ["duration_s"], "table": {"5": 60, "10": 120}},
    ),
)

QUIRKS = (
    "A submit whose answer is lost cannot be asked for: pictures of 4.0 and 4.6 are taken over when they call back "
    "within `RECONCILE_WINDOW_S`, all else fails as `submit_unknown`, with a release.",
    "An account has one or two generations at a time, more only by agreement with Volcengine.",
    "A film's address dies after an hour, a picture's after a day, the task after twelve hours.",
    "With `force_single` off, 4.x may make several pictures of one prompt, and Volcengine charges each: credits are "
    "held for as many as there can be and charged for as many as there are.",
    "Moderation of what was made is a matter of chance and costs nothing: the platform tries twice more by itself.",
    "An internal error of a look is believed after three in a row for a picture, five for a film; an error of the "
    "checks (50520 to 50522) at the submit after one more try.",
    "4.0 and 4.6 take reference pictures by address only: what is sent as bytes is put into the platform's storage for "
    "a day, which Volcengine must be able to reach.",
    "Camera moves (recamera) are not offered: which templates there are is not documented.",
)
