"""The real SDK against a bucket that checks every signature."""

from __future__ import annotations

import hashlib
import logging
import socket
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import ProxyHandler, build_opener

import pytest
from qcloud_cos import CosConfig
from qcloud_cos.cos_auth import CosS3Auth
from requests import Request

from common.errors import StorageUnavailable
from common.settings import BadSettings, Settings
from common.storage import cos as cos_module
from common.storage import new_storage
from common.storage.cos import Bucket, CosStorage

KEY = "artifacts/2026/11/24/job_1/1.png"
NAME = "media-1250000000"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK sleeps a second before it tries again."""
    monkeypatch.setattr("qcloud_cos.cos_client.time.sleep", lambda _: None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"picture")
    return path


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film"
    path.write_bytes(b"".join(bytes([letter]) * 7_000_000 for letter in b"abc") + b"end")
    return path


def bucket_at(cos: Any, **changes: Any) -> CosStorage:
    options = {
        "name": NAME,
        "secret_id": "AKIDEXAMPLE",
        "secret_key": "secretexample",
        "domain": cos.host if cos else "",
        "scheme": "http",
    }
    return CosStorage(Bucket(**{**options, **changes}))


# ---------------------------------------------------------------- objects


def test_put_exists_delete(cos: Any, file: Path) -> None:
    storage = bucket_at(cos)
    assert not storage.exists(KEY)
    for _ in range(2):
        storage.put(KEY, file, "image/png")
    body, headers = cos.objects[f"/{KEY}"]
    assert body == b"picture"
    assert headers["content-type"] == "image/png"
    assert headers["cache-control"] == "public, max-age=31536000, immutable"
    assert headers["content-length"] == "7"
    assert storage.exists(KEY)
    for _ in range(2):
        storage.delete(KEY)
    assert not storage.exists(KEY)


def test_unusual_key(cos: Any, file: Path) -> None:
    bucket_at(cos).put("a/b c 中+?.png", file, "image/png")
    assert "/a/b c 中+?.png" in cos.objects


def test_temporary_keys_send_their_token(cos: Any, file: Path) -> None:
    bucket_at(cos, token="sts-token").put(KEY, file, "image/png")
    assert cos.calls[0].headers["x-cos-security-token"] == "sts-token"


@pytest.mark.parametrize("key", ["", "../x", "/x", "a//b", ".x"])
def test_bad_key(cos: Any, file: Path, key: str) -> None:
    storage = bucket_at(cos)
    for call in (storage.exists, storage.delete, storage.url, lambda k: storage.put(k, file, "image/png")):
        with pytest.raises(ValueError):
            call(key)
    assert cos.calls == []


def test_missing_source_is_the_callers_mistake(cos: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bucket_at(cos).put(KEY, tmp_path / "missing", "image/png")


def test_large_file_goes_in_parts(cos: Any, film: Path) -> None:
    bucket_at(cos).put(KEY, film, "video/mp4")
    body, headers = cos.objects[f"/{KEY}"]
    assert hashlib.sha256(body).digest() == hashlib.sha256(film.read_bytes()).digest()
    assert headers["content-type"] == "video/mp4"
    assert headers["cache-control"].endswith("immutable")
    sizes = [int(call.headers["content-length"]) for call in cos.calls if "partNumber" in call.query]
    assert sorted(sizes) == [21_000_003 - 2 * 8 * 1024**2, 8 * 1024**2, 8 * 1024**2]


def test_interrupted_parts_are_continued(cos: Any, film: Path) -> None:
    storage = bucket_at(cos)
    cos.fail(503, method="PUT", match="'partNumber': '3'", times=2)
    with pytest.raises(StorageUnavailable):
        storage.put(KEY, film, "video/mp4")
    assert f"/{KEY}" not in cos.objects
    cos.calls.clear()
    storage.put(KEY, film, "video/mp4")
    assert [call.query["partNumber"] for call in cos.calls if "partNumber" in call.query] == ["3"]
    assert cos.objects[f"/{KEY}"][0] == film.read_bytes()


def test_completion_that_is_an_error_is_noticed(cos: Any, film: Path) -> None:
    cos.fail(200, b"<Error><Code>InternalError</Code></Error>", method="POST", match="uploadId", times=1)
    with pytest.raises(StorageUnavailable, match="COS refused: 200"):
        bucket_at(cos).put(KEY, film, "video/mp4")


def test_large_file_needs_little_memory(cos: Any, tmp_path: Path) -> None:
    path = tmp_path / "film"
    with path.open("wb") as out:
        out.truncate(200 * 1024**2)
    cos.fail(200, method="PUT", headers={"ETag": '"x"'})
    tracemalloc.start()
    try:
        bucket_at(cos).put(KEY, path, "video/mp4")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Three parts of 8 MiB on our side; this process is the server, too, and holds what it receives.
    assert peak < 64 * 1024**2


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (
            403,
            b"<Error><Code>AccessDenied</Code><Message>StringToSign secretexample</Message></Error>",
            "403",
        ),
        (404, b"<Error><Code>NoSuchBucket</Code></Error>", "404"),
        (451, b"", "451"),
        (500, b"oops", "500"),
        (503, b"<html>", "503"),
        (200, b"", "did not confirm"),
        (301, b"", "did not confirm"),
        (307, b"", "did not confirm"),
    ],
)
def test_refusals_are_unavailable(
    cos: Any, file: Path, status: int, body: bytes, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    cos.fail(status, body)
    logging.getLogger("qcloud_cos").setLevel(logging.DEBUG)
    with pytest.raises(StorageUnavailable, match=message) as caught:
        bucket_at(cos).put(KEY, file, "image/png")
    assert len(str(caught.value)) < 200
    told = str(caught.value) + "".join(capfd.readouterr())
    assert "secretexample" not in told
    assert "q-signature" not in told


def test_busy_once_is_tried_again(cos: Any, file: Path) -> None:
    cos.fail(503, times=1)
    bucket_at(cos).put(KEY, file, "image/png")
    assert [call.headers.get("x-cos-sdk-retry") for call in cos.calls] == [None, "true"]
    assert cos.objects[f"/{KEY}"][0] == b"picture"  # the file was rewound


def test_busy_for_good_ends(cos: Any, file: Path) -> None:
    cos.fail(503)
    with pytest.raises(StorageUnavailable):
        bucket_at(cos).put(KEY, file, "image/png")
    assert len(cos.calls) == 2


def test_wrong_secret(cos: Any, file: Path) -> None:
    with pytest.raises(StorageUnavailable, match="403 SignatureDoesNotMatch"):
        bucket_at(cos, secret_key="wrong").put(KEY, file, "image/png")


def test_exists_does_not_guess(cos: Any) -> None:
    cos.fail(403)
    with pytest.raises(StorageUnavailable, match="403"):
        bucket_at(cos).exists(KEY)


def test_unreadable_completion(cos: Any, film: Path) -> None:
    cos.fail(200, b"not xml", method="POST", match="uploads")
    with pytest.raises(StorageUnavailable, match="unreadably"):
        bucket_at(cos).put(KEY, film, "video/mp4")


def test_dead_host_is_unavailable_soon(file: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    started = time.monotonic()
    with pytest.raises(StorageUnavailable, match="cannot be reached: ConnectionError"):
        bucket_at(None, domain=host).put(KEY, file, "image/png")
    assert time.monotonic() - started < 2


def test_silent_host_is_unavailable(cos: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cos_module, "_TIMEOUT_S", (1, 0.2))
    event = threading.Event()
    cos.fail(200, wait=event)
    with pytest.raises(StorageUnavailable, match="cannot be reached: ReadTimeout"):
        bucket_at(cos).put(KEY, file, "image/png")
    event.set()


def test_proxies_of_the_environment_do_not_catch_the_loopback(
    cos: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.com")
    bucket_at(cos).put(KEY, file, "image/png")
    with pytest.raises(StorageUnavailable, match="ProxyError"):
        bucket_at(None, domain="cos.example.org").put(KEY, file, "image/png")


# ---------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({"region": "ap-guangzhou", "scheme": "https"}, f"https://{NAME}.cos.ap-guangzhou.myqcloud.com/"),
        ({"domain": "127.0.0.1:9000"}, "http://127.0.0.1:9000/"),
        (
            {"domain": "127.0.0.1:9000", "public_url": "https://pictures.example/"},
            "https://pictures.example/",
        ),
        ({"region": "ap-hongkong", "public_url": "https://cdn.example/media"}, "https://cdn.example/media/"),
    ],
)
def test_urls(changes: dict[str, Any], url: str) -> None:
    storage = bucket_at(None, **changes)
    assert storage.url("a/b c 中?./d.png") == f"{url}a/b%20c%20%E4%B8%AD%3F.%2Fd.png"
    assert storage.read_url("a.png") == f"{url}a.png"
    assert storage.signed_url("a.png", 60).startswith(f"{url}a.png?q-sign-algorithm=sha1&q-ak=AKIDEXAMPLE&")


@pytest.mark.parametrize("changes", [{}, {"token": "sts token+/="}, {"public": True}])
def test_signed_url_opens_a_private_object(cos: Any, file: Path, changes: dict[str, Any]) -> None:
    if changes.pop("public", False):
        changes["public_url"] = f"http://localhost:{cos.host.partition(':')[2]}"
    storage = bucket_at(cos, signed_url_s=60, **changes)
    storage.put("a/b c 中.png", file, "image/png")
    opener = build_opener(ProxyHandler({}))
    assert opener.open(storage.read_url("a/b c 中.png")).read() == b"picture"
    if changes.get("token"):
        assert cos.calls[-1].query["x-cos-security-token"] == "sts token+/="


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcloud_cos.cos_auth.time.time", lambda: 1_700_000_000)


def test_golden_signed_url(frozen: None) -> None:
    storage = bucket_at(None, region="ap-guangzhou", scheme="https")
    query = parse_qs(urlsplit(storage.signed_url("a/b c 中.png", 600)).query, keep_blank_values=True)
    assert query["q-signature"] == ["79cccd67c81b919f524c744fb388d200b093e522"]
    assert query["q-sign-time"] == query["q-key-time"] == ["1699999940;1700000600"]
    assert query["q-header-list"] == ["host"]
    assert query["q-url-param-list"] == [""]


@pytest.mark.parametrize(
    ("method", "lives_s", "headers", "params", "signature"),
    [
        ("PUT", 10_000, {"Content-Length": "3", "Content-Type": "image/png"}, {},
         "93c678905bcd0807eecdd4d13535f24103b0e510"),
        ("GET", 600, {}, {"response-content-disposition": 'attachment; filename="x.png"'},
         "164d29245de6f36ef3a20188794301070ffcd855"),
    ],
)  # fmt: skip
def test_golden_headers(
    frozen: None, method: str, lives_s: int, headers: dict[str, str], params: dict[str, str], signature: str
) -> None:
    """The installed SDK still signs as the fact sheet says."""
    config = CosConfig(Region="ap-guangzhou", SecretId="AKIDEXAMPLE", SecretKey="secretexample")
    request = Request(method, f"https://{NAME}.cos.ap-guangzhou.myqcloud.com/a.png", headers=headers)
    signed = CosS3Auth(config, "a.png", params, lives_s)(request)
    assert signed.headers["Authorization"].endswith(f"q-signature={signature}")


# ---------------------------------------------------------------- settings


def test_settings_choose(cos: Any, file: Path) -> None:
    chosen = new_storage(
        Settings(
            _env_file=None,
            storage="cos",
            cos_bucket=NAME,
            cos_secret_id="AKIDEXAMPLE",
            cos_secret_key="secretexample",
            cos_domain=cos.host,
            cos_scheme="http",
            cos_signed_url_s=60,
        )
    )
    chosen.put(KEY, file, "image/png")
    assert chosen.url(KEY) == f"http://{cos.host}/{KEY}"
    assert "q-signature" in chosen.read_url(KEY)


@pytest.mark.parametrize("changes", [{"region": "x y"}, {"secret_key": " blank"}, {"scheme": "ftp"}])
def test_impossible_settings_are_said_in_one_line(changes: dict[str, Any]) -> None:
    with pytest.raises(BadSettings, match="COS_REGION or COS_SECRET") as caught:
        bucket_at(None, **{"region": "ap-guangzhou", **changes})
    assert " blank" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_secrets_are_not_printed() -> None:
    bucket = Bucket(name="b", secret_id="AKID", secret_key="hush", token="hush")
    assert "hush" not in repr(bucket)
    assert "AKID" not in repr(bucket)
