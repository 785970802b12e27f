"""Running jobs without the hours it takes to submit them: `python -m tests.benchmarks.seed COUNT INTERVAL_S`.

Runs in a platform's environment. Rows are as if every job had been accepted by the API, submitted to its account
and was now due at some moment of the next interval, its credits held.
"""

from __future__ import annotations

import random
import secrets
import sys
from datetime import timedelta
from typing import Any

from sqlalchemy import insert, select, text, update
from sqlalchemy.orm import Session

from common import clock
from common.db import engine, transaction
from common.db.types import Base
from common.ids import new_id
from common.models import CreditAccount, Job, JobAttempt, JobStep, LedgerEntry, ProviderAccount
from common.providers.registry import MODELS
from common.services import accounts, credits, users
from common.settings import settings
from common.words import EntryKind, Outcome, Role, Status, Step

# Half in batches, as the API allows it, half one by one. Kling's new generation is asked by a list of ids.
MIX: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("kling", "kling/text-to-video", {"path": "/tasks"}),
    ("bfl", "flux/pro-1.1", {}),
    ("midjourney", "midjourney/imagine", {}),
    ("jimeng", "jimeng/text-to-image", {"req_key": "jimeng_t2i_v40"}),
)
_PRICE = 5
_BATCH = 5000

Row = dict[str, Any]


def seed(count: int, interval_s: float) -> None:
    """Write them, in one transaction that ends with the table the workers look at."""
    with transaction() as session:
        accounts.sync_env(session, settings())
        session.flush()
        known = session.execute(select(ProviderAccount.adapter, ProviderAccount.id))
        at = {adapter: account_id for adapter, account_id in known}
        jobs = [_Running(number, at) for number in range(count)]
        user_id = users.create_user(session, email="many@example.com", name="", role=Role.USER).id
        _hold(session, user_id, jobs)
        _write(session, Job, [job.job(user_id) for job in jobs])
        _write(session, LedgerEntry, [job.hold(user_id, number, count) for number, job in enumerate(jobs, 1)])
        _write(session, JobAttempt, [job.attempt() for job in jobs])
        _write(
            session,
            JobStep,
            [job.step(user_id, clock.epoch() + random.uniform(0.1, 1.1) * interval_s) for job in jobs],
        )
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))  # as it would have been long ago


class _Running:
    """One job that a provider has."""

    def __init__(self, number: int, at: dict[str, str]) -> None:
        adapter, self.model, self.memo = MIX[number % len(MIX)]
        self.account_id = at[adapter]
        self.ref = f"endless-{number}"
        self.id, self.attempt_id = new_id("job"), new_id("att")
        self.created_at = clock.now()

    def job(self, user_id: str) -> Row:
        return {
            "id": self.id, "user_id": user_id, "status": Status.RUNNING, "provider": self.model.partition("/")[0],
            "model": self.model, "action": MODELS[self.model].action, "input": {"prompt": "a red fox"},
            "metadata_": {}, "price": _PRICE, "actions": [], "attempts": 1, "submitted_at": self.created_at,
            "deadline_at": self.created_at + timedelta(days=1), "created_at": self.created_at,
        }  # fmt: skip

    def hold(self, user_id: str, number: int, count: int) -> Row:
        return {
            "id": new_id("led"), "user_id": user_id, "kind": EntryKind.HOLD, "amount": _PRICE,
            "available_delta": -_PRICE, "held_delta": _PRICE, "available_after": _PRICE * (count - number),
            "held_after": _PRICE * number,
            "job_id": self.id, "reference": f"{self.id}:{EntryKind.HOLD}", "created_at": self.created_at,
        }  # fmt: skip

    def attempt(self) -> Row:
        return {
            "id": self.attempt_id, "job_id": self.id, "number": 1, "account_id": self.account_id,
            "outcome": Outcome.ACCEPTED, "callback_token": secrets.token_urlsafe(24), "provider_ref": self.ref,
            "memo": self.memo, "created_at": self.created_at, "sent_at": self.created_at,
            "answered_at": self.created_at,
        }  # fmt: skip

    def step(self, user_id: str, due_at: float) -> Row:
        return {
            "job_id": self.id, "step": Step.POLL, "due_at": due_at, "user_id": user_id, "model": self.model,
            "created_at": self.created_at.timestamp(), "deadline_at": self.created_at.timestamp() + 86_400,
            "account_id": self.account_id, "attempt_id": self.attempt_id,
        }  # fmt: skip


def _hold(session: Session, user_id: str, jobs: list[_Running]) -> None:
    """The balance after all holds; the ledger's lines follow in bulk."""
    total = _PRICE * len(jobs)
    credits.grant(session, user_id, total, note="seed", reference=f"seed:{user_id}")
    session.execute(
        update(CreditAccount).where(CreditAccount.user_id == user_id).values(available=0, held=total)
    )


def _write(session: Session, table: type[Base], rows: list[Row]) -> None:
    for start in range(0, len(rows), _BATCH):
        session.execute(insert(table), rows[start : start + _BATCH])


if __name__ == "__main__":
    seed(int(sys.argv[1]), float(sys.argv[2]))
