"""The simulated COS, used by the real SDK: what the fact sheet lists, section 9. Our own uploads: unit/storage."""

from __future__ import annotations

import hashlib
import io
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import crcmod
import psutil
import pytest
import requests
from qcloud_cos import CosConfig, CosS3Client, CosServiceError
from urllib3.exceptions import ReadTimeoutError

from common.storage.cos import Bucket, CosStorage
from tests.infrastructure.children import wait_until
from tests.simulators.cos import Cos, error_xml
from tests.simulators.cos_signature import Asked, Keys, signature
from tests.simulators.frame import Fault, Stage

KEY = "artifacts/2026/11/24/job_1/1.png"
MB = 1024 * 1024


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK sleeps seconds before it tries again."""
    monkeypatch.setattr("qcloud_cos.cos_client.time.sleep", lambda _: None)


@pytest.fixture
def cos() -> Iterator[Cos]:
    bucket = Cos()
    with Stage([bucket]):
        yield bucket


def client(cos: Cos, **changes: Any) -> CosS3Client:
    options = {
        "SecretId": cos.keys.secret_id,
        "SecretKey": cos.keys.secret_key,
        "Domain": cos.host,
        "Scheme": "http",
        "Timeout": 5,
        **changes,
    }
    return CosS3Client(CosConfig(**options))


@pytest.fixture
def sdk(cos: Cos) -> CosS3Client:
    return client(cos)


def refused(call: Any, *arguments: Any, **options: Any) -> CosServiceError:
    with pytest.raises(CosServiceError) as caught:
        call(*arguments, **options)
    return caught.value


def verdict(error: CosServiceError) -> tuple[int, str]:
    return error.get_status_code(), error.get_error_code()


# ---------------------------------------------------------------- objects


def test_put_head_get_delete(cos: Cos, sdk: CosS3Client) -> None:
    sent = sdk.put_object(
        Bucket=cos.bucket, Key=KEY, Body=b"picture", ContentType="image/png", CacheControl="max-age=1",
        ContentDisposition="inline", Metadata={"x-cos-meta-job": "42"}, EnableMD5=True,
    )  # fmt: skip
    etag = f'"{hashlib.md5(b"picture").hexdigest()}"'
    assert sent["ETag"] == etag
    head = sdk.head_object(Bucket=cos.bucket, Key=KEY)
    assert head["Content-Length"] == "7"
    crc64 = crcmod.mkCrcFun(0x142F0E1EBA9EA3693, initCrc=0, xorOut=2**64 - 1, rev=True)
    for answer in (head, got := sdk.get_object(Bucket=cos.bucket, Key=KEY)):
        assert (answer["Content-Type"], answer["Cache-Control"]) == ("image/png", "max-age=1")
        assert (answer["Content-Disposition"], answer["x-cos-meta-job"]) == ("inline", "42")
        assert (answer["ETag"], answer["x-cos-hash-crc64ecma"]) == (etag, str(crc64(b"picture")))
        assert answer["x-cos-request-id"]
        assert answer["Last-Modified"].endswith("GMT")
    assert got["Body"].get_raw_stream().read() == b"picture"
    for _ in range(2):
        sdk.delete_object(Bucket=cos.bucket, Key=KEY)
    assert sdk.object_exists(Bucket=cos.bucket, Key=KEY) is False
    assert verdict(refused(sdk.get_object, Bucket=cos.bucket, Key=KEY)) == (404, "NoSuchKey")
    assert refused(sdk.head_object, Bucket=cos.bucket, Key=KEY).get_status_code() == 404


def test_bodies_without_a_length_and_with_none(cos: Cos, sdk: CosS3Client) -> None:
    sdk.put_object(Bucket=cos.bucket, Key="chunked", Body=(chunk for chunk in (b"ab", b"cd")))
    assert cos.content("chunked") == b"abcd"
    sdk.put_object(Bucket=cos.bucket, Key="empty", Body=b"")
    assert cos.content("empty") == b""
    assert requests.get(f"{cos.url}/empty", timeout=5).content == b""


@pytest.mark.parametrize("key", ["a/b c 中+?&=.png", "a?./b", "%41", "x#y"])
def test_unusual_keys(cos: Cos, sdk: CosS3Client, key: str) -> None:
    sdk.put_object(Bucket=cos.bucket, Key=key, Body=b"x")
    assert list(cos.objects) == [key]
    url = sdk.get_presigned_url(Bucket=cos.bucket, Key=key, Method="GET")
    assert requests.get(url, timeout=5).content == b"x"


def test_ranges(cos: Cos, sdk: CosS3Client) -> None:
    body = bytes(range(256)) * 16 * 1024  # streamed, not answered from memory
    sdk.put_object(Bucket=cos.bucket, Key=KEY, Body=body)
    for header, wanted in (("bytes=5-9", body[5:10]), ("bytes=-7", body[-7:]), ("bytes=1-", body[1:])):
        got = sdk.get_object(Bucket=cos.bucket, Key=KEY, Range=header)
        assert got["Body"].get_raw_stream().read() == wanted
        assert got["Content-Range"].endswith(f"/{len(body)}")
    error = refused(sdk.get_object, Bucket=cos.bucket, Key=KEY, Range=f"bytes={len(body)}-")
    assert verdict(error) == (416, "InvalidRange")


def test_download_file_checks_the_sum(cos: Cos, sdk: CosS3Client, tmp_path: Path) -> None:
    body = b"abc" * 7 * MB
    sdk.put_object(Bucket=cos.bucket, Key=KEY, Body=body)
    sdk.download_file(
        Bucket=cos.bucket, Key=KEY, DestFilePath=str(tmp_path / "got"), PartSize=5, EnableCRC=True
    )
    assert (tmp_path / "got").read_bytes() == body
    assert len(cos.asked(f"GET /{KEY}")) == 5


def test_wrong_sums(cos: Cos, sdk: CosS3Client) -> None:
    for md5, code in (("bad", "InvalidDigest"), ("1B2M2Y8AsgTpgAmY7PhCfg==", "BadDigest")):
        error = refused(sdk.put_object, Bucket=cos.bucket, Key=KEY, Body=b"x", ContentMD5=md5)
        assert verdict(error) == (400, code)
    assert KEY not in cos.objects


def test_list(cos: Cos, sdk: CosS3Client) -> None:
    for key in ("a/1", "a/2 中&.png", "b", "c/d/e"):
        sdk.put_object(Bucket=cos.bucket, Key=key, Body=b"x")
    listed = sdk.list_objects(Bucket=cos.bucket)
    assert [entry["Key"] for entry in listed["Contents"]] == ["a/1", "a/2 中&.png", "b", "c/d/e"]
    assert (listed["Contents"][0]["Size"], listed["IsTruncated"]) == ("1", "false")
    folders = sdk.list_objects(Bucket=cos.bucket, Delimiter="/")
    assert [entry["Prefix"] for entry in folders["CommonPrefixes"]] == ["a/", "c/"]
    assert [entry["Key"] for entry in folders["Contents"]] == ["b"]
    seen: list[str] = []
    marker = ""
    while True:
        page = sdk.list_objects(Bucket=cos.bucket, Prefix="a/", MaxKeys=1, Marker=marker)
        seen += [entry["Key"] for entry in page["Contents"]]
        if page["IsTruncated"] == "false":
            break
        marker = page["NextMarker"]
    assert seen == ["a/1", "a/2 中&.png"]


def test_delete_many(cos: Cos, sdk: CosS3Client) -> None:
    for key in ("a", "b", "c"):
        sdk.put_object(Bucket=cos.bucket, Key=key, Body=b"x")
    told = sdk.delete_objects(
        Bucket=cos.bucket, Delete={"Object": [{"Key": "a"}, {"Key": "b"}], "Quiet": "false"}
    )
    assert [entry["Key"] for entry in told["Deleted"]] == ["a", "b"]
    assert list(cos.objects) == ["c"]


def test_the_bucket(cos: Cos, sdk: CosS3Client) -> None:
    assert sdk.bucket_exists(Bucket=cos.bucket) is True
    by_address = {"Domain": None, "Region": "ap-guangzhou", "IP": "127.0.0.1", "Port": cos.port}
    assert client(cos, **by_address).bucket_exists(Bucket=cos.bucket) is True
    assert client(cos, **by_address).bucket_exists(Bucket="other-1250000000") is False


# ---------------------------------------------------------------- who may


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"SecretId": "AKIDother"}, "InvalidAccessKeyId"),
        ({"SecretKey": "wrong"}, "SignatureDoesNotMatch"),
        ({"Anonymous": True}, "AccessDenied"),
        ({"Token": "sts"}, "ExpiredToken"),
    ],
)
def test_wrong_keys(cos: Cos, changes: dict[str, Any], code: str) -> None:
    error = refused(client(cos, **changes).put_object, Bucket=cos.bucket, Key=KEY, Body=b"x")
    assert verdict(error) == (403, code)
    assert error.get_request_id() != "Unknown"
    assert error.get_trace_id() != "Unknown"
    assert error.get_resource_location() == f"{cos.bucket}/{KEY}"
    assert len(cos.objects) == 0


def test_temporary_keys(cos: Cos) -> None:
    cos.keys = replace(cos.keys, token="sts")
    client(cos, Token="sts").put_object(Bucket=cos.bucket, Key=KEY, Body=b"x")
    error = refused(client(cos).get_object, Bucket=cos.bucket, Key=KEY)
    assert verdict(error) == (403, "InvalidAccessKeyId")


@pytest.mark.parametrize(("ahead_s", "words"), [(-11_000, "Request has expired"), (300, "too far")])
def test_signatures_outside_their_time(
    cos: Cos, sdk: CosS3Client, ahead_s: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = time.time() + ahead_s
    monkeypatch.setattr("qcloud_cos.cos_auth.time", type("Clock", (), {"time": staticmethod(lambda: moment)}))
    error = refused(sdk.put_object, Bucket=cos.bucket, Key=KEY, Body=b"x")
    assert error.get_status_code() == 403
    assert words in error.get_error_msg()


def test_anybody_may_read_what_is_public(cos: Cos, sdk: CosS3Client) -> None:
    sdk.put_object(Bucket=cos.bucket, Key=KEY, Body=b"x", ContentType="image/png")
    url = f"{cos.url}/{KEY}"
    assert requests.get(url, timeout=5).content == b"x"
    assert requests.head(url, timeout=5).headers["Content-Length"] == "1"
    for method, target in (("PUT", url), ("DELETE", url), ("GET", cos.url), ("GET", f"{url}?uploadId=1")):
        assert requests.request(method, target, data=b"y", timeout=5).status_code == 403
    cos.public = False
    private = requests.get(url, timeout=5)
    assert private.status_code == 403
    assert "<Code>AccessDenied</Code>" in private.text
    assert requests.head(url, timeout=5).content == b""


def test_signed_urls(cos: Cos, sdk: CosS3Client) -> None:
    cos.public = False
    sdk.put_object(Bucket=cos.bucket, Key=KEY, Body=b"x")
    params = {"response-content-disposition": 'attachment; filename="x y.png"'}
    url = sdk.get_presigned_url(Bucket=cos.bucket, Key=KEY, Method="GET", Params=params)
    reply = requests.get(url, timeout=5)
    assert (reply.content, reply.headers["Content-Disposition"]) == (
        b"x",
        params["response-content-disposition"],
    )
    assert requests.put(url, data=b"y", timeout=5).status_code == 403
    assert requests.get(url.replace("filename", "filenome"), timeout=5).status_code == 403
    expired = sdk.get_presigned_url(Bucket=cos.bucket, Key=KEY, Method="GET", Expired=-1)
    assert "Request has expired" in requests.get(expired, timeout=5).text


@pytest.mark.parametrize(
    ("method", "path", "times", "query", "headers", "known"),
    [
        ("GET", "/a/b c 中.png", "1699999940;1700000600", {}, {}, "79cccd67c81b919f524c744fb388d200b093e522"),
        ("PUT", "/a.png", "1699999940;1700010000", {}, {"content-length": "3", "content-type": "image/png"},
         "93c678905bcd0807eecdd4d13535f24103b0e510"),
        ("GET", "/a.png", "1699999940;1700000600",
         {"response-content-disposition": 'attachment; filename="x.png"'}, {},
         "164d29245de6f36ef3a20188794301070ffcd855"),
    ],
)  # fmt: skip
def test_golden_signatures(
    method: str, path: str, times: str, query: dict[str, str], headers: dict[str, str], known: str
) -> None:
    signed = {**headers, "host": "media-1250000000.cos.ap-guangzhou.myqcloud.com"}
    given = {
        "q-sign-algorithm": "sha1",
        "q-sign-time": times,
        "q-key-time": times,
        "q-header-list": ";".join(sorted(signed)),
        "q-url-param-list": ";".join(sorted(query)),
    }
    assert signature(Asked(method, path, query, signed), given, "secretexample") == known


def test_keys_are_not_printed() -> None:
    assert "hush" not in repr(Keys(secret_key="hush", token="hush"))


# ---------------------------------------------------------------- in parts


def test_parts_by_hand(cos: Cos, sdk: CosS3Client) -> None:
    name = {"Bucket": cos.bucket, "Key": KEY}
    upload = {**name, "UploadId": sdk.create_multipart_upload(**name, ContentType="video/mp4")["UploadId"]}
    bodies = [b"a" * MB, b"b" * MB, b"c"]
    for number in (2, 1, 3):
        sdk.upload_part(**upload, Body=bodies[number - 1], PartNumber=number)
    page = sdk.list_parts(**upload, MaxParts=2)
    assert [part["PartNumber"] for part in page["Part"]] == ["1", "2"]
    assert (page["IsTruncated"], page["NextPartNumberMarker"]) == ("true", "2")
    rest = sdk.list_parts(**upload, PartNumberMarker=2)
    assert [(part["PartNumber"], part["Size"]) for part in rest["Part"]] == [("3", "1")]
    parts = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in page["Part"] + rest["Part"]]

    def complete(wanted: list[dict[str, str]]) -> Any:
        return sdk.complete_multipart_upload(**upload, MultipartUpload={"Part": wanted})

    assert verdict(refused(complete, parts[::-1])) == (400, "InvalidPartOrder")
    assert verdict(refused(complete, [{**parts[0], "ETag": '"x"'}])) == (400, "InvalidPart")
    assert KEY not in cos.objects
    digest = hashlib.md5(b"".join(hashlib.md5(body).digest() for body in bodies)).hexdigest()
    assert complete(parts)["ETag"] == f'"{digest}-3"'
    assert cos.content(KEY) == b"".join(bodies)
    assert cos.objects[KEY].headers["content-type"] == "video/mp4"
    assert verdict(refused(complete, parts)) == (404, "NoSuchUpload")


def test_small_parts_and_aborts(cos: Cos, sdk: CosS3Client) -> None:
    name = {"Bucket": cos.bucket, "Key": KEY}
    upload = {**name, "UploadId": sdk.create_multipart_upload(**name)["UploadId"]}
    parts = [
        {"PartNumber": number, "ETag": sdk.upload_part(**upload, Body=b"x", PartNumber=number)["ETag"]}
        for number in (1, 2)
    ]
    error = refused(sdk.complete_multipart_upload, **upload, MultipartUpload={"Part": parts})
    assert verdict(error) == (400, "EntityTooSmall")
    found = sdk.list_multipart_uploads(Bucket=cos.bucket, Prefix="artifacts/")
    assert [entry["UploadId"] for entry in found["Upload"]] == [upload["UploadId"]]
    assert "Upload" not in sdk.list_multipart_uploads(Bucket=cos.bucket, Prefix="other/")
    sdk.abort_multipart_upload(**upload)
    assert cos.unfinished == []
    assert verdict(refused(sdk.upload_part, **upload, Body=b"x", PartNumber=3)) == (404, "NoSuchUpload")
    assert list(cos._inside.folder.glob("*.draft")) == []


def test_upload_from_a_buffer(cos: Cos, sdk: CosS3Client) -> None:
    body = b"abc" * MB
    sdk.upload_file_from_buffer(Bucket=cos.bucket, Key=KEY, Body=io.BytesIO(body), PartSize=1)
    assert cos.content(KEY) == body
    assert cos.objects[KEY].etag.endswith('-3"')


# ---------------------------------------------------------------- misbehaving


def test_slow_down(cos: Cos, sdk: CosS3Client) -> None:
    cos.misbehave(Fault("answer", "PUT", times=2, status=503, body=error_xml("SlowDown", "Reduce your rate")))
    sdk.put_object(Bucket=cos.bucket, Key=KEY, Body=b"x")
    assert [call.headers.get("x-cos-sdk-retry") for call in cos.calls] == [None, "true", "true"]
    cos.misbehave(Fault("answer", "PUT", times=4, status=503, body=error_xml("SlowDown", "Reduce your rate")))
    error = refused(sdk.put_object, Bucket=cos.bucket, Key=KEY, Body=b"y")
    assert (error.get_error_code(), error.get_error_msg()) == ("SlowDown", "Reduce your rate")
    assert cos.content(KEY) == b"x"


def test_completion_with_an_error_in_it(cos: Cos, sdk: CosS3Client, tmp_path: Path) -> None:
    path = tmp_path / "film"
    path.write_bytes(b"x" * (2 * MB))
    cos.misbehave(Fault("answer", f"POST /{KEY}?uploadId", status=200, body=error_xml("InternalError")))
    error = refused(sdk.upload_file, Bucket=cos.bucket, Key=KEY, LocalFilePath=str(path))
    assert verdict(error) == (200, "InternalError")


@pytest.mark.parametrize("kind", ["slow", "trickle"])
def test_a_slow_upload_is_whole(cos: Cos, sdk: CosS3Client, kind: Any) -> None:
    cos.misbehave(Fault(kind, "PUT", seconds=0.05))
    sdk.put_object(Bucket=cos.bucket, Key=KEY, Body=b"picture")
    assert cos.content(KEY) == b"picture"


def test_an_upload_without_an_answer_is_sent_again(cos: Cos, sdk: CosS3Client) -> None:
    fault = cos.misbehave(Fault("cut", "PUT"))
    sdk.put_object(Bucket=cos.bucket, Key=KEY, Body=b"picture")
    assert (fault.met, len(cos.asked("PUT"))) == (1, 2)
    assert cos.content(KEY) == b"picture"


def test_slow_body(cos: Cos) -> None:
    sdk = client(cos, Timeout=0.2)
    sdk.put_object(Bucket=cos.bucket, Key=KEY, Body=b"picture")
    cos.misbehave(Fault("trickle", "GET", times=10, seconds=30))
    stream = sdk.get_object(Bucket=cos.bucket, Key=KEY)["Body"].get_raw_stream()
    with pytest.raises(ReadTimeoutError):
        stream.read()


def test_an_upload_that_breaks_off_leaves_nothing(cos: Cos) -> None:
    cos.keys = Keys()
    url = client(cos).get_presigned_url(Bucket=cos.bucket, Key=KEY, Method="PUT")
    target = urlsplit(url)
    with socket.create_connection(("127.0.0.1", cos.port)) as sock:
        head = (
            f"PUT {target.path}?{target.query} HTTP/1.1\r\nHost: {cos.host}\r\nContent-Length: 1000\r\n\r\n"
        )
        sock.sendall(head.encode() + b"x" * 500)
        wait_until(lambda: list(cos._inside.folder.glob("*.draft")))
    wait_until(lambda: cos.calls)
    assert len(cos.objects) == 0
    assert list(cos._inside.folder.glob("*.draft")) == []


# ---------------------------------------------------------------- memory and disk


def test_large_objects_need_no_memory(cos: Cos, sdk: CosS3Client) -> None:
    def chunks() -> Iterator[bytes]:
        yield from (b"\0" * MB for _ in range(192))

    before = psutil.Process().memory_info().rss
    sdk.put_object(Bucket=cos.bucket, Key=KEY, Body=chunks())
    received = 0
    stream = sdk.get_object(Bucket=cos.bucket, Key=KEY)["Body"].get_raw_stream()
    while chunk := stream.read(MB):
        received += len(chunk)
    assert received == 192 * MB
    assert psutil.Process().memory_info().rss - before < 96 * MB
    assert cos.calls[0].body == b""


def test_a_kept_folder_keeps_objects_and_port(tmp_path: Path) -> None:
    folder = tmp_path / "bucket"
    first = Cos(folder=folder)
    with Stage([first]):
        client(first).put_object(Bucket=first.bucket, Key=KEY, Body=b"kept", ContentType="image/png")
        url = f"{first.url}/{KEY}"
    with Stage([Cos(folder=folder)]):
        reply = requests.get(url, timeout=5)
        assert (reply.content, reply.headers["Content-Type"]) == (b"kept", "image/png")
        third = Cos(folder=folder)
        with Stage([third]):  # the port is taken now: another one will do
            assert requests.get(f"{third.url}/{KEY}", timeout=5).content == b"kept"


def test_without_a_folder_nothing_is_left() -> None:
    bucket = Cos()
    folder = bucket._inside.folder
    assert folder.is_dir()
    del bucket
    assert not folder.exists()


def test_our_storage_works_as_the_settings_say(cos: Cos, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(b"picture")
    storage = CosStorage(
        Bucket(name=cos.bucket, secret_id=cos.keys.secret_id, secret_key=cos.keys.secret_key, domain=cos.host,
               scheme="http")
    )  # fmt: skip
    storage.put(KEY, path, "image/png")
    assert requests.get(storage.url(KEY), timeout=5).content == b"picture"
