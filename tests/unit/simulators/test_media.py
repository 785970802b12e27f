"""What simulated providers make is what it says it is, and its host behaves as such hosts do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from common.providers.base import Output, Reply
from tests.simulators.frame import Fault, Stage
from tests.simulators.media import MediaHost, black, jpeg, mp4, png, webp
from workers.http import AioHttp
from workers.media import Limits, SourceGone, SourceTrouble, StoredFile, fetch, inspect, thumbnail

QUICK = Limits(pause_s=0.01, resumes=2)


@pytest.fixture
def host() -> Iterator[MediaHost]:
    media = MediaHost()
    with Stage([media]):
        yield media


Get = Callable[..., Reply]


@pytest.fixture
def get(host: MediaHost) -> Iterator[Get]:
    http = AioHttp(allow_private=True)
    with asyncio.Runner() as runner:
        yield lambda url, **headers: runner.run(http.send("GET", url, headers=headers))
        runner.run(http.close())


def stored(url: str, folder: Path) -> StoredFile:
    """As the workers fetch it."""

    async def fetched() -> StoredFile:
        http = AioHttp(allow_private=True)
        try:
            output = Output(kind="image", url=url)
            return await fetch(http.downloads, output, allow_private=True, limits=QUICK, folder=folder)
        finally:
            await http.close()

    return asyncio.run(fetched())


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("make", "content_type"), [(png, "image/png"), (jpeg, "image/jpeg"), (webp, "image/webp")]
)
def test_pictures(make: Callable[..., bytes], content_type: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(make("a fox", 320, 200))
    info = inspect(path, Output(kind="image"))
    assert (info.kind, info.content_type, info.width, info.height) == ("image", content_type, 320, 200)
    assert (thumbnail(path, info) or b"")[:2] == b"\xff\xd8"
    with Image.open(path) as image:
        assert len(set(image.convert("RGB").get_flattened_data())) > 3
    assert make("a fox", 320, 200) == path.read_bytes()
    assert len({make(f"a fox {number}") for number in range(20)}) == 20


@pytest.mark.parametrize("duration_s", [5.0, 10.0, 12.8])
def test_films(duration_s: float, tmp_path: Path) -> None:
    path = tmp_path / "film"
    path.write_bytes(mp4("a boat 船", duration_s))
    info = inspect(path, Output(kind="video"))
    assert (info.kind, info.content_type, info.extension) == ("video", "video/mp4", "mp4")
    assert (info.width, info.height, info.duration_s) == (320, 180, duration_s)
    assert len({mp4(f"a boat {number}") for number in range(20)}) == 20
    assert len(path.read_bytes()) < 3000


def test_a_blocked_picture() -> None:
    assert Image.open(BytesIO(black("png", 64, 32))).getextrema() == ((0, 0),) * 3


# ---------------------------------------------------------------- the host


def test_delivers_until_it_dies(host: MediaHost, get: Get) -> None:
    url = host.publish("a.png", "image/png", partial(png, "a"))
    reply = get(url)
    assert (reply.status, reply.headers["content-type"], reply.body) == (200, "image/png", png("a"))
    assert host.content(url) == png("a")
    assert get(url.replace("a.png", "b.png")).status == 404
    assert get(f"{host.url}/files/guessed/a.png").status == 404
    host.expire(url)
    assert get(url).status == 403
    assert get(host.publish("a.png", "image/png", partial(png, "a"), lives_s=-1)).status == 403


def test_parts(host: MediaHost, get: Get) -> None:
    url = host.publish("a.mp4", "video/mp4", partial(mp4, "a"))
    whole = get(url)
    part = get(url, Range="bytes=100-199")
    assert (part.status, part.body) == (206, whole.body[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole.body)}"
    assert get(url, Range="bytes=-50").body == whole.body[-50:]
    assert get(url, Range="bytes=2000-").body == whole.body[2000:]
    same, other = ({"Range": "bytes=10-", "If-Range": etag} for etag in (whole.headers["etag"], '"x"'))
    assert (get(url, **same).status, get(url, **other).status) == (206, 200)
    assert get(url, Range="bytes=999999-").status == 416
    assert get(url, Range="lines=1-2").status == 200


@pytest.mark.parametrize("header", ["Authorization", "X-Key", "Mj-Api-Secret"])
def test_keys_that_leak(host: MediaHost, get: Get, header: str) -> None:
    url = host.publish("a.png", "image/png", partial(png, "a"))
    assert get(url, **{header: "secret"}).status == 400
    assert host.leaks == [f"{header.lower()} sent to {url.removeprefix(host.url)}"]


def test_workers_fetch_what_was_published(host: MediaHost, tmp_path: Path) -> None:
    url = host.publish("a.png", "image/png", partial(png, "a"))
    file = stored(url, tmp_path)
    assert file.path.read_bytes() == host.content(url)
    assert host.leaks == []


def test_a_transfer_that_is_cut_once_is_continued(host: MediaHost, tmp_path: Path) -> None:
    url = host.publish("a.png", "image/png", partial(png, "a", 800, 800))
    host.misbehave(Fault("cut"))
    assert stored(url, tmp_path).path.read_bytes() == host.content(url)
    assert [call.headers.get("Range") is None for call in host.calls] == [True, False]


def test_a_file_that_is_always_cut_is_trouble(host: MediaHost, tmp_path: Path) -> None:
    url = host.publish("a.png", "image/png", partial(png, "a"), truncated=True)
    with pytest.raises(SourceTrouble):
        stored(url, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_dead_url_is_gone(host: MediaHost, tmp_path: Path) -> None:
    url = host.publish("a.png", "image/png", partial(png, "a"), lives_s=-1)
    with pytest.raises(SourceGone):
        stored(url, tmp_path)
