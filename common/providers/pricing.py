"""What a job costs, computed from price data that an operator may have written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from common.providers.base import JsonObject

_KEYS = frozenset({"credits", "by", "table", "times", "plus"})
_LARGEST = 10**9


def price_of(price: JsonObject, input: Mapping[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    """The credits for an input with its defaults filled in, and the lines `{"label", "credits"}` they consist of.

    `price` is as `ModelSpec` describes it: `credits` alone, or a `table` with the values of the inputs in `by`
    joined by "/" as keys (`credits` then serves values that the table lacks); `plus` adds so much for each item that
    the named inputs hold; all of it is multiplied by the input in `times`.
    Raises ValueError for bad price data and for an input that has no price.
    """
    check(price)
    each, label = _each(price, input)
    count = _count(price, input)
    if count != 1:
        label = f"{label} × {count}"
    lines = [{"label": label, "credits": each * count}, *_extras(price, input, count)]
    return sum(line["credits"] for line in lines), lines


def _extras(price: JsonObject, input: Mapping[str, Any], count: int) -> Iterator[dict[str, Any]]:
    for name, credits in price.get("plus", {}).items():
        value = input.get(name)
        items = count * (len(value) if isinstance(value, list) else int(value is not None))
        if items:
            yield {"label": f"{name} × {items}", "credits": credits * items}


def check(price: object) -> None:
    """Raises ValueError, saying what is wrong, unless this is price data."""
    if not isinstance(price, dict):
        raise ValueError("a price must be an object")  # noqa: TRY004 - the caller's data, not a programming error
    if strangers := sorted(str(key) for key in price.keys() - _KEYS):
        raise ValueError(f"a price has no field {strangers[0]!r}")
    if "credits" not in price and "table" not in price:
        raise ValueError("a price needs `credits` or a `table`")
    if "credits" in price:
        _check_credits(price["credits"], "`credits`")
    if "table" in price or "by" in price:
        _check_table(price.get("by"), price.get("table"))
    if "plus" in price:
        _check_plus(price["plus"])
    if "times" in price and not _is_name(price["times"]):
        raise ValueError("`times` must be the name of an input")


def _check_table(by: object, table: object) -> None:
    if not isinstance(by, list) or not by or not all(_is_name(name) for name in by):
        raise ValueError("`by` must be a list of names of inputs")
    if not isinstance(table, dict) or not table:
        raise ValueError("`table` must be an object with at least one price")
    for key, credits in table.items():
        _check_credits(credits, f"`table` at {key!r}")


def _check_plus(plus: object) -> None:
    if not isinstance(plus, dict) or not plus or not all(_is_name(name) for name in plus):
        raise ValueError("`plus` must be an object of inputs and their prices")
    for name, credits in plus.items():
        _check_credits(credits, f"`plus` for {name!r}")


def _check_credits(credits: object, where: str) -> None:
    if isinstance(credits, bool) or not isinstance(credits, int) or not 0 <= credits <= _LARGEST:
        raise ValueError(f"{where} must be a whole number of credits, not negative")


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name)


def _each(price: JsonObject, input: Mapping[str, Any]) -> tuple[int, str]:
    """The price of one, and what it is for."""
    if "table" not in price:
        return price["credits"], "generation"
    values = [_word(input.get(name)) for name in price["by"]]
    label = ", ".join(f"{name} {value}" for name, value in zip(price["by"], values, strict=True))
    credits = price["table"].get("/".join(values), price.get("credits"))
    if credits is None:
        raise ValueError(f"there is no price for {label}")
    return credits, label


def _count(price: JsonObject, input: Mapping[str, Any]) -> int:
    count = input.get(price["times"], 1) if "times" in price else 1
    if isinstance(count, bool) or not isinstance(count, (int, float)) or count < 1 or count != int(count):
        raise ValueError(f"{price['times']} must be a whole number from 1 up")
    return int(count)


def _word(value: object) -> str:
    """An input's value as the table spells it: 5.0 is a valid integer in JSON Schema and means 5."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
