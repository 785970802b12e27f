"""What an adapter gets for the media that a job's input names."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from common.errors import InvalidInput
from common.media import MediaInfo
from common.providers.base import Media
from common.providers.inputs import form, medium, picture, pictures
from common.services import catalog
from common.services.uploads import Source
from common.storage import storage
from tests.infrastructure.inside import configured
from tests.simulators.frame import Stage
from tests.simulators.media import MediaHost, mp4, png
from tests.unit.providers.fakes import adapter
from workers.http import AioHttp
from workers.media import SourceGone, SourceRefused, SourceTrouble
from workers.media import inputs as media_inputs
from workers.media.inputs import Lend, is_at_hand, media_of
from workers.room import INLINE, Places

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
    server: Any,
    given: dict[str, Any],
    *,
    bytes_only: bool = False,
    allow_private: bool = True,
    uploads: dict[str, Source] | None = None,
    lend: Lend | None = None,
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
            coming = media_of(
                http.downloads,
                made,
                SCHEMA,
                named,
                uploads=uploads or {},
                allow_private=allow_private,
                lend=lend,
            )
            try:
                async with coming as found:
                    pass
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


# ---------------------------------------------------------------- uploads

FOX_ID, HAT_ID, FILM_ID = (f"upl_{name:0>26}" for name in ("f0x", "hat", "f1m"))
HAT = png("a hat")


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[dict[str, Source]]:
    """Uploads in this process's storage; providers can reach the film and the hat."""
    (tmp_path / "content").mkdir()
    with configured({"MEDIA_DIR": str(tmp_path / "media")}):
        for key, content in (("uploads/fox.png", FOX), ("uploads/hat.png", HAT)):
            path = tmp_path / "content" / "file"
            path.write_bytes(content)
            storage().put(key, path, "image/png")
        yield {
            FOX_ID: source("uploads/fox.png", FOX, None),
            HAT_ID: source("uploads/hat.png", HAT, "https://cdn.example/hat.png"),
            FILM_ID: source("uploads/film.mp4", b"", "https://cdn.example/film.mp4"),
        }


def source(key: str, content: bytes, url: str | None) -> Source:
    return Source(
        key=key,
        content_type="image/png",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        url=url,
    )


def test_uploads_become_addresses_where_the_provider_can_reach_the_storage(
    web_server: Any, kept: dict[str, Source]
) -> None:
    given = {"image": HAT_ID, "images": ["https://a.example/2.png"], "video": FILM_ID}
    assert resolved(web_server, given, uploads=kept) == {
        HAT_ID: Media(url="https://cdn.example/hat.png"),
        "https://a.example/2.png": Media(url="https://a.example/2.png"),
        FILM_ID: Media(url="https://cdn.example/film.mp4"),
    }


def test_where_it_cannot_all_pictures_become_bytes(web_server: Any, kept: dict[str, Source]) -> None:
    given = {"images": [FOX_ID, HAT_ID, "@/fox.png"]}
    hat = Media(base64=base64.b64encode(HAT).decode(), content_type="image/png")
    assert resolved(web_server, given, uploads=kept) == {FOX_ID: BYTES, HAT_ID: hat, "@/fox.png": BYTES}
    assert resolved(web_server, {"image": HAT_ID}, uploads=kept, bytes_only=True) == {HAT_ID: hat}


def test_uploads_that_will_not_do(
    web_server: Any, kept: dict[str, Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SourceGone, match="was deleted"):
        resolved(web_server, {"image": FOX_ID}, uploads={})
    with pytest.raises(SourceGone, match="not in storage"):
        resolved(web_server, {"image": FOX_ID}, uploads={FOX_ID: source("uploads/none.png", FOX, None)})
    with pytest.raises(SourceRefused, match="was changed"):
        resolved(web_server, {"image": FOX_ID}, uploads={FOX_ID: source("uploads/hat.png", FOX, None)})
    with pytest.raises(SourceRefused, match="cannot reach"):
        resolved(web_server, {"video": FOX_ID}, uploads=kept)
    monkeypatch.setattr("workers.media.inputs.PICTURE_BYTES", 10)  # more is unavailable
    with pytest.raises(SourceTrouble):
        resolved(web_server, {"image": FOX_ID}, uploads=kept)


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
        ("image", "upl_short", "input.image"),
        ("video", "upl_01kb3Xy4ffq7e6j0000000000z", "input.image"),
    ],
)
def test_what_cannot_be_a_medium_is_refused_at_once(kind: str, value: str, param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        catalog._check_medium(param, kind, value)
    assert refused.value.param == param


# ---------------------------------------------------------------- addresses only


def test_where_only_addresses_will_do_bytes_are_lent_one(web_server: Any, kept: dict[str, Source]) -> None:
    lent: list[bytes] = []

    async def lend(path: Path, info: MediaInfo) -> str:
        lent.append(path.read_bytes())
        return f"https://cdn.example/lent.{info.extension}"

    given = {"images": [FOX_BASE64, "https://a.example/1.png", HAT_ID]}
    assert resolved(web_server, given, uploads=kept, lend=lend) == {
        FOX_BASE64: Media(url="https://cdn.example/lent.png"),
        "https://a.example/1.png": Media(
            url="https://a.example/1.png"
        ),  # who wants addresses fetches them, too
        HAT_ID: Media(url="https://cdn.example/hat.png"),
    }
    assert lent == [FOX]
    with pytest.raises(SourceRefused, match="cannot reach"):
        resolved(web_server, {"image": FOX_ID}, uploads=kept, lend=lend)


# ---------------------------------------------------------------- slow and large


@pytest.fixture
def host() -> Iterator[MediaHost]:
    host = MediaHost()
    with Stage([host]):
        yield host


def slow(host: MediaHost, number: int, lasts_s: float) -> str:
    return host.publish(f"{number}.png", "image/png", lambda: png(f"slow {number}"), lasts_s=lasts_s)


async def taken(http: AioHttp, images: list[str]) -> float:
    """How long a job waited for its pictures."""
    started = time.monotonic()
    made = adapter("bfl")
    async with media_of(
        http.downloads, made, SCHEMA, {"images": images}, uploads={}, allow_private=True
    ) as found:
        assert set(found) == set(images)
    return time.monotonic() - started


def test_a_job_with_many_slow_pictures_waits_for_itself_alone(
    host: MediaHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight slow ones, and not even as many places: another job's three pass them by; a third's come with the job."""
    monkeypatch.setattr(media_inputs, "_places", Places(4, 3))
    slow_ones = [slow(host, number, 0.5) for number in range(8)]
    quick_ones = [slow(host, number, 0.0) for number in range(8, 11)]

    async def story() -> list[float]:
        http = AioHttp(allow_private=True)
        greedy = asyncio.create_task(taken(http, slow_ones))
        await asyncio.sleep(0.1)
        victims = asyncio.gather(taken(http, quick_ones), taken(http, [FOX_BASE64]))
        times = [*await victims, await greedy]
        await http.close()
        return times

    quick_s, inline_s, slow_s = asyncio.run(story())
    assert quick_s < 0.4
    assert inline_s < 0.4
    assert 1.4 < slow_s < 4


def test_a_job_waits_so_long_for_its_pictures_and_no_longer(
    host: MediaHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_inputs, "PREPARE_S", 0.4)

    async def story() -> None:
        http = AioHttp(allow_private=True)
        with pytest.raises(SourceTrouble, match=r"within 0\.4 s"):
            await taken(http, [slow(host, number, 2.0) for number in range(3)])
        assert await taken(http, [slow(host, 4, 0.0)]) < 0.4  # nothing is left in the places
        await http.close()

    before = set(Path(tempfile.gettempdir()).glob("wxiai-*.part"))
    asyncio.run(story())
    assert set(Path(tempfile.gettempdir()).glob("wxiai-*.part")) <= before


def test_memory_is_taken_when_all_is_fetched_and_given_back_at_the_end(host: MediaHost) -> None:
    whole = INLINE.free

    async def story() -> None:
        http = AioHttp(allow_private=True)
        images = [slow(host, 1, 0.3), FOX_BASE64]
        coming = media_of(
            http.downloads, adapter("bfl"), SCHEMA, {"images": images}, uploads={}, allow_private=True
        )
        entering = asyncio.create_task(coming.__aenter__())
        await asyncio.sleep(0.15)
        assert INLINE.free == whole, "what still comes takes no memory"
        found = await entering
        assert whole - INLINE.free >= 2 * sum(len(each.base64 or "") for each in found.values()) - 16
        await coming.__aexit__(None, None, None)
        assert INLINE.free == whole
        async with INLINE.held(whole):  # somebody has it all
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(taken(http, [FOX_BASE64]), 0.2)
        assert INLINE.free == whole
        await http.close()

    asyncio.run(story())


def test_what_is_at_hand() -> None:
    kling, bfl = adapter("kling"), adapter("bfl")
    assert is_at_hand(bfl, SCHEMA, {"prompt": "a fox"})
    assert is_at_hand(kling, SCHEMA, {"image": "https://a.example/1.png", "video": "https://a.example/v.mp4"})
    assert not is_at_hand(bfl, SCHEMA, {"image": "https://a.example/1.png"})
    assert not is_at_hand(kling, SCHEMA, {"images": ["https://a.example/1.png", FOX_BASE64]})
    assert not is_at_hand(kling, SCHEMA, {"video": FILM_ID})
