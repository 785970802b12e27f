"""What holds for the requests of every provider."""

from __future__ import annotations

from typing import Any

import pytest

from common.providers.base import (
    NotSent,
    NoVerdict,
    Unanswered,
)
from common.providers.registry import MODELS
from tests.unit.providers.fakes import (
    FakeHttp,
    adapter,
    handle,
    like,
    minimal,
    reply,
    run,
    submission,
)


@pytest.mark.parametrize("name", ["fal", "midjourney"])
@pytest.mark.parametrize(
    "answer", [reply(500), reply(503, {"status": "OK"}), reply(429), Unanswered("x"), NotSent("x")]
)
def test_who_does_not_answer_a_cancel_may_be_asked_again(name: str, answer: Any) -> None:
    made = adapter(name)
    like(run(made.cancel(FakeHttp(answer), handle(made.models[0], "80e7"))), NoVerdict)


@pytest.mark.parametrize("name", ["kling", "jimeng"])
def test_who_cannot_be_canceled(name: str) -> None:
    made = adapter(name)
    assert run(made.cancel(FakeHttp(), handle(made.models[0]))) is False


def test_who_is_asked_by_its_reference_alone() -> None:
    called = {"id": "1", "status": "x", "task_id": "1", "code": 0}
    assert adapter("kling").adopt(called, submission("kling/image")) is None


def test_every_model_can_be_submitted_with_its_required_fields_only() -> None:
    for model in MODELS:
        wanted = minimal(model)
        for name in ("midjourney", "kling", "jimeng", "bfl", "fal"):
            if model in adapter(name).models:
                http = FakeHttp(reply(500))
                from_api = submission(model)
                run(adapter(name).submit(http, type(from_api)(
                    model=model, input=wanted, reference="r", callback_url=None, parent=from_api.parent,
                    media=from_api.media)))  # fmt: skip
                assert len(http.sent) == 1
