"""What jobs cost, and price data that makes no sense."""

from __future__ import annotations

from typing import Any

import pytest

from common.providers.pricing import price_of
from common.providers.registry import MODELS
from tests.unit.providers.fakes import PICTURE_URL, submission


@pytest.mark.parametrize(
    ("model", "wanted", "credits"),
    [
        ("midjourney/imagine", {}, 5),
        ("midjourney/imagine", {"mode": "turbo"}, 10),
        ("midjourney/imagine", {"mode": "relax"}, 2),
        ("midjourney/action", {}, 5),
        ("kling/text-to-video", {}, 50),
        ("kling/text-to-video", {"duration_s": 10}, 100),
        ("kling/text-to-video", {"duration_s": 10.0}, 100),
        ("kling/text-to-video", {"mode": "pro"}, 100),
        ("kling/text-to-video", {"mode": "pro", "duration_s": 10}, 200),
        ("kling/text-to-video", {"model_name": "kling-v3", "duration_s": 15}, 150),
        ("kling/text-to-video", {"model_name": "kling-3.0", "mode": "4k", "duration_s": 3}, 150),
        ("kling/image", {}, 10),
        ("kling/image", {"n": 9}, 90),
        ("kling/image", {"image": PICTURE_URL}, 20),
        ("kling/image", {"image": PICTURE_URL, "image_reference": "face"}, 20),
        ("kling/image", {"image": PICTURE_URL, "n": 3}, 60),
        ("kling/image-to-video", {"model_name": "kling-v3", "duration_s": 12, "multi_shot": True}, 120),
        ("jimeng/text-to-image", {}, 10),
        ("jimeng/text-to-video", {}, 30),
        ("jimeng/text-to-video", {"duration_s": 10}, 60),
        ("flux/schnell", {"n": 4}, 20),
        ("flux/schnell", {}, 5),
        ("flux/dev", {}, 10),
        ("flux/pro-1.1", {}, 20),
        ("flux/2-pro", {}, 30),
        ("flux/pro-1.1-ultra", {}, 35),
    ],
)
def test_list_prices(model: str, wanted: dict[str, Any], credits: int) -> None:
    total, lines = price_of(MODELS[model].price, submission(model, input=wanted).input)
    assert total == credits
    assert sum(line["credits"] for line in lines) == credits
    assert all(line["label"] for line in lines)


def test_the_lines_say_what_is_paid_for() -> None:
    price = {"by": ["mode", "loud"], "table": {"std/true": 7}, "times": "n"}
    total, lines = price_of(price, {"mode": "std", "loud": True, "n": 3})
    assert (total, lines) == (21, [{"label": "mode std, loud true × 3", "credits": 21}])


def test_what_comes_on_top_is_multiplied_as_well() -> None:
    price = {"credits": 10, "plus": {"image": 10, "images": 1}, "times": "n"}
    total, lines = price_of(price, {"image": "data:…", "images": ["a", "b"], "n": 3})
    assert (total, lines) == (
        66,
        [
            {"label": "generation × 3", "credits": 30},
            {"label": "image × 3", "credits": 30},
            {"label": "images × 6", "credits": 6},
        ],
    )


def test_credits_stand_in_where_the_table_has_no_entry() -> None:
    price = {"credits": 9, "by": ["mode"], "table": {"std": 7}}
    assert price_of(price, {"mode": "std"})[0] == 7
    assert price_of(price, {"mode": "new"})[0] == 9
    assert price_of(price, {})[0] == 9


def test_free_is_a_price() -> None:
    assert price_of({"credits": 0}, {})[0] == 0


@pytest.mark.parametrize(
    "price",
    [
        {},
        {"credits": -1},
        {"credits": 1.5},
        {"credits": "5"},
        {"credits": True},
        {"credits": 10**10},
        {"credits": 5, "per_second": 2},
        {"credits": 5, "times": 3},
        {"credits": 5, "by": ["mode"]},
        {"table": {"std": 5}},
        {"by": [], "table": {"std": 5}},
        {"by": "mode", "table": {"std": 5}},
        {"by": ["mode"], "table": {}},
        {"by": ["mode"], "table": {"std": -5}},
        {"by": ["mode"], "table": ["std"]},
        [],
        None,
        5,
    ],
)
def test_bad_price_data_is_named(price: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        price_of(price, {"mode": "std"})


@pytest.mark.parametrize(
    "wanted", [{}, {"mode": "other"}, {"mode": "std", "n": 0}, {"mode": "std", "n": "3"}]
)
def test_an_input_without_a_price_is_an_error(wanted: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no price|whole number"):
        price_of({"by": ["mode"], "table": {"std": 5}, "times": "n"}, wanted)
