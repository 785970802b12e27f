"""Bodies that come as forms: text as large as JSON may be, and lists however they are written."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from flask import Flask

from common.settings import settings
from tests.infrastructure.client import Answer
from tests.integration.web.api import Api
from tests.integration.web.jobs import jobs_of
from web.api import openai_images

HEADERS = {"Content-Type": "multipart/form-data; boundary=xx"}
A, B, C = (f"https://example.com/{name}.png" for name in "abc")
ONE, SEVERAL = "flux/fill", "flux/kontext-multi"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody makes the pictures."""
    monkeypatch.setattr(openai_images, "HOLD_S", 0.05)


def field(name: str, value: str, filename: str = "") -> bytes:
    told = f'; filename="{filename}"' if filename else ""
    return f'--xx\r\nContent-Disposition: form-data; name="{name}"{told}\r\n\r\n{value}\r\n'.encode()


def edit(user: Api, *fields: tuple[str, ...]) -> Answer:
    """What `POST /v1/images/edits` answers to this form."""
    body = b"".join(field(*each) for each in (("prompt", "snow"), *fields)) + b"--xx--\r\n"
    return user.ask("POST", "/v1/images/edits", body, HEADERS)


def given(user: Api) -> Any:
    (job,) = jobs_of(user)
    return job.input


def test_text_may_be_as_large_as_in_json(user: Api, app: Flask) -> None:
    picture = f"data:image/png;base64,{base64.b64encode(bytes(6_000_000)).decode()}"
    edit(user, ("model", ONE), ("image", picture))
    assert given(user)["image"] == picture
    too_large = "A" * settings().max_body_bytes
    assert edit(user, ("model", ONE), ("image", too_large)).status == 413


@pytest.mark.parametrize(
    "fields",
    [
        [("image[0]", A), ("image[1]", B), ("image[2]", C)],
        [("image[2]", C), ("image[0]", A), ("image[1]", B)],
        [("image[1]", A), ("image[2]", B), ("image[10]", C)],
        [("image[]", A), ("image[]", B), ("image[]", C)],
        [("image", A), ("image", B), ("image", C)],
    ],
)
def test_a_list_may_be_numbered(user: Api, fields: list[tuple[str, str]]) -> None:
    edit(user, ("model", SEVERAL), *fields)
    assert given(user)["images"] == [A, B, C]


def test_numbered_files_and_texts_keep_their_order(user: Api) -> None:
    edit(user, ("model", SEVERAL), ("image[0]", "GIF89a", "a.gif"), ("image[1]", B))
    assert given(user)["images"] == [f"data:image/gif;base64,{base64.b64encode(b'GIF89a').decode()}", B]


def test_a_key_that_is_no_number_names_a_part_of_an_object(user: Api) -> None:
    for fields in ([("image[url]", A), ("image[0]", B)], [("image[a][b]", A)], [("image[0][url]", A)]):
        assert edit(user, ("model", SEVERAL), *fields).status == 422
    assert jobs_of(user) == []
