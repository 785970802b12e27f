"""Pages of other origins: only those that the operator named may call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from common.settings import BadSettings, Settings, settings
from tests.infrastructure.inside import configured
from web.app import create_app

PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
}


@pytest.fixture
def _named() -> Iterator[None]:
    """CORS_ORIGINS names one origin."""
    with configured({"CORS_ORIGINS": "https://app.example.com/ , http://localhost:3000", "SECRET_KEY": "s"}):
        yield


@pytest.mark.usefixtures("_named")
def test_a_named_origin_may_call_and_read_our_headers() -> None:
    client = create_app().test_client()
    asked = client.options("/v1/jobs", headers={"Origin": "https://app.example.com", **PREFLIGHT})
    assert asked.status_code == 200
    assert asked.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    assert "POST" in asked.headers["Access-Control-Allow-Methods"]
    assert asked.headers["Access-Control-Allow-Headers"] == "authorization, content-type, idempotency-key"
    refused = client.get("/v1/jobs", headers={"Origin": "http://localhost:3000"})
    assert refused.status_code == 401  # and the page can see that
    assert refused.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert "X-Request-Id" in refused.headers["Access-Control-Expose-Headers"]


@pytest.mark.usefixtures("_named")
def test_others_may_not() -> None:
    asked = (
        create_app()
        .test_client()
        .options("/v1/jobs", headers={"Origin": "https://evil.example", **PREFLIGHT})
    )
    assert "Access-Control-Allow-Origin" not in asked.headers


def test_by_default_nobody_may() -> None:
    with configured({"SECRET_KEY": "s"}):
        asked = create_app().test_client().options("/v1/jobs", headers={"Origin": "https://app.example.com"})
    assert not [name for name in asked.headers.keys() if name.startswith("Access-Control")]  # noqa: SIM118


def allowed(configured_origins: str, origin: str) -> str | None:
    """What a page of this origin is told."""
    with configured({"CORS_ORIGINS": configured_origins, "SECRET_KEY": "s"}):
        made = create_app().test_client().get("/healthz", headers={"Origin": origin})
    return made.headers.get("Access-Control-Allow-Origin")


@pytest.mark.parametrize(
    ("named", "origin", "may"),
    [
        ("https://app.example.com", "https://appxexample.com", False),
        ("https://app.example.com", "https://app.example.com.evil.net", False),
        ("https://app.example.com", "https://APP.example.com", True),
        ("http://[::1]:3000", "http://[::1]:3000", True),
        ("http://[::1]:3000", "http://1:3000", False),
        ("http://[::1]:3000", "http://[::1]:30001", False),
        ("*", "https://anybody.example", True),
    ],
)
def test_an_origin_is_compared_as_a_whole(named: str, origin: str, may: bool) -> None:
    assert allowed(named, origin) == (origin if may else None)


@pytest.mark.parametrize(
    "named",
    [
        "app.example.com", "https://*.example.com", "*, https://app.example.com", "https://app.example.com/path",
        "https://app.example.com?", "https://u@app.example.com", "https://(a|b).example.com", "null", "https://.*",
    ],
)  # fmt: skip
def test_what_is_no_origin_is_refused(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("CORS_ORIGINS", named)
    with pytest.raises(ValidationError, match=r"must look like https://app\.example\.com"):
        Settings(_env_file=None)  # type: ignore[call-arg]
    with pytest.raises(BadSettings, match=r"^settings: CORS_ORIGINS: [^\n]+$"):
        settings.__wrapped__()
