"""What Kling's models take: exclusions and limits of the fact sheet, sections 4.2 to 4.4 and 5.1."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from common.providers.inputs import media_fields, named_media
from common.providers.registry import MODELS
from tests.unit.providers.fakes import minimal

URL = "https://pictures.example/other.png"
CAMERA = {"type": "simple", "config": {"zoom": 3}}
LINE = [{"x": 1, "y": 2}, {"x": 3, "y": 4}]
DYNAMIC = [{"mask": URL, "trajectories": LINE}]
I2V, MULTI, EXTEND = "kling/image-to-video", "kling/multi-image-to-video", "kling/extend"
LIP, EFFECTS, IMAGE = "kling/lip-sync", "kling/effects", "kling/image"
EXPAND, COMPOSE, TRY = "kling/image-expand", "kling/multi-image-to-image", "kling/virtual-try-on"
T2V = "kling/text-to-video"
V3 = {"model_name": "kling-v3"}
SHOTS = [{"prompt": "a fox wakes up", "duration_s": 2}, {"prompt": "it runs", "duration_s": 3}]
CUT = {**V3, "multi_shot": True, "shot_type": "customize", "multi_prompt": SHOTS}
VOICES = [{"voice_id": "829826751244537879"}, {"voice_id": "1"}]
SPOKEN = {**V3, "sound": "on", "voice_list": VOICES}
SAID = {"text": "hello", "voice_id": "oversea_male1"}


def errors(model: str, wanted: dict[str, Any]) -> list[str]:
    """The fields that are refused, or the names of the rules."""
    schema = MODELS[model].input_schema
    found = Draft202012Validator(schema).iter_errors({**minimal(model), **wanted})
    return [".".join(map(str, error.absolute_path)) or str(error.validator) for error in found]


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (I2V, {}),
        (I2V, {"tail_image": URL, "prompt": "x", "cfg_scale": 0.2, "negative_prompt": "y"}),
        (I2V, {"mask": URL, "dynamic_masks": DYNAMIC}),
        (I2V, {"dynamic_masks": [{"mask": URL, "trajectories": LINE[:1] * 77}] * 6}),
        (I2V, {"camera_control": CAMERA}),
        (I2V, {"model_name": "kling-3.0", "tail_image": URL, "mode": "4k", "duration_s": 15}),
        (I2V, {"model_name": "kling-3.0-turbo", "duration_s": 3, "sound": "on"}),
        (I2V, CUT),
        (I2V, {**V3, "multi_shot": True, "shot_type": "intelligence", "prompt": "x"}),
        (I2V, {**V3, "multi_shot": False}),
        (I2V, {**CUT, **SPOKEN}),
        (T2V, CUT),
        (T2V, {**V3, "multi_shot": True, "shot_type": "intelligence"}),
        (T2V, {"model_name": "kling-3.0", "multi_shot": True}),
        (MULTI, {"images": [URL] * 4, "mode": "pro", "duration_s": 10}),
        (EXTEND, {}),
        (EXTEND, {"prompt": "on", "cfg_scale": 1}),
        (LIP, SAID),
        (LIP, {**SAID, "video": "https://x/v.mp4", "voice_language": "en", "voice_speed": 2}),
        (LIP, {"audio": "https://x/a.mp3"}),
        (EFFECTS, {"effect_scene": "squish", "images": [URL], "duration_s": 10}),
        (EFFECTS, {"effect_scene": "hug", "images": [URL] * 2, "model_name": "kling-v1-6", "mode": "pro"}),
        (IMAGE, {"image": URL, "image_reference": "face", "image_fidelity": 0.4, "human_fidelity": 1}),
        (IMAGE, {"negative_prompt": "x"}),
        (EXPAND, {"n": 9, "up_expansion_ratio": 0.1, "down_expansion_ratio": 0}),
        (COMPOSE, {"images": [URL] * 4, "scene_image": URL, "style_image": URL, "n": 2}),
        (TRY, {"model_name": "kolors-virtual-try-on-v1"}),
    ],
)
def test_what_is_allowed(model: str, wanted: dict[str, Any]) -> None:
    assert errors(model, wanted) == []


@pytest.mark.parametrize(
    ("model", "wanted", "refused"),
    [
        (I2V, {"image": None}, "image"),
        (I2V, {"tail_image": URL, "mask": URL}, "mask"),
        (I2V, {"tail_image": URL, "dynamic_masks": DYNAMIC}, "dynamic_masks"),
        (I2V, {"tail_image": URL, "camera_control": CAMERA}, "camera_control"),
        (I2V, {"mask": URL, "camera_control": CAMERA}, "camera_control"),
        (I2V, {"dynamic_masks": DYNAMIC, "camera_control": CAMERA}, "camera_control"),
        (I2V, {"dynamic_masks": DYNAMIC * 7}, "dynamic_masks"),
        (I2V, {"dynamic_masks": [{"mask": URL, "trajectories": LINE[:1]}]}, "dynamic_masks.0.trajectories"),
        (I2V, {"dynamic_masks": [{"mask": URL, "trajectories": LINE * 39}]}, "dynamic_masks.0.trajectories"),
        (I2V, {"dynamic_masks": [{"mask": "", "trajectories": LINE}]}, "dynamic_masks.0.mask"),
        (I2V, {**CUT, "model_name": "kling-v2-6"}, "multi_shot"),
        (I2V, {**CUT, "model_name": "kling-3.0"}, "shot_type"),
        (I2V, {**CUT, "multi_shot": False}, "multi_shot"),
        (I2V, {**V3, "multi_shot": True}, "required"),  # who cuts
        (I2V, {**V3, "shot_type": "intelligence"}, "required"),  # multi_shot
        (I2V, {**V3, "multi_shot": True, "shot_type": "customize"}, "required"),  # multi_prompt
        (I2V, {**CUT, "shot_type": "intelligence"}, "shot_type"),
        (I2V, {**CUT, "multi_prompt": SHOTS * 4}, "multi_prompt"),
        (I2V, {**CUT, "multi_prompt": []}, "multi_prompt"),
        (I2V, {**CUT, "multi_prompt": [{**SHOTS[0], "prompt": "x" * 513}]}, "multi_prompt.0.prompt"),
        (I2V, {**CUT, "multi_prompt": [{**SHOTS[0], "duration_s": 0}]}, "multi_prompt.0.duration_s"),
        (T2V, {**CUT, "model_name": "kling-v1-6"}, "multi_shot"),
        (T2V, {"multi_prompt": SHOTS}, "required"),
        (T2V, {**SPOKEN}, "additionalProperties"),
        (I2V, {**SPOKEN, "sound": "off"}, "sound"),
        (I2V, {**SPOKEN, "model_name": "kling-v2-6"}, "voice_list"),
        (I2V, {**SPOKEN, "model_name": "kling-3.0"}, "voice_list"),
        (I2V, {**V3, "voice_list": VOICES}, "required"),  # sound
        (I2V, {**SPOKEN, "voice_list": VOICES * 2}, "voice_list"),
        (I2V, {"element_list": [{"element_id": 1}]}, "additionalProperties"),
        (I2V, {"model_name": "kling-3.0-turbo", "tail_image": URL}, "tail_image"),
        (I2V, {"model_name": "kling-3.0", "mask": URL}, "mask"),
        (I2V, {"model_name": "kling-3.0", "dynamic_masks": DYNAMIC}, "dynamic_masks"),
        (I2V, {"model_name": "kling-2.6"}, "model_name"),
        (I2V, {"aspect_ratio": "1:1"}, "additionalProperties"),
        (I2V, {"prompt": "x" * 2501}, "prompt"),
        (I2V, {"duration_s": 7}, "duration_s"),
        (MULTI, {"images": []}, "images"),
        (MULTI, {"images": [URL] * 5}, "images"),
        (MULTI, {"mode": "4k"}, "mode"),
        (EXTEND, {"cfg_scale": 1.1}, "cfg_scale"),
        (LIP, {}, "required"),
        (LIP, {"text": "hello"}, "required"),
        (LIP, {"audio": "https://x/a.mp3", "text": "hello"}, "text"),
        (LIP, {"audio": "https://x/a.mp3", "voice_id": "v"}, "voice_id"),
        (LIP, {**SAID, "text": "x" * 121}, "text"),
        (LIP, {**SAID, "voice_speed": 0.7}, "voice_speed"),
        (EFFECTS, {"images": [URL] * 3}, "images"),
        (EFFECTS, {"mode": "pro"}, "required"),
        (EFFECTS, {"model_name": "kling-v1", "images": [URL]}, "images"),
        (IMAGE, {"image": URL, "negative_prompt": "x"}, "negative_prompt"),
        (IMAGE, {"image_reference": "face"}, "image_reference"),
        (IMAGE, {"image_fidelity": 0.5}, "image_fidelity"),
        (IMAGE, {"n": 10}, "n"),
        (EXPAND, {f"{side}_expansion_ratio": 0 for side in ("up", "down", "left", "right")}, "not"),
        (EXPAND, {"up_expansion_ratio": 2.1}, "up_expansion_ratio"),
        (COMPOSE, {"images": [URL] * 5}, "images"),
        (TRY, {"cloth_image": 7}, "cloth_image"),
    ],
)
def test_what_is_refused_and_which_field_is_named(model: str, wanted: dict[str, Any], refused: str) -> None:
    assert refused in errors(model, wanted)


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ({"image": URL}, True),
        ({"tail_image": URL}, True),
        ({"tail_image": URL, "model_name": "kling-v3", "multi_shot": False}, True),
        ({}, False),
        ({"prompt": "run"}, False),
        ({"mask": URL}, False),
        ({"tail_image": URL, "model_name": "kling-3.0"}, False),  # section 5.1: never without a first frame
        ({"image": URL, "tail_image": URL, "model_name": "kling-3.0"}, True),
    ],
)
def test_the_first_or_the_last_picture_is_enough_at_the_legacy_api(
    wanted: dict[str, Any], fits: bool
) -> None:
    assert Draft202012Validator(MODELS[I2V].input_schema).is_valid(wanted) is fits


def test_the_masks_of_what_moves_are_media() -> None:
    wanted = {"image": URL, "dynamic_masks": [*DYNAMIC, {"mask": "upl_1", "trajectories": LINE}]}
    assert list(named_media(MODELS[I2V].input_schema, wanted)) == [
        ("image", "image", URL),
        ("dynamic_masks.0.mask", "image", URL),
        ("dynamic_masks.1.mask", "image", "upl_1"),
    ]


def test_every_picture_is_a_medium() -> None:
    kinds = {
        model: media_fields(spec.input_schema) for model, spec in MODELS.items() if spec.provider == "kling"
    }
    assert {model: named for model, named in kinds.items() if named} == {
        I2V: {"image": "image", "tail_image": "image", "mask": "image"},
        MULTI: {"images": "image"},
        LIP: {"video": "video", "audio": "audio"},
        EFFECTS: {"images": "image"},
        IMAGE: {"image": "image"},
        EXPAND: {"image": "image"},
        COMPOSE: {"images": "image", "scene_image": "image", "style_image": "image"},
        TRY: {"image": "image", "cloth_image": "image"},
    }


def test_what_goes_on_from_what() -> None:
    assert MODELS[EXTEND].follows == ("kling/text-to-video", I2V, EXTEND)
    assert MODELS[LIP].follows == ("kling/text-to-video", I2V, MULTI)
    assert (MODELS[EXTEND].parent_or, MODELS[LIP].parent_or) == (None, "video")
