"""What the results of Kling tell: costs of every kind, and what a job needs that goes on from them."""

from __future__ import annotations

from typing import Any

import pytest

from common.providers.kling_models import PATHS
from common.providers.registry import MODELS
from tests.unit.providers.fakes import poll, reply

FILM = {"videos": [{"id": "v-1", "url": "https://cdn.example/v.mp4", "duration": "5.1"}]}
PICTURES = {"images": [{"index": n, "url": f"https://cdn.example/{n}.png"} for n in range(2)]}


@pytest.mark.parametrize("model", PATHS)
def test_every_kind_of_legacy_result(model: str) -> None:
    result, count = (FILM, 1) if MODELS[model].kind == "video" else (PICTURES, 2)
    task = {
        "task_id": "ref-1",
        "task_status": "succeed",
        "task_result": result,
        "final_unit_deduction": "3.5",
    }
    verdict = poll("kling", model, reply(200, {"code": 0, "data": task}), path=PATHS[model])
    assert [made.kind for made in verdict.outputs] == [MODELS[model].kind] * count
    assert verdict.cost == "3.5"
    assert verdict.memo == ({"video_id": "v-1"} if MODELS[model].kind == "video" else {})


@pytest.mark.parametrize("model", ["kling/text-to-video", "kling/image-to-video"])
@pytest.mark.parametrize(
    ("id", "memo"), [("v-9", {"video_id": "v-9"}), (None, {}), ({}, {}), ("x" * 500, {})]
)
def test_the_new_api_tells_the_id_of_the_film_too(model: str, id: Any, memo: dict[str, Any]) -> None:
    outputs = [
        {"type": "audio", "id": "a-1", "mp3_url": "https://x/a.mp3"},
        {"type": "video", "id": id, "url": "https://x/v.mp4"},
    ]
    task = {"id": "ref-1", "status": "succeeded", "outputs": outputs, "billing": [{"amount": "3"}]}
    verdict = poll("kling", model, reply(200, {"code": 0, "data": [task]}), path="/tasks")
    assert (verdict.memo, verdict.cost) == (memo, "3")


@pytest.mark.parametrize(
    ("deduction", "cost"),
    [
        ({"final_unit_deduction": "3.5"}, "3.5"),
        ({"final_unit_deduction": 3}, "3"),
        ({"final_unit_deduction": "2", "final_balance_deduction": {"quota": "0", "list_price": "0"}}, "2"),
        ({"final_unit_deduction": "0", "final_balance_deduction": {"quota": "0.42"}}, "0.42"),
        ({"final_balance_deduction": {"quota": "0.42"}}, "0.42"),
        ({"final_unit_deduction": "0", "final_balance_deduction": {"quota": "0"}}, "0"),
        ({"final_unit_deduction": "", "final_balance_deduction": "odd"}, None),
        ({}, None),
    ],
)
def test_what_was_deducted(deduction: dict[str, Any], cost: str | None) -> None:
    task = {"task_id": "ref-1", "task_status": "succeed", "task_result": FILM, **deduction}
    assert poll("kling", "kling/extend", reply(200, {"code": 0, "data": task})).cost == cost
