"""Tencent COS: one bucket, addressed as COS_DOMAIN or by a Host header. Facts: fact sheet tencent_cos.md.

Not simulated, because nothing here uses it: versions, ACLs, lifecycles, encryption, image processing.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import ClassVar, TypeAlias
from urllib.parse import parse_qsl, quote, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from aiohttp import web

from tests.simulators.cos_bucket import Bucket, Draft, Object
from tests.simulators.cos_signature import EXAMPLE_KEYS, Asked, Keys, Refused, is_signed, verify
from tests.simulators.frame import Simulator, drain, wanted_part

_LARGEST_BYTES = 5 * 1024**3  # in one piece
_MOST_PARTS = 10_000
_MOST_KEYS = 1000
_SMALL_BYTES = 1024 * 1024  # answered from memory
_CHUNK = 256 * 1024
_KEPT = (
    "content-type",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
)
_XML = "application/xml"

Node: TypeAlias = tuple[str, "str | list[Node]"]


class Cos(Simulator):
    """The bucket. `public` lets anybody read; a given folder keeps objects, and the port, for the next time."""

    name: ClassVar[str] = "cos"
    streams: ClassVar[bool] = True

    def __init__(
        self,
        *,
        bucket: str = "media-1250000000",
        keys: Keys = EXAMPLE_KEYS,
        public: bool = True,
        folder: Path | None = None,
    ) -> None:
        super().__init__()
        self.bucket = bucket
        self.keys = keys
        self.public = public
        self._inside = Bucket(folder)

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [web.route("*", "/{key:.*}", self._serve)]

    async def listen(self, port: int = 0) -> None:
        """Serve from now on, where possible at the port of the last time: URLs that were given out stay right."""
        kept = self._inside.folder / "port"
        known = int(kept.read_text()) if kept.exists() else 0
        try:
            await super().listen(port or known)
        except OSError:
            if port or not known:
                raise
            await self.hang_up()
            self.port = 0
            await super().listen()
        kept.write_text(str(self.port))

    # ------------------------------------------------------------ for tests

    @property
    def host(self) -> str:
        """What COS_DOMAIN should be, with COS_SCHEME=http."""
        return f"127.0.0.1:{self.port}"

    @property
    def objects(self) -> Mapping[str, Object]:
        """What is there, by key."""
        return self._inside.objects

    @property
    def unfinished(self) -> list[str]:
        """The keys of uploads in parts that were neither completed nor aborted."""
        return [upload.key for upload in self._inside.uploads.values()]

    def content(self, key: str) -> bytes:
        """All bytes of an object."""
        return self._inside.file(self.objects[key].key).read_bytes()

    # ------------------------------------------------------------ requests

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        asked = _asked(request)
        try:
            self._admit(asked)
            return await self._called(request, asked)
        except Refused as refusal:
            await drain(request)
            return self._refusal(request, asked, refusal)
        except web.HTTPRequestRangeNotSatisfiable as refusal:
            named = Refused(416, "InvalidRange", "The requested range is not satisfiable.")
            return self._refusal(request, asked, named, refusal.headers)

    def _admit(self, asked: Asked) -> None:
        host = asked.headers.get("host", "")
        if ".cos." in host and not host.startswith(f"{self.bucket}."):
            raise Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
        reads = asked.method in ("GET", "HEAD") and asked.path != "/" and "uploadid" not in asked.query
        if not (self.public and reads and not is_signed(asked)):
            verify(asked, self.keys)

    async def _called(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        """Which of COS's calls this is."""
        key, query = asked.path[1:], asked.query
        match asked.method, bool(key):
            case "HEAD", False:
                return self._done()
            case "GET", False if "uploads" in query:
                return self._list_uploads(query)
            case "GET", False:
                return self._list_objects(query)
            case "POST", False if "delete" in query:
                return await self._delete_many(request, asked)
            case "PUT", True if "uploadid" in query:
                return await self._put_part(request, asked, key)
            case "PUT", True:
                return await self._put(request, asked, key)
            case "POST", True if "uploads" in query:
                return self._begin(asked, key)
            case "POST", True if "uploadid" in query:
                return await self._complete(request, asked, key)
            case "GET", True if "uploadid" in query:
                return self._list_parts(query, key)
            case "GET" | "HEAD", True:
                return await self._get(request, asked, key)
            case "DELETE", True if "uploadid" in query:
                self._inside.abort(self._inside.upload(key, query["uploadid"]))
                return self._done(204)
            case "DELETE", True:
                self._inside.remove(key)  # a missing one is no error either
                return self._done(204)
        raise Refused(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")

    # ------------------------------------------------------------ objects

    async def _put(self, request: web.Request, asked: Asked, key: str) -> web.Response:
        draft = await self._received(request, asked)
        made = self._inside.keep(key, draft, _kept(asked.headers))
        return self._done(headers=_sums(made.etag, made.crc64))

    async def _get(self, request: web.Request, asked: Asked, key: str) -> web.StreamResponse:
        found = self._inside.found(key)
        headers = self._headers(_described(found))
        if is_signed(asked):
            headers.update(_overridden(asked.query))
        if asked.method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(found.size)})
        part = wanted_part(request, found.size)
        if part is not None:
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{found.size}"
        status, wanted = (200, range(found.size)) if part is None else (206, part)
        with self._inside.file(key).open("rb") as file:
            file.seek(wanted.start)
            if len(wanted) <= _SMALL_BYTES:
                return web.Response(status=status, headers=headers, body=file.read(len(wanted)))
            response = web.StreamResponse(status=status, headers=headers)
            response.content_length = left = len(wanted)
            await response.prepare(request)
            while left and (chunk := file.read(min(_CHUNK, left))):
                await response.write(chunk)
                left -= len(chunk)
        return response

    async def _received(self, request: web.Request, asked: Asked) -> Draft:
        """The body, whole and as promised. Raises Refused."""
        length = asked.headers.get("content-length")
        if length is None and "transfer-encoding" not in asked.headers:
            raise Refused(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        if int(length or 0) > _LARGEST_BYTES:
            raise Refused(
                400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size."
            )
        draft = self._inside.draft()
        try:
            async for chunk in request.content.iter_any():
                draft.write(chunk)
            draft.check_md5(asked.headers.get("content-md5"))
        except BaseException:
            draft.discard()
            raise
        return draft

    async def _delete_many(self, request: web.Request, asked: Asked) -> web.Response:
        root = _xml(await request.read())
        keys = [node.findtext("Key") or "" for node in root.iter("Object")]
        if not 0 < len(keys) <= _MOST_KEYS:
            raise Refused(400, "MalformedXML", "The XML you provided names no key, or too many.")
        for key in keys:
            self._inside.remove(key)
        quiet = root.findtext("Quiet") == "true"
        return self._document("DeleteResult", [] if quiet else [("Deleted", [("Key", key)]) for key in keys])

    def _list_objects(self, query: Mapping[str, str]) -> web.Response:
        prefix, delimiter, marker = (
            query.get("prefix", ""),
            query.get("delimiter", ""),
            query.get("marker", ""),
        )
        limit = min(int(query.get("max-keys") or _MOST_KEYS), _MOST_KEYS)
        encode = quote if query.get("encoding-type") == "url" else str
        listed: list[Node] = []
        last = ""
        entries = _entries(sorted(self._inside.objects), prefix, delimiter, marker)
        for entry in entries:
            if len(listed) == limit:
                listed.append(("NextMarker", encode(last)))
                break
            last = entry
            found = self._inside.objects.get(entry)
            listed.append(
                _content(found, encode) if found else ("CommonPrefixes", [("Prefix", encode(entry))])
            )
        head: list[Node] = [("Name", self.bucket), ("EncodingType", query.get("encoding-type", "")),
                            ("Prefix", encode(prefix)), ("Delimiter", encode(delimiter)), ("Marker", encode(marker)),
                            ("MaxKeys", str(limit)), ("IsTruncated", str(len(listed) > limit).lower())]  # fmt: skip
        return self._document("ListBucketResult", head + listed)

    # ------------------------------------------------------------ in parts

    def _begin(self, asked: Asked, key: str) -> web.Response:
        upload = self._inside.begin(key, _kept(asked.headers))
        names: list[Node] = [("Bucket", self.bucket), ("Key", key), ("UploadId", upload.id)]
        return self._document("InitiateMultipartUploadResult", names)

    async def _put_part(self, request: web.Request, asked: Asked, key: str) -> web.Response:
        upload = self._inside.upload(key, asked.query["uploadid"])
        number = asked.query.get("partnumber", "")
        if not (number.isdigit() and 1 <= int(number) <= _MOST_PARTS):
            raise Refused(400, "InvalidArgument", "The part number must be from 1 to 10000.")
        draft = await self._received(request, asked)
        self._inside.add_part(upload, int(number), draft)
        return self._done(headers=_sums(draft.etag, draft.crc64))

    async def _complete(self, request: web.Request, asked: Asked, key: str) -> web.Response:
        upload = self._inside.upload(key, asked.query["uploadid"])
        parts = [
            (int(node.findtext("PartNumber") or 0), f'"{(node.findtext("ETag") or "").strip(chr(34))}"')
            for node in _xml(await request.read()).iter("Part")
        ]
        made = await asyncio.to_thread(self._inside.complete, upload, parts)
        names: list[Node] = [("Location", f"{self.host}/{key}"), ("Bucket", self.bucket), ("Key", key)]
        document = self._document("CompleteMultipartUploadResult", [*names, ("ETag", made.etag)])
        document.headers.update(_sums("", made.crc64))
        return document

    def _list_parts(self, query: Mapping[str, str], key: str) -> web.Response:
        upload = self._inside.upload(key, query["uploadid"])
        marker = int(query.get("part-number-marker") or 0)
        limit = min(int(query.get("max-parts") or 1000), 1000)
        numbers = [number for number in sorted(upload.parts) if number > marker]
        nodes: list[Node] = [("Bucket", self.bucket), ("Key", key), ("UploadId", upload.id),
                             ("IsTruncated", str(len(numbers) > limit).lower())]  # fmt: skip
        if len(numbers) > limit:
            nodes.append(("NextPartNumberMarker", str(numbers[limit - 1])))
        for number in numbers[:limit]:
            part = upload.parts[number]
            nodes.append(
                ("Part", [("PartNumber", str(number)), ("ETag", part.etag), ("Size", str(part.size))])
            )
        return self._document("ListPartsResult", nodes)

    def _list_uploads(self, query: Mapping[str, str]) -> web.Response:
        """By key and then by age, a page at a time, from behind the two markers."""
        prefix, after = query.get("prefix", ""), query.get("key-marker", "")
        seen = query.get("upload-id-marker", "") if after else ""
        limit = min(int(query.get("max-uploads") or _MOST_KEYS), _MOST_KEYS)
        encode = quote if query.get("encoding-type") == "url" else str
        uploads = sorted(self._inside.uploads.values(), key=lambda upload: (upload.key, upload.id))
        found = [
            upload
            for upload in uploads
            if upload.key.startswith(prefix)
            and (upload.key > after or (upload.key == after and "" < seen < upload.id))
        ]
        is_cut = str(len(found) > limit).lower()
        nodes: list[Node] = [("Bucket", self.bucket), ("Prefix", encode(prefix)), ("IsTruncated", is_cut)]
        if len(found) > limit:
            last = found[limit - 1]
            nodes += [("NextKeyMarker", encode(last.key)), ("NextUploadIdMarker", last.id)]
        nodes += [
            (
                "Upload",
                [("Key", encode(upload.key)), ("UploadId", upload.id), ("Initiated", _iso(upload.made_at))],
            )
            for upload in found[:limit]
        ]
        return self._document("ListMultipartUploadsResult", nodes)

    # ------------------------------------------------------------ answers

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        return {"Server": "tencent-cos", "x-cos-request-id": secrets.token_urlsafe(24), **more}

    def _done(self, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
        return web.Response(status=status, headers=self._headers(headers or {}))

    def _document(self, name: str, nodes: list[Node]) -> web.Response:
        headers = self._headers({"Content-Type": _XML})
        return web.Response(body=_written((name, nodes)), headers=headers)

    def _refusal(
        self, request: web.Request, asked: Asked, refusal: Refused, more: Mapping[str, str] | None = None
    ) -> web.Response:
        headers = self._headers(
            {"Content-Type": _XML, "x-cos-trace-id": secrets.token_urlsafe(24), **(more or {})}
        )
        body = error_xml(refusal.code, refusal.message, f"{self.bucket}{asked.path}")
        return web.Response(
            status=refusal.status, headers=headers, body=b"" if request.method == "HEAD" else body
        )


def error_xml(code: str, message: str = "", resource: str = "") -> bytes:
    """The body of an error, also for faults: `Fault("answer", status=503, body=error_xml("SlowDown"))`."""
    names: list[Node] = [("Code", code), ("Message", message or code), ("Resource", resource or "/"),
                         ("RequestId", secrets.token_urlsafe(24)), ("TraceId", secrets.token_urlsafe(24))]  # fmt: skip
    return _written(("Error", names))


# ---------------------------------------------------------------- reading


def _asked(request: web.Request) -> Asked:
    path, _, query = request.raw_path.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    return Asked(
        method=request.method,
        path=unquote(path),
        query={name.lower(): value for name, value in pairs},
        headers={name.lower(): value for name, value in request.headers.items()},
    )


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that an object keeps for whoever gets it."""
    kept = {name: value for name, value in headers.items() if name in _KEPT or name.startswith("x-cos-meta-")}
    return {"content-type": "application/octet-stream", **kept}


def _xml(body: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(body)
    except ElementTree.ParseError:
        raise Refused(400, "MalformedXML", "The XML you provided was not well-formed.") from None


def _entries(keys: list[str], prefix: str, delimiter: str, marker: str) -> Iterable[str]:
    """Keys, and what keys have in common up to the delimiter, behind the marker."""
    seen = ""
    for key in keys:
        if not key.startswith(prefix):
            continue
        head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
        entry = prefix + head + delimiter if found else key
        if entry > marker and entry != seen:
            seen = entry
            yield entry


# ---------------------------------------------------------------- writing


def _described(found: Object) -> dict[str, str]:
    named = {name.title() if name in _KEPT else name: value for name, value in found.headers.items()}
    dated = {"Last-Modified": formatdate(found.modified_at, usegmt=True), "Accept-Ranges": "bytes"}
    return {**named, **dated, **_sums(found.etag, found.crc64)}


def _overridden(query: Mapping[str, str]) -> dict[str, str]:
    """What a signed URL wants the answer to say of itself."""
    wanted = {
        name.removeprefix("response-"): value for name, value in query.items() if name.startswith("response-")
    }
    return {name.title(): value for name, value in wanted.items() if name in _KEPT}


def _sums(etag: str, crc64: str) -> dict[str, str]:
    """The SDK hands headers on as they are written here, so `ETag` needs its capitals."""
    return {name: value for name, value in (("ETag", etag), ("x-cos-hash-crc64ecma", crc64)) if value}


def _content(found: Object, encode: Callable[[str], str]) -> Node:
    fields: list[Node] = [("Key", encode(found.key)), ("LastModified", _iso(found.modified_at)), ("ETag", found.etag),
                          ("Size", str(found.size)), ("StorageClass", "STANDARD")]  # fmt: skip
    return "Contents", fields


def _written(node: Node) -> bytes:
    return f"<?xml version='1.0' encoding='utf-8' ?>{_element(node)}".encode()


def _element(node: Node) -> str:
    name, inside = node
    return f"<{name}>{escape(inside) if isinstance(inside, str) else ''.join(map(_element, inside))}</{name}>"


def _iso(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(moment))
