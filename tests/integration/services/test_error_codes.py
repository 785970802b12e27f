"""Every error code that users are told of is one that a job can end with, and says whether another try may help."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from sqlalchemy import update

from common import settings as configuration
from common.db import transaction
from common.models import Job, ProviderAccount
from common.providers.base import Failed, NotAccepted, NoVerdict, Rejected, Trouble
from common.services import lifecycle
from common.services.claims import SubmitClaim
from common.services.users import Actor
from common.words import ErrorCode
from tests.integration.services.life import (
    Seen,
    cancel,
    claim_lost,
    claim_poll,
    claim_submits,
    lose,
    pass_deadline,
    produce,
    run,
    sent,
    submit,
)
from tests.unit.providers.fakes import adapter
from web import provider_docs
from workers.steps.submit import _prepared

Way = Callable[[Actor], str]


def refused(code: str) -> Way:
    def way(actor: Actor) -> str:
        return answered(actor, Rejected(code=code, message="no"))

    return way


def not_taken(trouble: Trouble) -> Way:
    def way(actor: Actor) -> str:
        return answered(actor, NotAccepted(trouble=trouble, message="not here"))

    return way


def failed(code: str, *, retryable: bool) -> Way:
    def way(actor: Actor) -> str:
        job_id, claim = run(actor)
        with transaction() as session:
            lifecycle.failed(session, claim, Failed(code=code, message="no", retryable=retryable))
        return job_id

    return way


def answered(actor: Actor, verdict: Rejected | NotAccepted) -> str:
    job_id = submit(actor)
    claim = sent(claim_submits()[0])
    with transaction() as session:
        if isinstance(verdict, Rejected):
            lifecycle.rejected(session, claim, verdict)
        else:
            lifecycle.not_accepted(session, claim, verdict)
    return job_id


def of_a_model_that_is_gone(actor: Actor) -> str:
    """A release has taken the model out of the catalogue while the job waited."""
    job_id = submit(actor)
    claim: SubmitClaim = sent(claim_submits()[0])

    async def prepared() -> object:
        async with AsyncExitStack() as held:
            return await _prepared(replace(claim, model="flux/gone"), adapter("bfl"), held)

    verdict = asyncio.run(prepared())
    assert isinstance(verdict, Rejected)
    with transaction() as session:
        lifecycle.rejected(session, claim, verdict)
    return job_id


def lost_at_the_provider(actor: Actor) -> str:
    job_id, claim = run(actor)
    for _ in range(lifecycle.GONE_LIMIT):
        with transaction() as session:
            lifecycle.no_verdict(session, claim, NoVerdict(message="not found", gone=True))
        if Seen(actor, job_id).waiting:
            claim = claim_poll()
    return job_id


def never_found(actor: Actor) -> str:
    job_id = submit(actor)
    lose(sent(claim_submits()[0]))
    with transaction() as session:
        lifecycle.not_found_yet(session, claim_lost())
    return job_id


def too_late(actor: Actor) -> str:
    job_id = submit(actor)
    pass_deadline()
    return job_id


def with_a_dead_source(actor: Actor) -> str:
    job_id, claim = run(actor)
    stored = produce(claim)
    with transaction() as session:
        lifecycle.unstorable(session, stored, [], "404")
    return job_id


def canceled(actor: Actor) -> str:
    job_id = submit(actor)
    cancel(actor, job_id)
    return job_id


WAYS: list[tuple[ErrorCode, bool, Way]] = [
    (ErrorCode.INVALID_INPUT, False, refused("invalid_input")),
    (ErrorCode.INVALID_INPUT, False, failed("invalid_input", retryable=False)),
    (ErrorCode.CONTENT_MODERATED, False, refused("content_moderated")),
    (ErrorCode.CONTENT_MODERATED, False, failed("content_moderated", retryable=False)),
    (ErrorCode.CONTENT_MODERATED, True, failed("content_moderated", retryable=True)),
    (ErrorCode.PROVIDER_REJECTED, False, refused("provider_rejected")),
    (ErrorCode.PROVIDER_UNAVAILABLE, True, not_taken(Trouble.CREDENTIALS)),
    (ErrorCode.PROVIDER_UNAVAILABLE, True, not_taken(Trouble.MODEL)),
    (ErrorCode.ACCOUNT_EXHAUSTED, True, not_taken(Trouble.BALANCE)),
    (ErrorCode.PROVIDER_FAILED, True, failed("provider_failed", retryable=True)),
    (ErrorCode.PROVIDER_FAILED, False, failed("provider_failed", retryable=False)),
    (ErrorCode.PROVIDER_FAILED, True, lost_at_the_provider),
    (ErrorCode.SUBMIT_UNKNOWN, True, never_found),
    (ErrorCode.TIMEOUT, True, too_late),
    (ErrorCode.STORAGE_FAILED, True, with_a_dead_source),
    (ErrorCode.CANCELED, False, canceled),
    (ErrorCode.INTERNAL, False, of_a_model_that_is_gone),
]


def test_what_jobs_can_end_with(actor: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILE_WINDOW_S", "0")
    configuration.settings.cache_clear()
    for code, retryable, way in WAYS:
        job_id = way(actor)
        with transaction() as session:
            error = session.get_one(Job, job_id).error
            assert error is not None
            assert (error["code"], error["retryable"]) == (code, retryable)
            assert error["message"]
            session.execute(update(ProviderAccount).values(failures=0, trouble=None, open_until=0.0))
        assert Seen(actor, job_id).charged == 0


def test_no_code_is_without_a_way_or_a_word_in_the_documents() -> None:
    assert {code for code, *_ in WAYS} == set(ErrorCode)
    written = provider_docs.text()
    for code in ErrorCode:
        assert f"| `{code}` |" in written
