"""Pictures, films and sounds that users bring: kept once, told by their bytes, used by jobs, nobody else's."""

from __future__ import annotations

import hashlib
import itertools
import json
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select
from werkzeug.test import EnvironBuilder, run_wsgi_app

from common import clock
from common.db import reading, transaction
from common.ids import new_id
from common.models import ObjectDeletion, Upload
from common.services import uploads
from common.settings import Settings, settings
from tests.infrastructure.client import Answer
from tests.integration.web.api import Api
from tests.integration.web.conftest import MakeUser
from tests.integration.web.jobs import fail, jobs_of, succeed
from tests.simulators.media import mp4, png
from web import rates

FOX, FILM = png("a fox"), mp4("a film")
SOUND = b"ID3" + bytes(200)
BARE = {"Content-Type": "application/octet-stream"}
FORM = {"Content-Type": "multipart/form-data; boundary=xx"}
LIMIT = 100_000
BLOCK = 32 * 1024


def send(user: Api, content: bytes, headers: dict[str, str] | None = None) -> Answer:
    return user.ask("POST", "/v1/uploads", content, headers or BARE)


def brought(user: Api, content: bytes = FOX) -> str:
    """The id of an upload."""
    answer = send(user, content)
    assert answer.status == 201, answer.body
    return str(answer.json["id"])


def part(content: bytes, name: str = "file", filename: str | None = "fox.jpg") -> bytes:
    told = f'; filename="{filename}"' if filename is not None else ""
    head = f'--xx\r\nContent-Disposition: form-data; name="{name}"{told}\r\nContent-Type: text/html\r\n\r\n'
    return head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--xx--\r\n"


def rows_of(user: Api) -> list[Upload]:
    with reading() as session:
        return list(session.scalars(select(Upload).where(Upload.user_id == user.user_id).order_by(Upload.id)))


def to_be_removed() -> set[str]:
    """Keys that the storage is asked to forget."""
    with reading() as session:
        return set(session.scalars(select(ObjectDeletion.key)))


# ---------------------------------------------------------------- bring


@pytest.mark.parametrize(
    ("body", "headers", "name"),
    [
        (FOX, {"Content-Type": "video/mp4"}, None),
        (FOX, {"Content-Type": "application/x-www-form-urlencoded"}, None),
        (form(part(FOX)), FORM, "fox.jpg"),
        (form(part(FOX, filename="C:\\\\pictures\\\\ä\x1b fox.exe ")), FORM, "ä fox.exe"),
        (form(part(FOX, filename="/etc/" + 300 * "x")), FORM, 255 * "x"),
    ],
    ids=["bare", "curl's own type", "form", "odd name", "long name"],
)
def test_what_a_file_is_its_bytes_tell(
    user: Api, nobody: Api, body: bytes, headers: dict[str, str], name: str | None
) -> None:
    answer = send(user, body, headers)
    assert answer.status == 201, answer.body
    shown = answer.json
    assert answer.headers["location"] == f"/v1/uploads/{shown['id']}"
    assert shown == {
        "id": shown["id"], "object": "upload", "name": name, "kind": "image", "content_type": "image/png",
        "bytes": len(FOX), "width": 256, "height": 256, "duration_s": None,
        "sha256": hashlib.sha256(FOX).hexdigest(), "url": shown["url"], "created_at": shown["created_at"],
    }  # fmt: skip
    assert user.get(f"/v1/uploads/{shown['id']}") == shown
    kept = nobody.ask("GET", shown["url"].removeprefix("http://127.0.0.1:8000"))
    assert (kept.body, kept.headers["content-type"]) == (FOX, "image/png")
    assert f"/media/uploads/{shown['created_at'][:10].replace('-', '/')}/{shown['id']}.png" in shown["url"]


@pytest.mark.parametrize(
    ("content", "kind", "content_type"),
    [(FILM, "video", "video/mp4"), (SOUND, "audio", "audio/mpeg")],
    ids=["film", "sound"],
)
def test_films_and_sounds(user: Api, content: bytes, kind: str, content_type: str) -> None:
    shown = send(user, content).json
    assert (shown["kind"], shown["content_type"], shown["bytes"]) == (kind, content_type, len(content))
    assert user.get("/v1/uploads?kind=video")["data"] == ([shown] if kind == "video" else [])


def test_the_same_content_is_kept_once_for_each_user(user: Api, other: Api) -> None:
    first = send(user, FOX)
    again = send(user, form(part(FOX, filename="other.png")), FORM)
    assert (first.status, again.status, again.json) == (201, 200, first.json)
    assert brought(other) != first.json["id"]
    assert (len(rows_of(user)), len(rows_of(other))) == (1, 1)


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"", BARE, 422, "empty"),
        (b"<html>not a picture</html>", {"Content-Type": "image/png"}, 422, "neither a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", {"Content-Type": "image/svg+xml"}, 422, "neither"),
        (FOX[:-20], BARE, 422, "cut off"),
        (FILM[:-20], BARE, 422, "cut off"),
        (FOX[:16] + b"\xff\xff\xff\xff" * 2 + FOX[24:], BARE, 422, "pixels"),
        (FOX, {**BARE, "Content-Encoding": "gzip"}, 415, "Compressed"),
        (form(part(FOX), part(FOX)), FORM, 422, "One file"),
        (form(part(FOX), part(b"x", "purpose", None)), FORM, 422, "one field"),
        (form(part(FOX, "picture")), FORM, 422, "one field"),
        (form(part(b"text", filename=None)), FORM, 422, "as a file"),
        (form(), FORM, 422, "as a file"),
        (part(FOX), FORM, 400, "broken"),
        (form(part(FOX)), {"Content-Type": "multipart/form-data"}, 400, "broken"),
        (form(part(bytes(LIMIT // 2)), part(FOX)).replace(b"-xx", b"-yy"), FORM, 400, "broken"),
        (form(part(FOX)), {"Content-Type": "multipart/mixed; boundary=xx"}, 422, "as a file"),
        (form(part(bytes(LIMIT))), FORM, 413, "too large"),
        (bytes(LIMIT + 1), BARE, 413, "too large"),
    ],
    ids=[
        "empty",
        "html",
        "svg",
        "cut picture",
        "cut film",
        "bomb",
        "gzip",
        "two files",
        "another field",
        "another name",
        "no file",
        "empty form",
        "cut form",
        "no boundary",
        "another boundary",
        "no form",
        "large form",
        "large",
    ],
)
def test_what_is_refused_leaves_nothing(
    user: Api, app: Flask, media: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    body: bytes, headers: dict[str, str], status: int, said: str,
) -> None:  # fmt: skip
    monkeypatch.setitem(app.config, "MAX_CONTENT_LENGTH", LIMIT)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kept = set(media.rglob("*"))
    answer = send(user, body, headers)
    assert (answer.status, said in answer.json["error"]["message"]) == (status, True), answer.body
    assert status != 422 or answer.json["error"]["param"] in ("file", "purpose", "picture")
    assert (rows_of(user), set(media.rglob("*")) - kept, list(tmp_path.iterdir())) == ([], set(), [])


def test_nobody_may_send_without_a_token(nobody: Api) -> None:
    assert send(nobody, FOX).status == 401


@pytest.mark.parametrize(("most", "most_bytes"), [(1, 10**9), (10, len(FOX) + len(FILM) - 1)])
def test_nobody_keeps_more_than_allowed(
    user: Api, other: Api, monkeypatch: pytest.MonkeyPatch, most: int, most_bytes: int
) -> None:
    monkeypatch.setattr(uploads, "MOST", most)
    monkeypatch.setattr(uploads, "MOST_BYTES", most_bytes)
    fox = brought(user)
    answer = send(user, FILM)
    assert (answer.status, answer.json["error"]["code"]) == (409, "too_many_uploads")
    assert send(user, FOX).status == 200
    assert send(other, FILM).status == 201
    assert user.ask("DELETE", f"/v1/uploads/{fox}").status == 204
    assert send(user, FILM).status == 201


def test_with_the_storage_away_the_next_try_goes_on(user: Api, media: Path) -> None:
    aside = media.with_name("aside")
    media.rename(aside)
    media.write_text("no folder")
    try:
        assert send(user, FOX).status == 503
        (row,) = rows_of(user)
        assert user.ask("GET", f"/v1/uploads/{row.id}").status == 404
        assert user.get("/v1/uploads")["data"] == []
        refused = user.ask("POST", "/v1/jobs", video(row.id))
        assert (refused.status, refused.json["error"]["param"]) == (422, "input.image")
    finally:
        media.unlink()
        aside.rename(media)
    assert brought(user) == row.id


# ---------------------------------------------------------------- show


def test_uploads_are_listed_newest_first_to_their_owner(user: Api, other: Api) -> None:
    ids = [brought(user, png(name)) for name in "abc"]
    page = user.get("/v1/uploads?limit=2")
    assert ([shown["id"] for shown in page["data"]], page["has_more"]) == (ids[:0:-1], True)
    rest = user.get(f"/v1/uploads?limit=2&after={page['next']}")
    assert ([shown["id"] for shown in rest["data"]], rest["has_more"]) == (ids[:1], False)
    assert other.get("/v1/uploads")["data"] == []
    assert user.ask("GET", "/v1/uploads?kind=text").status == 422


def test_those_of_others_are_not_there(user: Api, other: Api, admin: Api) -> None:
    fox = brought(user)
    for somebody in (other, admin):
        assert somebody.ask("GET", f"/v1/uploads/{fox}").status == 404
        assert somebody.ask("DELETE", f"/v1/uploads/{fox}").status == 404
    assert user.ask("GET", f"/v1/uploads/{new_id('upl')}").status == 404


# ---------------------------------------------------------------- use


def video(image: str) -> dict[str, Any]:
    return {"model": "kling/image-to-video", "input": {"prompt": "it runs", "image": image}}


def lips(film: str) -> dict[str, Any]:
    return {"model": "kling/lip-sync", "input": {"video": film, "text": "hello", "voice_id": "v"}}


def test_a_job_names_an_upload(user: Api) -> None:
    fox = brought(user)
    job = user.post("/v1/jobs", video(fox))
    assert job["input"]["image"] == fox
    blend = {"model": "midjourney/blend", "input": {"images": [fox, "https://a.example/b.png"]}}
    assert user.post("/v1/jobs", blend)["status"] == "queued"


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        (lambda user, other: video(brought(other)), "input.image", "no such upload"),
        (lambda user, other: video(new_id("upl")), "input.image", "no such upload"),
        (lambda user, other: video("upl_fox"), "input.image", "the id of an upload"),
        (lambda user, other: video(brought(user, FILM)), "input.image", "a picture is wanted"),
        (lambda user, other: lips(brought(user, FOX)), "input.video", "a film is wanted"),
        (lambda user, other: lips(brought(user, FILM)), "input.video", "cannot reach"),
        (
            lambda user, other: {
                "model": "midjourney/blend", "input": {"images": [brought(user), brought(other)]}
            },
            "input.images.1",
            "no such upload",
        ),
    ],
)  # fmt: skip
def test_what_a_job_cannot_use(
    user: Api, other: Api, body: Callable[[Api, Api], Any], param: str, said: str
) -> None:
    answer = user.ask("POST", "/v1/jobs", body(user, other))
    error = answer.json["error"]
    assert (answer.status, error["code"], error["param"]) == (422, "invalid_input", param)
    assert said in error["message"]
    assert (jobs_of(user), user.credits()[1]) == ([], 0)


def test_a_picture_that_no_provider_would_take(user: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    fox = brought(user)
    monkeypatch.setattr(uploads, "PICTURE_BYTES", len(FOX) - 1)
    assert "at most" in user.ask("POST", "/v1/jobs", video(fox)).json["error"]["message"]


@pytest.mark.parametrize(("signed_s", "reachable"), [(0, True), (300, True), (300, False)])
def test_where_an_upload_is(
    user: Api, monkeypatch: pytest.MonkeyPatch, signed_s: int, reachable: bool
) -> None:
    film = brought(user, FILM)
    monkeypatch.setattr(Settings, "is_reachable", lambda self, url: reachable)
    assert user.ask("POST", "/v1/jobs", lips(film)).status == (202 if reachable else 422)
    with reading() as session:
        found = uploads.sources(session, [film, new_id("upl")])
    assert list(found) == [film]
    assert found[film].url == (user.get(f"/v1/uploads/{film}")["url"] if reachable else None)


# ---------------------------------------------------------------- delete


def test_one_in_use_stays(user: Api) -> None:
    fox, spare = brought(user), brought(user, png("spare"))
    jobs = [user.post("/v1/jobs", video(fox)), user.post("/v1/jobs", video(fox))]
    for end, job in zip((succeed, fail), jobs, strict=True):
        refused = user.ask("DELETE", f"/v1/uploads/{fox}")
        assert (refused.status, refused.json["error"]["code"]) == (409, "conflict")
        end(job["id"])
    for upload_id in (fox, spare):
        assert user.ask("DELETE", f"/v1/uploads/{upload_id}").status == 204
        assert user.ask("DELETE", f"/v1/uploads/{upload_id}").status == 404
        assert user.ask("GET", f"/v1/uploads/{upload_id}").status == 404
        assert user.ask("POST", "/v1/jobs", video(upload_id)).status == 422
    assert user.get("/v1/uploads")["data"] == []
    assert to_be_removed() >= {row.key for row in rows_of(user)}
    assert brought(user) != fox


def test_what_never_came_into_storage_is_given_up(user: Api) -> None:
    fox, old = brought(user), brought(user, png("old"))
    with transaction() as session:
        left, gone = session.get_one(Upload, fox), session.get_one(Upload, old)
        left.stored_at, left.created_at = None, clock.now() - timedelta(hours=25)
        gone.deleted_at = clock.now() - timedelta(days=31)
    with transaction() as session:
        assert not uploads.sweep(session)
    (row,) = rows_of(user)
    assert (row.id, row.deleted_at is not None, row.key in to_be_removed()) == (fox, True, True)
    assert brought(user) != fox


def test_one_that_vanishes_while_it_is_stored(make_user: MakeUser) -> None:
    user = make_user()
    fox = brought(user)
    with transaction() as session:
        session.get_one(Upload, fox).deleted_at = clock.now()
    with transaction() as session, pytest.raises(uploads.Conflict):
        uploads.stored(session, fox)


# ---------------------------------------------------------------- size


class Stream:
    """A body that nobody has in memory."""

    def __init__(self, head: bytes, blocks: int, tail: bytes) -> None:
        self._pieces = itertools.chain([head], itertools.repeat(bytes(BLOCK), blocks), [tail])
        self.size = len(head) + blocks * BLOCK + len(tail)

    def read(self, size: int = -1) -> bytes:
        return next(self._pieces, b"")


@pytest.mark.parametrize("as_form", [False, True])
def test_a_large_file_needs_little_memory(user: Api, app: Flask, as_form: bool) -> None:
    whole = form(part(SOUND + b"|"))
    head, tail = whole.split(b"|") if as_form else (SOUND, b"")
    body = Stream(head, 24 * 2**20 // BLOCK, tail)
    environ = EnvironBuilder("/v1/uploads", method="POST").get_environ()
    environ |= {
        "wsgi.input": body,
        "CONTENT_LENGTH": str(body.size),
        "HTTP_AUTHORIZATION": f"Bearer {user.token}",
    }
    environ["CONTENT_TYPE"] = (FORM if as_form else BARE)["Content-Type"]
    tracemalloc.start()
    try:
        said = b"".join(run_wsgi_app(app, environ)[0])
        assert json.loads(said).get("bytes") == len(SOUND) + 24 * 2**20, said
        assert tracemalloc.get_traced_memory()[1] < 3 * 2**20
    finally:
        tracemalloc.stop()


def test_nobody_sends_without_end(user: Api, other: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    few = settings().model_copy(update={"rate_limit_submits": "2/hour"})
    monkeypatch.setattr(rates, "settings", lambda: few)
    assert [send(user, FOX).status for _ in range(3)] == [201, 200, 429]
    assert user.ask("POST", "/v1/jobs", video("https://a.example/fox.png")).status == 202
    assert send(other, FOX).status == 201
