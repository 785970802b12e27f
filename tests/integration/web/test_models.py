"""The catalogue as clients see it."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from common.providers.registry import MODELS
from tests.integration.web.api import Api


def test_the_list_has_openais_shape_and_ours(user: Api) -> None:
    page = user.get("/v1/models")
    assert page["object"] == "list"
    assert [model["id"] for model in page["data"]] == list(MODELS)
    for model in page["data"]:
        assert (model["object"], model["owned_by"]) == ("model", model["provider"])
        assert model["created"] > 1_700_000_000
        assert model["id"].startswith(f"{model['provider']}/")
        assert model["kind"] in ("image", "video", "text")
        assert model["actions"]


@pytest.mark.parametrize("model_id", MODELS)
def test_one_model(user: Api, model_id: str) -> None:
    model = user.get(f"/v1/models/{model_id}")
    spec = MODELS[model_id]
    assert (model["id"], model["kind"], model["title"]) == (model_id, spec.kind, spec.title)
    assert (model["price"], model["input_schema"]) == (spec.price, spec.input_schema)
    Draft202012Validator.check_schema(model["input_schema"])
    assert model["input_schema"]["additionalProperties"] is False


def test_an_action_model_lists_its_actions(user: Api) -> None:
    assert user.get("/v1/models/midjourney/imagine")["actions"] == ["imagine"]
    assert user.get("/v1/models/flux/dev")["actions"] == ["generate"]


@pytest.mark.parametrize("path", ["flux/none", "none/pro-1.1", "flux", "flux/pro-1.1/", "flux/../flux/dev"])
def test_what_is_not_there(user: Api, path: str) -> None:
    answer = user.ask("GET", f"/v1/models/{path}")
    assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")


def test_an_encoded_slash_is_a_slash(user: Api) -> None:
    assert user.get("/v1/models/flux%2Fdev")["id"] == "flux/dev"
