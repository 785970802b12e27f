"""Pages of other origins: only those that the operator named may call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from common.settings import Settings
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


def test_what_is_no_origin_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "app.example.com")
    with pytest.raises(ValidationError, match=r"must look like https://app\.example\.com"):
        Settings(_env_file=None)  # type: ignore[call-arg]
