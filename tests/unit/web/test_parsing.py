"""Strict JSON in, and names that can be shown out, whatever comes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from common.errors import AppError, InvalidInput, MalformedRequest
from web.parsing import MAX_DEPTH, check_values, param_name, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), inner, max_size=4
    ),
    max_leaves=20,
)  # fmt: skip


@given(VALUES)
def test_good_values_pass_unchanged(value: Any) -> None:
    parsed = parse_json(json.dumps(value).encode())
    check_values(parsed)
    assert parsed == value


def refusal_of(raw: bytes) -> AppError | None:
    """What is said against a body; nothing where it can be kept and answered."""
    try:
        value = parse_json(raw)
        check_values(value)
    except (InvalidInput, MalformedRequest) as refusal:
        return refusal
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    return None


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_bytes_are_json_that_can_be_kept_or_refused(raw: bytes) -> None:
    refusal = refusal_of(raw)
    if refusal is not None:
        assert str(refusal).encode()
        assert (refusal.param or "").isascii()


@given(st.integers(1, 5 * MAX_DEPTH), st.sampled_from([("[", "]"), ('{"a":', "}")]))
def test_depth_has_a_limit(depth: int, kind: tuple[str, str]) -> None:
    inner = "" if kind[0] == "[" else "1"
    value = parse_json((kind[0] * depth + inner + kind[1] * depth).encode())
    try:
        check_values(value)
    except MalformedRequest:
        assert depth > MAX_DEPTH
    else:
        assert depth <= MAX_DEPTH


@given(st.text(st.characters(), max_size=500))
def test_any_name_can_be_shown(name: str) -> None:
    shown = param_name(name)
    assert shown is None or (shown.isascii() and "\0" not in shown and len(shown) <= 200)
