"""What OpenAI's parameters mean for our models: sizes become what a model's schema has, the rest is its own input."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import gcd
from typing import Any

from common.errors import InvalidInput, UnknownModel
from common.providers.base import JsonObject, ModelSpec
from common.services import catalog
from common.services.jobs import NewJob

DIALECT = "openai"
_SIZE = re.compile(r"([1-9]\d{1,4})x([1-9]\d{1,4})")
_NEUTRAL = ("auto", "standard", None, False, 0)  # compared, never hashed: anything may be sent


def model_of(model: str, *kinds: str) -> ModelSpec:
    """The model, if it makes what this call is for. Raises UnknownModel."""
    spec = catalog.spec_of(model)
    if spec is None or spec.kind not in kinds:
        raise UnknownModel(
            f"There is no such model of {' or '.join(kinds)}s; see GET /v1/models.", param="model"
        )
    return spec


def new_job(
    spec: ModelSpec, given: Mapping[str, Any], metadata: dict[str, Any], parent_id: str | None = None
) -> NewJob:
    """A job of this dialect; what is None was not given. A form has only text: numbers are read from it."""
    fields: JsonObject = spec.input_schema["properties"]
    wanted = {name: _read(fields.get(name, {}), value) for name, value in given.items() if value is not None}
    return NewJob(model=spec.id, input=wanted, metadata=metadata, dialect=DIALECT, parent_id=parent_id)


def _read(field: JsonObject, value: Any) -> Any:
    """`7` in a form, where the model wants the number; what is no such thing stays, and is refused as it is."""
    if not isinstance(value, str) or field.get("type") not in _FROM_TEXT:
        return value
    pattern, read = _FROM_TEXT[field["type"]]
    return read(value) if re.fullmatch(pattern, value) else value


_FROM_TEXT: dict[str, tuple[str, Callable[[str], Any]]] = {
    "integer": (r"-?\d{1,18}", int),
    "number": (r"-?\d{1,18}(\.\d{1,18})?", float),
    "boolean": ("true|false", "true".__eq__),
}


def size_of(spec: ModelSpec, size: str | None) -> JsonObject:
    """`1536x1024` as the model takes it: width and height, or the nearest of its ratios. Raises InvalidInput."""
    if size in _NEUTRAL:
        return {}
    match = _SIZE.fullmatch(size or "")
    if match is None:
        raise InvalidInput("A size looks like 1024x1024.", param="size")
    width, height = int(match[1]), int(match[2])
    fields: JsonObject = spec.input_schema["properties"]
    if "width" in fields and _fits(fields["width"], width) and _fits(fields["height"], height):
        return {"width": width, "height": height}
    if "aspect_ratio" in fields:
        return {"aspect_ratio": _nearest(fields["aspect_ratio"], width, height)}
    raise InvalidInput("This model makes no pictures of a size of your own.", param="size")


def _fits(field: JsonObject, value: int) -> bool:
    in_range = field.get("minimum", 1) <= value <= field.get("maximum", 100_000)
    return bool(in_range and value % field.get("multipleOf", 1) == 0)


def _nearest(field: JsonObject, width: int, height: int) -> str:
    if "enum" not in field:  # any ratio
        return _reduced(width, height)
    ratios = [ratio for ratio in field["enum"] if re.fullmatch(r"\d+:\d+", ratio)]

    def distance(ratio: str) -> float:
        across, down = map(int, ratio.split(":"))
        return abs(across * height - down * width) / (down * height)

    return str(min(ratios, key=distance))


def _reduced(width: int, height: int) -> str:
    divisor = gcd(width, height)
    across, down = width // divisor, height // divisor
    while max(across, down) > 999:
        across, down = max(1, across // 10), max(1, down // 10)
    return f"{across}:{down}"


def require_neutral(given: Mapping[str, Any], *names: str) -> None:
    """Refuse parameters that mean something elsewhere and nothing here. Raises InvalidInput."""
    for name in names:
        if given.get(name) not in _NEUTRAL:
            raise InvalidInput(f"{name} is not supported by the models of this platform.", param=name)
