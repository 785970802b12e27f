"""Live work in bulk: rows as accepting and running that many jobs would have left them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event, insert

from common import clock
from common.db import transaction
from common.ids import new_id
from common.models import Job, JobAttempt, JobStep
from common.words import Outcome, Status, Step

_AT_ONCE = 5000


def add_waiting(user_id: str, model: str, count: int) -> None:
    """Jobs that wait for an account."""
    _add(count, lambda: (_job(user_id, model, Status.QUEUED), None, _step(user_id, model)))


def add_running(user_id: str, model: str, account_id: str, count: int) -> None:
    """Jobs that run at a provider and are due to be looked at."""

    def one() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        attempt_id = new_id("att")
        attempt = {
            "id": attempt_id,
            "number": 1,
            "account_id": account_id,
            "outcome": Outcome.ACCEPTED,
            "callback_token": attempt_id,
            "provider_ref": attempt_id,
            "memo": {"polling_url": f"https://example.com/{attempt_id}"},
            "created_at": clock.now(),
        }
        step = _step(user_id, model) | {
            "step": Step.POLL, "account_id": account_id, "attempt_id": attempt_id,
        }  # fmt: skip
        return _job(user_id, model, Status.RUNNING), attempt, step

    _add(count, one)


def _add(count: int, one: Any) -> None:
    for start in range(0, count, _AT_ONCE):
        parts = [one() for _ in range(min(_AT_ONCE, count - start))]
        with transaction() as session:
            session.execute(insert(Job), [job for job, _, _ in parts])
            attempts = [attempt | {"job_id": job["id"]} for job, attempt, _ in parts if attempt]
            if attempts:
                session.execute(insert(JobAttempt), attempts)
            session.execute(insert(JobStep), [step | {"job_id": job["id"]} for job, _, step in parts])


def _job(user_id: str, model: str, status: Status) -> dict[str, Any]:
    now = clock.now()
    return {
        "id": new_id("job"), "user_id": user_id, "status": status, "provider": model.partition("/")[0],
        "model": model, "action": "generate", "input": {"prompt": "a fox"}, "metadata_": {}, "price": 20,
        "actions": [], "deadline_at": now, "created_at": now,
    }  # fmt: skip


def _step(user_id: str, model: str) -> dict[str, Any]:
    now = clock.epoch()
    return {
        "step": Step.SUBMIT, "due_at": now, "user_id": user_id, "model": model, "created_at": now,
        "deadline_at": now + 3600, "account_id": None, "attempt_id": None,
    }  # fmt: skip


@contextmanager
def statements(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """What is sent to the database meanwhile: statements and their values, BEGIN and COMMIT left out."""
    sent: list[tuple[str, Any]] = []

    def remember(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            sent.append((statement, values))

    event.listen(engine, "before_cursor_execute", remember)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", remember)


def plan(engine: Engine, statement: str, values: Any) -> str:
    """How the database would go about it."""
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    with engine.begin() as connection:
        return "\n".join(str(row[-1]) for row in connection.exec_driver_sql(explain + statement, values))
