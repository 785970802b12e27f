"""Kling's catalogue: what its models take and cost, and where each is made and asked about.

Facts: fact sheet kling.md, sections named below. Fields of the paths that the sheet only names (extend, lip-sync,
effects, expand, several pictures, try-on), and what stands in the fields of several shots and of voices, follow what
users of the official legacy API publish: unverified.
"""

from __future__ import annotations

from typing import Any

from common.providers.base import JsonObject, ModelSpec
from common.providers.inputs import (
    choice,
    decimal,
    either,
    form,
    limits,
    medium,
    picture,
    pictures,
    switch,
    when,
    whole,
    with_,
    without,
    words,
)

TEXT_TO_VIDEO, IMAGE_TO_VIDEO = "kling/text-to-video", "kling/image-to-video"
MULTI_IMAGE_TO_VIDEO, EXTEND = "kling/multi-image-to-video", "kling/extend"
LIP_SYNC, EFFECTS = "kling/lip-sync", "kling/effects"
IMAGE, IMAGE_EXPAND = "kling/image", "kling/image-expand"
MULTI_IMAGE_TO_IMAGE, TRY_ON = "kling/multi-image-to-image", "kling/virtual-try-on"

PATHS = {  # of the legacy API (section 4.1): created and asked about in one place
    TEXT_TO_VIDEO: "/v1/videos/text2video",
    IMAGE_TO_VIDEO: "/v1/videos/image2video",
    MULTI_IMAGE_TO_VIDEO: "/v1/videos/multi-image2video",
    EXTEND: "/v1/videos/video-extend",
    LIP_SYNC: "/v1/videos/lip-sync",
    EFFECTS: "/v1/videos/effects",
    IMAGE: "/v1/images/generations",
    IMAGE_EXPAND: "/v1/images/editing/expand",
    MULTI_IMAGE_TO_IMAGE: "/v1/images/multi-image2image",
    TRY_ON: "/v1/images/kolors-virtual-try-on",
}
NEW_PATHS = {TEXT_TO_VIDEO: "/text-to-video", IMAGE_TO_VIDEO: "/image-to-video"}  # the model's name follows

_LEGACY = (
    "kling-v1",
    "kling-v1-6",
    "kling-v2-master",
    "kling-v2-1-master",
    "kling-v2-5-turbo",
    "kling-v2-6",
    "kling-v3",
)
NEW = ("kling-3.0", "kling-3.0-turbo", "kling-2.6")
_NEW_OF_PICTURES = ("kling-3.0", "kling-3.0-turbo")  # section 5.1
_ANY_LENGTH = ("kling-v3", "kling-3.0", "kling-3.0-turbo")
_SOUND = ("kling-v2-6", "kling-v3", *NEW)
_WITHOUT_CFG = tuple(name for name in (*_LEGACY, *NEW) if name not in ("kling-v1", "kling-v1-6"))
_AXES = ("horizontal", "vertical", "pan", "tilt", "roll", "zoom")
_SIDES = ("up", "down", "left", "right")
_PICTURE_RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9")
_CREDITS_PER_S = {"std": 10, "pro": 20, "4k": 50}  # 4k in the proportion of Kling's own prices (section 9)

# ---------------------------------------------------------------- fields

_CAMERA: JsonObject = {
    "type": "object",
    "title": "Camera movement",
    "description": "A preset, or `simple` with one axis of `config` that is not zero.",
    "examples": [{"type": "down_back"}, {"type": "simple", "config": {"zoom": 5}}],
    "properties": {
        "type": {
            "type": "string",
            "enum": ["simple", "down_back", "forward_up", "right_turn_forward", "left_turn_forward"],
        },
        "config": {
            "type": "object",
            "properties": {axis: {"type": "number", "minimum": -10, "maximum": 10} for axis in _AXES},
            "additionalProperties": False,
            "oneOf": [{"required": [axis], "properties": {axis: {"not": {"const": 0}}}} for axis in _AXES],
        },
    },
    "required": ["type"],
    "additionalProperties": False,
    **when("type", ["simple"], {"required": ["config"]}, without("config")),
}
_WATERMARK: JsonObject = {
    "type": "object",
    "title": "Watermark",
    "description": "Whether the provider also makes a copy with its watermark.",
    "examples": [{"enabled": True}],
    "properties": {"enabled": {"type": "boolean"}},
    "required": ["enabled"],
    "additionalProperties": False,
}
_POINT: JsonObject = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}
_DYNAMIC_MASKS: JsonObject = {
    "type": "array",
    "title": "What moves, and where to",
    "description": "Up to six areas, each a mask (given like the picture) and 2 to 77 points; 0,0 is the lower left.",
    "examples": [
        [{"mask": "https://example.com/mask.png", "trajectories": [{"x": 100, "y": 80}, {"x": 300, "y": 90}]}]
    ],
    "minItems": 1,
    "maxItems": 6,
    "items": {
        "type": "object",
        "properties": {
            "mask": picture("Mask", "What moves, in the shape of the picture."),
            "trajectories": {"type": "array", "minItems": 2, "maxItems": 77, "items": _POINT},
        },
        "required": ["mask", "trajectories"],
        "additionalProperties": False,
    },
}
_SHOTS: JsonObject = {
    "type": "array",
    "title": "The shots",
    "description": "One to six, in their order; together they last `duration_s`. With shot_type customize.",
    "examples": [
        [{"prompt": "a fox wakes up", "duration_s": 2}, {"prompt": "it runs into the wood", "duration_s": 3}]
    ],
    "minItems": 1,
    "maxItems": 6,
    "items": {
        "type": "object",
        "properties": {
            "prompt": {"type": "string", "minLength": 1, "maxLength": 512, "pattern": r"\S"},
            "duration_s": {"type": "integer", "minimum": 1, "maximum": 15},
        },
        "required": ["prompt", "duration_s"],
        "additionalProperties": False,
    },
}
_VOICES: JsonObject = {
    "type": "array",
    "title": "Voices",
    "description": "kling-v3 with sound: up to two of Kling's voices, in the prompt <<<voice_1>>> and <<<voice_2>>>.",
    "examples": [[{"voice_id": "829826751244537879"}]],
    "minItems": 1,
    "maxItems": 2,
    "items": {
        "type": "object",
        "properties": {"voice_id": {"type": "string", "minLength": 1, "maxLength": 100, "pattern": r"\S"}},
        "required": ["voice_id"],
        "additionalProperties": False,
    },
}
_NEGATIVE = words("Negative prompt", "What to leave out.", longest=2500, example="blur, text")
_CFG = decimal("Closeness to the prompt", "kling-v1 and v1-6 only; 0.5 if absent.", 0, 1)
_RATIO = choice("Aspect ratio", "Width to height.", ("16:9", "9:16", "1:1"), "16:9")
_PICTURE_RATIO = choice("Aspect ratio", "Width to height.", _PICTURE_RATIOS, "16:9")
_MODE = choice("Quality", "std 720p, pro 1080p", ("std", "pro"), "std")
_SECONDS = choice("Duration", "Seconds.", (5, 10), 5)
_NUMBER = whole("Number", "How many pictures.", 1, 9, default=1)


def _versions(names: tuple[str, ...]) -> JsonObject:
    return choice("Version", "Kling's own model. 2.6, 3.0 …: the new API.", names, "kling-v1-6")


def _film(versions: tuple[str, ...]) -> JsonObject:
    """What films of either generation take (sections 4.2 and 5.1)."""
    return {
        "negative_prompt": _NEGATIVE,
        "model_name": _versions(versions),
        "mode": choice("Quality", "std 720p, pro 1080p, 4k (kling-3.0)", ("std", "pro", "4k"), "std"),
        "duration_s": choice("Duration", "Seconds: 5 or 10; v3 and 3.0 3 to 15.", range(3, 16), 5),
        "cfg_scale": _CFG,
        "sound": choice("Sound", "From 2.6 on; off if absent.", ("on", "off")),
        "multi_shot": switch("Several shots", "kling-3.0, which makes several if absent, and kling-v3."),
        "shot_type": choice(
            "Who cuts",
            "kling-v3 with multi_shot: you, by multi_prompt in place of the prompt, or Kling, by the prompt.",
            ("customize", "intelligence"),
        ),
        "multi_prompt": _SHOTS,
        "camera_control": _CAMERA,
        "watermark_info": _WATERMARK,
    }


_FILM_RULES = (
    when("model_name", ["kling-3.0"], {}, limits(prompt={"maxLength": 2500}, mode={"enum": ["std", "pro"]})),
    when("model_name", _ANY_LENGTH, {}, limits(duration_s={"enum": [5, 10]})),
    when("model_name", _WITHOUT_CFG, without("cfg_scale")),
    when("model_name", _SOUND, {}, without("sound")),
    when("model_name", NEW, without("negative_prompt", "camera_control")),
    when("model_name", ["kling-3.0", "kling-v3"], {}, without("multi_shot")),
    when("model_name", ["kling-3.0"], without("shot_type")),
    when("model_name", ["kling-v3"], when("multi_shot", [True], {"required": ["shot_type"]})),
    with_("shot_type", "multi_shot", True),
    with_("multi_prompt", "shot_type", "customize"),
    when("shot_type", ["customize"], {"required": ["multi_prompt"]}),
    # Section 5.1: on 2.6 native audio needs 1080p.
    when(
        "model_name",
        ["kling-2.6"],
        when("sound", ["on"], {**limits(mode={"const": "pro"}), "required": ["mode"]}),
    ),
)
_PICTURE_RULES = (
    # Section 4.3: at least one of both; section 5.1: there never the last without the first.
    {"if": {"not": {"required": ["tail_image"]}}, "then": {"required": ["image"]}},
    when("model_name", NEW, {"required": ["image"]}),
    with_("voice_list", "sound", "on"),
    when("model_name", ["kling-v2-6", *NEW], without("voice_list")),
    # Section 4.3: the last picture, masks and the camera exclude each other.
    either("tail_image", "mask", "dynamic_masks", "camera_control"),
    either("mask", "camera_control"),
    either("dynamic_masks", "camera_control"),
    when("model_name", NEW, without("mask", "dynamic_masks")),
    when("model_name", ["kling-3.0-turbo"], without("tail_image")),
)
_SPEECH_RULES = (
    either("audio", "text", "voice_id", "voice_language", "voice_speed"),
    {"if": {"not": {"required": ["audio"]}}, "then": {"required": ["text", "voice_id"]}},
)
_REFERENCE = ("image_reference", "image_fidelity", "human_fidelity")
_IMAGE_RULES = (
    either("image", "negative_prompt"),  # section 4.4
    {"if": {"not": {"required": ["image"]}}, "then": without(*_REFERENCE)},
)


# ---------------------------------------------------------------- the catalogue


def _prices(modes: tuple[str, ...], lengths: tuple[int, ...]) -> JsonObject:
    table = {f"{mode}/{s}": _CREDITS_PER_S[mode] * s for mode in modes for s in lengths}
    return {"by": ["mode", "duration_s"], "table": table}


def _video(id: str, title: str, schema: JsonObject, price: JsonObject, **more: Any) -> ModelSpec:
    return ModelSpec(
        id=id,
        kind="video",
        title=title,
        input_schema=schema,
        price=price,
        expected_s=180,
        first_poll_s=30,
        poll_every_s=8,
        **more,
    )


def _image(
    id: str, title: str, schema: JsonObject, price: JsonObject, *, slots: str | None = None
) -> ModelSpec:
    """An image task takes n of the account's slots (section 8)."""
    return ModelSpec(
        id=id,
        kind="image",
        title=title,
        input_schema=schema,
        price=price,
        expected_s=20,
        first_poll_s=10,
        poll_every_s=5,
        slots=slots,
    )


_EVERY_LENGTH = tuple(range(3, 16))
_PROMPT = words("Prompt", "What happens in the video.", longest=3072)

MODELS = (
    _video(
        TEXT_TO_VIDEO,
        "Kling Text to Video",
        form(
            "Kling Text to Video",
            {
                "prompt": words("Prompt", "What happens in the video.", longest=3072, required=True),
                "aspect_ratio": _RATIO,
                **_film((*_LEGACY, *NEW)),
            },
            rules=_FILM_RULES,
        ),
        _prices(("std", "pro", "4k"), _EVERY_LENGTH),
    ),
    _video(
        IMAGE_TO_VIDEO,
        "Kling Image to Video",
        form(
            "Kling Image to Video",
            {
                "image": picture(
                    "First picture",
                    "jpg or png, at most 10 MB, each side at least 300 pixels. It or the last one must be given; the "
                    "new API needs it.",
                ),
                "tail_image": picture("Last picture", "How the video ends; not with masks or the camera."),
                "mask": picture("What stays", "A mask of what does not move, in the shape of the picture."),
                "dynamic_masks": _DYNAMIC_MASKS,
                "prompt": _PROMPT,
                **_film((*_LEGACY, *_NEW_OF_PICTURES)),
                "voice_list": _VOICES,
            },
            required=(),
            rules=(*_FILM_RULES, *_PICTURE_RULES),
        ),
        _prices(("std", "pro", "4k"), _EVERY_LENGTH),
    ),
    _video(
        MULTI_IMAGE_TO_VIDEO,
        "Kling Images to Video",
        form(
            "Kling Images to Video",
            {
                "images": pictures("Pictures", "What appears in the video.", 1, 4),
                "prompt": words("Prompt", "What happens in the video.", longest=2500, required=True),
                "negative_prompt": _NEGATIVE,
                "model_name": choice("Version", "Kling's own model.", ("kling-v1-6",), "kling-v1-6"),
                "mode": _MODE,
                "duration_s": _SECONDS,
                "aspect_ratio": _RATIO,
                "watermark_info": _WATERMARK,
            },
            required=("images", "prompt"),
        ),
        _prices(("std", "pro"), (5, 10)),
    ),
    _video(
        EXTEND,
        "Kling Extend",
        form(
            "Kling Extend",
            {
                "prompt": words(
                    "Prompt", "How the video goes on.", longest=2500, example="the fox runs into the wood"
                ),
                "negative_prompt": _NEGATIVE,
                "cfg_scale": decimal("Closeness to the prompt", "0.5 if absent.", 0, 1),
                "watermark_info": _WATERMARK,
            },
            required=(),
        ),
        {"credits": 50},  # four to five seconds, as 5 s of std
        follows=(TEXT_TO_VIDEO, IMAGE_TO_VIDEO, EXTEND),
    ),
    _video(
        LIP_SYNC,
        "Kling Lip Sync",
        form(
            "Kling Lip Sync",
            {
                "video": medium("video", "Video", "An https URL (2 to 10 seconds), in place of a parent."),
                "text": words("Text", "What is said.", longest=120, example="Good morning!", required=True),
                "voice_id": words(
                    "Voice",
                    "Kling's name of a voice; with text.",
                    longest=100,
                    example=None,
                    required=True,
                ),
                "voice_language": choice("Language", "Of the voice; zh if absent.", ("zh", "en")),
                "voice_speed": decimal("Speed", "Of the voice; 1 if absent.", 0.8, 2),
                "audio": medium("audio", "Sound", "An https URL, in place of text."),
                "watermark_info": _WATERMARK,
            },
            required=(),
            rules=_SPEECH_RULES,
        ),
        {"credits": 50},  # the sheet has no price: as 5 s of std
        follows=(TEXT_TO_VIDEO, IMAGE_TO_VIDEO, MULTI_IMAGE_TO_VIDEO),
        parent_or="video",
    ),
    _video(
        EFFECTS,
        "Kling Effects",
        form(
            "Kling Effects",
            {
                "effect_scene": words(
                    "Effect",
                    "Kling's name of it, e.g. hug or squish.",
                    longest=64,
                    example="hug",
                    required=True,
                ),
                "images": pictures("Pictures", "One, or two for effects with two people.", 1, 2),
                "model_name": choice(
                    "Version",
                    "For hug, kiss, heart_gesture, fight.",
                    ("kling-v1", "kling-v1-5", "kling-v1-6"),
                ),
                "mode": choice(
                    "Quality", "std 720p, pro 1080p; pro only with model_name.", ("std", "pro"), "std"
                ),
                "duration_s": _SECONDS,
                "watermark_info": _WATERMARK,
            },
            required=("effect_scene", "images"),
            rules=(
                # Only the old effects for two people know versions and qualities.
                when("mode", ["pro"], {"required": ["model_name"]}),
                {"if": {"required": ["model_name"]}, "then": limits(images={"minItems": 2})},
            ),
        ),
        _prices(("std", "pro"), (5, 10)),
    ),
    _image(
        IMAGE,
        "Kling Image",
        form(
            "Kling Image",
            {
                "prompt": words("Prompt", "What to draw.", longest=2500, required=True),
                "negative_prompt": _NEGATIVE,
                "image": picture("Picture", "A reference, jpg or png of at most 10 MB."),
                "image_reference": choice(
                    "Reference", "What is taken from the picture.", ("subject", "face")
                ),
                "image_fidelity": decimal("Closeness to the picture", "0.5 if absent.", 0, 1),
                "human_fidelity": decimal("Closeness to the person", "0.45 if absent.", 0, 1),
                "model_name": choice("Version", "Kling's own model.", ("kling-v3", "kling-v2-1"), "kling-v3"),
                "resolution": choice("Resolution", "About the longer side.", ("1k", "2k"), "1k"),
                "n": _NUMBER,
                "aspect_ratio": _PICTURE_RATIO,
                "watermark_info": _WATERMARK,
            },
            rules=_IMAGE_RULES,
        ),
        {"credits": 10, "plus": {"image": 10}, "times": "n"},  # twice as much from a picture (section 9)
        slots="n",
    ),
    _image(
        IMAGE_EXPAND,
        "Kling Image Expand",
        form(
            "Kling Image Expand",
            {
                "image": picture("Picture", "jpg or png, at most 10 MB."),
                **{
                    f"{side}_expansion_ratio": decimal(
                        f"More at the {side} side",
                        "In heights or widths of the picture; the result may have three times its area.",
                        0,
                        2,
                    )
                    for side in _SIDES
                },
                "prompt": words("Prompt", "What to add.", longest=2500, example="a wide field of snow"),
                "n": _NUMBER,
                "watermark_info": _WATERMARK,
            },
            required=("image", *(f"{side}_expansion_ratio" for side in _SIDES)),
            rules=({"not": limits(**{f"{side}_expansion_ratio": {"const": 0} for side in _SIDES})},),
        ),
        {"credits": 20, "times": "n"},  # the sheet has no price: as pictures from a picture
        slots="n",
    ),
    _image(
        MULTI_IMAGE_TO_IMAGE,
        "Kling Images to Image",
        form(
            "Kling Images to Image",
            {
                "images": pictures("Pictures", "The subjects.", 1, 4),
                "scene_image": picture("Scene", "Where they are."),
                "style_image": picture("Style", "How it looks."),
                "prompt": words("Prompt", "What to draw.", longest=2500),
                "model_name": choice("Version", "Kling's own model.", ("kling-v2", "kling-v2-1"), "kling-v2"),
                "n": _NUMBER,
                "aspect_ratio": _PICTURE_RATIO,
                "watermark_info": _WATERMARK,
            },
            required=("images",),
        ),
        {"credits": 20, "times": "n"},  # the sheet has no price: as pictures from a picture
        slots="n",
    ),
    _image(
        TRY_ON,
        "Kling Virtual Try-On",
        form(
            "Kling Virtual Try-On",
            {
                "image": picture("Person", "jpg or png, at most 10 MB."),
                "cloth_image": picture("Clothes", "jpg or png, at most 10 MB."),
                "model_name": choice(
                    "Version",
                    "Kling's own model.",
                    ("kolors-virtual-try-on-v1", "kolors-virtual-try-on-v1-5"),
                    "kolors-virtual-try-on-v1-5",
                ),
                "watermark_info": _WATERMARK,
            },
            required=("image", "cloth_image"),
        ),
        {"credits": 20},  # the sheet has no price: as pictures from a picture
    ),
)
