"""What users may call: the code's catalogue under the operator's say, prices, and the check of inputs."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from sqlalchemy import select
from sqlalchemy.orm import Session

from common import clock
from common.errors import InvalidInput, UnknownModel
from common.models import CatalogModel
from common.providers.base import ModelSpec
from common.providers.inputs import inline_base64, is_address, is_upload, named_media
from common.providers.pricing import price_of
from common.providers.registry import MODELS
from common.settings import settings

_REFRESH_S = 5.0
_Overrides = dict[str, tuple[bool, Any]]
_known: tuple[float, _Overrides] = (float("-inf"), {})


@dataclass(frozen=True, slots=True)
class Offer:
    """A model on sale, at its present price."""

    spec: ModelSpec
    price: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Quote:
    """What one job would cost."""

    credits: int
    breakdown: list[dict[str, Any]]


def offers(session: Session) -> list[Offer]:
    """Every model on sale, in catalogue order."""
    overrides = _overrides(session)
    return [
        Offer(spec, overrides.get(spec.id, (True, None))[1] or spec.price)
        for spec in MODELS.values()
        if overrides.get(spec.id, (True, None))[0]
    ]


def offer(session: Session, model_id: str) -> Offer:
    """One model on sale. Raises UnknownModel."""
    spec = MODELS.get(model_id)
    enabled, price = _overrides(session).get(model_id, (True, None))
    if spec is None or not enabled:
        raise UnknownModel(f"There is no model {model_id[:100]!r}; GET /v1/models lists them.", param="model")
    return Offer(spec, price or spec.price)


def is_known(model_id: str) -> bool:
    """Whether the catalogue has this model, on sale or not."""
    return model_id in MODELS


def spec_of(model_id: str) -> ModelSpec | None:
    """The model, on sale or not; None for an unknown one."""
    return MODELS.get(model_id)


def _overrides(session: Session) -> _Overrides:
    """The operator's rows, read again every few seconds: prices change rarely, jobs come often."""
    global _known  # noqa: PLW0603 - a cache of one value per process
    read_at, overrides = _known
    if clock.epoch() - read_at > _REFRESH_S:
        rows = session.execute(select(CatalogModel.id, CatalogModel.enabled, CatalogModel.price))
        overrides = {row.id: (row.enabled, row.price) for row in rows}
        _known = (clock.epoch(), overrides)
    return overrides


def quote(offered: Offer, given: Mapping[str, Any]) -> Quote:
    """The price of a checked input."""
    credits, breakdown = price_of(dict(offered.price), with_defaults(offered.spec, given))
    return Quote(credits, breakdown)


def with_defaults(spec: ModelSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """The input with the schema's defaults filled in: what adapters and prices work with."""
    properties = spec.input_schema.get("properties", {})
    defaults = {name: field["default"] for name, field in properties.items() if "default" in field}
    return {**defaults, **given}


def check_input(spec: ModelSpec, given: object) -> dict[str, Any]:
    """The input, if it fits the model's JSON Schema. Raises InvalidInput that names the field."""
    if not isinstance(given, dict):
        raise InvalidInput("`input` must be an object.", param="input")
    error = best_match(_validator(spec.id).iter_errors(given))
    if error is not None:
        raise InvalidInput(_sentence(error), param=_field(error))
    for name, kind, value in named_media(spec.input_schema, given):
        _check_medium(f"input.{name}", kind, value)
    return given


def _check_medium(param: str, kind: str, value: str) -> None:
    """Raises InvalidInput for what cannot name a medium; whether it is one shows when its bytes are read."""
    if is_upload(value):
        return
    if is_address(value):
        if not value.lower().startswith("https://") and not settings().allow_private_addresses:
            raise InvalidInput(f"{param} must be an https address.", param=param)
    elif kind != "image":
        raise InvalidInput(f"{param} must be an https address or the id of an upload.", param=param)
    elif not _is_base64(inline_base64(value)):
        raise InvalidInput(
            f"{param} must be an https address, a data URL, base64 or the id of an upload.", param=param
        )


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except ValueError:
        return False


@cache
def _validator(model_id: str) -> Draft202012Validator:
    return Draft202012Validator(MODELS[model_id].input_schema)


def _field(error: ValidationError) -> str:
    """The path of the field that is wrong, e.g. `input.prompt`."""
    rule: Any = error.validator_value
    path = [str(part) for part in error.absolute_path]
    if error.validator == "required":
        path.append(next(name for name in rule if name not in cast(Any, error.instance)))
    if error.validator == "additionalProperties":
        path.append(_strangers(error)[0])
    return ".".join(["input", *path])[:200]


def _sentence(error: ValidationError) -> str:
    """What is wrong, without repeating a long value."""
    name, rule = _field(error), cast(Any, error.validator_value)
    match error.validator:
        case "required":
            return f"{name} is required."
        case "additionalProperties":
            return f"{name} is not an input of this model."
        case "enum":
            return f"{name} must be one of {', '.join(map(repr, rule))}."[:300]
        case "type":
            return f"{name} must be of type {rule}."
        case "not":
            return f"{name} is not allowed in this combination."
        case validator if validator in _RULES:
            return f"{name} {_RULES[validator].format(str(rule)[:100])}."
        case validator:
            return f"{name} does not fit: {validator} is {str(rule)[:100]}."


_RULES = {
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "multipleOf": "must be a multiple of {}",
    "pattern": "must match {}",
}


def _strangers(error: ValidationError) -> list[str]:
    known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
    return [str(name) for name in cast(Any, error.instance) if name not in known]


def sync(session: Session) -> list[str]:
    """Give every model of the code a row that the operator can change. Returns the new ids."""
    known = set(session.scalars(select(CatalogModel.id)))
    new = [model_id for model_id in MODELS if model_id not in known]
    session.add_all(
        CatalogModel(id=model_id, enabled=True, price=None, updated_at=clock.now()) for model_id in new
    )
    return new
