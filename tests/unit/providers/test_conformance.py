"""What every documented answer means: one row per status word and error code of the fact sheets."""

from __future__ import annotations

import pytest

from common.providers.base import Reply
from tests.unit.providers.conformance import bfl, fal, jimeng, kling, midjourney
from tests.unit.providers.conformance.vocabulary import Expected, Target
from tests.unit.providers.fakes import like, poll, submit


def row_id(value: object) -> str | None:
    if isinstance(value, Reply):
        return f"{value.status} {value.body.decode()[:70]}"
    return value[0] if isinstance(value, tuple) and isinstance(value[0], str) else None


@pytest.mark.parametrize(
    ("target", "answer", "expected"),
    [*midjourney.SUBMITS, *kling.SUBMITS, *jimeng.SUBMITS, *bfl.SUBMITS, *fal.SUBMITS],
    ids=row_id,
)
def test_what_an_answer_to_a_submit_means(target: Target, answer: Reply, expected: Expected) -> None:
    like(submit(*target, answer), expected[0], **expected[1])


@pytest.mark.parametrize(
    ("target", "answer", "expected"),
    [*midjourney.POLLS, *kling.POLLS, *jimeng.POLLS, *bfl.POLLS],
    ids=row_id,
)
def test_what_an_answer_to_a_poll_means(target: Target, answer: Reply, expected: Expected) -> None:
    like(poll(*target, answer), expected[0], **expected[1])


@pytest.mark.parametrize(("answer", "expected"), kling.NEW_POLLS, ids=row_id)
def test_what_klings_new_api_says(answer: Reply, expected: Expected) -> None:
    like(poll("kling", "kling/text-to-video", answer, path="/tasks"), expected[0], **expected[1])


@pytest.mark.parametrize(("answers", "expected"), fal.POLLS)
def test_what_fal_says(answers: list[Reply], expected: Expected) -> None:
    like(poll("fal", "flux/dev", *answers), expected[0], **expected[1])
