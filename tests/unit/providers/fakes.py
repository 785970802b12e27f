"""A scripted transport, and one standard account, job and handle for every API."""

from __future__ import annotations

import asyncio
import json as jsonlib
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from common.providers.base import Adapter, Credentials, Handle, Media, Reply, Submission
from common.providers.inputs import MEDIUM, named_media
from common.providers.registry import ADAPTERS, MODELS, adapters_for

T = TypeVar("T")

NOW = 1_700_000_000.0
REFERENCE = "att_01kb3"
CALLBACK = "https://api.example.com/callbacks/t0ken"
BASES = {
    "midjourney": "http://proxy.example:8080",
    "kling": "https://api-beijing.klingai.com",
    "jimeng": "https://visual.volcengineapi.com",
    "bfl": "https://api.bfl.ai",
    "fal": "https://queue.fal.run",
}
SECRETS = {
    "midjourney": {"api_secret": "mj-s3cret"},
    "kling": {"api_key": "kling-api-k3y"},
    "kling-jwt": {"access_key": "ak_example", "secret_key": "sk_example"},
    "jimeng": {"access_key": "AKLTEXAMPLE", "secret_key": "c2VjcmV0LWV4YW1wbGU="},
    "bfl": {"api_key": "bfl-k3y"},
    "fal": {"key": "fal-id:fal-s3cret"},
}


@dataclass(frozen=True)
class Sent:
    """One request as the adapter made it."""

    method: str
    url: str
    headers: dict[str, str]
    json: Any
    body: bytes | None


class FakeHttp:
    """Gives scripted answers in order and remembers what was asked. An exception in the script is raised."""

    def __init__(self, *script: Reply | Exception) -> None:
        self.script = list(script)
        self.sent: list[Sent] = []

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
        most_bytes: int | None = None,
    ) -> Reply:
        self.sent.append(Sent(method, url, dict(headers or {}), json, body))
        assert self.script, f"nothing is scripted for {method} {url}"
        answer = self.script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class RepeatingHttp(FakeHttp):
    """Gives the same answer to everything."""

    async def send(self, method: str, url: str, **rest: Any) -> Reply:
        self.script = [self.script[0], self.script[0]]
        return await super().send(method, url, **rest)


class RoutedHttp(FakeHttp):
    """Answers by what the URL contains."""

    def __init__(self, **routes: Reply | Exception) -> None:
        super().__init__()
        self.routes = routes

    async def send(self, method: str, url: str, **rest: Any) -> Reply:
        self.script = [next(answer for part, answer in self.routes.items() if part in url)]
        return await super().send(method, url, **rest)


def reply(status: int, body: Any = b"", **headers: str) -> Reply:
    """An answer; anything but bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else jsonlib.dumps(body).encode()
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def adapter(name: str, *, base_url: str | None = None, secrets: Mapping[str, str] | None = None) -> Any:
    """An adapter with a standard account; those that need a clock stand still at NOW."""
    made: type[Adapter] = ADAPTERS[name.partition("-")[0]]
    credentials = Credentials(
        base_url=base_url or BASES[made.name], secrets=SECRETS[name] if secrets is None else secrets
    )
    built: Any = made
    return built(credentials, now=lambda: NOW) if made.name in ("kling", "jimeng") else built(credentials)


PICTURE_URL = "https://pictures.example/fox.png"
UPLOAD_URL = "https://media.example/uploads/fox.png"
UPLOAD, UPLOAD_BASE64 = (
    "upl_01kb3",
    "aVZCT1J3MEtHZ28=",
)  # a picture that the user brought, as the engine has read it


_ONE_OF_SEVERAL = {"kling/image-to-video": ("image",)}  # where the schema asks for this or something else


def minimal(model: str) -> dict[str, Any]:
    """The least that this model's schema asks for."""
    schema = MODELS[model].input_schema
    wanted = (*schema["required"], *_ONE_OF_SEVERAL.get(model, ()))
    return {name: _example(name, schema["properties"][name]) for name in wanted}


def _example(name: str, field: Mapping[str, Any]) -> Any:
    if field.get("type") == "array":
        return [_example(name, field["items"])] * field.get("minItems", 1)
    if MEDIUM in field:
        return PICTURE_URL
    if "enum" in field:
        return field["enum"][0]
    if field.get("type") == "number":
        return field["maximum"]
    return "upsample_1" if name == "action" else "a red fox"


def media_of(name: str, model: str, given: Mapping[str, Any]) -> dict[str, Media]:
    """The media of an input as the engine hands them over (`Submission`)."""
    named = {(value, kind) for _, kind, value in named_media(MODELS[model].input_schema, given)}
    made: Any = adapter(name)
    as_addresses = made.fetches_addresses and all(value.startswith("http") for value, _ in named)
    if made.only_addresses(model, given):
        return {value: Media(url=value if value.startswith("http") else UPLOAD_URL) for value, _ in named}
    return {
        value: Media(url=value)
        if kind != "image" or as_addresses
        else Media(base64=UPLOAD_BASE64, content_type="image/png")
        for value, kind in named
    }


def submission(model: str, *, at: str = "", **fields: Any) -> Submission:
    """A job as the engine hands it over (to the API `at`, by default its first): defaults filled in."""
    properties = MODELS[model].input_schema["properties"]
    defaults = {name: field["default"] for name, field in properties.items() if "default" in field}
    wanted = fields.pop("input", {})
    memo = {"actions": {"upsample_1": "MJ::JOB::upsample::1::8f"}, "video_id": "v-1"}
    before = next(iter(MODELS[model].follows), None)
    parent = before and Handle(model=before, reference="att_p", provider_ref="1760000000000100", memo=memo)
    values: dict[str, Any] = {
        "model": model,
        "input": {**defaults, **minimal(model), **wanted},
        "reference": REFERENCE,
        "callback_url": CALLBACK,
        "parent": parent,
    }
    values = {**values, **fields}
    values.setdefault(
        "media", media_of(at.partition("-")[0] or adapters_for(model)[0], model, values["input"])
    )
    return Submission(**values)


def handle(model: str, provider_ref: str = "ref-1", **memo: Any) -> Handle:
    return Handle(model=model, reference=REFERENCE, provider_ref=provider_ref, memo=memo)


def sent(name: str, model: str, **fields: Any) -> Sent:
    """The one request of a submit."""
    http = FakeHttp(reply(500))
    run(adapter(name).submit(http, submission(model, at=name, **fields)))
    return http.sent[0]


def submit(name: str, model: str, *answers: Reply | Exception, **fields: Any) -> Any:
    """The verdict on a standard submit with these answers."""
    return run(adapter(name).submit(FakeHttp(*answers), submission(model, at=name, **fields)))


def poll(name: str, model: str, *answers: Reply | Exception, ref: str = "ref-1", **memo: Any) -> Any:
    """The verdict on one standard handle with these answers."""
    return run(adapter(name).poll(FakeHttp(*answers), [handle(model, ref, **memo)])).get(ref)


def like(verdict: Any, expected: Any, **fields: Any) -> None:
    """The verdict is of this kind and has these values; `message` needs only to be contained."""
    assert type(verdict) is expected, verdict
    for name, value in fields.items():
        if name == "message":
            assert value in getattr(verdict, name)
        else:
            assert getattr(verdict, name) == value, verdict
