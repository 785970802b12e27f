"""Nothing that a server or a wire can do makes an adapter raise, and nonsense is never a verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.providers.base import (
    Accepted,
    NotAccepted,
    NotSent,
    NoVerdict,
    Reply,
    Trouble,
    Unanswered,
    Unknown,
)
from common.providers.registry import ADAPTERS
from tests.unit.providers.fakes import (
    CALLBACK,
    FakeHttp,
    RepeatingHttp,
    adapter,
    handle,
    like,
    reply,
    run,
    submission,
)

EVERY = [(name, model) for name, made in ADAPTERS.items() for model in made.models]
MEMOS: list[dict[str, Any]] = [{}, {"path": "/tasks"}]

GARBAGE = [
    b"",
    b"<html><body>502 Bad Gateway</body></html>",
    b"[]",
    b"null",
    b'"x"',
    b"42",
    b"true",
    b"NaN",
    b"{}",
    b'{"code":',
    b'{"code":1,"result"',
    b"\xff\xfe\x00garbage",
    b"[" * 20_000,
    b'{"code": 1e999, "data": NaN, "status": []}',
    b'{"code":"zero","data":"x","status":7,"id":{},"request_id":[],"result":{}}',
    b'{"code":true,"data":[[[]]],"status":true,"id":true,"request_id":false,"result":true}',
    b'{"code":{},"data":null,"status":null,"detail":{"a":1},"id":null}',
    b'{"code":0,"data":[1,"x",null],"status":{"status":"Ready"},"result":[]}',
    b'{"code":10000,"data":{"task_id":[],"status":["done"]}}',
    b'{"code":0,"data":{"task_id":{},"task_status":["succeed"]}}',
    b'{"detail":[1,null,{"loc":"body","msg":[]},{"loc":[[]]}],"status":"?"}',
    b'[{"id":[],"status":{}},null,7,"x",{"id":"ref-1"},{"id":"ref-1","status":"?","progress":{}}]',
]
STATUSES = [200, 202, 400, 404, 422, 429, 500, 503]


@pytest.mark.parametrize("body", GARBAGE, ids=lambda body: body[:30].decode("latin-1"))
@pytest.mark.parametrize("name", ADAPTERS)
def test_garbage(name: str, body: bytes) -> None:
    made = adapter(name)

    async def everything(model: str, status: int) -> None:
        http = RepeatingHttp(reply(status, body))
        submitted = await made.submit(http, submission(model))
        assert (
            type(submitted) is Unknown if status < 300 or status >= 500 else type(submitted) is not Accepted
        )
        for memo in MEMOS:
            handles = [handle(model, **memo), handle(model, "ref-2", **memo)]
            seen = await made.poll(http, handles)
            assert [type(seen[one.provider_ref]) for one in handles] == [NoVerdict, NoVerdict]
        assert type(await made.find(http, submission(model))) is NoVerdict
        await made.cancel(http, handle(model))

    async def everywhere() -> None:
        for model in made.models:
            for status in STATUSES:
                await everything(model, status)

    run(everywhere())


@pytest.mark.parametrize(("name", "model"), EVERY)
def test_nothing_was_sent(name: str, model: str) -> None:
    http, made = RepeatingHttp(NotSent("proxy.example: connection refused")), adapter(name)
    like(
        run(made.submit(http, submission(model))),
        NotAccepted,
        trouble=Trouble.DOWN,
        message="connection refused",
    )
    like(run(made.poll(http, [handle(model)]))["ref-1"], NoVerdict, gone=False)
    like(run(made.find(http, submission(model))), NoVerdict, gone=False)


@pytest.mark.parametrize(("name", "model"), EVERY)
def test_no_answer_came(name: str, model: str) -> None:
    http, made = RepeatingHttp(Unanswered("no answer in time")), adapter(name)
    like(run(made.submit(http, submission(model))), Unknown, message="no answer in time")
    like(run(made.poll(http, [handle(model)]))["ref-1"], NoVerdict, gone=False)
    like(run(made.find(http, submission(model))), NoVerdict, gone=False)


@pytest.mark.parametrize(("name", "model"), EVERY)
def test_a_submit_is_one_request(name: str, model: str) -> None:
    for answer in (reply(500), reply(429), reply(401), reply(200, b"{}"), Unanswered("x"), NotSent("x")):
        http = FakeHttp(answer)
        run(adapter(name).submit(http, submission(model)))
        assert len(http.sent) == 1


@pytest.mark.parametrize(("name", "model"), EVERY)
def test_secrets_do_not_get_into_messages(name: str, model: str) -> None:
    """A server that sends everything back is no reason to show it to users; and long texts are cut."""
    made = adapter(name)
    for status in (200, 400, 401, 403, 404, 422, 429, 500):
        secrets = " ".join(made.credentials.secrets.values())
        http = RepeatingHttp(reply(status, {"detail": secrets + "x" * 5000, "code": 4, "message": secrets,
                                            "description": secrets, "status": secrets}))  # fmt: skip
        verdicts = [run(made.submit(http, submission(model))), *run(made.poll(http, [handle(model)])).values(),
                    run(made.find(http, submission(model)))]  # fmt: skip
        for verdict in verdicts:
            assert len(verdict.message) <= 500
            assert not any(secret in verdict.message for secret in made.credentials.secrets.values())


# How a body writes a text: as JSON (here or with escaped slashes), as a page does, as an address does.
BODIES: list[Callable[[str, str], bytes]] = [
    lambda field, echo: json.dumps({"code": 4, "data": {field: echo}, field: echo}).encode(),
    lambda field, echo: json.dumps({field: echo}).replace("/", "\\/").encode(),
    lambda field, echo: f"<p>{field}: {echo}".encode(),
    lambda field, echo: f"<a href='?{field}={quote(echo, safe='')}'>".encode(),
]
KEYS = {
    "midjourney": {"api_secret": 'mj/Secret+0123456789"abcdefghijkl=='},
    "kling": {"api_key": 'kl/Secret+0123456789"abcdefghijkl=='},
    "jimeng": {
        "access_key": "AKLTsecret0123456789abcdef",
        "secret_key": "c2VjcmV0L/dGhpcyBp+cyBhIHNlY3JldA==",
    },
    "bfl": {"api_key": 'bf/Secret+0123456789"abcdefghijkl=='},
    "fal": {"key": "f1d2:Secret/0123456789+abcdefghijkl=="},
}
TOLD = (
    "detail",
    "message",
    "description",
    "error",
    "status",
    "task_status",
    "failReason",
    "code",
    "whatever",
)


@given(
    name=st.sampled_from(list(KEYS)),
    status=st.sampled_from(STATUSES),
    body=st.sampled_from(BODIES),
    before=st.sampled_from([0, 30, 45, 480, 3970, 3990]) | st.integers(0, 4100),
    times=st.sampled_from([1, 300]),
    field=st.sampled_from(TOLD),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_secret_is_shown_however_it_comes_back(
    name: str, status: int, body: Callable[[str, str], bytes], before: int, times: int, field: str
) -> None:
    """In whatever spelling, in any place of an answer, also where a limit cuts it in two."""
    made, model = adapter(name, secrets=KEYS[name]), ADAPTERS[name].models[0]
    for secret in KEYS[name].values():
        http = RepeatingHttp(reply(status, body(field, "x" * before + " ".join([secret] * times))))
        submitted = run(made.submit(http, submission(model, at=name)))
        for verdict in (submitted, *run(made.poll(http, [handle(model)])).values()):
            assert len(verdict.message) <= 500
            assert secret[:9] not in verdict.message
            assert secret[-9:] not in verdict.message


@pytest.mark.parametrize("name", KEYS)
def test_the_callbacks_token_is_not_shown_but_the_address_may_be(name: str) -> None:
    made, model = adapter(name), ADAPTERS[name].models[0]
    echo = {
        "code": 4,
        "message": f"bad {CALLBACK}",
        "description": f"bad {CALLBACK}",
        "detail": f"bad {CALLBACK}",
    }
    verdict = run(made.submit(RepeatingHttp(reply(400, echo)), submission(model, at=name)))
    assert "t0ken" not in verdict.message
    assert "bad https://api.example.com/callbacks/***" in verdict.message


def test_a_token_that_comes_back_is_not_shown_either() -> None:
    made = adapter("kling-jwt")
    http = FakeHttp(reply(401, b""))
    run(made.submit(http, submission("kling/text-to-video")))
    bearer = http.sent[0].headers["Authorization"]
    echo = FakeHttp(reply(401, {"code": 1002, "message": f"invalid: {bearer}"}))
    verdict = run(made.submit(echo, submission("kling/text-to-video")))
    assert bearer.removeprefix("Bearer ") not in verdict.message


WORDS = st.sampled_from(
    [
        "succeed",
        "succeeded",
        "failed",
        "done",
        "SUCCESS",
        "FAILURE",
        "Ready",
        "Error",
        "COMPLETED",
        "IN_PROGRESS",
    ]
)
NAMES = st.sampled_from(
    re.findall(
        r"\w+",
        """
        code data status id task_id request_id result task_status task_result videos images outputs url imageUrl
        buttons customId label progress detail type loc msg message error error_type image_urls video_url sample
        binary_data_base64 details properties state has_nsfw_concepts billing amount index duration cost
        polling_url failReason width
        """,
    )
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS
    | st.sampled_from([0, 1, 21, 22, 4, 10000, 50411, 1203, 5000, "ref-1", "https://x.example/1.png", "\0", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=15,
)  # fmt: skip


@given(
    value=VALUES, status=st.sampled_from(STATUSES), target=st.sampled_from(EVERY), memo=st.sampled_from(MEMOS)
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_answer_whatsoever_raises(
    value: Any, status: int, target: tuple[str, str], memo: dict[str, Any]
) -> None:
    name, model = target
    answer = Reply(status, {"retry-after": str(value)[:20]}, json.dumps(value).encode())
    http, made = RepeatingHttp(answer), adapter(name)
    verdicts = [run(made.submit(http, submission(model))),
                *run(made.poll(http, [handle(model, **memo), handle(model, "ref-2", **memo)])).values(),
                run(made.find(http, submission(model)))]  # fmt: skip
    run(made.cancel(http, handle(model)))
    if isinstance(value, dict):
        made.adopt(value, submission(model))
    for verdict in verdicts:
        for kept in texts(asdict(verdict)):
            assert "\0" not in kept  # no database takes these
            kept.encode()  # nor lone surrogates


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from (name, *texts(item))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts(item)
