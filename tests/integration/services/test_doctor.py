"""The doctor: nothing to say about a platform that is well, and a line about each thing that is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Executable, delete, insert, text, update

from common import clock
from common.db import reading, transaction
from common.db import schema as schemas
from common.ids import new_id
from common.models import (
    CreditAccount,
    JobAttempt,
    JobStep,
    ProviderAccount,
    WebhookDelivery,
)
from common.providers.base import Accepted, Failed
from common.services import doctor, lifecycle, proof
from common.services.users import Actor
from tests.infrastructure.databases import Released
from tests.infrastructure.postgres import Postgres
from tests.integration.services.life import (
    STATES,
    cancel,
    claim_lost,
    claim_poll,
    pass_deadline,
    produce,
    run,
    store,
    wipe,
)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, released: Released, tmp_path: Path) -> Iterator[str]:
    """A database as the release process leaves it: its schema is current."""
    if request.param == "sqlite":
        yield released.sqlite(tmp_path / "webui.db")
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    url = released.postgresql()
    yield url
    server.drop_database(url)


def findings() -> list[str]:
    with reading() as session:
        return doctor.findings(session)


def totals() -> doctor.Totals:
    with reading() as session:
        return doctor.totals(session)


def test_figures_count_the_work(actor: Actor) -> None:
    for state in ("produced", "running", "lost", "queued"):
        STATES[state](actor)
    with reading() as session:
        seen = doctor.figures(session)
    assert seen.jobs_by_step == {"submit": 1, "reconcile": 1, "poll": 1, "store": 1}
    assert list(seen.slots_used.values()) == [2]
    assert list(seen.slots_limit.values()) == [5]


# ---------------------------------------------------------------- each finding

Harm = Callable[[Actor], None]


def change(statement: Executable) -> None:
    with transaction() as session:
        session.execute(statement)


def step_is(state: str, **values: Any) -> Harm:
    """A job in that state whose row is then found like this."""

    def harm(actor: Actor) -> None:
        at = STATES[state](actor)
        change(update(JobStep).where(JobStep.job_id == at.job_id).values(values))

    return harm


def step_is_gone(state: str) -> Harm:
    def harm(actor: Actor) -> None:
        at = STATES[state](actor)
        change(delete(JobStep).where(JobStep.job_id == at.job_id))

    return harm


def account_is(*states: str, **values: Any) -> Harm:
    """The account is found like this, with jobs in these states."""

    def harm(actor: Actor) -> None:
        for state in states:
            STATES[state](actor)
        change(update(ProviderAccount).values(values))

    return harm


def lost_long_ago(actor: Actor) -> None:
    STATES["lost"](actor)
    long_ago = clock.now().replace(year=2020)
    change(update(JobAttempt).values(sent_at=long_ago, answered_at=long_ago))


def webhook_waits(age_s: float) -> Harm:
    return lambda actor: change(
        insert(WebhookDelivery).values(
            id=new_id("evt"), job_id="job", user_id=actor.user_id, url="https://example.com", type="job.failed",
            status="pending", due_at=clock.epoch() - age_s, tries=0, created_at=clock.now(),
        )
    )  # fmt: skip


def more_is_held(actor: Actor) -> None:
    change(update(CreditAccount).where(CreditAccount.user_id == actor.user_id).values(held=7))


LONG_AGO = 1.0
HARM: dict[str, tuple[Harm, str]] = {
    "an unpolled job": (step_is("running", due_at=LONG_AGO), "poll: the oldest due work has waited"),
    "a lost submit nobody looks for": (step_is("lost", due_at=LONG_AGO), "reconcile: the oldest due work"),
    "a result nobody fetches": (step_is("produced", due_at=LONG_AGO), "store: the oldest due work has waited"),
    "a result that cannot be stored": (step_is("produced", failures=8), "storage: 1 results could not be stored"),
    "an undecided submit": (lost_long_ago, "1 lost submits are undecided past the reconciliation window"),
    "a forgotten attempt": (step_is_gone("sent"), "1 attempts were never decided"),
    "a live job without a step": (step_is_gone("running"), "live, but nothing is waiting to move it"),
    "a slot of an ended job": (step_is("timed out and watched", step="reconcile"), "1 slots are held for jobs"),
    "a passed deadline": (step_is("running", deadline_at=LONG_AGO), "deadlines: 1 jobs are past theirs"),
    "a passed deadline in the queue": (step_is("queued", deadline_at=LONG_AGO), "deadlines: 1 jobs are past theirs"),
    "too many slots": (account_is("running", "running", max_concurrency=1), "2 slots in use of 1"),
    "a broken account": (account_is(failures=9, open_until=clock.epoch() + 600), "paused after repeated trouble"),
    "an empty account": (account_is(trouble="balance"), "its money at the provider is used up"),
    "a revoked key": (account_is(trouble="credentials"), "its provider refuses the key"),
    "a model that nobody serves": (account_is("queued", enabled=False), "flux/pro-1.1: 1 jobs wait, and no enabled"),
    "an old webhook": (webhook_waits(700), "webhooks: the oldest has waited 700 s"),
    "credits held for nothing": (more_is_held, "credits: what is held and what the live jobs cost differ by 7"),
    "a ledger that lies": (more_is_held, "ledger: user"),
}  # fmt: skip
NO_HARM: dict[str, Harm] = {
    "an account that nobody has tried since its pause": account_is(failures=9, open_until=LONG_AGO),
    "a long queue": step_is("queued", due_at=LONG_AGO),
    "a result that waits a little": step_is("produced", due_at=clock.epoch() - 120),
    "a young webhook": webhook_waits(60),
    "what is stored past its job's deadline": step_is("being stored", deadline_at=LONG_AGO),
    "a submit that is under way past its job's deadline": step_is("sent", deadline_at=LONG_AGO),
}


@pytest.fixture
def fresh(make_actor: Callable[..., Actor], make_account: Callable[..., str]) -> Callable[[], Actor]:
    """Let there be nothing but a user with credits and an account that is well."""

    def make() -> Actor:
        wipe()
        change(delete(ProviderAccount))
        make_account()
        return make_actor(100)

    return make


def test_harm_is_found(fresh: Callable[[], Actor]) -> None:
    missed = {}
    for name, (harm, expected) in HARM.items():
        harm(fresh())
        found = findings()
        if not any(expected in line for line in found):
            missed[name] = found
    assert missed == {}


def test_what_is_usual_is_no_finding(fresh: Callable[[], Actor]) -> None:
    found = {}
    for name, usual in NO_HARM.items():
        usual(fresh())
        found[name] = findings()
    assert found == {name: [] for name in NO_HARM}


def test_a_job_in_whatever_state_is_no_finding(fresh: Callable[[], Actor]) -> None:
    for state, bring in STATES.items():
        bring(fresh())
        total = totals()
        assert (state, findings(), total.leaked, total.stuck, total.unsettled) == (state, [], 0, (), 0)
        assert total.watched == (state == "timed out and watched")


def test_a_missing_column_is_a_finding(actor: Actor) -> None:
    with transaction() as session:
        session.execute(text("ALTER TABLE job_event DROP COLUMN detail"))
    schemas._cache.clear()
    assert findings()[0].startswith("schema: ")
    assert "missing job_event.detail" in findings()[0]


def test_on_a_schema_that_cannot_be_used_only_that_is_said(engine: Any) -> None:
    with transaction() as session:
        session.execute(text("DROP TABLE job_step"))
    schemas._cache.clear()
    (line,) = findings()
    assert line.startswith("schema: ")


# ---------------------------------------------------------------- totals


def test_what_has_happened_is_counted(actor: Actor) -> None:
    for _ in range(2):
        STATES["lost"](actor)
    with transaction() as session:
        lifecycle.accepted(session, claim_lost(), Accepted(provider_ref="found"), adopted=True)
    assert totals().events == {"submit_unknown": 2, "adopted": 1, "late_success": 0, "refunded": 0}


def test_late_results_and_refunds_are_counted(actor: Actor) -> None:
    run(actor)
    pass_deadline()
    store(produce(claim_poll()))
    job_id, _ = run(actor)
    cancel(actor, job_id)
    with transaction() as session:
        lifecycle.cancel_answered(session, claim_poll(), confirmed=False)
    with transaction() as session:
        lifecycle.failed(session, claim_poll(), Failed(code="provider_failed", message="no"))
    total = totals()
    assert (total.events["late_success"], total.events["refunded"], total.watched) == (1, 1, 0)


def test_the_last_proof_is_told(actor: Actor) -> None:
    assert totals().proof is None
    with transaction() as session:
        proof.claim(session)
        proof.record(session, ["one", "two"])
    last = totals().proof
    assert last is not None
    assert (last.findings, (clock.now() - last.verified_at).total_seconds() < 60) == (2, True)
