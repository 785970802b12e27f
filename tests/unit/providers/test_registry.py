"""The registry is complete, and every model's schema holds what it promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from common import providers
from common.providers.base import Adapter, Credentials
from common.providers.pricing import check, price_of
from common.providers.registry import ADAPTERS, MODELS, adapter_for, adapters_for
from tests.unit.providers.fakes import BASES, SECRETS, minimal, submission

CATALOGUE = [
    "midjourney/imagine",
    "midjourney/action",
    "midjourney/blend",
    "midjourney/describe",
    "midjourney/shorten",
    "kling/text-to-video",
    "kling/image-to-video",
    "kling/multi-image-to-video",
    "kling/extend",
    "kling/lip-sync",
    "kling/effects",
    "kling/image",
    "kling/image-expand",
    "kling/multi-image-to-image",
    "kling/virtual-try-on",
    "jimeng/text-to-image",
    "jimeng/image-to-image",
    "jimeng/inpaint",
    "jimeng/upscale",
    "jimeng/text-to-video",
    "jimeng/image-to-video",
    "jimeng/video-pro",
    "flux/pro-1.1",
    "flux/pro-1.1-ultra",
    "flux/dev",
    "flux/schnell",
    "flux/dev-image-to-image",
    "flux/kontext-pro",
    "flux/kontext-max",
    "flux/kontext-multi",
    "flux/fill",
    "flux/expand",
    "flux/2-pro",
    "flux/2-max",
    "flux/2-flex",
    "flux/2-klein-4b",
    "flux/2-klein-9b",
]


def test_the_catalogue_is_in_its_order() -> None:
    assert list(MODELS) == CATALOGUE
    assert [spec.id for spec in MODELS.values()] == CATALOGUE


def test_every_model_has_an_api_and_every_api_only_models_of_its_provider() -> None:
    assert list(ADAPTERS) == ["midjourney", "kling", "jimeng", "bfl", "fal"]
    for model, spec in MODELS.items():
        assert adapters_for(model)
        for name in adapters_for(model):
            assert ADAPTERS[name].provider == spec.provider
    for name, made in ADAPTERS.items():
        assert made.name == name
        assert set(made.models) <= set(MODELS)
        assert made.max_concurrency > 0
    assert adapters_for("flux/schnell") == ("fal",)
    assert adapters_for("flux/dev") == ("bfl", "fal")
    assert adapters_for("nobody/knows") == ()


def test_every_adapter_in_the_folder_is_registered() -> None:
    folder = Path(providers.__file__).parent
    adapters = {path.stem for path in folder.glob("*.py") if "(RemoteAdapter)" in path.read_text()}
    assert adapters == set(ADAPTERS)


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_made_from_credentials_that_do_not_show(name: str) -> None:
    made = adapter_for(name, Credentials(base_url=BASES[name], secrets=SECRETS[name]))
    assert isinstance(made, Adapter)
    assert not any(secret in repr(made.credentials) for secret in SECRETS[name].values())


@pytest.mark.parametrize(
    ("name", "secrets", "usable"),
    [
        ("midjourney", {}, True),
        ("midjourney", {"api_secret": "x"}, True),
        ("kling", {"access_key": "x"}, False),
        ("kling", {"access_key": "x", "secret_key": "y"}, True),
        ("kling", {"api_key": "x"}, True),
        ("kling", {}, False),
        ("jimeng", {"access_key": "x"}, False),
        ("jimeng", {"access_key": "x", "secret_key": "y"}, True),
        ("bfl", {}, False),
        ("bfl", {"api_key": "x"}, True),
        ("fal", {"key": ""}, False),
        ("fal", {"key": "x"}, True),
    ],
)
def test_which_secrets_are_a_whole_set(name: str, secrets: dict[str, str], usable: bool) -> None:
    assert ADAPTERS[name].usable(secrets) is usable


# ---------------------------------------------------------------- schemas


@pytest.mark.parametrize("model", MODELS)
def test_a_schema_is_valid_and_documents_itself(model: str) -> None:
    schema = MODELS[model].input_schema
    Draft202012Validator.check_schema(schema)
    assert schema["title"]
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) <= set(schema["properties"])
    for name, field in schema["properties"].items():
        assert field["title"], name
        assert field["description"], name
        assert field["type"] != "string" or "maxLength" in field or "enum" in field, name
        assert name in _WITHOUT_EXAMPLE or _SPEAKS_FOR_ITSELF & set(field) or field["type"] == "boolean", name
        for example in field.get("examples", ()):
            Draft202012Validator(field).validate(example)


_SPEAKS_FOR_ITSELF = {"examples", "enum", "default", "minimum"}
_WITHOUT_EXAMPLE = ("voice_id",)  # only Kling knows its voices


@pytest.mark.parametrize("model", MODELS)
def test_examples_fit_their_schema(model: str) -> None:
    """Each field's, one by one, beside what the schema asks for."""
    for name, field in MODELS[model].input_schema["properties"].items():
        for example in field.get("examples", ()):
            assert set(errors(model, {name: example})) <= {"required"}, example  # it may need another one


@pytest.mark.parametrize("model", MODELS)
def test_defaults_are_accepted_one_by_one_and_have_a_price(model: str) -> None:
    spec = MODELS[model]
    for name, field in spec.input_schema["properties"].items():
        if "default" in field:
            assert not errors(model, {name: field["default"]})
            Draft202012Validator(field).validate(field["default"])
    check(spec.price)
    assert price_of(spec.price, submission(model).input)[0] > 0


def test_every_combination_that_the_schema_admits_has_a_price() -> None:
    for model, spec in MODELS.items():
        for wanted in combinations(spec.price.get("by", []), spec.input_schema["properties"]):
            assert price_of(spec.price, submission(model, input=wanted).input)[0] > 0


def combinations(names: list[str], fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not names:
        yield {}
        return
    for value in fields[names[0]].get("enum", (False, True)):
        for rest in combinations(names[1:], fields):
            yield {names[0]: value, **rest}


def test_slots_name_an_input() -> None:
    for spec in MODELS.values():
        if spec.slots:
            assert spec.input_schema["properties"][spec.slots]["default"] == 1


def errors(model: str, wanted: dict[str, Any]) -> list[str]:
    """The fields that are refused, or the names of the rules."""
    found = Draft202012Validator(MODELS[model].input_schema).iter_errors({**minimal(model), **wanted})
    return [".".join(map(str, error.absolute_path)) or str(error.validator) for error in found]


V = "kling/text-to-video"
J = "jimeng/text-to-image"


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("midjourney/imagine", {"aspect_ratio": "16:9", "seed": 0, "bot_type": "MID_JOURNEY"}),
        ("midjourney/action", {"action": "zoom_out_1_5x", "prompt": "x"}),
        (V, {"cfg_scale": 0.5, "negative_prompt": "x"}),
        (V, {"model_name": "kling-v3", "duration_s": 3, "sound": "on"}),
        (
            V,
            {
                "model_name": "kling-3.0",
                "mode": "4k",
                "duration_s": 15,
                "prompt": "x" * 3072,
                "multi_shot": False,
            },
        ),
        (V, {"model_name": "kling-2.6", "sound": "on", "mode": "pro"}),
        (V, {"model_name": "kling-2.6", "sound": "off"}),
        (V, {"camera_control": {"type": "simple", "config": {"pan": 5, "tilt": 0}}}),
        (V, {"camera_control": {"type": "down_back"}}),
        (J, {"width": 1024, "height": 1024, "force_single": False}),
        (J, {"req_key": "jimeng_t2i_v31", "seed": -1, "use_pre_llm": True}),
        ("flux/dev", {"width": 256, "height": 1440}),
        ("flux/2-pro", {"width": 2048, "height": 2032, "safety_tolerance": 0}),
        ("flux/pro-1.1", {"aspect_ratio": "21:9", "safety_tolerance": 6}),
        ("flux/schnell", {"n": 4, "steps": 12}),
    ],
)
def test_what_is_allowed(model: str, wanted: dict[str, Any]) -> None:
    assert errors(model, wanted) == []


@pytest.mark.parametrize(
    ("model", "wanted", "refused"),
    [
        ("midjourney/imagine", {"prompt": "  "}, "prompt"),
        ("midjourney/imagine", {"prompt": 7}, "prompt"),
        ("midjourney/imagine", {"stylize": 7}, "additionalProperties"),
        ("midjourney/imagine", {"aspect_ratio": "0:1"}, "aspect_ratio"),
        ("midjourney/imagine", {"mode": "warp"}, "mode"),
        ("midjourney/imagine", {"seed": -1}, "seed"),
        ("midjourney/action", {"action": "U1 --turbo"}, "action"),
        (V, {"prompt": "x" * 2501}, "prompt"),
        (V, {"duration_s": 7}, "duration_s"),
        (V, {"duration_s": "5"}, "duration_s"),
        (V, {"model_name": "kling-2.6", "duration_s": 7}, "duration_s"),
        (V, {"model_name": "kling-v3", "duration_s": 16}, "duration_s"),
        (V, {"mode": "4k"}, "mode"),
        (V, {"model_name": "kling-3.0-turbo", "mode": "4k"}, "mode"),
        (V, {"model_name": "kling-v2-master", "cfg_scale": 0.5}, "cfg_scale"),
        (V, {"sound": "on"}, "sound"),
        (V, {"model_name": "kling-3.0", "negative_prompt": "x"}, "negative_prompt"),
        (V, {"model_name": "kling-3.0-turbo", "camera_control": {"type": "down_back"}}, "camera_control"),
        (V, {"model_name": "kling-2.6", "sound": "on", "mode": "std"}, "mode"),
        (V, {"model_name": "kling-2.6", "sound": "on"}, "required"),
        (V, {"model_name": "kling-v9"}, "model_name"),
        (V, {"camera_control": {"type": "simple"}}, "camera_control"),
        (V, {"camera_control": {"type": "simple", "config": {"pan": 1, "tilt": 1}}}, "camera_control.config"),
        (V, {"camera_control": {"type": "simple", "config": {"pan": 11}}}, "camera_control.config.pan"),
        (V, {"camera_control": {"type": "down_back", "config": {"pan": 1}}}, "camera_control.config"),
        ("kling/image", {"n": 10}, "n"),
        (J, {"seed": 5}, "seed"),
        (J, {"req_key": "jimeng_t2i_v30", "scale": 0.5}, "scale"),
        (J, {"width": 1024}, "required"),
        (J, {"size": 4194304, "width": 1024, "height": 1024}, "width"),
        (J, {"prompt": "x" * 801}, "prompt"),
        ("jimeng/text-to-video", {"duration_s": 6}, "duration_s"),
        ("jimeng/text-to-video", {"resolution": "4k"}, "resolution"),
        ("flux/pro-1.1", {"width": 1000, "height": 768}, "width"),
        ("flux/pro-1.1", {"height": 768}, "required"),
        ("flux/pro-1.1", {"width": 512, "height": 512, "aspect_ratio": "1:1"}, "width"),
        ("flux/pro-1.1", {"n": 2}, "additionalProperties"),
        ("flux/pro-1.1", {"safety_tolerance": 7}, "safety_tolerance"),
        ("flux/2-pro", {"safety_tolerance": 6}, "safety_tolerance"),
        ("flux/schnell", {"n": 5}, "n"),
        ("flux/dev", {"output_format": "webp"}, "output_format"),
    ],
)
def test_what_is_refused_and_which_field_is_named(model: str, wanted: dict[str, Any], refused: str) -> None:
    assert refused in errors(model, wanted)
