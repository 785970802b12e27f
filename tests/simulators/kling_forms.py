"""What Kling's products take, how many places they need and what they cost. Facts: fact sheet kling.md.

Fields of the paths that the sheet only names (extend, lip-sync, effects, try-on …) are what makes sense of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tests.simulators.pictures import from_base64, is_address

_VIDEO_MODELS = ("kling-v1", "kling-v1-6", "kling-v2-master", "kling-v2-1-master", "kling-v2-5-turbo",
                 "kling-v2-6", "kling-v3")  # fmt: skip
_WITH_CFG = ("kling-v1", "kling-v1-6")
_WITH_SOUND = ("kling-v2-6", "kling-v3")
_LEGACY_HEAVIEST, _NEW_HEAVIEST = 10 * 1024 * 1024, 50 * 1024 * 1024
_UNITS_PER_S = {"std": 0.3, "pro": 0.5, "4k": 3.0}  # of list prices, a unit being 0.14 USD (section 9)
_SIDES = {"1k": 1024, "2k": 2048}

Mode: TypeAlias = Literal["std", "pro", "4k"]
Ratio: TypeAlias = Literal["16:9", "9:16", "1:1"]
PictureRatio: TypeAlias = Literal["16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9"]
Switch: TypeAlias = Literal["on", "off"]


class Part(BaseModel):
    """Something inside a form. Unknown fields are ignored, `model` among them; types are taken strictly."""

    model_config = ConfigDict(strict=True, protected_namespaces=())


class Watermark(Part):
    enabled: bool = False


class Form(Part):
    """What every legacy product takes."""

    callback_url: str | None = None
    external_task_id: str | None = Field(default=None, min_length=1)
    watermark_info: Watermark = Watermark()

    @property
    def words(self) -> str:
        """The prompt, or what stands in its place."""
        return str(getattr(self, "prompt", None) or "")

    @property
    def places(self) -> int:
        """How many of the account's places it takes (section 8)."""
        return 1

    @property
    def units(self) -> float:
        """What it costs."""
        return 1.0

    @property
    def video_s(self) -> float | None:
        """How long the film will be; None where pictures are made."""
        return None

    @property
    def picture_size(self) -> tuple[int, int]:
        """Of what is made, where pictures are."""
        return 1024, 1024

    @property
    def films(self) -> Iterable[str]:
        """The ids of films that it needs."""
        return ()


# ---------------------------------------------------------------- pictures that are sent


def check_picture(value: str, heaviest: int = _LEGACY_HEAVIEST) -> str:
    """A URL, or bare base64 of a jpg or png (section 4.3). Raises ValueError."""
    if is_address(value):
        return value
    if value.startswith("data:"):
        raise ValueError("base64 must come without a data: prefix")
    picture = from_base64(value)
    if picture is None or picture.kind not in ("png", "jpeg"):
        raise ValueError("no jpg or png")
    if picture.weight > heaviest:
        raise ValueError("the file is too large")
    if min(picture.width, picture.height) < 300:
        raise ValueError("each side needs at least 300 pixels")
    if not 1 / 2.5 <= picture.width / picture.height <= 2.5:
        raise ValueError("the ratio must lie between 1:2.5 and 2.5:1")
    return value


def _pictures(*names: str) -> Any:
    def check(value: str | None) -> str | None:
        return check_picture(value) if value else value

    return field_validator(*names)(check)


# ---------------------------------------------------------------- films, legacy (sections 4.2 and 4.3)

_AXES = ("horizontal", "vertical", "pan", "tilt", "roll", "zoom")


class Axes(Part):
    horizontal: float = Field(0, ge=-10, le=10)
    vertical: float = Field(0, ge=-10, le=10)
    pan: float = Field(0, ge=-10, le=10)
    tilt: float = Field(0, ge=-10, le=10)
    roll: float = Field(0, ge=-10, le=10)
    zoom: float = Field(0, ge=-10, le=10)


class Camera(Part):
    type: Literal["simple", "down_back", "forward_up", "right_turn_forward", "left_turn_forward"]
    config: Axes | None = None

    @model_validator(mode="after")
    def _one_axis(self) -> Self:
        if (self.config is not None) != (self.type == "simple"):
            raise ValueError("config goes with simple, and only with it")
        if self.config and sum(getattr(self.config, axis) != 0 for axis in _AXES) != 1:
            raise ValueError("exactly one axis must not be zero")
        return self


class _Video(Form):
    model_name: str = "kling-v1"
    prompt: str = Field("", max_length=2500)
    negative_prompt: str = Field("", max_length=2500)
    cfg_scale: float | None = Field(None, ge=0, le=1)
    mode: Mode = "std"
    duration: str | int = "5"
    sound: Switch | None = None
    camera_control: Camera | None = None

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.model_name not in _VIDEO_MODELS:
            raise ValueError(f"model_name {self.model_name} is not supported")
        lengths = range(3, 16) if self.model_name == "kling-v3" else (5, 10)
        if str(self.duration) not in map(str, lengths):
            raise ValueError("duration is out of range")
        if self.cfg_scale is not None and self.model_name not in _WITH_CFG:
            raise ValueError(f"{self.model_name} takes no cfg_scale")
        if self.sound == "on" and self.model_name not in _WITH_SOUND:
            raise ValueError(f"{self.model_name} makes no sound")
        if self.mode == "4k" and self.model_name != "kling-v3":
            raise ValueError(f"{self.model_name} does not support 4k")
        return self

    @property
    def video_s(self) -> float:
        return float(self.duration)

    @property
    def units(self) -> float:
        return round(_UNITS_PER_S[self.mode] * self.video_s, 2)


class Shot(Part):
    index: int = Field(ge=1)
    prompt: str = Field(min_length=1, max_length=512)
    duration: str


class _Film(_Video):
    """What v3 makes several shots of (section 4.3; what stands in the fields: unverified)."""

    multi_shot: bool = False
    shot_type: Literal["customize", "intelligence"] | None = None
    multi_prompt: list[Shot] | None = Field(None, min_length=1, max_length=6)

    @model_validator(mode="after")
    def _shots(self) -> Self:
        if (self.multi_shot or self.shot_type or self.multi_prompt) and self.model_name != "kling-v3":
            raise ValueError(f"{self.model_name} makes no several shots")
        if self.multi_shot != (self.shot_type is not None):
            raise ValueError("shot_type goes with multi_shot")
        if (self.shot_type == "customize") != (self.multi_prompt is not None):
            raise ValueError("multi_prompt goes with customize")
        shots = self.multi_prompt or []
        if [shot.index for shot in shots] != list(range(1, len(shots) + 1)):
            raise ValueError("shots are counted from 1")
        if shots and sum(int(shot.duration) for shot in shots) != int(self.duration):
            raise ValueError("the shots do not last as long as the film")
        return self


class TextToVideo(_Film):
    prompt: str = Field(min_length=1, max_length=2500)
    aspect_ratio: Ratio = "16:9"


class Voice(Part):
    voice_id: str = Field(min_length=1)


class Point(Part):
    x: int
    y: int


class DynamicMask(Part):
    mask: str
    trajectories: list[Point] = Field(min_length=2, max_length=77)

    _pictures = _pictures("mask")


class ImageToVideo(_Film):
    image: str | None = None
    image_tail: str | None = None
    static_mask: str | None = None
    dynamic_masks: list[DynamicMask] | None = Field(None, max_length=6)
    element_list: list[dict[str, Any]] | None = Field(None, max_length=3)
    voice_list: list[Voice] | None = Field(None, max_length=2)

    _pictures = _pictures("image", "image_tail", "static_mask")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if not self.image and not self.image_tail:
            raise ValueError("image or image_tail is required")
        if self.voice_list and (self.model_name != "kling-v3" or self.sound != "on"):
            raise ValueError("voices go with v3 and sound")
        ways = (self.image_tail, self.static_mask or self.dynamic_masks, self.camera_control)
        if sum(bool(way) for way in ways) > 1:
            raise ValueError("image_tail, masks and camera_control exclude each other")
        return self


class PictureItem(Part):
    image: str

    _pictures = _pictures("image")


class MultiImageToVideo(_Video):
    model_name: str = "kling-v1-6"
    prompt: str = Field(min_length=1, max_length=2500)
    image_list: list[PictureItem] = Field(min_length=1, max_length=4)
    aspect_ratio: Ratio = "16:9"


class VideoExtend(Form):
    video_id: str = Field(min_length=1)
    prompt: str = Field("", max_length=2500)
    negative_prompt: str = Field("", max_length=2500)
    cfg_scale: float = Field(0.5, ge=0, le=1)

    @property
    def video_s(self) -> float:
        return 5.0

    @property
    def films(self) -> Iterable[str]:
        return (self.video_id,)


class Speech(Part):
    mode: Literal["text2video", "audio2video"]
    video_id: str | None = None
    video_url: str | None = None
    text: str | None = Field(None, max_length=120)
    voice_id: str | None = None
    audio_type: Literal["file", "url"] | None = None
    audio_file: str | None = None
    audio_url: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.video_id) == bool(self.video_url):
            raise ValueError("either video_id or video_url")
        if self.mode == "text2video" and not (self.text and self.voice_id):
            raise ValueError("text and voice_id are required")
        if self.mode == "audio2video" and not (self.audio_file or self.audio_url):
            raise ValueError("audio_file or audio_url is required")
        return self


class LipSync(Form):
    input: Speech

    @property
    def words(self) -> str:
        return self.input.text or ""

    @property
    def video_s(self) -> float:
        return 5.0

    @property
    def films(self) -> Iterable[str]:
        return (self.input.video_id,) if self.input.video_id else ()


class EffectInput(Part):
    model_name: str | None = None
    mode: Mode = "std"
    image: str | None = None
    images: list[str] | None = Field(None, min_length=2, max_length=2)
    duration: Literal["5", "10"] = "5"

    _pictures = _pictures("image")

    @model_validator(mode="after")
    def _one_or_two(self) -> Self:
        if bool(self.image) == bool(self.images):
            raise ValueError("either image or images")
        for picture in self.images or ():
            check_picture(picture)
        return self


class Effects(Form):
    effect_scene: str = Field(min_length=1)
    input: EffectInput

    @property
    def words(self) -> str:
        return self.effect_scene

    @property
    def video_s(self) -> float:
        return float(self.input.duration)


# ---------------------------------------------------------------- pictures, legacy (section 4.4)


class Images(Form):
    model_name: Literal["kling-v2-1", "kling-v3"] = "kling-v3"
    prompt: str = Field(min_length=1, max_length=2500)
    negative_prompt: str | None = Field(None, max_length=2500)
    image: str | None = None
    image_reference: Literal["subject", "face"] | None = None
    image_fidelity: float = Field(0.5, ge=0, le=1)
    human_fidelity: float = Field(0.45, ge=0, le=1)
    resolution: Literal["1k", "2k"] = "1k"
    n: int = Field(1, ge=1, le=9)
    aspect_ratio: PictureRatio = "16:9"

    _pictures = _pictures("image")

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.image and self.negative_prompt:
            raise ValueError("negative_prompt does not go with image")
        return self

    @property
    def places(self) -> int:
        return self.n

    @property
    def units(self) -> float:
        return round((0.2 if self.image else 0.1) * self.n, 2)

    @property
    def picture_size(self) -> tuple[int, int]:
        return _shaped(self.aspect_ratio, _SIDES[self.resolution])


class MultiImageToImage(Form):
    model_name: str = "kling-v2"
    prompt: str = Field("", max_length=2500)
    subject_image_list: list[dict[str, str]] = Field(min_length=1, max_length=4)
    scene_image: str | None = None
    style_image: str | None = None
    n: int = Field(1, ge=1, le=9)
    aspect_ratio: PictureRatio = "16:9"

    _pictures = _pictures("scene_image", "style_image")

    @field_validator("subject_image_list")
    @classmethod
    def _subjects(cls, value: list[dict[str, str]]) -> list[dict[str, str]]:
        for subject in value:
            check_picture(subject.get("subject_image", ""))
        return value

    @property
    def places(self) -> int:
        return self.n

    @property
    def units(self) -> float:
        return round(0.2 * self.n, 2)

    @property
    def picture_size(self) -> tuple[int, int]:
        return _shaped(self.aspect_ratio, 1024)


class Expand(Form):
    image: str
    prompt: str = Field("", max_length=2500)
    up_expansion_ratio: float = Field(0, ge=0, le=2)
    down_expansion_ratio: float = Field(0, ge=0, le=2)
    left_expansion_ratio: float = Field(0, ge=0, le=2)
    right_expansion_ratio: float = Field(0, ge=0, le=2)
    n: int = Field(1, ge=1, le=9)

    _pictures = _pictures("image")

    @model_validator(mode="after")
    def _area(self) -> Self:
        across = 1 + self.left_expansion_ratio + self.right_expansion_ratio
        down = 1 + self.up_expansion_ratio + self.down_expansion_ratio
        if not 1 < across * down <= 3:
            raise ValueError("the area must grow, to three times itself at most")
        return self

    @property
    def places(self) -> int:
        return self.n

    @property
    def units(self) -> float:
        return round(0.2 * self.n, 2)


class TryOn(Form):
    model_name: Literal["kolors-virtual-try-on-v1", "kolors-virtual-try-on-v1-5"] = "kolors-virtual-try-on-v1"
    human_image: str
    cloth_image: str

    _pictures = _pictures("human_image", "cloth_image")


LEGACY: dict[str, type[Form]] = {
    "/v1/videos/text2video": TextToVideo,
    "/v1/videos/image2video": ImageToVideo,
    "/v1/videos/multi-image2video": MultiImageToVideo,
    "/v1/videos/video-extend": VideoExtend,
    "/v1/videos/lip-sync": LipSync,
    "/v1/videos/effects": Effects,
    "/v1/images/generations": Images,
    "/v1/images/multi-image2image": MultiImageToImage,
    "/v1/images/editing/expand": Expand,
    "/v1/images/kolors-virtual-try-on": TryOn,
}


def _shaped(ratio: str, longer: int) -> tuple[int, int]:
    """A size in that shape, with that longer side."""
    across, down = map(int, ratio.split(":"))
    largest = max(across, down)
    return longer * across // largest, longer * down // largest


# ---------------------------------------------------------------- the new generation (section 5.1)


class Options(Part):
    callback_url: str | None = None
    external_task_id: str | None = Field(default=None, min_length=1)
    watermark_info: Watermark = Watermark()


class Settings(Part):
    resolution: Literal["720p", "1080p", "4k"] = "720p"
    aspect_ratio: Ratio = "16:9"
    duration: int = Field(default=5, ge=3, le=15)
    audio: Literal["native", "off"] = "off"
    multi_shot: bool | None = None


class Content(Part):
    type: Literal["prompt", "first_frame", "last_frame", "element"]
    text: str | None = Field(None, max_length=3072)
    url: str | None = None
    element_id: str | int | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type == "prompt" and not self.text:
            raise ValueError("a prompt needs its text")
        if self.type == "element" and self.element_id is None:
            raise ValueError("an element needs its id")
        if self.type.endswith("_frame"):
            check_picture(self.url or "", _NEW_HEAVIEST)
        return self


_NEW_UNITS_PER_S = {  # silent, with sound (section 9)
    "720p": (0.6, 0.9),
    "1080p": (0.8, 1.2),
    "4k": (3.0, 3.0),
}


class NewForm(Part, ABC):
    """What every product of the new generation takes; the model stands in the path."""

    settings: Settings = Settings()
    options: Options = Options()

    @property
    @abstractmethod
    def words(self) -> str:
        """The prompt."""

    @property
    def units(self) -> float:
        """What it costs."""
        silent, loud = _NEW_UNITS_PER_S[self.settings.resolution]
        return round((loud if self.settings.audio == "native" else silent) * self.settings.duration, 2)

    def problem(self, model: str) -> str:
        """What this model does not take; empty where all is well."""
        settings = self.settings
        longest = 3072 if model == "kling-3.0" else 2500
        if len(self.words) > longest:
            return f"prompt is longer than {longest}"
        if settings.resolution == "4k" and model != "kling-3.0":
            return f"{model} does not support 4k"
        if settings.multi_shot is not None and model != "kling-3.0":
            return f"{model} does not support multi_shot"
        if model == "kling-2.6" and settings.duration not in (5, 10):
            return "duration must be 5 or 10"
        if model == "kling-2.6" and settings.audio == "native" and settings.resolution != "1080p":
            return "native audio needs 1080p"
        return ""


class NewTextToVideo(NewForm):
    prompt: str = Field(min_length=1, max_length=3072)

    @property
    def words(self) -> str:
        return self.prompt


class NewImageToVideo(NewForm):
    contents: list[Content] = Field(min_length=1)

    @property
    def words(self) -> str:
        return next((content.text or "" for content in self.contents if content.type == "prompt"), "")

    def problem(self, model: str) -> str:
        kinds = [content.type for content in self.contents]
        if "first_frame" not in kinds:
            return "a first_frame is required"
        if "last_frame" in kinds and model == "kling-3.0-turbo":
            return "last_frame is not supported"
        if kinds.count("element") > 3:
            return "at most 3 elements"
        return super().problem(model)


NEW: dict[str, type[NewForm]] = {
    "/text-to-video/kling-3.0": NewTextToVideo,
    "/text-to-video/kling-3.0-turbo": NewTextToVideo,
    "/text-to-video/kling-2.6": NewTextToVideo,
    "/image-to-video/kling-3.0": NewImageToVideo,
    "/image-to-video/kling-3.0-turbo": NewImageToVideo,
}
