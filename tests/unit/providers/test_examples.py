"""The example answers of the fact sheets, replayed as they stand there."""

from __future__ import annotations

import json

import pytest

from common.providers.base import Accepted, Succeeded
from tests.unit.providers.conformance.examples import ACTION, HOOKS, POLLS, SUBMITS, WINDOW
from tests.unit.providers.conformance.vocabulary import Expected, Target
from tests.unit.providers.fakes import adapter, like, poll, reply, submission, submit


@pytest.mark.parametrize(("target", "status", "answer", "expected"), SUBMITS)
def test_an_answer_to_a_submit(target: Target, status: int, answer: str, expected: Expected) -> None:
    like(submit(*target, reply(status, answer.encode())), expected[0], **expected[1])


def test_a_window_that_asks_for_a_prompt_is_answered_and_the_task_is_its_own() -> None:
    confirmed = reply(200, {"code": 1, "description": "", "result": "1760000000000200", "properties": {}})
    verdict = submit(*ACTION, reply(200, WINDOW.encode()), confirmed)
    like(verdict, Accepted, provider_ref="1760000000000200")


@pytest.mark.parametrize(("target", "ref", "answers", "expected"), POLLS)
def test_answers_to_a_look(target: Target, ref: str, answers: list[str], expected: Expected) -> None:
    api, _, way = target[0].partition("/")
    memo = {"path": "/tasks"} if way == "new" else {}
    replies = [reply(200, answer.encode()) for answer in answers]
    seed = [reply(404)] if api == "midjourney" else []  # which is asked for where the task does not say it
    verdict = poll(api, target[1], *replies, *seed, ref=ref, **memo)
    like(verdict, expected[0], **expected[1])
    if isinstance(verdict, Succeeded):
        (output,) = verdict.outputs
        assert output.url
        assert output.url in "".join(answers)


@pytest.mark.parametrize("body", HOOKS)
def test_what_a_webhook_reveals(body: str) -> None:
    """The sheet cuts ids short with an ellipsis, which no real one has in it."""
    revealed = adapter("fal").adopt(json.loads(body.replace("80e7…", "80e7")), submission("flux/dev"))
    assert revealed is not None
    assert revealed.provider_ref == "80e7"
