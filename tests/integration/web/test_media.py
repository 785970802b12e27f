"""Results that are kept on this machine: exactly the bytes, and nothing but results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from common.storage import storage
from tests.infrastructure.databases import Released
from tests.infrastructure.inside import configured
from tests.integration.web.api import Api
from web.app import create_app

CONTENT = bytes(range(256)) * 40
Kept = Callable[[str], str]


@pytest.fixture
def keep(app: Flask, tmp_path: Path) -> Kept:
    """Put CONTENT into the storage; returns the path of its address."""

    def put(key: str) -> str:
        file = tmp_path / "file"
        file.write_bytes(CONTENT)
        storage().put(key, file, "image/png")
        return storage().url(key).removeprefix("http://127.0.0.1:8000")

    return put


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("1.png", "image/png"),
        ("1.MP4", "video/mp4"),
        ("1.m4a", "audio/mp4"),
        ("1.html", "application/octet-stream"),
        ("1.svg", "application/octet-stream"),
        ("1", "application/octet-stream"),
        ("ü 1%.png", "image/png"),
    ],
)
def test_a_result_is_served_as_what_it_is_and_never_as_a_page(
    nobody: Api, keep: Kept, name: str, content_type: str
) -> None:
    answer = nobody.ask("GET", keep(f"artifacts/2026/{name}"))
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.headers["content-type"] == content_type
    is_shown = content_type.startswith(("image/", "video/", "audio/"))
    assert answer.headers.get("content-disposition", "").startswith("attachment") != is_shown
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "immutable" in answer.headers["cache-control"]


def test_a_part(nobody: Api, keep: Kept) -> None:
    path = keep("artifacts/a.mp4")
    part = nobody.ask("GET", path, headers={"Range": "bytes=100-199"})
    assert (part.status, part.body) == (206, CONTENT[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(CONTENT)}"
    beyond = nobody.ask("GET", path, headers={"Range": f"bytes={len(CONTENT)}-"})
    assert (beyond.status, beyond.json["error"]["code"]) == (416, "requested_range_not_satisfiable")


def test_what_the_client_has_is_not_sent_again(nobody: Api, keep: Kept) -> None:
    path = keep("artifacts/a.png")
    first = nobody.ask("GET", path)
    again = nobody.ask("GET", path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


def test_head(nobody: Api, keep: Kept) -> None:
    answer = nobody.ask("HEAD", keep("artifacts/a.png"))
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", str(len(CONTENT)))


def test_nothing_else_is_served(nobody: Api, keep: Kept, media: Path, tmp_path: Path) -> None:
    keep("artifacts/a.png")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    link = media / "artifacts" / f"{tmp_path.name}.png"
    link.symlink_to(secret)
    (media / ".hidden").write_text("secret")
    for path in (
        "artifacts/link.png",
        ".hidden",
        "artifacts",
        "artifacts/",
        "artifacts/b.png",
        "",
        "artifacts//a.png",
    ):
        assert nobody.ask("GET", f"/media/{path}").status == 404, path


def test_with_results_elsewhere_nothing_is_served(released: Released, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(CONTENT)
    settings = {"DATABASE_URL": released.sqlite(tmp_path / "webui.db"), "MEDIA_DIR": str(tmp_path)}
    elsewhere = {
        "STORAGE": "cos",
        "COS_BUCKET": "b-1",
        "COS_REGION": "ap-guangzhou",
        "COS_SECRET_ID": "i",
        "COS_SECRET_KEY": "k",
    }
    with configured(settings):
        assert Api(app=create_app()).ask("GET", "/media/a.png").status == 200
    with configured(settings | elsewhere):
        assert Api(app=create_app()).ask("GET", "/media/a.png").status == 404
