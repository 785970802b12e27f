"""The tables are complete: nothing that a fact sheet names is without a row, and what rows say is consistent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import pytest

from common.providers.base import Failed, NotAccepted, NoVerdict, Rejected, Reply, Trouble, Unknown
from common.providers.reading import LONGEST_PAUSE_S
from common.providers.registry import ADAPTERS
from common.providers.remote import MESSAGE_LIMIT
from common.services.lifecycle.submitting import _TROUBLE_CODES
from common.words import ErrorCode
from tests.unit.providers.conformance import bfl, fal, jimeng, kling, midjourney
from tests.unit.providers.conformance.sheets import CODES, STATUSES
from tests.unit.providers.fakes import poll, submit

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


@cache
def told(api: str) -> tuple[frozenset[Any], str]:
    """What the table's answers hold, each value by itself and all texts together."""
    found: set[Any] = set()
    for reply in replies(rows(api)):
        inside = (value for value in values(reply.json()) if not isinstance(value, bool))  # True is no code 1
        found |= {reply.status, *inside, *reply.headers.values()}
    return frozenset(found), "\n".join(value for value in found if isinstance(value, str))


@pytest.mark.parametrize(("api", "word"), [(api, word) for api, words in STATUSES.items() for word in words])
def test_every_status_word_has_a_row(api: str, word: str) -> None:
    assert word in told(api)[0]


@pytest.mark.parametrize(("api", "code"), [(api, code) for api, codes in CODES.items() for code in codes])
def test_every_error_code_has_a_row(api: str, code: int | str) -> None:
    found, texts = told(api)
    assert code in found or (isinstance(code, str) and code in texts)


def is_about(code: int | str, answer: Reply) -> bool:
    """Whether an answer carries a code as `Adapter.codes` writes it: a value, a word, or `HTTP 403 words`."""
    if isinstance(code, str) and code.startswith("HTTP "):
        status, _, words = code.removeprefix("HTTP ").partition(" ")
        return answer.status == int(status) and words.encode() in answer.body
    inside = list(values(answer.json()))
    return code in inside or any(
        isinstance(code, str) and isinstance(it, str) and code in it for it in inside
    )


def meaning(kind: type, says: dict[str, Any]) -> str | None:
    return ErrorCode.SUBMIT_UNKNOWN if kind is Unknown else says.get("trouble", says.get("code"))


@pytest.mark.parametrize("api", TABLES)
def test_what_the_documents_say_of_a_code_is_what_its_rows_say(api: str) -> None:
    codes = ADAPTERS[api].codes()
    assert codes
    for code, means in codes.items():
        about = [expected for *row, expected in rows(api) if any(is_about(code, it) for it in replies(row))]
        assert means in {meaning(*expected) for expected in about}, (code, means)


def verdicts(api: str) -> Iterator[Any]:
    """What the adapter makes of every answer in the table, taken as one to a submit and as one to a look."""
    model = ADAPTERS[api].models[0]
    for answer in replies(rows(api)):
        yield submit(api, model, answer, answer)
        yield poll(api, model, answer, answer)


@pytest.mark.parametrize("api", TABLES)
def test_verdicts_are_consistent(api: str) -> None:
    """A refusal is final; a failure may be worth another try, but never a fault of the input or, unless it was
    chance, moderation; what is an account's fault is no job's; whoever did not take a job says why; and nothing goes
    without words."""
    for verdict in verdicts(api):
        match verdict:
            case Rejected():
                assert verdict.code in _OF_THE_INPUT | {
                    ErrorCode.PROVIDER_REJECTED,
                    ErrorCode.PROVIDER_FAILED,
                }
                assert verdict.tries <= 2
                assert (verdict.code == ErrorCode.PROVIDER_FAILED) <= (verdict.tries > 0)
            case Failed(code=ErrorCode.CONTENT_MODERATED):
                assert verdict.retryable == verdict.try_again
            case Failed(trouble=Trouble() as trouble):
                assert verdict.code == _TROUBLE_CODES[trouble]
                assert verdict.retryable
                assert not verdict.try_again
            case Failed():
                assert verdict.code in (ErrorCode.INVALID_INPUT, ErrorCode.PROVIDER_FAILED)
                assert not (verdict.retryable and verdict.code in _OF_THE_INPUT)
                assert not verdict.try_again
            case NotAccepted() | NoVerdict():
                assert verdict.retry_after_s is None or 0 <= verdict.retry_after_s <= LONGEST_PAUSE_S
        if isinstance(verdict, (Rejected, NotAccepted, Unknown, Failed, NoVerdict)):
            assert 0 < len(verdict.message) <= MESSAGE_LIMIT


_OF_THE_INPUT = {ErrorCode.INVALID_INPUT, ErrorCode.CONTENT_MODERATED}
