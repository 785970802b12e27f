"""What an adapter gets for the media that a job's input names."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from aiohttp import web

from common.errors import InvalidInput
from common.providers.base import Media
from common.providers.inputs import form, medium, picture, pictures
from common.services import catalog
from tests.simulators.media import mp4, png
from tests.unit.providers.fakes import adapter
from workers.http import AioHttp
from workers.media import SourceGone, SourceRefused, SourceTrouble
from workers.media.inputs import media_of

SCHEMA = form(
    "Test",
    {
        "image": picture("Image", "…"),
        "images": pictures("Images", "…", 1, 3),
        "video": medium("video", "Film", "…"),
        "prompt": {"type": "string"},
    },
    required=(),
)
FOX = png("a fox")
FOX_BASE64 = base64.b64encode(FOX).decode()
BYTES = Media(base64=FOX_BASE64, content_type="image/png")


async def _answer(request: web.Request) -> web.Response:
    match request.path:
        case "/fox.png":
            return web.Response(body=FOX)
        case "/film.png":
            return web.Response(body=mp4("a film"))
        case "/page.png":
            return web.Response(text="<html>not here</html>", content_type="image/png")
        case "/hop.png":
            raise web.HTTPFound("http://127.0.0.2:1/x.png")
        case "/down.png":
            return web.Response(status=503)
        case _:
            return web.Response(status=404)


def resolved(
    server: Any, given: dict[str, Any], *, bytes_only: bool = False, allow_private: bool = True
) -> dict[str, Media]:
    """The media of this input; `@` stands for the server's address."""
    made = adapter("kling")
    if bytes_only:
        made.fetches_addresses = False

    async def main() -> dict[str, Media]:
        async with server(_answer) as url:
            http = AioHttp(allow_private=allow_private)
            named = {
                name: [one.replace("@", url) for one in value]
                if isinstance(value, list)
                else value.replace("@", url)
                for name, value in given.items()
            }
            try:
                found = await media_of(http.downloads, made, SCHEMA, named, allow_private=allow_private)
            finally:
                await http.close()
            return {value.replace(url, "@"): media for value, media in found.items()}

    return asyncio.run(main())


def test_addresses_are_handed_on_as_they_are(web_server: Any) -> None:
    given = {"image": "https://a.example/1.png", "images": ["https://a.example/2.png"], "prompt": "https://x"}
    given["video"] = "https://a.example/v.mp4"
    assert resolved(web_server, given) == {
        url: Media(url=url)
        for url in ("https://a.example/1.png", "https://a.example/2.png", "https://a.example/v.mp4")
    }


@pytest.mark.parametrize("value", [FOX_BASE64, f"data:image/png;base64,{FOX_BASE64}"])
def test_inline_pictures_become_bytes_of_a_type_that_is_looked_at(web_server: Any, value: str) -> None:
    assert resolved(web_server, {"image": value}) == {value: BYTES}
    assert resolved(web_server, {"image": value})[value].data_url == f"data:image/png;base64,{FOX_BASE64}"


def test_one_picture_in_bytes_makes_all_of_them_bytes_but_no_film(web_server: Any) -> None:
    given: dict[str, Any] = {"images": [FOX_BASE64, "@/fox.png"], "video": "https://a.example/v.mp4"}
    assert resolved(web_server, given) == {
        FOX_BASE64: BYTES, "@/fox.png": BYTES, given["video"]: Media(url=given["video"]),
    }  # fmt: skip


def test_who_takes_no_addresses_gets_bytes(web_server: Any) -> None:
    assert resolved(web_server, {"image": "@/fox.png"}, bytes_only=True) == {"@/fox.png": BYTES}


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("@/gone.png", SourceGone),
        ("@/page.png", SourceRefused),
        ("@/film.png", SourceRefused),
        ("@/down.png", SourceTrouble),
        (base64.b64encode(b"no picture at all").decode(), SourceRefused),
        (base64.b64encode(FOX[:60]).decode(), SourceRefused),
    ],
)
def test_what_will_not_do(web_server: Any, value: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        resolved(web_server, {"image": value}, bytes_only=True)


@pytest.mark.parametrize(
    "value", ["http://127.0.0.1:1/x.png", "http://169.254.169.254/x", "http://2130706433/"]
)
def test_private_places_are_not_asked(web_server: Any, value: str) -> None:
    with pytest.raises(SourceRefused):
        resolved(web_server, {"image": value}, bytes_only=True, allow_private=False)


def test_a_redirect_to_a_private_place_is_not_followed(web_server: Any, loopback_is_public: None) -> None:
    with pytest.raises(SourceRefused):
        resolved(web_server, {"image": "@/hop.png"}, bytes_only=True, allow_private=False)


@pytest.mark.parametrize(
    ("kind", "value", "param"),
    [
        ("image", "http://a.example/1.png", "input.image"),
        ("image", "ftp://a.example/1.png", "input.image"),
        ("image", "file:///etc/passwd", "input.image"),
        ("image", "data:image/png,plain", "input.image"),
        ("image", "not base64!", "input.image"),
        ("video", FOX_BASE64, "input.image"),
        ("image", ["https://a.example/1.png", "?"], "input.image.1"),
    ],
)
def test_what_cannot_be_a_medium_is_refused_at_once(kind: str, value: Any, param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        catalog._check_media("image", kind, value)
    assert refused.value.param == param
