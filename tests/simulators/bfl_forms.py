"""What BFL's models take and cost. Facts: fact sheet flux_bfl.md, sections 3 and 8.

Types are strict although the real service turns "2" into 2: an adapter that mixes up BFL and fal should be noticed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, create_model

Ratio: TypeAlias = Annotated[str, Field(pattern=r"^\d{1,2}:\d{1,2}$")]
Pixels1: TypeAlias = Annotated[int, Field(ge=256, le=1440, multiple_of=32)]
Pixels2: TypeAlias = Annotated[int, Field(ge=0, multiple_of=16)]
_LARGEST_2 = 4_194_304  # pixels of FLUX.2


class Form(BaseModel):
    """What every model takes. Unknown fields are ignored."""

    model_config = ConfigDict(strict=True)

    prompt: str
    seed: int | None = None
    output_format: Literal["jpeg", "png", "webp"] = "jpeg"
    safety_tolerance: int = Field(2, ge=0, le=6)
    webhook_url: str | None = Field(None, min_length=1, max_length=2083, pattern="^https?://")
    webhook_secret: str | None = None

    def size(self) -> tuple[int, int]:
        """Width and height of what will be made."""
        return 1024, 1024


class Pro11(Form):
    prompt: str = ""
    image_prompt: str | None = None
    width: Pixels1 = 1024
    height: Pixels1 = 768
    prompt_upsampling: bool = False

    def size(self) -> tuple[int, int]:
        return self.width, self.height


class Dev(Pro11):
    steps: int = Field(28, ge=1, le=50)
    guidance: float = Field(3, ge=1.5, le=5)


class Ultra(Form):
    prompt: str = ""
    aspect_ratio: Ratio = "16:9"
    raw: bool = False
    image_prompt: str | None = None
    image_prompt_strength: float = Field(0.1, ge=0, le=1)
    prompt_upsampling: bool = False

    def size(self) -> tuple[int, int]:
        return shaped(self.aspect_ratio, 4)


class Fill(Form):
    prompt: str = ""
    image: str
    mask: str | None = None
    steps: int = Field(50, ge=15, le=50)
    guidance: float = Field(60, ge=1.5, le=100)
    prompt_upsampling: bool = False


class Expand(Fill):
    top: int = Field(0, ge=0, le=2048)
    bottom: int = Field(0, ge=0, le=2048)
    left: int = Field(0, ge=0, le=2048)
    right: int = Field(0, ge=0, le=2048)


def _pictures(count: int) -> dict[str, Any]:
    """`input_image`, `input_image_2` and so on."""
    return {
        "input_image" + (f"_{number}" if number > 1 else ""): (str | None, None)
        for number in range(1, count + 1)
    }


class _Kontext(Form):
    output_format: Literal["jpeg", "png", "webp"] = "png"
    aspect_ratio: Ratio | None = None
    prompt_upsampling: bool = False

    def size(self) -> tuple[int, int]:
        return shaped(self.aspect_ratio or "1:1", 1)


class _Two(Form):
    safety_tolerance: int = Field(2, ge=0, le=5)
    width: Pixels2 = 0
    height: Pixels2 = 0

    def size(self) -> tuple[int, int]:
        return self.width or 1024, self.height or 1024


class _Flex(_Two):
    prompt_upsampling: bool = True
    guidance: float = Field(5, ge=1.5, le=10)
    steps: int = Field(50, ge=1, le=50)


Kontext = create_model("Kontext", __base__=_Kontext, **_pictures(4))
Two = create_model("Two", __base__=_Two, **_pictures(8))
Flex = create_model("Flex", __base__=_Flex, **_pictures(8))
Klein = create_model("Klein", __base__=_Two, **_pictures(4))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One model: its form, and its price in credits for the first megapixel (or all of them) and each further one."""

    form: type[Form]
    first: float
    further: float = 0.0

    def cost(self, megapixels: float) -> float:
        """Credits for a picture of that size."""
        return self.first + self.further * (math.ceil(megapixels) - 1)


ENDPOINTS = {
    "flux-pro-1.1": Endpoint(Pro11, 4.0),
    "flux-pro-1.1-ultra": Endpoint(Ultra, 6.0),
    "flux-dev": Endpoint(Dev, 2.5),
    "flux-kontext-pro": Endpoint(Kontext, 4.0),
    "flux-kontext-max": Endpoint(Kontext, 8.0),
    "flux-pro-1.0-fill": Endpoint(Fill, 5.0),
    "flux-pro-1.0-expand": Endpoint(Expand, 5.0),
    "flux-2-pro": Endpoint(Two, 3.0, 1.5),
    "flux-2-pro-preview": Endpoint(Two, 3.0, 1.5),
    "flux-2-max": Endpoint(Two, 7.0, 3.0),
    "flux-2-flex": Endpoint(Flex, 5.0, 5.0),
    "flux-2-klein-4b": Endpoint(Klein, 1.4),
    "flux-2-klein-9b": Endpoint(Klein, 1.5),
    "flux-2-klein-9b-preview": Endpoint(Klein, 1.5),
}


def problems_of_size(form: Form) -> list[dict[str, Any]]:
    """What no single field tells: FLUX.2's smallest side and largest picture."""
    if not isinstance(form, _Two):
        return []
    small = [name for name in ("width", "height") if 0 < getattr(form, name) < 64]
    if small:
        return [_problem(name, "greater_than_equal", "Input should be 0 or at least 64") for name in small]
    if form.width * form.height > _LARGEST_2:
        return [_problem("width", "value_error", "Width times height must not exceed 4 megapixels")]
    return []


def _problem(field: str, kind: str, words: str) -> dict[str, Any]:
    return {"loc": ["body", field], "msg": words, "type": kind}


def shaped(ratio: str, megapixels: int) -> tuple[int, int]:
    """A size of about so many megapixels in that shape, in steps of 32."""
    across, down = (int(part) or 1 for part in ratio.split(":"))
    scale = math.sqrt(megapixels * 1_048_576 / (across * down)) / 32
    return max(1, round(across * scale)) * 32, max(1, round(down * scale)) * 32
