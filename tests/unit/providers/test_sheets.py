"""The tables are complete: nothing that a fact sheet names is without a row, and what rows say is consistent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from common.providers.base import Failed, NotAccepted, Reply
from common.words import ErrorCode
from tests.unit.providers.conformance import bfl, fal, jimeng, kling, midjourney
from tests.unit.providers.conformance.sheets import CODES, STATUSES

TABLES: dict[str, ModuleType] = {
    "midjourney": midjourney, "kling": kling, "jimeng": jimeng, "bfl": bfl, "fal": fal,
}  # fmt: skip


def rows(api: str) -> list[Any]:
    """All rows of an API's tables."""
    tables = [
        value for name, value in vars(TABLES[api]).items() if re.fullmatch(r"(NEW_)?(SUBMITS|POLLS)", name)
    ]
    return [row for table in tables for row in table]


def replies(value: Any) -> Iterator[Reply]:
    """Every answer in a row."""
    if isinstance(value, Reply):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from replies(item)


def values(value: Any) -> Iterator[Any]:
    """Every scalar in an answer's JSON."""
    if isinstance(value, dict):
        for item in value.values():
            yield from values(item)
    elif isinstance(value, list):
        for item in value:
            yield from values(item)
    else:
        yield value


def told(api: str) -> tuple[set[Any], str]:
    """What the table's answers hold, each value by itself and all texts together."""
    found: set[Any] = set()
    for reply in replies(rows(api)):
        found |= {reply.status, *values(reply.json()), *reply.headers.values()}
    return found, "\n".join(value for value in found if isinstance(value, str))


@pytest.mark.parametrize(("api", "word"), [(api, word) for api, words in STATUSES.items() for word in words])
def test_every_status_word_has_a_row(api: str, word: str) -> None:
    assert word in told(api)[0]


@pytest.mark.parametrize(("api", "code"), [(api, code) for api, codes in CODES.items() for code in codes])
def test_every_error_code_has_a_row(api: str, code: int | str) -> None:
    found, texts = told(api)
    assert code in found or (isinstance(code, str) and code in texts)


def test_what_rows_say_is_consistent() -> None:
    """Moderated input is final; a time-out or a lack of money is nobody's fault who could change the input."""
    for api in TABLES:
        for *_, (kind, says) in rows(api):
            code = says.get("code")
            if code in (ErrorCode.INVALID_INPUT, ErrorCode.PROVIDER_REJECTED):
                assert not says.get("retryable"), (api, says)
            if kind is Failed and says.get("try_again"):
                assert (code, says["retryable"]) == (ErrorCode.CONTENT_MODERATED, True), (api, says)
            if kind is NotAccepted:
                assert "trouble" in says, (api, says)
            assert code is None or code in set(ErrorCode), (api, code)
