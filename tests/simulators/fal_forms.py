"""What the Flux models at fal take, cost and answer. Facts: fact sheet flux_fal.md, section 10.

Types are strict although the real service turns 2 into "2": an adapter that mixes up BFL and fal should be noticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from tests.simulators.bfl_forms import Ratio, shaped

Tolerance: TypeAlias = Literal["1", "2", "3", "4", "5", "6"]
Acceleration: TypeAlias = Literal["none", "regular", "high"]
Address: TypeAlias = Annotated[str, Field(pattern="^(https?://|data:)")]
_PRESETS = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
Preset: TypeAlias = Literal[
    "square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"
]


class Size(BaseModel):
    """A size in numbers."""

    model_config = ConfigDict(strict=True)

    width: int = Field(512, gt=0, le=14142)
    height: int = Field(512, gt=0, le=14142)


class Form(BaseModel):
    """What every model takes. Unknown fields are ignored."""

    model_config = ConfigDict(strict=True)

    prompt: str
    seed: int | None = None
    output_format: Literal["jpeg", "png"] = "jpeg"
    sync_mode: bool = False

    def size(self) -> tuple[int, int]:
        """Width and height of what will be made."""
        return 1024, 1024

    def count(self) -> int:
        """How many pictures will be made."""
        return 1


class Several(Form):
    num_images: int = Field(1, ge=1, le=4)

    def count(self) -> int:
        return self.num_images


class Sized(Several):
    image_size: Size | Preset = "landscape_4_3"
    enable_safety_checker: bool = True

    def size(self) -> tuple[int, int]:
        wanted = self.image_size
        return (wanted.width, wanted.height) if isinstance(wanted, Size) else _PRESETS[wanted]


class Schnell(Sized):
    num_inference_steps: int = Field(4, ge=1, le=12)


class Dev(Sized):
    num_inference_steps: int = Field(28, ge=1, le=50)
    guidance_scale: float = Field(3.5, ge=1, le=20)
    acceleration: Acceleration = "none"


class DevFromImage(Dev):
    image_url: Address
    strength: float = Field(0.95, ge=0.01, le=1)


class Pro11(Sized):
    safety_tolerance: Tolerance = "2"
    enhance_prompt: bool = False


class Ultra(Several):
    aspect_ratio: Ratio = "16:9"
    raw: bool = False
    image_url: Address | None = None
    image_prompt_strength: float = Field(0.1, ge=0, le=1)
    safety_tolerance: Tolerance = "2"
    enable_safety_checker: bool = True
    enhance_prompt: bool = False

    def size(self) -> tuple[int, int]:
        return shaped(self.aspect_ratio, 4)


class FromText(Several):
    aspect_ratio: Ratio | None = None
    guidance_scale: float = Field(3.5, ge=1, le=20)
    safety_tolerance: Tolerance = "2"

    def size(self) -> tuple[int, int]:
        return shaped(self.aspect_ratio or "1:1", 1)


class Kontext(FromText):
    image_url: Address


class KontextMulti(FromText):
    image_urls: list[Address] = Field(min_length=1)


class Pro2(Form):
    image_size: Size | Preset = "landscape_4_3"
    safety_tolerance: Literal["1", "2", "3", "4", "5"] = "2"
    enable_safety_checker: bool = True

    def size(self) -> tuple[int, int]:
        wanted = self.image_size
        return (wanted.width, wanted.height) if isinstance(wanted, Size) else _PRESETS[wanted]


class Pro2Edit(Pro2):
    image_urls: list[Address] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Model:
    """One model: its form, its price in USD for a picture, and whether its checker blacks pictures out."""

    form: type[Form]
    price: float
    flags_nsfw: bool = False


MODELS = {
    "fal-ai/flux/schnell": Model(Schnell, 0.003, True),
    "fal-ai/flux/dev": Model(Dev, 0.025, True),
    "fal-ai/flux/dev/image-to-image": Model(DevFromImage, 0.03, True),
    "fal-ai/flux-pro/v1.1": Model(Pro11, 0.04, True),
    "fal-ai/flux-pro/v1.1-ultra": Model(Ultra, 0.06),
    "fal-ai/flux-pro/kontext": Model(Kontext, 0.04),
    "fal-ai/flux-pro/kontext/max": Model(Kontext, 0.08),
    "fal-ai/flux-pro/kontext/multi": Model(KontextMulti, 0.04),
    "fal-ai/flux-pro/kontext/text-to-image": Model(FromText, 0.04),
    "fal-ai/flux-2-pro": Model(Pro2, 0.03),
    "fal-ai/flux-2-pro/edit": Model(Pro2Edit, 0.03),
}
