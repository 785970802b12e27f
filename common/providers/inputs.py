"""The bricks that models' input schemas are built of (JSON Schema 2020-12)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.providers.base import JsonObject

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def form(
    title: str, fields: JsonObject, *, required: Sequence[str] = ("prompt",), rules: Sequence[JsonObject] = ()
) -> JsonObject:
    """A whole schema. `rules` hold between fields; unknown fields are refused."""
    schema: JsonObject = {
        "$schema": _DRAFT,
        "title": title,
        "type": "object",
        "properties": fields,
        "required": list(required),
        "additionalProperties": False,
    }
    return {**schema, "allOf": list(rules)} if rules else schema


def words(
    title: str,
    description: str,
    *,
    longest: int,
    example: str | None = "a red fox in snow",
    required: bool = False,
) -> JsonObject:
    """A text; a required one must not be blank."""
    field: JsonObject = {
        "type": "string",
        "title": title,
        "description": description,
        "maxLength": longest,
    }
    if example is not None:
        field["examples"] = [example]
    return {**field, "minLength": 1, "pattern": r"\S"} if required else field


def choice(title: str, description: str, options: Sequence[Any], default: Any = None) -> JsonObject:
    """One of a few strings or one of a few integers."""
    kind = "string" if isinstance(options[0], str) else "integer"
    field: JsonObject = {"type": kind, "title": title, "description": description, "enum": list(options)}
    return field if default is None else {**field, "default": default}


def whole(
    title: str, description: str, lowest: int, highest: int, *, step: int = 1, default: int | None = None
) -> JsonObject:
    """An integer within limits, inclusive."""
    field: JsonObject = {
        "type": "integer",
        "title": title,
        "description": description,
        "minimum": lowest,
        "maximum": highest,
    }
    if step != 1:
        field["multipleOf"] = step
    return field if default is None else {**field, "default": default}


def decimal(title: str, description: str, lowest: float, highest: float) -> JsonObject:
    """A number within limits, inclusive. It has no default: the provider's own applies."""
    return {
        "type": "number",
        "title": title,
        "description": description,
        "minimum": lowest,
        "maximum": highest,
    }


def switch(title: str, description: str, default: bool | None = None) -> JsonObject:
    """Yes or no."""
    field: JsonObject = {"type": "boolean", "title": title, "description": description}
    return field if default is None else {**field, "default": default}


# ---------------------------------------------------------------- media

MEDIUM = "x-media"  # marks a field whose value names a picture, a film or a sound
LONGEST_MEDIUM = 45_000_000  # characters: 32 MiB in base64; MAX_BODY_BYTES may say less
PICTURE_BYTES = 20 * 1024 * 1024  # more is not sent to any provider
_MEDIA = {
    "image": "https://example.com/fox.png",
    "video": "https://example.com/fox.mp4",
    "audio": "https://example.com/fox.mp3",
}
_UPLOAD_ID = re.compile(r"upl_[0-9a-z]{26}")


def medium(kind: str, title: str, description: str) -> JsonObject:
    """A `kind` of image, video or audio: an https URL or the id of an upload; an image also a data URL or base64."""
    return {
        "type": "string",
        "title": title,
        "description": description,
        "minLength": 1,
        "maxLength": LONGEST_MEDIUM,
        "examples": [_MEDIA[kind]],
        MEDIUM: kind,
    }


def picture(title: str, description: str) -> JsonObject:
    """An image: an https URL, a data URL, bare base64 or the id of an upload."""
    return medium("image", title, description)


def pictures(title: str, description: str, fewest: int, most: int) -> JsonObject:
    """Several images, each as `picture` takes them."""
    return {
        "type": "array",
        "title": title,
        "description": description,
        "minItems": fewest,
        "maxItems": most,
        "examples": [[_MEDIA["image"]] * max(1, fewest)],
        "items": picture(title, "An https URL, a data URL, base64 or the id of an upload."),
    }


def is_address(value: str) -> bool:
    """Whether a medium is named by where it is."""
    return value.lower().startswith(("https://", "http://"))


def is_upload(value: str) -> bool:
    """Whether a medium is named by the id of an upload. (No base64 has such a line in it.)"""
    return _UPLOAD_ID.fullmatch(value) is not None


def inline_base64(value: str) -> str:
    """The base64 in a data URL, or the value itself."""
    head, comma, rest = value.partition(",")
    return rest if comma and head.startswith("data:") and head.endswith(";base64") else value


def media_fields(schema: JsonObject) -> dict[str, str]:
    """The top-level fields of a model's schema that name media, each with its kind."""
    kinds = {}
    for name, its in schema.get("properties", {}).items():
        kind = its.get(MEDIUM) or its.get("items", {}).get(MEDIUM)
        if kind:
            kinds[name] = kind
    return kinds


def named_media(schema: JsonObject, given: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Every medium that a checked input names: its field (`images.0`, `dynamic_masks.0.mask`), its kind, and the value
    that names it."""
    for name, its in schema.get("properties", {}).items():
        if given.get(name) is not None:
            yield from _named(name, its, given[name])


def _named(field: str, its: JsonObject, value: Any) -> Iterator[tuple[str, str, str]]:
    if MEDIUM in its:
        yield field, its[MEDIUM], value
    elif isinstance(value, list) and "items" in its:
        for number, one in enumerate(value):
            yield from _named(f"{field}.{number}", its["items"], one)
    elif isinstance(value, dict) and "properties" in its:
        for name, of_part in its["properties"].items():
            if name in value:
                yield from _named(f"{field}.{name}", of_part, value[name])


def upload_ids(schema: JsonObject, given: Mapping[str, Any]) -> list[str]:
    """The uploads that a checked input names, each once."""
    return list(dict.fromkeys(value for _, _, value in named_media(schema, given) if is_upload(value)))


# ---------------------------------------------------------------- rules


def when(
    field: str, values: Sequence[Any], then: JsonObject, otherwise: JsonObject | None = None
) -> JsonObject:
    """A rule that holds where `field` is given and is one of `values`; `otherwise` where it is not."""
    rule: JsonObject = {
        "if": {"properties": {field: {"enum": list(values)}}, "required": [field]},
        "then": then,
    }
    return rule if otherwise is None else {**rule, "else": otherwise}


def limits(**fields: Any) -> JsonObject:
    """Narrower limits for some fields."""
    return {"properties": fields}


def without(*fields: str) -> JsonObject:
    """These fields must not be given. (`false` would say the same, but then an error names no field.)"""
    never = {"not": {"description": "allowed in this combination"}}
    return {"properties": dict.fromkeys(fields, never)}


def with_(field: str, other: str, value: Any) -> JsonObject:
    """This field may be given only where the other one is given and has this value."""
    return {"if": {"required": [field]}, "then": {**limits(**{other: {"const": value}}), "required": [other]}}


def together(*fields: str) -> JsonObject:
    """All of these fields or none. (`dependentRequired` would say the same, but an error names no field.)"""
    return {"allOf": [{"if": {"required": [name]}, "then": {"required": list(fields)}} for name in fields]}


def either(field: str, *others: str) -> JsonObject:
    """Where this field is given, the others must not be."""
    return {"if": {"required": [field]}, "then": without(*others)}
