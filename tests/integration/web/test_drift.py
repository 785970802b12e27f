"""A column vanishes under a running application: the request that meets it is read and counted once, and answered."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from common import clock
from common.db import build_engine, transaction
from common.ids import new_id
from common.models import JobAttempt
from common.settings import settings
from common.words import Outcome
from tests.integration.web.api import Api
from tests.integration.web.jobs import BODY, jobs_of
from web import auth, rates
from web.api import openai_images

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
FORM = {"Content-Type": "multipart/form-data; boundary=X"}


@pytest.fixture
def engine(released_url: str) -> Iterator[Engine]:
    """A connection of the operator's own."""
    made = build_engine(released_url)
    yield made
    made.dispose()


def form() -> bytes:
    """A picture to edit."""
    fields = {"model": "flux/kontext-pro", "prompt": "snow"}
    parts = [
        f'--X\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    file = '--X\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    return "".join([*parts, file]).encode() + PNG + b"\r\n--X--\r\n"


@pytest.mark.parametrize(
    ("table", "column", "path", "body", "headers", "status"),
    [
        ("job", "tool_id", "/v1/jobs", BODY, {}, 202),
        ("job", "webhook_url", "/v1/jobs", BODY, {"Idempotency-Key": "a-key"}, 202),
        ("job", "dialect", "/v1/images/edits", form(), FORM, 409),
        ("api_token", "rate_limit", "/v1/jobs", BODY, {"x-stainless-retry-count": "1"}, 202),
    ],
    ids=["json", "key", "form", "token"],
)
def test_a_request_that_meets_it_is_answered_and_counted_once(
    user: Api, engine: Engine, monkeypatch: pytest.MonkeyPatch, table: str, column: str, path: str, body: Any,
    headers: dict[str, str], status: int,
) -> None:  # fmt: skip
    many = settings().model_copy(update={"rate_limit_submits": "1000/day"})
    monkeypatch.setattr(rates, "settings", lambda: many)
    monkeypatch.setattr(openai_images, "HOLD_S", 0.01)
    user.ask("POST", "/v1/jobs", BODY)
    auth.forget()
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN {column}")
    answer = user.ask("POST", path, body, headers)
    assert (answer.status, answer.headers["x-ratelimit-remaining-requests"]) == (status, "998"), answer.body
    assert len(jobs_of(user)) == 2


def test_a_provider_that_calls_back_is_heard(user: Api, engine: Engine) -> None:
    job_id = user.ask("POST", "/v1/jobs", BODY).json["id"]
    with transaction() as session:
        session.add(
            JobAttempt(id=new_id("att"), job_id=job_id, number=1, account_id="acc_1", outcome=Outcome.ACCEPTED,
                       callback_token=job_id, created_at=clock.now())
        )  # fmt: skip
    user.ask("POST", f"/callbacks/{job_id}", {"a": 1})
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE job_attempt DROP COLUMN memo")
    assert user.ask("POST", f"/callbacks/{job_id}", {"a": 1}).status == 200
