"""What users and workers do to a job, one transaction a step, and what can be seen of it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update

from common.db import transaction
from common.models import (
    Artifact,
    CreditAccount,
    Job,
    JobAttempt,
    JobEvent,
    JobStep,
    LedgerEntry,
    WebhookDelivery,
)
from common.providers.base import Accepted, Output, Succeeded, Unknown
from common.services import claims, credits, jobs, lifecycle
from common.services.claims import Claim, StoreClaim, SubmitClaim
from common.services.users import Actor
from common.words import Status, Step

MODEL, PRICE = "flux/pro-1.1", 20
PICTURE = Output(kind="image", url="https://example.com/1.png")


# ---------------------------------------------------------------- users


def submit(actor: Actor, **fields: Any) -> str:
    with transaction() as session:
        job, _ = jobs.accept(session, actor, jobs.NewJob(model=MODEL, input={"prompt": "a fox"}, **fields))
        return job.id


def cancel(actor: Actor, job_id: str) -> None:
    with transaction() as session:
        jobs.cancel(session, actor, job_id)


# ---------------------------------------------------------------- workers


def claim_submits(limit: int = 100) -> list[SubmitClaim]:
    with transaction() as session:
        return claims.submits(session, limit)


def sent(claim: SubmitClaim) -> SubmitClaim:
    with transaction() as session:
        assert lifecycle.sending(session, [claim])
    return claim


def accept(claim: Claim) -> None:
    with transaction() as session:
        lifecycle.accepted(session, claim, Accepted(provider_ref="ref"))


def lose(claim: Claim) -> None:
    with transaction() as session:
        lifecycle.unknown(session, claim, Unknown(message="time-out"))


def claim_lost() -> SubmitClaim:
    make_due()
    with transaction() as session:
        return claims.lost_submits(session, 10)[0]


def claim_poll() -> Claim:
    make_due()
    with transaction() as session:
        return claims.due(session, Step.POLL, 10)[0]


def claim_store() -> StoreClaim:
    make_due()
    with transaction() as session:
        return claims.results_to_store(session, 10)[0]


def run(actor: Actor) -> tuple[str, Claim]:
    """A job that runs at the provider, claimed for a poll."""
    job_id = submit(actor)
    accept(sent(claim_submits()[0]))
    return job_id, claim_poll()


def produce(claim: Claim) -> StoreClaim:
    with transaction() as session:
        lifecycle.produced(session, claim, Succeeded(outputs=(PICTURE,)))
    return claim_store()


def store(claim: StoreClaim) -> None:
    with transaction() as session:
        lifecycle.stored(session, claim, [picture()])


def picture(number: int = 1) -> lifecycle.Stored:
    return lifecycle.Stored(
        number=number, kind="image", key=f"a/{number}.png", url="https://cos/1.png", thumbnail_key=None,
        content_type="image/png", bytes=3, sha256="0" * 64, width=1, height=1, duration_s=None,
    )  # fmt: skip


# ---------------------------------------------------------------- time


def make_due() -> None:
    """Let every lease and every pause be over."""
    with transaction() as session:
        session.execute(update(JobStep).values(due_at=0))


def pass_deadline() -> None:
    """Let every deadline be over, and the sweep come by."""
    with transaction() as session:
        session.execute(update(JobStep).values(deadline_at=0))
    with transaction() as session:
        lifecycle.past_deadline(session)


def wipe() -> None:
    """Let there be no job and no credit; users and accounts stay."""
    with transaction() as session:
        for table in (
            WebhookDelivery,
            Artifact,
            JobEvent,
            JobAttempt,
            JobStep,
            LedgerEntry,
            CreditAccount,
            Job,
        ):
            session.execute(delete(table))


# ---------------------------------------------------------------- what can be seen


class Seen:
    """One job as it is now. Looking also verifies the ledger."""

    def __init__(self, actor: Actor, job_id: str) -> None:
        with transaction() as session:
            job = session.get_one(Job, job_id)
            self.status, self.late, self.charged = job.status, job.late, job.charged
            self.code = (job.error or {}).get("code")
            self.output = job.output
            self.artifacts = len(jobs.artifacts(session, [job_id])[job_id])
            self.balance = credits.balance(session, actor.user_id)
            step = session.get(JobStep, job_id)
            self.waiting = step is not None
            self.step, self.due_at = (step.step, step.due_at) if step else (None, None)
            self.settlements = session.scalar(
                select(func.count()).where(
                    LedgerEntry.job_id == job_id, LedgerEntry.kind.in_(("capture", "release"))
                )
            )
            assert credits.verify(session) == []

    @property
    def end(self) -> tuple[str, str | None, int | None]:
        """How it ended: status, error code, what was charged."""
        return self.status, self.code, self.charged


# ---------------------------------------------------------------- every state


@dataclass(frozen=True)
class At:
    """A job in one of its states, and the claim of the worker that has it in hands, if one has."""

    job_id: str
    claim: Any = None


def _queued(actor: Actor) -> At:
    return At(submit(actor))


def _given_an_account(actor: Actor) -> At:
    job_id = submit(actor)
    return At(job_id, claim_submits()[0])


def _sent(actor: Actor) -> At:
    at = _given_an_account(actor)
    return At(at.job_id, sent(at.claim))


def _lost(actor: Actor) -> At:
    at = _sent(actor)
    lose(at.claim)
    return At(at.job_id)


def _looked_for(actor: Actor) -> At:
    at = _lost(actor)
    return At(at.job_id, claim_lost())


def _running(actor: Actor) -> At:
    at = _sent(actor)
    accept(at.claim)
    return At(at.job_id)


def _looked_at(actor: Actor) -> At:
    return At(*run(actor))


def _produced(actor: Actor) -> At:
    job_id, claim = run(actor)
    with transaction() as session:
        lifecycle.produced(session, claim, Succeeded(outputs=(PICTURE,)))
    return At(job_id)


def _being_stored(actor: Actor) -> At:
    job_id, claim = run(actor)
    return At(job_id, produce(claim))


def _succeeded(actor: Actor) -> At:
    at = _being_stored(actor)
    store(at.claim)
    return At(at.job_id)


def _failed(actor: Actor) -> At:
    job_id = submit(actor)
    with transaction() as session:
        lifecycle.finish(session, job_id, Status.FAILED, spent=0, code="internal", message="no")
    return At(job_id)


def _canceled(actor: Actor) -> At:
    job_id = submit(actor)
    cancel(actor, job_id)
    return At(job_id)


def _timed_out(actor: Actor) -> At:
    at = _running(actor)
    pass_deadline()
    return at


STATES: dict[str, Callable[[Actor], At]] = {
    "queued": _queued,
    "given an account": _given_an_account,
    "sent": _sent,
    "lost": _lost,
    "lost and looked for": _looked_for,
    "running": _running,
    "running and looked at": _looked_at,
    "produced": _produced,
    "being stored": _being_stored,
    "succeeded": _succeeded,
    "failed": _failed,
    "canceled": _canceled,
    "timed out and watched": _timed_out,
}
FINISHED = frozenset({"succeeded", "failed", "canceled", "timed out and watched"})
