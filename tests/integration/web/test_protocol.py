"""What comes over a socket and is no proper request, what is written down about it, and how serving ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from common.words import Outcome
from tests.infrastructure.children import wait_until
from tests.infrastructure.client import Answer
from tests.infrastructure.databases import Released
from tests.infrastructure.processes import Process
from tests.integration.web.api import Api, check_error
from tests.integration.web.conftest import new_user
from tests.integration.web.jobs import BODY, attempt, jobs_of, totals
from tests.integration.web.serving import MOST, first, request, serving, talk, upload

TEXT = json.dumps(BODY).encode()
SOUND = b"ID3" + bytes(200)  # no end of it would be missed

pytestmark = pytest.mark.xdist_group("web-protocol")  # they share the processes


@pytest.fixture(scope="module")
def web(released: Released, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Process]]:
    """Where the API is served, and by whom."""
    folder = tmp_path_factory.mktemp("web")
    with serving(folder, released.sqlite(folder / "webui.db"), "redis://127.0.0.1:1/0") as served:
        yield served


@pytest.fixture
def url(web: tuple[str, Process]) -> str:
    return web[0]


@pytest.fixture
def user(url: str) -> Api:
    return new_user(url=url)


def test_one_users_sign_ins_do_not_hold_up_another(user: Api) -> None:
    def knock(number: int) -> int:
        body = {"email": f"{number}@example.com", "password": "wrong"}
        return Api(url=user.url).ask("POST", "/v1/auth/signin", body, timeout_s=60).status

    with ThreadPoolExecutor(4) as pool:
        knocks = [pool.submit(knock, number) for number in range(4)]
        took = []
        while not all(each.done() for each in knocks):
            took.append(user.ask("GET", "/healthz").took_s)
            time.sleep(0.01)
        assert {each.result() for each in knocks} == {401}
    assert len(took) > 4 * len(knocks), (
        took
    )  # a worker that was busy with passwords would answer once for each


# ---------------------------------------------------------------- bodies


def test_a_body_in_chunks_is_as_good(user: Api) -> None:
    answer = upload(user.url, "/v1/jobs", user.token, iter([TEXT[:7], TEXT[7:]]), chunked=True)
    assert (answer.status, json.loads(answer.body)["status"]) == (202, "queued")


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize(
    ("path", "most"), [("/v1/jobs", MOST), ("/v1/uploads", MOST), ("/callbacks/{token}", 65_536)]
)
def test_a_body_that_is_too_large(user: Api, path: str, most: int, chunked: bool) -> None:
    job = user.post("/v1/jobs", BODY)
    path = path.format(token=attempt(job["id"], Outcome.UNKNOWN))
    before = totals()
    piece = b" " * 65_536
    pieces = iter([piece] * (most // len(piece)) + [b"x" * 100])
    body: Any = pieces if chunked else b"".join(pieces)
    answer = upload(user.url, path, user.token, body, chunked=chunked)
    check_error(answer)
    assert (answer.status, answer.json["error"]["code"]) == (413, "request_too_large")
    assert totals() == before


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        (f"Content-Length: {len(TEXT) + 50}", TEXT),
        (f"Content-Length: {len(TEXT)}", TEXT[:-1]),
        ("Transfer-Encoding: chunked", b"%x\r\n%s\r\n" % (len(TEXT), TEXT)),
        ("Transfer-Encoding: chunked", b"%x\r\n%s" % (len(TEXT) + 50, TEXT)),
    ],
)
def test_a_body_that_ends_too_early_is_no_job(user: Api, said: str, sent: bytes) -> None:
    head = request(user, "/v1/jobs", "Content-Type: application/json", said, method="POST")
    answer = first(talk(user.url, head + sent, hang_up=True))
    check_error(answer)
    assert (answer.status, answer.json["error"]["code"]) == (400, "malformed_request")
    assert jobs_of(user) == []


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        (f"Content-Length: {len(SOUND) + 1}", SOUND),
        ("Transfer-Encoding: chunked", b"%x\r\n%s\r\n" % (len(SOUND), SOUND)),
        ("Transfer-Encoding: chunked", b"%x\r\n%s" % (len(SOUND) + 50, SOUND)),
    ],
)
def test_a_file_that_ends_too_early_is_no_upload(user: Api, said: str, sent: bytes) -> None:
    head = request(user, "/v1/uploads", "Content-Type: audio/mpeg", said, method="POST")
    answer = first(talk(user.url, head + sent, hang_up=True))
    check_error(answer)
    assert (answer.status, answer.json["error"]["code"]) == (400, "malformed_request")
    assert user.get("/v1/uploads")["data"] == []


def test_a_file_in_chunks_is_as_good(user: Api) -> None:
    answer = upload(user.url, "/v1/uploads", user.token, iter([SOUND[:7], SOUND[7:]]), chunked=True)
    assert (answer.status, json.loads(answer.body)["bytes"]) == (201, len(SOUND))


def test_a_request_cannot_hide_behind_another(user: Api) -> None:
    hidden = (
        request(user, "/v1/jobs", "Content-Type: application/json", "Content-Length: 2", method="POST")
        + b"{}"
    )
    head = request(user, "/v1/jobs", "Content-Type: application/json", "Content-Length: 5",
                   "Transfer-Encoding: chunked", method="POST")  # fmt: skip
    answer = first(talk(user.url, head + b"0\r\n\r\n" + hidden))
    check_error(answer)
    assert answer.status == 400


# ---------------------------------------------------------------- what never becomes a request


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"HELLO\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /v1/me HTTP/1.1\r\nHost x\r\n\r\n", 400),
        (b"GET /v1/me HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 10_000 + b"\r\n\r\n", 400),
        (b"GET /v1/me HTTP/1.1\r\n" + b"".join(b"A%d: a\r\n" % n for n in range(200)) + b"\r\n", 400),
        (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /v1/me HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", 400),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"G@T /v1/me HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else "",
)
def test_what_is_no_http_gets_the_one_shape_too(url: str, sent: bytes, status: int) -> None:
    answer = first(talk(url, sent))
    check_error(answer)
    assert 400 <= answer.status < 500
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "target",
    ["/v1/jobs/../me", "/v1//me", "/v1/me/", "/v1/./me", "/v1/%2e%2e/v1/me", "/v1/me%00", "/v1/me;a=b", "/v1\\me",
     "/%c0%ae%c0%ae/", "/v1/jobs/\xff\xfe", "/media/../../../etc/passwd", "/static/x", "/.env", "*"],
)  # fmt: skip
def test_path_tricks_lead_nowhere(user: Api, target: str) -> None:
    answer = first(talk(user.url, request(user, target)))
    check_error(answer)
    assert answer.status in (400, 404)


def test_a_query_or_fragment_is_no_trick(user: Api) -> None:
    assert first(talk(user.url, request(user, "/v1/me?x=/../y"))).status == 200
    assert first(talk(user.url, request(user, f"{user.url}/v1/me"))).status == 200


# ---------------------------------------------------------------- what is written down


def test_the_log_names_requests_and_no_secrets(web: tuple[str, Process], user: Api) -> None:
    job = user.post("/v1/jobs", BODY)
    token = attempt(job["id"])
    user.ask("POST", f"/callbacks/{token}", {})
    user.ask("GET", "/v1/jobs?model=flux/dev&secret=hush", headers={"X-Request-Id": "look-for-me"})
    user.ask("POST", "/v1/auth/signin", {"email": "hush@example.com", "password": "hush-hush"})
    log = web[1].output
    assert not [line for line in log.splitlines() if not line.startswith("{")]
    lines = [json.loads(line) for line in log.splitlines()]
    seen = [line for line in lines if line.get("request_id") == "look-for-me"]
    assert [(line["message"], line["status"]) for line in seen] == [("GET /v1/jobs 422", 422)]
    assert any(line["message"] == "POST /callbacks/<token> 200" for line in lines)
    for secret in (user.token, token, "hush", "Bearer"):
        assert secret not in log
    assert not [line for line in lines if line["level"] == "ERROR" and "broker" not in line["message"]]


# ---------------------------------------------------------------- the end


def test_a_stop_keeps_nobody_waiting_and_loses_nothing(web: tuple[str, Process], user: Api) -> None:
    held: list[Answer] = []
    waiting = threading.Thread(
        target=lambda: held.append(user.ask("POST", "/v1/jobs", BODY, {"Prefer": "wait=60"}, timeout_s=60))
    )
    waiting.start()
    wait_until(lambda: jobs_of(user), what="the job is accepted")
    began = time.monotonic()
    assert web[1].stop(10) == 0
    waiting.join(10)
    assert time.monotonic() - began < 10
    assert [(answer.status, answer.json["status"]) for answer in held] == [(202, "queued")]
