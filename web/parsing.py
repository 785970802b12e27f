"""Requests into checked values. A body is believed in nothing: not its encoding, depth, numbers or names."""

from __future__ import annotations

import base64
import json
import math
import re
from collections import Counter
from typing import Any, NoReturn, TypeVar

from flask import g, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import UnsupportedMediaType

from common.errors import InvalidInput, MalformedRequest, TooLarge
from common.media import HEAD_BYTES, sniff

MAX_DEPTH = 64
SMALL_BODY = 65_536
_MOST_VALUES = 100_000  # a body of nothing but brackets would else take a hundred times its size in memory
_LARGEST_INTEGER = 2**63 - 1
_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")
_NAME_LENGTH = 60
M = TypeVar("M", bound=BaseModel)


# ---------------------------------------------------------------- JSON


def parse_json(raw: bytes) -> Any:
    """The value, or MalformedRequest for what is not strict JSON in UTF-8 (RFC 8259, no repeated names)."""
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > _MOST_VALUES:
        raise MalformedRequest("The body holds too many values.")
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise MalformedRequest("The body is not UTF-8.") from None
    except RecursionError:
        raise MalformedRequest("The body is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise MalformedRequest(f"The body is not valid JSON: {error.msg} at character {error.pos}.") from None
    except ValueError:
        raise MalformedRequest("The body holds a number with too many digits.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise MalformedRequest(f"The body gives {_shown(twice)} twice.")
    return made


def _no_constant(name: str) -> NoReturn:
    raise MalformedRequest(f"The body is not valid JSON: it holds {name}.")


def check_values(value: Any, path: str = "", depth: int = 0) -> None:
    """Refuse what no database could keep: NUL characters, lone surrogates, numbers out of range, deep nesting."""
    if isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, dict):
        _check_depth(depth)
        for name, item in value.items():
            _check_text(name, path)
            check_values(item, f"{path}.{name}" if path else name, depth + 1)
    elif isinstance(value, list):
        _check_depth(depth)
        for number, item in enumerate(value):
            check_values(item, f"{path}.{number}" if path else str(number), depth + 1)
    elif isinstance(value, (int, float)):
        _check_number(value, path)


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise MalformedRequest("The body is nested too deeply.")


def _check_text(text: str, path: str) -> None:
    if "\0" in text:
        raise InvalidInput("Text must not hold the character U+0000.", param=param_name(path))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInput(
                "Text must be valid Unicode, without lone surrogates.", param=param_name(path)
            ) from None


def _check_number(number: float, path: str) -> None:
    if not math.isfinite(number) or (isinstance(number, int) and abs(number) > _LARGEST_INTEGER):
        raise InvalidInput("This number is out of range.", param=param_name(path))


def param_name(path: str) -> str | None:
    """A field's path as answers show it: bounded, and always text that can be encoded."""
    return path.encode("ascii", "backslashreplace").decode().replace("\0", "\\x00")[:200] or None


def _shown(name: str) -> str:
    return repr(name[:_NAME_LENGTH])


# ---------------------------------------------------------------- body and query


def raw_body() -> bytes:
    """The request's body. Raises TooLarge, and MalformedRequest where the client hung up before its end.

    Under gunicorn werkzeug notices neither: it cuts off a body that did not say its length, and takes a part of one
    that did for the whole. A small one may be asked for again.
    """
    known: bytes | None = g.get("small_body")
    if known is not None:
        return known
    most, said = request.max_content_length, request.content_length
    if said is None and most is not None:
        request.max_content_length = most + 1
    raw = request.get_data(cache=False)
    if most is not None and len(raw) > most:
        raise TooLarge
    if said is not None and len(raw) < said:
        raise MalformedRequest("The body ended before its announced length.")
    if len(raw) <= SMALL_BODY:
        g.small_body = raw
    return raw


def body_object(*, may_be_absent: bool = False) -> dict[str, Any]:
    """The request's body as an object whose values can be stored; without one, an empty object if that is allowed.

    Raises MalformedRequest, InvalidInput or UnsupportedMediaType.
    """
    _require_json()
    raw = raw_body()
    if not raw and may_be_absent:
        return {}
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise MalformedRequest("The body must be a JSON object.")
    check_values(value)
    return value


def form_object() -> dict[str, Any]:
    """The request's form as such an object: `name[]` and `name[0]` are lists, `name[key]` an object, a file a data URL.

    Raises MalformedRequest, InvalidInput, and what is too large is answered 413 by werkzeug.
    """
    if request.content_length is None:
        raise MalformedRequest("A form needs a Content-Length.")
    request.max_form_memory_size = (
        request.max_content_length
    )  # a picture may be a data URL, as it may in JSON
    value: dict[str, Any] = {}
    files = [(name, _data_url(file.read())) for name, file in request.files.items(multi=True)]
    fields = [(*_form_name(name), item) for name, item in [*request.form.items(multi=True), *files]]
    for name, key, item in sorted(fields, key=_number):
        _put(value, name, key, item)
    if not value:
        raise MalformedRequest("The form is empty, or broken.")
    check_values(value)
    return value


_FORM_NAME = re.compile(r"(\w{1,64})(?:\[(\w{0,64})\])?")
_NUMBER = re.compile(r"[0-9]{1,4}")


def _form_name(name: str) -> tuple[str, str | None]:
    """A field's name, and what stands in its brackets if it has some."""
    match = _FORM_NAME.fullmatch(name)
    if match is None:
        raise InvalidInput("A field has an impossible name.", param=param_name(name))
    return match[1], match[2]


def _number(field: tuple[str, str | None, str]) -> int:
    """Where a numbered item belongs; all else stays in its order, before them."""
    key = field[1] or ""
    return int(key) if _NUMBER.fullmatch(key) else -1


def _put(value: dict[str, Any], name: str, key: str | None, item: str) -> None:
    if key is None and name not in value:
        value[name] = item
    elif key and not _NUMBER.fullmatch(key):
        if not isinstance(value.setdefault(name, {}), dict):
            raise InvalidInput("This is given twice.", param=name)
        value[name][key] = item
    else:  # name[], name[0], or a name that comes again
        known = value.get(name, [])
        value[name] = [*(known if isinstance(known, list) else [known]), item]


def _data_url(content: bytes) -> str:
    found = sniff(content[:HEAD_BYTES])
    kind = found.content_type if found else "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _require_json() -> None:
    """Refuse a body that says it is something else; one that says nothing may be JSON."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Compressed bodies are not supported.")
    said = request.mimetype
    if (
        said
        and said != "application/json"
        and not (said.startswith("application/") and said.endswith("+json"))
    ):
        raise UnsupportedMediaType("The body must be JSON: send it with `Content-Type: application/json`.")


def fit(model: type[M], value: dict[str, Any]) -> M:
    """The value as this model. Raises InvalidInput that names the field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _invalid(error) from None


def query_values(model: type[M]) -> M:
    """The query parameters as this model; unknown and repeated ones are refused."""
    for name, values in request.args.lists():
        if len(values) > 1:
            raise InvalidInput(f"{_shown(name)} is given twice.", param=param_name(name))
        if "\0" in name + values[0] or "\ufffd" in name + values[0]:
            raise InvalidInput("This is not text.", param=param_name(name))
    return fit(model, request.args.to_dict())


def _invalid(error: ValidationError) -> InvalidInput:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    name = param_name(path)
    match first["type"]:
        case "missing":
            message = f"{name} is required."
        case "extra_forbidden":
            message = f"{name} is not known here."
        case _:
            message = f"{name}: {first['msg'].removeprefix('Value error, ')}."
    return InvalidInput(message, param=name)


def idempotency_key() -> str | None:
    """The client's Idempotency-Key, if it sent one: 1 to 255 visible ASCII characters."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _VISIBLE.fullmatch(key):
        raise InvalidInput(
            "An Idempotency-Key has 1 to 255 visible ASCII characters.", param="Idempotency-Key"
        )
    return key
