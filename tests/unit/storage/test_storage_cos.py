"""The real SDK against a bucket that checks every signature."""

from __future__ import annotations

import logging
import socket
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import ProxyHandler, build_opener

import pytest
from qcloud_cos import CosConfig, CosS3Client
from qcloud_cos.cos_auth import CosS3Auth
from requests import Request

from common.errors import StorageRefused, StorageUnavailable
from common.settings import BadSettings, Settings
from common.storage import cos as cos_module
from common.storage import new_storage
from common.storage.cos import CODES, Bucket, CosStorage, Refusal
from tests.simulators.cos import Cos, error_xml
from tests.simulators.cos_signature import sign_key
from tests.simulators.frame import Fault

KEY = "artifacts/2026/11/24/job_1/1.png"
NAME = "media-1250000000"
ALWAYS = 1_000  # times


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


def bucket_at(cos: Cos | None, **changes: Any) -> CosStorage:
    options = {
        "name": NAME,
        "secret_id": "AKIDEXAMPLE",
        "secret_key": "secretexample",
        "domain": cos.host if cos else "",
        "scheme": "http",
    }
    return CosStorage(Bucket(**{**options, **changes}))


# ---------------------------------------------------------------- objects


def test_put_exists_delete(cos: Cos, file: Path) -> None:
    storage = bucket_at(cos)
    assert not storage.exists(KEY)
    for _ in range(2):
        storage.put(KEY, file, "image/png")
    assert cos.content(KEY) == b"picture"
    assert cos.objects[KEY].headers == {
        "content-type": "image/png",
        "cache-control": "public, max-age=31536000, immutable",
    }
    assert storage.exists(KEY)
    for _ in range(2):
        storage.delete(KEY)
    assert not storage.exists(KEY)


def test_unusual_key(cos: Cos, file: Path) -> None:
    bucket_at(cos).put("a/b c 中+?.png", file, "image/png")
    assert "a/b c 中+?.png" in cos.objects


def test_temporary_keys_send_their_token(cos: Cos, file: Path) -> None:
    cos.keys = replace(cos.keys, token="sts-token")
    bucket_at(cos, token="sts-token").put(KEY, file, "image/png")
    with pytest.raises(StorageUnavailable, match="403 ExpiredToken"):
        bucket_at(cos, token="old-token").put(KEY, file, "image/png")


@pytest.mark.parametrize("key", ["", "../x", "/x", "a//b", ".x"])
def test_bad_key(cos: Cos, file: Path, key: str) -> None:
    storage = bucket_at(cos)
    for call in (storage.exists, storage.delete, storage.url, lambda k: storage.put(k, file, "image/png")):
        with pytest.raises(ValueError):
            call(key)
    assert not cos.calls


def test_missing_source_is_the_callers_mistake(cos: Cos, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bucket_at(cos).put(KEY, tmp_path / "missing", "image/png")


def test_large_file_goes_in_parts(cos: Cos, film: Path) -> None:
    bucket_at(cos).put(KEY, film, "video/mp4")
    assert cos.content(KEY) == film.read_bytes()
    assert cos.objects[KEY].headers["content-type"] == "video/mp4"
    assert cos.objects[KEY].headers["cache-control"].endswith("immutable")
    sizes = [int(call.headers["content-length"]) for call in cos.asked("partNumber=")]
    assert sorted(sizes) == [21_000_003 - 2 * 8 * 1024**2, 8 * 1024**2, 8 * 1024**2]


def test_interrupted_parts_are_continued(cos: Cos, film: Path) -> None:
    storage = bucket_at(cos)
    cos.misbehave(Fault("answer", "partNumber=3", times=2, status=503))
    with pytest.raises(StorageUnavailable):
        storage.put(KEY, film, "video/mp4")
    assert KEY not in cos.objects
    assert cos.unfinished == [KEY]
    cos.calls.clear()
    storage.put(KEY, film, "video/mp4")
    assert ["partNumber=3" in call.path for call in cos.asked("partNumber=")] == [True]
    assert cos.content(KEY) == film.read_bytes()
    assert cos.unfinished == []


def test_completion_that_is_an_error_is_noticed(cos: Cos, film: Path) -> None:
    cos.misbehave(Fault("answer", f"POST /{KEY}?uploadId", status=200, body=error_xml("InternalError")))
    with pytest.raises(StorageUnavailable, match="COS refused: 200"):
        bucket_at(cos).put(KEY, film, "video/mp4")


def test_large_file_needs_little_memory(cos: Cos, tmp_path: Path) -> None:
    path = tmp_path / "film"
    with path.open("wb") as out:
        out.truncate(100 * 1024**2)
    tracemalloc.start()
    try:
        bucket_at(cos).put(KEY, path, "video/mp4")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Three parts of 8 MiB; this process is the server, too, but that one writes what it receives to its disk.
    assert peak < 48 * 1024**2
    assert cos.objects[KEY].size == 100 * 1024**2


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
    cos: Cos, file: Path, status: int, body: bytes, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    cos.misbehave(Fault("answer", times=ALWAYS, status=status, body=body))
    logging.getLogger("qcloud_cos").setLevel(logging.DEBUG)
    with pytest.raises(StorageUnavailable, match=message) as caught:
        bucket_at(cos).put(KEY, file, "image/png")
    assert len(str(caught.value)) < 200
    told = str(caught.value) + "".join(capfd.readouterr())
    assert "secretexample" not in told
    assert "q-signature" not in told


# Every code of section 7, with its HTTP status and what it is about.
SHEET = [
    (400, "BadDigest", Refusal.OBJECT),
    (400, "InvalidDigest", Refusal.OBJECT),
    (400, "EntityTooLarge", Refusal.OBJECT),
    (400, "InvalidArgument", Refusal.OBJECT),
    (400, "BadRequest", Refusal.OBJECT),
    (403, "AccessDenied", Refusal.CREDENTIALS),
    (403, "InvalidAccessKeyId", Refusal.CREDENTIALS),
    (403, "SignatureDoesNotMatch", Refusal.CREDENTIALS),
    (403, "RequestTimeTooSkewed", Refusal.CREDENTIALS),
    (403, "ExpiredToken", Refusal.CREDENTIALS),
    (403, "DownloadForbidden", Refusal.SETUP),
    (403, "PathStyleDomainForbidden", Refusal.SETUP),
    (404, "NoSuchBucket", Refusal.SETUP),
    (404, "NoSuchKey", Refusal.MISSING),
    (404, "NoSuchUpload", Refusal.OBJECT),
    (409, "BucketAlreadyExists", Refusal.SETUP),
    (409, "FileAlreadyExists", Refusal.OBJECT),
    (409, "PathConflict", Refusal.OBJECT),
    (411, "MissingContentLength", Refusal.OBJECT),
    (451, "UnavailableForLegalReasons", Refusal.BALANCE),
    (500, "InternalError", Refusal.LATER),
    (503, "ServiceUnavailable", Refusal.LATER),
    (503, "SlowDown", Refusal.LATER),
]
# What comes without a code, or with one that nobody has told us.
UNTOLD = [
    (400, "", Refusal.OBJECT),
    (401, "", Refusal.CREDENTIALS),
    (403, "", Refusal.CREDENTIALS),
    (404, "", Refusal.SETUP),
    (405, "MethodNotAllowed", Refusal.SETUP),
    (408, "", Refusal.LATER),
    (409, "SomethingElse", Refusal.OBJECT),
    (411, "", Refusal.OBJECT),
    (413, "", Refusal.OBJECT),
    (429, "", Refusal.LATER),
    (451, "", Refusal.BALANCE),
    (500, "", Refusal.LATER),
    (502, "", Refusal.LATER),
    (507, "", Refusal.LATER),
]


@pytest.mark.parametrize(("status", "code", "means"), [*SHEET, *UNTOLD])
def test_what_a_code_means(
    cos: Cos, file: Path, status: int, code: str, means: Refusal, caplog: pytest.LogCaptureFixture
) -> None:
    """An object that is refused is told from a storage that is away; and what needs the operator is in the log."""
    cos.misbehave(Fault("answer", times=ALWAYS, status=status, body=error_xml(code) if code else b""))
    with pytest.raises(StorageUnavailable, match=f"{status} {code or 'Unknown'}") as caught:
        bucket_at(cos).put(KEY, file, "image/png")
    assert isinstance(caught.value, StorageRefused) == (means is Refusal.OBJECT)
    assert means in str(caught.value)
    alerts = [line for line in caplog.messages if "needs its operator" in line]
    assert bool(alerts) == (means in (Refusal.CREDENTIALS, Refusal.SETUP, Refusal.BALANCE))
    assert len(cos.calls) == (2 if status >= 500 else 1)


def test_no_code_without_a_row() -> None:
    assert {code: means for _, code, means in SHEET} == CODES


@pytest.mark.parametrize(
    ("call", "status", "code", "is_refused"),
    [
        ("?uploads=", 400, "InvalidArgument", True),
        ("partNumber=2", 400, "EntityTooLarge", True),
        ("partNumber=2", 404, "NoSuchUpload", True),
        ("partNumber=2", 503, "SlowDown", False),
        ("partNumber=2", 403, "AccessDenied", False),
        (f"POST /{KEY}?uploadId", 404, "NoSuchUpload", True),
        (f"POST /{KEY}?uploadId", 200, "InternalError", False),
    ],
)
def test_what_a_code_means_in_an_upload_in_parts(
    cos: Cos, film: Path, call: str, status: int, code: str, is_refused: bool
) -> None:
    storage = bucket_at(cos)
    cos.misbehave(Fault("answer", call, times=ALWAYS, status=status, body=error_xml(code)))
    with pytest.raises(StorageUnavailable, match=code) as caught:
        storage.put(KEY, film, "video/mp4")
    assert isinstance(caught.value, StorageRefused) == is_refused
    cos.behave()
    storage.put(KEY, film, "video/mp4")
    assert cos.content(KEY) == film.read_bytes()


def test_a_part_that_gets_no_answer_is_no_refusal(cos: Cos, film: Path) -> None:
    storage = bucket_at(cos)
    cos.misbehave(Fault("answer", "partNumber=2", times=ALWAYS, status=400, body=error_xml("BadRequest")))
    with pytest.raises(StorageRefused):
        storage.put(KEY, film, "video/mp4")
    cos.behave()
    cos.misbehave(Fault("cut", "partNumber=2", times=ALWAYS))
    with pytest.raises(StorageUnavailable, match="cannot be reached") as caught:
        storage.put(KEY, film, "video/mp4")
    assert not isinstance(caught.value, StorageRefused)


def test_busy_once_is_tried_again(cos: Cos, file: Path) -> None:
    cos.misbehave(Fault("answer", status=503, body=error_xml("SlowDown")))
    bucket_at(cos).put(KEY, file, "image/png")
    assert [call.headers.get("x-cos-sdk-retry") for call in cos.calls] == [None, "true"]
    assert cos.content(KEY) == b"picture"  # the file was rewound


def test_busy_for_good_ends(cos: Cos, file: Path) -> None:
    cos.misbehave(Fault("answer", times=ALWAYS, status=503))
    with pytest.raises(StorageUnavailable):
        bucket_at(cos).put(KEY, file, "image/png")
    assert len(cos.calls) == 2


def test_wrong_secret(cos: Cos, file: Path) -> None:
    with pytest.raises(StorageUnavailable, match="403 SignatureDoesNotMatch"):
        bucket_at(cos, secret_key="wrong").put(KEY, file, "image/png")


def test_exists_does_not_guess(cos: Cos) -> None:
    cos.misbehave(Fault("answer", times=ALWAYS, status=403))
    with pytest.raises(StorageUnavailable, match="403"):
        bucket_at(cos).exists(KEY)


def test_small_objects_are_read_back(cos: Cos, file: Path) -> None:
    kept = bucket_at(cos)
    kept.put(KEY, file, "image/png")
    assert kept.read(KEY, 7) == b"picture"
    assert kept.read("artifacts/none.png", 7) is None
    with pytest.raises(StorageUnavailable, match="more than 6 bytes"):
        kept.read(KEY, 6)
    assert kept.read(KEY, 7) == b"picture"  # the connection that was given up harms nobody


@pytest.mark.parametrize(
    "fault",
    [Fault("answer", status=301), Fault("answer", status=404, body=error_xml("NoSuchBucket")), Fault("cut")],
)
def test_what_is_not_read_is_unavailable(cos: Cos, file: Path, fault: Fault) -> None:
    kept = bucket_at(cos)
    kept.put(KEY, file, "image/png")
    cos.misbehave(replace(fault, times=ALWAYS))
    with pytest.raises(StorageUnavailable):
        kept.read(KEY, 7)


def test_unreadable_completion(cos: Cos, film: Path) -> None:
    cos.misbehave(Fault("answer", "?uploads=", times=ALWAYS, status=200, body=b"not xml"))
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


def test_silent_host_is_unavailable(cos: Cos, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cos_module, "_TIMEOUT_S", (1, 0.2))
    cos.misbehave(Fault("hang", times=ALWAYS))
    with pytest.raises(StorageUnavailable, match="cannot be reached: ReadTimeout"):
        bucket_at(cos).put(KEY, file, "image/png")


def test_proxies_of_the_environment_do_not_catch_the_loopback(
    cos: Cos, file: Path, monkeypatch: pytest.MonkeyPatch
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
def test_signed_url_opens_a_private_object(cos: Cos, file: Path, changes: dict[str, Any]) -> None:
    if changes.pop("public", False):
        changes["public_url"] = f"http://localhost:{cos.host.partition(':')[2]}"
    cos.keys = replace(cos.keys, token=changes.get("token", ""))
    storage = bucket_at(cos, signed_url_s=60, **changes)
    storage.put("a/b c 中.png", file, "image/png")
    opener = build_opener(ProxyHandler({}))
    assert opener.open(storage.read_url("a/b c 中.png")).read() == b"picture"


# ---------------------------------------------------------------- listing and tidying


def test_a_listing_goes_on_from_page_to_page(cos: Cos, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = bucket_at(cos)
    keys = [f"artifacts/2026/11/24/job_{letter} é/1.png" for letter in "abcde"]
    for key in [*keys, "uploads/2026/11/24/upl_1.png"]:
        storage.put(key, file, "image/png")
    monkeypatch.setattr(cos_module, "_PAGE", 2)
    listed = list(storage.listing("artifacts/2026/11/24/"))
    assert [each.key for each in listed] == keys
    assert {each.bytes for each in listed} == {len(b"picture")}
    assert all(abs(each.modified_at - time.time()) < 60 for each in listed)
    assert list(storage.listing("nothing/")) == []


def test_a_listing_of_a_bucket_that_is_away(cos: Cos) -> None:
    cos.misbehave(Fault("answer", times=ALWAYS, status=503))
    with pytest.raises(StorageUnavailable):
        list(bucket_at(cos).listing("artifacts/"))


def test_uploads_in_parts_that_nobody_ended_are_aborted(cos: Cos, film: Path) -> None:
    storage = bucket_at(cos)
    cos.misbehave(Fault("answer", match="partNumber=3", times=ALWAYS, status=500))
    with pytest.raises(StorageUnavailable):
        storage.put(KEY, film, "video/mp4")
    assert cos.unfinished == [KEY]
    assert storage.sweep(3600) == 0
    assert cos.unfinished == [KEY]
    assert storage.sweep(-60) == 1
    assert cos.unfinished == []


def begin(cos: Cos, *keys: str) -> None:
    """Uploads in parts that nobody goes on with."""
    config = CosConfig(SecretId="AKIDEXAMPLE", SecretKey="secretexample", Domain=cos.host, Scheme="http")
    for key in keys:
        CosS3Client(config).create_multipart_upload(Bucket=NAME, Key=key)


def test_uploads_of_others_are_left_alone(cos: Cos) -> None:
    others = ["artifactsx/1", "backups/artifacts/1.tar", "other.bin", "uploads.zip"]
    begin(cos, KEY, "uploads/2026/11/24/upl_1.png", *others)
    assert bucket_at(cos).sweep(-60) == 2
    assert cos.unfinished == others


def test_a_sweep_goes_on_from_page_to_page_but_not_for_ever(
    cos: Cos, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(cos, *[KEY] * 3, *(f"artifacts/2026/11/24/job_{number} é/1.mp4" for number in range(4)))
    monkeypatch.setattr(cos_module, "_PAGE", 2)
    monkeypatch.setattr(cos_module, "_MOST_PAGES", 3)
    assert bucket_at(cos).sweep(-60) == 6
    assert len([call for call in cos.asked("GET /") if "artifacts" in call.path]) == 3
    assert bucket_at(cos).sweep(-60) == 1
    assert cos.unfinished == []


# ---------------------------------------------------------------- signatures


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcloud_cos.cos_auth.time.time", lambda: 1_700_000_000)


def test_golden_sign_key() -> None:
    """The bucket that all of these tests sign for makes the key of a period as section 3 says."""
    assert sign_key("secretexample", "1699999940;1700000600") == "1153f9eaf9b97cffd474995c6f8d4a97e3746a7a"


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


def test_settings_choose(cos: Cos, file: Path) -> None:
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
