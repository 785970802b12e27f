"""What Jimeng's products take and make. Facts: fact sheet jimeng.md, section A6. Unknown fields are ignored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tests.simulators.pictures import Picture, from_base64, is_address

_MB = 1024 * 1024
_LIGHT, _HEAVY = int(4.7 * _MB), 15 * _MB
_LARGEST_SIDE = 4096
_GROUP = 15  # pictures sent and made, together
_OFFERED = 4  # pictures of a group that this simulator makes
_SMALLEST_OUTPUT, _LARGEST_OUTPUT = 1024**2, 4096**2
_VIDEO_RATIOS = Literal["16:9", "4:3", "1:1", "3:4", "9:16", "21:9"]
_FPS = 24

Seed = Annotated[int, Field(ge=-1, le=2**31 - 1)]
Prompt = Annotated[str, Field(min_length=1, max_length=800)]


class Form(BaseModel):
    """What every product takes."""

    model_config = ConfigDict(strict=True)

    req_key: str
    prompt: str = Field(default="", max_length=800)
    image_urls: list[str] | None = None
    binary_data_base64: list[str] | None = None

    @property
    def sent(self) -> int:
        """How many pictures came along."""
        return len(self.image_urls or ()) + len(self.binary_data_base64 or ())

    @property
    def made(self) -> int:
        """How many pictures or films there will be."""
        return 1

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a picture."""
        return 1328, 1328

    @property
    def video_s(self) -> float:
        """How long a film will be."""
        return 0.0

    def check_pictures(self, fewest: int, most: int, heaviest: int, *, for_film: bool = False) -> None:
        """Raise ValueError where the pictures do not suit."""
        if not fewest <= self.sent <= most:
            raise ValueError(f"{fewest} to {most} pictures are needed")
        if not all(map(is_address, self.image_urls or ())):
            raise ValueError("image_urls must be addresses")
        for value in self.binary_data_base64 or ():
            _check(from_base64(value), heaviest, for_film=for_film)


def _check(picture: Picture | None, heaviest: int, *, for_film: bool) -> None:
    if picture is None or picture.kind not in ("png", "jpeg"):
        raise ValueError("no jpeg or png")
    if picture.weight > heaviest or max(picture.width, picture.height) > _LARGEST_SIDE:
        raise ValueError("a picture is too large")
    if for_film and min(picture.width, picture.height) < 320:
        raise ValueError("the short side needs at least 320 pixels")
    if for_film and max(picture.width, picture.height) > 3 * min(picture.width, picture.height):
        raise ValueError("the ratio must not exceed 3")


# ---------------------------------------------------------------- pictures


class Version4(Form):
    prompt: Prompt
    area: int = Field(default=4_194_304, ge=_SMALLEST_OUTPUT, le=_LARGEST_OUTPUT, alias="size")
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    min_ratio: float = Field(default=1 / 3, ge=1 / 16, le=16)
    max_ratio: float = Field(default=3.0, ge=1 / 16, le=16)
    scale: float = Field(default=0.5, ge=0, le=1)
    force_single: bool = False

    @property
    def sent(self) -> int:
        """binary_data_base64 is no field of these, and so ignored."""
        return len(self.image_urls or ())

    @model_validator(mode="after")
    def _together(self) -> Self:
        self.binary_data_base64 = None
        self.check_pictures(0, self._most(), _HEAVY)
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height go together")
        if self.width is not None and "area" in self.model_fields_set:
            raise ValueError("either size or width and height")
        if not _SMALLEST_OUTPUT <= self.size[0] * self.size[1] <= _LARGEST_OUTPUT:
            raise ValueError("the area is out of range")
        if self.min_ratio > self.max_ratio:
            raise ValueError("min_ratio exceeds max_ratio")
        return self

    def _most(self) -> int:
        return 10

    @property
    def made(self) -> int:
        return 1 if self.force_single else min(_OFFERED, _GROUP - self.sent)

    @property
    def size(self) -> tuple[int, int]:
        if self.width and self.height:
            return self.width, self.height
        side = int(self.area**0.5)
        return side, side


class Version46(Version4):
    scale: int = Field(default=50, ge=1, le=100)

    def _most(self) -> int:
        return 14


class Version3(Form):
    prompt: Prompt
    seed: Seed = -1
    width: int = Field(default=1328, ge=512, le=2048)
    height: int = Field(default=1328, ge=512, le=2048)
    use_pre_llm: bool = True

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


class Edit(Form):
    prompt: Prompt
    scale: float = Field(default=0.5, ge=0, le=1)
    seed: Seed = -1
    width: int = Field(default=1328, ge=512, le=2016)
    height: int = Field(default=1328, ge=512, le=2016)

    @model_validator(mode="after")
    def _one_picture(self) -> Self:
        self.check_pictures(1, 1, _LIGHT)
        return self

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


class Inpaint(Form):
    prompt: Prompt
    seed: Seed = 101

    @model_validator(mode="after")
    def _source_and_mask(self) -> Self:
        self.check_pictures(2, 2, _LIGHT)
        return self


class Enlarge(Form):
    resolution: Literal["4k", "8k"] = "4k"
    scale: int = Field(default=50, ge=0, le=100)

    @model_validator(mode="after")
    def _one_picture(self) -> Self:
        self.check_pictures(1, 1, _LIGHT)
        return self

    @property
    def size(self) -> tuple[int, int]:
        side = 4096 if self.resolution == "4k" else 8192
        return side, side


# ---------------------------------------------------------------- films


class Film(Form):
    prompt: Prompt
    seed: Seed = -1
    frames: Literal[121, 241] = 121

    @property
    def video_s(self) -> float:
        return (self.frames - 1) / _FPS


class TextFilm(Film):
    aspect_ratio: _VIDEO_RATIOS = "16:9"


class FirstFrame(Film):
    @model_validator(mode="after")
    def _one_picture(self) -> Self:
        self.check_pictures(1, 1, _LIGHT, for_film=True)
        return self


class FirstAndLast(Film):
    @model_validator(mode="after")
    def _two_pictures(self) -> Self:
        self.check_pictures(2, 2, _LIGHT, for_film=True)
        return self


class Recamera(FirstFrame):
    template_id: str = Field(min_length=1)
    camera_strength: Literal["weak", "medium", "strong"] = "medium"


class ProFilm(TextFilm):
    prompt: str = Field(default="", max_length=800)

    @model_validator(mode="after")
    def _something(self) -> Self:
        self.check_pictures(0, 1, _LIGHT, for_film=True)
        if not self.prompt and not self.sent:
            raise ValueError("a prompt or a first frame is needed")
        return self


@dataclass(frozen=True, slots=True)
class Product:
    """One req_key: its form, what it makes, and its price in CNY for each (section A8)."""

    form: type[Form]
    makes: Literal["png", "jpeg", "mp4"]
    price: float = 0.22
    calls_back: bool = False  # section A7


PRODUCTS: dict[str, Product] = {
    "jimeng_t2i_v40": Product(Version4, "png", calls_back=True),
    "jimeng_seedream46_cvtob": Product(Version46, "png", calls_back=True),
    "jimeng_t2i_v31": Product(Version3, "jpeg"),
    "jimeng_t2i_v30": Product(Version3, "jpeg"),
    "jimeng_i2i_v30": Product(Edit, "jpeg"),
    "jimeng_image2image_dream_inpaint": Product(Inpaint, "jpeg", 0.20),
    "jimeng_i2i_seed3_tilesr_cvtob": Product(Enlarge, "jpeg", 0.40),
    "jimeng_t2v_v30": Product(TextFilm, "mp4", 1.0),
    "jimeng_t2v_v30_1080p": Product(TextFilm, "mp4", 2.0),
    "jimeng_i2v_first_v30": Product(FirstFrame, "mp4", 1.0),
    "jimeng_i2v_first_v30_1080": Product(FirstFrame, "mp4", 2.0),
    "jimeng_i2v_first_tail_v30": Product(FirstAndLast, "mp4", 1.0),
    "jimeng_i2v_first_tail_v30_1080": Product(FirstAndLast, "mp4", 2.0),
    "jimeng_i2v_recamera_v30": Product(Recamera, "mp4", 1.0),
    "jimeng_ti2v_v30_pro": Product(ProFilm, "mp4", 2.0),
}


def read(body: Any) -> Form:
    """The form of this body. Raises ValueError (a pydantic one among them) and KeyError for an unknown req_key."""
    if not isinstance(body, dict):
        raise ValueError("no object")
    return PRODUCTS[str(body.get("req_key"))].form.model_validate(body)
