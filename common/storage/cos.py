"""Objects in a Tencent COS bucket, through Tencent's own SDK."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qcloud_cos import (
    CosClientError,
    CosConfig,
    CosS3Client,
    CosServiceError,
)

from common.clock import epoch
from common.errors import StorageRefused, StorageUnavailable
from common.settings import BadSettings
from common.storage.keys import ROOMS, check_key
from common.storage.objects import StoredObject

log = logging.getLogger(__name__)

# At DEBUG the SDK prints its signing key, at ERROR a stack for each failed try. We report failures ourselves.
_SDK_LOG = logging.getLogger("qcloud_cos")
_SDK_LOG.addHandler(logging.NullHandler())
_SDK_LOG.propagate = False

_MB = 1024 * 1024
SINGLE_PUT_BYTES = 20 * _MB  # larger files go in parts, so that a cut costs one part
PART_MB = 8
_READ_BYTES = 64 * 1024
_PART_THREADS = 3  # the SDK holds one part per thread in memory
_TIMEOUT_S = (5, 30)  # connect; silence on the socket
_PARTS_TIMEOUT_S = (5, 180)  # COS may be silent for minutes while it joins thousands of parts
_LARGE_AT_ONCE = threading.BoundedSemaphore(2)  # bounds that memory for the process
_RETRIES = 1
_CONNECTIONS = 32
_PAGE = 1000
_MOST_PAGES = 50  # of unfinished uploads that one sweep looks at in each room; the rest is for the next one
_CACHE = "public, max-age=31536000, immutable"  # a key never gets another content
_SECURITY_TOKEN = "x-cos-security-token"
_LOOPBACK = "127.0.0.1,localhost,::1"  # never behind a proxy


class Refusal(StrEnum):
    """What an error of COS is about, and so what we do. Whatever it is, what was to be stored is tried again."""

    LATER = "COS is in trouble or busy"  # counts as an absence of the storage
    OBJECT = "this object is not taken"  # it waits alone, the others go on
    MISSING = "there is no such object"
    # For the operator; until it is mended, an absence of the storage.
    CREDENTIALS = "the keys, their rights or this machine's clock are wrong"
    SETUP = "the bucket's name, region or address is wrong"
    BALANCE = "Tencent has stopped the account: it is in arrears"


# Every code of tencent_cos.md, section 7. Of those that are tried no more elsewhere, an object that is refused is
# tried again rarely: it costs little, and a bucket's settings may change.
CODES: Mapping[str, Refusal] = {
    **dict.fromkeys(
        (
            "BadDigest",
            "InvalidDigest",
            "EntityTooLarge",
            "InvalidArgument",
            "BadRequest",
            "MissingContentLength",
        ),
        Refusal.OBJECT,
    ),
    **dict.fromkeys(("FileAlreadyExists", "PathConflict"), Refusal.OBJECT),
    "NoSuchUpload": Refusal.OBJECT,  # aborted meanwhile: the next try begins a new one
    "NoSuchKey": Refusal.MISSING,
    **dict.fromkeys(("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"), Refusal.CREDENTIALS),
    **dict.fromkeys(("RequestTimeTooSkewed", "ExpiredToken"), Refusal.CREDENTIALS),
    **dict.fromkeys(("NoSuchBucket", "BucketAlreadyExists"), Refusal.SETUP),
    **dict.fromkeys(("DownloadForbidden", "PathStyleDomainForbidden"), Refusal.SETUP),  # section 2
    "UnavailableForLegalReasons": Refusal.BALANCE,
    **dict.fromkeys(("InternalError", "ServiceUnavailable", "SlowDown"), Refusal.LATER),
}
# Where there is no code that we know: answers to HEAD have none, nor have those of whatever stands in between.
_STATUSES: Mapping[int, Refusal] = {
    401: Refusal.CREDENTIALS,
    403: Refusal.CREDENTIALS,
    404: Refusal.SETUP,
    405: Refusal.SETUP,
    407: Refusal.SETUP,
    408: Refusal.LATER,
    425: Refusal.LATER,
    429: Refusal.LATER,
    451: Refusal.BALANCE,
}
_FOR_THE_OPERATOR = (Refusal.CREDENTIALS, Refusal.SETUP, Refusal.BALANCE)


def meaning(status: int, code: str) -> Refusal:
    """What an error is about: by its code, else by its HTTP status (200 with an error in its body among them)."""
    if code in CODES:
        return CODES[code]
    return _STATUSES.get(status, Refusal.OBJECT if 400 <= status < 500 else Refusal.LATER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Where the objects live and how to get in. `domain` is another API host, `public_url` what users see."""

    name: str
    region: str = ""
    secret_id: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)
    domain: str = ""
    scheme: str = "https"
    public_url: str = ""
    signed_url_s: int = 0


class CosStorage:
    """Storage in the operator's bucket. One instance serves all threads of a process; safe after a fork."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._client = CosS3Client(_config(bucket, _TIMEOUT_S), retry=_RETRIES)
        self._parts_client = _PartsClient(_config(bucket, _PARTS_TIMEOUT_S), retry=_RETRIES)

    def put(self, key: str, path: Path, content_type: str) -> None:
        """Upload the file; COS shows an object only once it is whole; the same key again replaces it.

        Raises StorageUnavailable for whatever COS or the network does, StorageRefused among them where it is about
        this object alone, ValueError for an impossible key, and OSError where `path` cannot be read.
        """
        check_key(key)
        send = self._put_whole if path.stat().st_size <= SINGLE_PUT_BYTES else self._put_in_parts
        answer = send(key, path, {"ContentType": content_type, "CacheControl": _CACHE})
        if not _is_confirmed(answer):
            # The SDK takes a redirect for a success, although nothing was stored.
            raise StorageUnavailable(
                "COS did not confirm the upload: check COS_REGION, COS_BUCKET and COS_DOMAIN"
            )

    def delete(self, key: str) -> None:
        """Forget the object; a missing one is fine. Raises StorageUnavailable."""
        check_key(key)
        _ask(lambda: self._client.delete_object(Bucket=self._bucket.name, Key=key))

    def exists(self, key: str) -> bool:
        """Whether the object is there. Raises StorageUnavailable where COS does not say."""
        check_key(key)
        return bool(_ask(lambda: self._client.object_exists(Bucket=self._bucket.name, Key=key)))

    def read(self, key: str, most_bytes: int) -> bytes | None:
        """The content of a small object, None where there is none. Raises StorageUnavailable, also for a larger one."""
        check_key(key)
        content = _ask(lambda: self._read(key, most_bytes))
        if content is not None and len(content) > most_bytes:
            raise StorageUnavailable(f"the object has more than {most_bytes} bytes")
        return content  # type: ignore[no-any-return]

    def listing(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose keys begin so, in order, a thousand in a call. Raises StorageUnavailable."""
        marker, is_cut = "", True
        while is_cut:
            page = _ask(lambda: self._client.list_objects(
                Bucket=self._bucket.name, Prefix=prefix, Marker=marker, MaxKeys=_PAGE  # noqa: B023 - called at once
            ))  # fmt: skip
            listed = page.get("Contents", ())
            for each in listed:
                yield StoredObject(each["Key"], int(each["Size"]), _epoch(each["LastModified"]))
            is_cut = page.get("IsTruncated") == "true" and bool(listed)
            marker = page.get("NextMarker") or (listed[-1]["Key"] if listed else "")

    def sweep(self, older_than_s: float) -> int:
        """Abort uploads in parts that were begun longer ago than that: their parts cost money and are shown nowhere.

        Only those of our own rooms: others may use the bucket too.
        """
        old = [each for room in ROOMS for each in self._unfinished(f"{room}/")
               if _epoch(each["Initiated"]) < epoch() - older_than_s]  # fmt: skip
        for each in old:
            _ask(lambda: self._client.abort_multipart_upload(
                Bucket=self._bucket.name, Key=each["Key"], UploadId=each["UploadId"]  # noqa: B023 - called at once
            ))  # fmt: skip
        return len(old)

    def _unfinished(self, prefix: str) -> Iterator[Mapping[str, str]]:
        """Uploads in parts that are neither complete nor aborted, a thousand in a call and only so many of them."""
        after = {"KeyMarker": "", "UploadIdMarker": ""}
        for _ in range(_MOST_PAGES):
            page = _ask(lambda: self._client.list_multipart_uploads(
                Bucket=self._bucket.name, Prefix=prefix, MaxUploads=_PAGE, **after  # noqa: B023 - called at once
            ))  # fmt: skip
            yield from page.get("Upload", ())
            after = {name: page.get(f"Next{name}") or "" for name in after}
            if page.get("IsTruncated") != "true" or not after["KeyMarker"]:
                return

    def url(self, key: str) -> str:
        """Where users fetch it, unsigned: the public domain, else the API host."""
        if self._bucket.public_url:
            return f"{self._bucket.public_url.rstrip('/')}/{_quoted(check_key(key))}"
        return str(self._client.get_object_url(Bucket=self._bucket.name, Key=check_key(key)))

    def signed_url(self, key: str, lives_s: int) -> str:
        """A URL that anybody may GET for `lives_s` seconds. Computed here; COS is not asked."""
        # The SDK sends the token of temporary keys in its own calls but leaves it out of signed URLs.
        params = {_SECURITY_TOKEN: self._bucket.token} if self._bucket.token else {}
        signed = self._client.get_presigned_url(
            Bucket=self._bucket.name,
            Key=check_key(key),
            Method="GET",
            Expired=lives_s,
            Params=params,
            SignHost=not self._bucket.public_url,  # a CDN asks the bucket under another host than the user
        )
        return f"{self.url(key)}?{str(signed).partition('?')[2]}"

    def read_url(self, key: str) -> str:
        """What an answer of the API shows: signed where the operator asked for it."""
        lives_s = self._bucket.signed_url_s
        return self.signed_url(key, lives_s) if lives_s else self.url(key)

    def _read(self, key: str, most_bytes: int) -> bytes | None:
        """At most one block more than is wanted is read."""
        try:
            answer = self._client.get_object(Bucket=self._bucket.name, Key=key)
        except CosServiceError as error:
            if error.get_status_code() == 404 and error.get_error_code() == "NoSuchKey":
                return None
            raise
        body = answer["Body"]
        if not _is_confirmed(answer):  # as above
            raise ValueError("a redirect")
        content = bytearray()
        with closing(body.get_raw_stream()):
            for block in body.get_stream(_READ_BYTES):
                content += block
                if len(content) > most_bytes:
                    break
        return bytes(content)

    def _put_whole(self, key: str, path: Path, headers: Mapping[str, str]) -> Any:
        with path.open("rb") as body:
            return _ask(
                lambda: self._client.put_object(Bucket=self._bucket.name, Key=key, Body=body, **headers)
            )

    def _put_in_parts(self, key: str, path: Path, headers: Mapping[str, str]) -> Any:
        """Goes on with an unfinished upload of the same key where the parts already there match."""
        with _LARGE_AT_ONCE:
            return _ask(
                lambda: self._parts_client.put(
                    key,
                    Bucket=self._bucket.name,
                    LocalFilePath=str(path),
                    PartSize=PART_MB,
                    MAXThread=_PART_THREADS,
                    **headers,
                )
            )


class _PartsClient(CosS3Client):  # type: ignore[misc]
    """The SDK's threads keep to themselves why a part was refused; this one tells."""

    def __init__(self, config: CosConfig, retry: int) -> None:
        super().__init__(config, retry=retry)
        self._refused: dict[str, CosServiceError] = {}  # by key

    def put(self, key: str, **options: Any) -> Any:
        """`upload_file`, that raises COS's own refusal where one of the parts met one."""
        self._refused.pop(key, None)
        try:
            return self.upload_file(Key=key, **options)
        except CosClientError:
            refusal = self._refused.pop(key, None)
            if refusal is None:
                raise
            raise refusal from None

    def upload_part(self, bucket: str, key: str, *rest: Any, **options: Any) -> Any:
        """Called by the SDK's threads."""
        try:
            return super().upload_part(bucket, key, *rest, **options)
        except CosServiceError as error:
            self._refused[key] = error
            raise


def _config(bucket: Bucket, timeout_s: tuple[float, float]) -> CosConfig:
    """How the SDK gets there; all its clients share one connection pool per process. Raises BadSettings."""
    excluded = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    try:
        return CosConfig(
            Region=bucket.region or None,
            SecretId=bucket.secret_id,
            SecretKey=bucket.secret_key,
            Token=bucket.token or None,
            Domain=bucket.domain or None,
            Scheme=bucket.scheme,
            Timeout=timeout_s,
            PoolConnections=_CONNECTIONS,
            PoolMaxSize=_CONNECTIONS,
            Proxies={"no_proxy": ",".join(filter(None, (excluded, _LOOPBACK)))},
        )
    except CosClientError as error:  # a blank in a key, an impossible region; the value is not repeated
        raise BadSettings(f"settings: COS_REGION or COS_SECRET_…: {error}") from None


def _is_confirmed(answer: Mapping[str, Any]) -> bool:
    """Whether an object is behind the answer."""
    return any(name.lower() == "etag" for name in answer)


def _epoch(moment: str) -> float:
    """Seconds since 1970 of a time as COS writes it (2026-11-25T08:00:00.000Z)."""
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def _quoted(key: str) -> str:
    """Percent-encoding as the SDK does it, which the signature relies on."""
    return quote(key, safe="/-_.~").replace("./", ".%2F")


def _ask(call: Callable[[], Any]) -> Any:
    """Make one SDK call; everything it raises, and it raises a lot, becomes StorageUnavailable."""
    try:
        return call()
    except CosServiceError as error:
        raise _refusal(error) from None
    except CosClientError as error:
        cause = type(error.__context__).__name__ if error.__context__ else "upload incomplete"
        raise StorageUnavailable(f"COS cannot be reached: {cause}") from None
    except Exception as error:
        raise StorageUnavailable(f"COS answered unreadably: {type(error).__name__}") from None


def _refusal(error: CosServiceError) -> StorageUnavailable:
    """Status, code and what they mean; the message of COS may quote the string to sign."""
    status = int(error.get_status_code())
    try:
        code = str(error.get_error_code())
    except (KeyError, TypeError):
        code = "Unknown"
    means = meaning(status, code)
    words = f"COS refused: {f'{status} {code}'[:100]} ({means})"
    if means in _FOR_THE_OPERATOR:
        log.error("the storage needs its operator: %s", words)
    return StorageRefused(words) if means is Refusal.OBJECT else StorageUnavailable(words)
