"""What the Flux models take and cost, whichever of their APIs serves them, and what both adapters do alike.

One schema per model: only what every API behind the id can do; a model that one of them lacks goes to the other. So `n`
exists where there is a number of images (BFL makes one per request), and pictures are jpeg or png (fal knows no webp).
Facts: fact sheets flux_bfl.md section 3 and flux_fal.md section 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    whole,
    words,
)

PRO_1_1, ULTRA, DEV, SCHNELL = "flux/pro-1.1", "flux/pro-1.1-ultra", "flux/dev", "flux/schnell"
DEV_FROM_IMAGE, FILL, EXPAND = "flux/dev-image-to-image", "flux/fill", "flux/expand"
KONTEXT, KONTEXT_MAX, KONTEXT_MULTI = "flux/kontext-pro", "flux/kontext-max", "flux/kontext-multi"
PRO_2, MAX_2, FLEX_2 = "flux/2-pro", "flux/2-max", "flux/2-flex"
KLEIN_4B, KLEIN_9B = "flux/2-klein-4b", "flux/2-klein-9b"

_DEFAULT_SIZE = (1024, 768)  # BFL's default, sent always so that both APIs make the same
_SIZES = {
    "21:9": (1440, 608),
    "16:9": (1344, 768),
    "3:2": (1248, 832),
    "4:3": (1152, 864),
    "1:1": (1024, 1024),
    "3:4": (864, 1152),
    "2:3": (832, 1248),
    "9:16": (768, 1344),
    "9:21": (608, 1440),
}

# ---------------------------------------------------------------- the catalogue

_PROMPT = words("Prompt", "What to draw.", longest=10_000, required=True)
_SEED = whole("Seed", "For repeatable results.", 0, 2**32 - 1)
_FORMAT = choice("File format", "Of the picture.", ("jpeg", "png"), "jpeg")
_UPSAMPLING = switch("Expand the prompt", "Let the provider add detail to the prompt.", False)


def _tolerance(highest: int) -> JsonObject:
    return whole("Safety tolerance", f"How much is let through: 0 is the strictest, {highest} the least strict.",
                 0, highest, default=2)  # fmt: skip


def _pixels(lowest: int, highest: int, step: int) -> JsonObject:
    hint = f"In pixels, a multiple of {step}; width and height together, instead of aspect_ratio."
    return {
        "aspect_ratio": choice("Aspect ratio", "About one megapixel in this shape.", tuple(_SIZES)),
        "width": whole("Width", hint, lowest, highest, step=step),
        "height": whole("Height", hint, lowest, highest, step=step),
    }


def _model(
    id: str, title: str, price: JsonObject, expected_s: float, fields: JsonObject, *required: str
) -> ModelSpec:
    rules = (
        (together("width", "height"), either("aspect_ratio", "width", "height")) if "width" in fields else ()
    )
    return ModelSpec(
        id=id,
        kind="image",
        title=title,
        input_schema=form(title, {"prompt": _PROMPT, **fields, "seed": _SEED, "output_format": _FORMAT},
                          required=("prompt", *required), rules=rules),
        price=price,
        expected_s=expected_s,
        first_poll_s=1,
        poll_every_s=1,
    )  # fmt: skip


_EDITED: JsonObject = {
    "aspect_ratio": choice("Aspect ratio", "Width to height; without one, as the picture's.", tuple(_SIZES)),
    "safety_tolerance": _tolerance(6),
}
_PAINTED: JsonObject = {
    "steps": whole("Steps", "More are slower and finer.", 15, 50, default=50),
    "guidance": decimal("Guidance", "Closeness to the prompt; 60 if absent.", 1.5, 100),
    "prompt_upsampling": _UPSAMPLING,
    "safety_tolerance": _tolerance(6),
}
SIDES = ("top", "bottom", "left", "right")


def _two(
    id: str, title: str, credits: int, for_each: int, expected_s: float, most: int, **more: JsonObject
) -> ModelSpec:
    """A model of FLUX.2: every picture that comes along is paid for, too (flux_bfl.md, section 8)."""
    fields = {
        "images": pictures("Pictures", "What is changed or brought together as the prompt says.", 1, most),
        **_pixels(64, 4096, 16),
        **more,
        "safety_tolerance": _tolerance(5),
    }
    return _model(id, title, {"credits": credits, "plus": {"images": for_each}}, expected_s, fields)


MODELS = (
    _model(
        PRO_1_1,
        "FLUX 1.1 [pro]",
        {"credits": 20},
        8,
        {**_pixels(256, 1440, 32), "prompt_upsampling": _UPSAMPLING, "safety_tolerance": _tolerance(6)},
    ),
    _model(
        ULTRA,
        "FLUX 1.1 [pro] Ultra",
        {"credits": 35},
        15,
        {
            "aspect_ratio": choice("Aspect ratio", "Width to height.", tuple(_SIZES), "16:9"),
            "raw": switch("Raw", "A less processed, more natural look.", False),
            "image": picture("Picture", "What the result is to resemble."),
            "image_prompt_strength": decimal("Resemblance", "How much it counts; 0.1 if absent.", 0, 1),
            "prompt_upsampling": _UPSAMPLING,
            "safety_tolerance": _tolerance(6),
        },
    ),
    _model(
        DEV,
        "FLUX.1 [dev]",
        {"credits": 10},
        8,
        {
            **_pixels(256, 1440, 32),
            "steps": whole("Steps", "More are slower and finer.", 1, 50, default=28),
            "guidance": decimal("Guidance", "Closeness to the prompt; 3 if absent.", 1.5, 5),
        },
    ),
    _model(
        SCHNELL,
        "FLUX.1 [schnell]",
        {"credits": 5, "times": "n"},
        3,
        {
            **_pixels(256, 1440, 32),
            "n": whole("Number", "How many pictures.", 1, 4, default=1),
            "steps": whole("Steps", "More are slower and finer.", 1, 12, default=4),
        },
    ),
    _model(
        DEV_FROM_IMAGE,
        "FLUX.1 [dev] Image to Image",
        {"credits": 12},
        8,
        {
            "image": picture("Picture", "What is changed."),
            "strength": decimal("Strength", "How much it is changed; 0.95 if absent.", 0.01, 1),
            "steps": whole("Steps", "More are slower and finer.", 1, 50, default=28),
            "guidance": decimal("Guidance", "Closeness to the prompt; 3.5 if absent.", 1, 20),
        },
        "image",
    ),
    _model(
        KONTEXT,
        "FLUX.1 Kontext [pro]",
        {"credits": 25},
        10,
        {"image": picture("Picture", "What is changed as the prompt says."), **_EDITED},
    ),
    _model(
        KONTEXT_MAX,
        "FLUX.1 Kontext [max]",
        {"credits": 50},
        12,
        {"image": picture("Picture", "What is changed as the prompt says."), **_EDITED},
        "image",
    ),
    _model(
        KONTEXT_MULTI,
        "FLUX.1 Kontext [pro], several pictures",
        {"credits": 30},
        12,
        {"images": pictures("Pictures", "What is brought together as the prompt says.", 2, 4), **_EDITED},
        "images",
    ),
    _model(
        FILL,
        "FLUX.1 Fill [pro]",
        {"credits": 25},
        15,
        {
            "image": picture("Picture", "What is painted in."),
            "mask": picture(
                "Mask", "As large as the picture: white is painted. Without one, what is transparent."
            ),
            **_PAINTED,
        },
        "image",
    ),
    _model(
        EXPAND,
        "FLUX.1 Expand [pro]",
        {"credits": 25},
        15,
        {
            "image": picture("Picture", "What is made larger."),
            **{
                side: whole(side.capitalize(), f"Pixels to add at the {side}.", 0, 2048, default=0)
                for side in SIDES
            },
            **_PAINTED,
        },
        "image",
    ),
    _two(PRO_2, "FLUX.2 [pro]", 30, 15, 10, 8),
    _two(MAX_2, "FLUX.2 [max]", 70, 30, 20, 8),
    _two(
        FLEX_2,
        "FLUX.2 [flex]",
        50,
        50,
        20,
        8,
        prompt_upsampling=switch("Expand the prompt", "Let the provider add detail to the prompt.", True),
        guidance=decimal("Guidance", "Closeness to the prompt; 5 if absent.", 1.5, 10),
        steps=whole("Steps", "More are slower and finer.", 1, 50, default=50),
    ),
    _two(KLEIN_4B, "FLUX.2 [klein] 4B", 14, 2, 3, 4),
    _two(KLEIN_9B, "FLUX.2 [klein] 9B", 15, 2, 4, 4),
)

QUIRKS = (
    "A model that both APIs have goes to whichever account has room; where one cannot take it, the other may.",
    "BFL: a result's URL dies ten minutes after it is ready, and a task is asked for only in the region that took it.",
    "BFL: a picture that its moderation stops is not charged by us; what BFL charges for it is its own affair.",
    "BFL: pictures go there as bytes, since fill, expand and Ultra take no addresses.",
    "fal: a picture that the safety checker blackened counts as moderated, though the API calls it a success; of "
    "several, only the others are kept and charged.",
    "fal: an input that it does not like is accepted at first and refused by the result.",
    "fal: its strictest safety tolerance is 1, so 0 is sent as 1.",
    "FLUX.2: a picture has at most 4 megapixels; a larger one is refused by the provider, not by us.",
    "BFL calls back only from its regional hosts, so only there a submit whose answer was lost can be found again; fal "
    "always calls back.",
)

# ---------------------------------------------------------------- both adapters


def chosen_size(wanted: Mapping[str, Any]) -> tuple[int, int] | None:
    """The size where the input says one, or where nothing else would decide it; None: as the pictures'."""
    says = any(name in wanted for name in ("width", "height", "aspect_ratio"))
    return size_of(wanted) if says or not wanted.get("images") else None


def size_of(wanted: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height: as given, else by aspect ratio, else the default."""
    if "width" in wanted and "height" in wanted:
        return int(wanted["width"]), int(wanted["height"])
    return _SIZES.get(wanted.get("aspect_ratio", ""), _DEFAULT_SIZE)


def whole_of(wanted: Mapping[str, Any], name: str) -> int | None:
    """An integer input; JSON Schema lets 5.0 pass as one."""
    return None if wanted.get(name) is None else int(wanted[name])
