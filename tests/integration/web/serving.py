"""The Procfile's own web process on a real socket, and ways to talk to it that no HTTP library offers."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.infrastructure.client import Answer
from tests.infrastructure.inside import configured
from tests.infrastructure.platform import Platform
from tests.infrastructure.processes import Process
from tests.integration.web.api import Api

MOST = 2**20  # MAX_BODY_BYTES


@contextmanager
def serving(folder: Path, database_url: str, redis_url: str) -> Iterator[tuple[str, Process]]:
    """A web process with two workers, and this process on the same database: its URL and itself."""
    settings = {"MAX_BODY_BYTES": str(MOST), "WEB_CONCURRENCY": "2"}
    with (
        configured({"DATABASE_URL": database_url, "REDIS_URL": redis_url, "SECRET_KEY": "s"}),
        Platform(folder, database_url=database_url, redis_url=redis_url, environment=settings) as platform,
    ):
        (process,) = platform.start("web")
        yield platform.url, process


def talk(url: str, sent: bytes, *, hang_up: bool = False, timeout_s: float = 30.0) -> bytes:
    """Everything the server says to these bytes until it hangs up; with `hang_up` it hears that no more will come."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=timeout_s) as connection:
        connection.sendall(sent)
        if hang_up:
            connection.shutdown(socket.SHUT_WR)
        said = b""
        try:
            while part := connection.recv(65_536):
                said += part
        except ConnectionResetError:
            pass
        return said


def first(said: bytes) -> Answer:
    """The first answer in what a server said."""
    head, _, rest = said.partition(b"\r\n\r\n")
    start, *lines = head.decode("latin1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = rest[: int(headers["content-length"])]
    return Answer(int(start.split(" ")[1]), headers, body, 0.0)


def request(user: Api, target: str = "/v1/me", *extra: str, method: str = "GET") -> bytes:
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {user.token}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, *extra, "", ""]).encode("latin1")


def upload(url: str, path: str, token: str, pieces: Iterator[bytes] | bytes, *, chunked: bool) -> Answer:
    """Send a body with or without saying how long it is."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        connection.request("POST", path, body=pieces, headers=headers, encode_chunked=chunked)
        reply = connection.getresponse()
        names = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(reply.status, names, reply.read(), 0.0)
    finally:
        connection.close()
