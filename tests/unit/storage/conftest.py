"""A COS bucket in a thread: rebuilds every signature as documented, and fails when told to."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pytest

ID, SECRET = "AKIDEXAMPLE", "secretexample"


@dataclass
class Call:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class Fault:
    """Answer this instead, `times` times, to calls of `method` whose path and query contain `match`."""

    status: int
    body: bytes = b""
    method: str = ""
    match: str = ""
    times: int = 1_000
    headers: dict[str, str] = field(default_factory=dict)
    wait: threading.Event | None = None


class TinyCos:
    """What is in the bucket and what was asked."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.uploads: dict[str, tuple[str, dict[str, str], dict[int, bytes]]] = {}
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.host = ""

    def fail(self, status: int, body: bytes = b"", **options: Any) -> None:
        """Answer like this from now on; see `Fault`."""
        self.faults.append(Fault(status, body, **options))

    def fault(self, call: Call) -> Fault | None:
        for fault in self.faults:
            target = f"{call.path}?{call.query}"
            if fault.times and fault.method in ("", call.method) and fault.match in target:
                fault.times -= 1
                return fault
        return None


def _sha1(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha1).hexdigest()


def _signature(call: Call, signed: dict[str, str]) -> str:
    """The signature that these parameters should carry; names are lower case, the port is cut off."""
    query = {name.lower(): value for name, value in call.query.items()}
    headers = {**call.headers, "host": call.headers["host"].partition(":")[0]}

    def joined(names: str, values: dict[str, str]) -> str:
        parts = [name for name in names.split(";") if name]
        return "&".join(f"{name}={quote(values.get(unquote(name), ''), safe='-_.~')}" for name in parts)

    text = "\n".join(
        (
            call.method.lower(),
            call.path,
            joined(signed["q-url-param-list"], query),
            joined(signed["q-header-list"], headers),
            "",
        )
    )
    digest = hashlib.sha1(text.encode()).hexdigest()
    key = _sha1(SECRET, signed["q-key-time"])
    return _sha1(key, f"sha1\n{signed['q-sign-time']}\n{digest}\n")


def _error(code: str) -> bytes:
    return (
        f"<?xml version='1.0' encoding='utf-8' ?><Error><Code>{code}</Code><Message>{code}</Message>"
        "<Resource>r</Resource><RequestId>1</RequestId><TraceId>2</TraceId></Error>"
    ).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cos: TinyCos

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        call = Call(self.command, unquote(parts.path), query, headers)
        self.cos.calls.append(call)
        if fault := self.cos.fault(call):
            if fault.wait:
                fault.wait.wait(5)
            return self._answer(fault.status, fault.body, fault.headers)
        signed = query if "q-signature" in query else dict(parse_qsl(headers.get("authorization", "")))
        signed = {"q-url-param-list": "", "q-header-list": "", **signed}
        if signed.get("q-ak") != ID or _signature(call, signed) != signed.get("q-signature"):
            return self._answer(403, _error("SignatureDoesNotMatch"))
        getattr(self, f"_{self.command.lower()}")(call, body)
        return None

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(body)),
            "x-cos-request-id": "1",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _put(self, call: Call, body: bytes) -> None:
        etag = {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}
        if "uploadId" in call.query:
            self.cos.uploads[call.query["uploadId"]][2][int(call.query["partNumber"])] = body
        else:
            self.cos.objects[call.path] = body, call.headers
        self._answer(200, b"", etag)

    def _post(self, call: Call, body: bytes) -> None:
        if "uploads" in call.query:
            name = str(len(self.cos.uploads) + 1)
            self.cos.uploads[name] = call.path, call.headers, {}
            xml = (
                f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            )
            return self._answer(200, xml.encode())
        path, headers, pieces = self.cos.uploads.pop(call.query["uploadId"])
        self.cos.objects[path] = b"".join(pieces[number] for number in sorted(pieces)), headers
        self._answer(
            200,
            b"<CompleteMultipartUploadResult><ETag>&quot;x-3&quot;</ETag></CompleteMultipartUploadResult>",
        )
        return None

    def _get(self, call: Call, body: bytes) -> None:
        if "uploads" in call.query:
            return self._answer(200, self._unfinished().encode())
        if "uploadId" in call.query:
            return self._answer(200, self._parts(call.query["uploadId"]).encode())
        if call.path not in self.cos.objects:
            return self._answer(404, _error("NoSuchKey"))
        self._answer(200, self.cos.objects[call.path][0])
        return None

    def _unfinished(self) -> str:
        uploads = "".join(
            f"<Upload><Key>{path[1:]}</Key><UploadId>{name}</UploadId><Initiated>2026-11-24T00:00:00Z</Initiated></Upload>"
            for name, (path, _, _) in self.cos.uploads.items()
        )
        name = "ListMultipartUploadsResult"
        return f"<{name}><IsTruncated>false</IsTruncated>{uploads}</{name}>"

    def _parts(self, upload: str) -> str:
        parts = "".join(
            f'<Part><PartNumber>{number}</PartNumber><ETag>"{hashlib.md5(data).hexdigest()}"</ETag><Size>{len(data)}</Size></Part>'
            for number, data in sorted(self.cos.uploads[upload][2].items())
        )
        return f"<ListPartsResult><IsTruncated>false</IsTruncated>{parts}</ListPartsResult>"

    def _head(self, call: Call, body: bytes) -> None:
        found = call.path in self.cos.objects
        self._answer(200 if found else 404, b"", {"ETag": '"x"'} if found else {})

    def _delete(self, call: Call, body: bytes) -> None:
        self.cos.objects.pop(call.path, None)
        self._answer(204)


@pytest.fixture
def cos() -> Iterator[TinyCos]:
    """A running bucket; `cos.host` is what COS_DOMAIN would be."""
    bucket = TinyCos()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cos": bucket}))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up is no news
    bucket.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield bucket
    server.shutdown()
    server.server_close()
