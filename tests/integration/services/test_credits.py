"""The ledger: no movement twice, no balance below zero, and no contradiction that `verify` does not find."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import delete, event, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from common import clock
from common.db import engine as database
from common.db import reading, transaction
from common.errors import InsufficientCredits, LedgerBroken
from common.ids import new_id
from common.models import CreditAccount, Job, JobStep, LedgerEntry
from common.services import credits, daily, jobs, lifecycle, proof
from common.services.users import Actor
from common.words import Status
from tests.integration.services.life import PRICE, submit


def finish(job_id: str, spent: int | None) -> None:
    with transaction() as session:
        assert lifecycle.finish(session, job_id, Status.SUCCEEDED, spent=spent)


def test_a_grant_counts_once(make_actor: Callable[..., Actor]) -> None:
    actor = make_actor(0)
    with transaction() as session:
        credits.grant(session, actor.user_id, 70, note="bonus", reference="grant:one")
    with pytest.raises(IntegrityError), transaction() as session:
        credits.grant(session, actor.user_id, 70, note="bonus", reference="grant:one")
    with transaction() as session:
        assert credits.balance(session, actor.user_id) == credits.Balance(70, 0)


def test_too_few_credits_change_nothing(make_actor: Callable[..., Actor]) -> None:
    actor = make_actor(PRICE - 1)
    with pytest.raises(InsufficientCredits):
        submit(actor)
    with transaction() as session:
        assert credits.balance(session, actor.user_id) == credits.Balance(PRICE - 1, 0)
        assert jobs.page(session, actor, status=None, model=None, limit=10, after=None) == ([], False)


def test_a_hold_is_settled_once(make_actor: Callable[..., Actor]) -> None:
    actor = make_actor(100)
    job_id = submit(actor)
    with transaction() as session:
        assert credits.settle(session, job_id, spent=5) is not None
        assert credits.settle(session, job_id, spent=20) is None
        assert credits.balance(session, actor.user_id) == credits.Balance(95, 0)


def test_a_capture_never_exceeds_the_hold(make_actor: Callable[..., Actor]) -> None:
    job_id = submit(make_actor(100))
    with transaction() as session:
        entry = credits.settle(session, job_id, spent=10_000)
        assert entry is not None
        assert (entry.kind, entry.amount) == ("capture", PRICE)


def test_a_refund_counts_once(make_actor: Callable[..., Actor]) -> None:
    actor = make_actor(100)
    job_id = submit(actor)
    with transaction() as session:
        assert credits.refund(session, job_id, note="nothing was taken yet") is None
        credits.settle(session, job_id, spent=PRICE - 3)
        entry = credits.refund(session, job_id, note="sorry")
        assert entry is not None
        assert (entry.amount, entry.note) == (PRICE - 3, "sorry")
        assert credits.refund(session, job_id, note="again") is None
        assert credits.balance(session, actor.user_id) == credits.Balance(100, 0)


def test_what_no_hold_covers_is_not_settled(make_actor: Callable[..., Actor]) -> None:
    job_id = submit(make_actor(100))
    with transaction() as session:
        session.execute(delete(LedgerEntry).where(LedgerEntry.job_id == job_id))
    with pytest.raises(LedgerBroken, match=job_id), transaction() as session:
        lifecycle.finish(session, job_id, Status.SUCCEEDED, spent=None)
    with transaction() as session:
        assert session.get_one(Job, job_id).status == Status.QUEUED


def test_200_submits_at_once_against_credits_for_50(make_actor: Callable[..., Actor]) -> None:
    actor = make_actor(50 * PRICE)
    start = threading.Barrier(200)
    outcomes: list[str] = []

    def run() -> None:
        start.wait(30)
        try:
            submit(actor)
            outcomes.append("accepted")
        except InsufficientCredits:
            outcomes.append("refused")
        except Exception as error:
            outcomes.append(repr(error))

    threads = [threading.Thread(target=run) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["accepted"] * 50 + ["refused"] * 150
    with transaction() as session:
        assert credits.balance(session, actor.user_id) == credits.Balance(0, 50 * PRICE)
        assert credits.verify(session) == []


# ---------------------------------------------------------------- what verify finds


class Books:
    """Three users' entries: one job captured, one released, one refunded, one live."""

    def __init__(self, make_actor: Callable[..., Actor]) -> None:
        self.actor, self.other, self.free = make_actor(100), make_actor(100), make_actor(0)
        self.captured, self.released, self.refunded, self.live = (submit(self.actor) for _ in range(4))
        finish(self.captured, None)
        finish(self.released, 0)
        finish(self.refunded, None)
        with transaction() as session:
            lifecycle.refund(session, self.refunded, reason="sorry")
        self.verified()

    def verified(self) -> list[str]:
        with reading() as session:
            return credits.verify(session)

    def entry(self, job_id: str, kind: str) -> str:
        with reading() as session:
            return session.scalars(
                select(LedgerEntry.id).where(LedgerEntry.reference == f"{job_id}:{kind}")
            ).one()


Tamper = Callable[[Any, Books], None]


def change_entry(job: str, entry_kind: str, /, **values: Any) -> Tamper:
    return lambda session, books: session.execute(
        update(LedgerEntry)
        .where(LedgerEntry.reference == f"{getattr(books, job)}:{entry_kind}")
        .values(values)
    )


def change_job(job: str, **values: Any) -> Tamper:
    return lambda session, books: session.execute(
        update(Job).where(Job.id == getattr(books, job)).values(values)
    )


def change_balance(**values: Any) -> Tamper:
    return lambda session, books: session.execute(
        update(CreditAccount).where(CreditAccount.user_id == books.actor.user_id).values(values)
    )


def add_entry(job: str, kind: str, amount: int, available: int, held: int, closes: str | None) -> Tamper:
    """One more entry, whose balance follows: only its meaning is wrong."""

    def tamper(session: Any, books: Books) -> None:
        user_id, job_id = books.actor.user_id, getattr(books, job)
        row = session.get_one(CreditAccount, user_id)
        row.available, row.held = row.available + available, row.held + held
        session.add(LedgerEntry(
            id=new_id("led"), user_id=user_id, kind=kind, amount=amount, available_delta=available,
            held_delta=held, available_after=row.available, held_after=row.held, job_id=job_id,
            closes_id=books.entry(job_id, closes) if closes else None, reference=new_id("ref"), note=None,
            created_at=clock.now(),
        ))  # fmt: skip

    return tamper


def forget_entry(job: str, kind: str) -> Tamper:
    return lambda session, books: session.execute(
        delete(LedgerEntry).where(LedgerEntry.reference == f"{getattr(books, job)}:{kind}")
    )


def forget_balance(session: Any, books: Books) -> None:
    session.execute(delete(CreditAccount).where(CreditAccount.user_id == books.actor.user_id))


def forget_job(job: str) -> Tamper:
    def tamper(session: Any, books: Books) -> None:
        session.execute(delete(JobStep).where(JobStep.job_id == getattr(books, job)))
        session.execute(delete(Job).where(Job.id == getattr(books, job)))

    return tamper


def swap_holders(session: Any, books: Books) -> None:
    """The live job's capture, paid from the hold of another user."""
    session.execute(
        update(LedgerEntry)
        .where(LedgerEntry.reference == f"{books.captured}:hold")
        .values(user_id=books.other.user_id)
    )


CONTRADICTIONS: dict[str, tuple[Tamper, str]] = {
    "more is available": (change_balance(available=81), "balance 81+20 held, ledger says 60+20"),
    "less is held": (change_balance(held=19), "balance 60+19 held, ledger says 60+20"),
    "no balance": (forget_balance, "has ledger entries but no balance"),
    "a deleted entry": (forget_entry("refunded", "refund"), "balance 60+20 held, ledger says 40+20"),
    "a changed history": (change_entry("captured", "hold", available_after=83), "do not follow from one another"),
    "a history of holds changed": (change_entry("released", "release", held_after=0), "do not follow from one another"),
    "a kind nobody knows": (change_entry("captured", "capture", kind="gift"), "the gift is of no known kind"),
    "a capture that takes more than it says": (change_entry("captured", "capture", amount=5), "does not give back"),
    "a capture over the hold": (add_entry("live", "capture", 30, -10, -20, "hold"), "takes more than was held"),
    "a release that gives too little": (add_entry("live", "release", 15, 15, -15, "hold"), "does not give back"),
    "a capture that gives too much": (add_entry("live", "capture", 5, 20, -20, "hold"), "does not give back"),
    "a hold that holds less": (change_entry("live", "hold", amount=19), "the hold does not move its amount"),
    "a refund of more": (change_entry("refunded", "refund", amount=19), "the refund does not move its amount"),
    "a closing entry without a hold": (change_entry("captured", "capture", closes_id=None), "closes no hold"),
    "a closing of nothing": (change_entry("captured", "capture", closes_id="led_nothing"), "closes no hold"),
    "a refund that closes": (add_entry("live", "refund", 5, 5, 0, "hold"), "only a capture or a release may"),
    "somebody else's hold": (swap_holders, "closes a hold that is not its own"),
    "a capture without a job": (change_entry("captured", "capture", job_id=None), "names no job"),
    "two captures": (add_entry("captured", "capture", 20, 0, -20, None), "was settled more than once"),
    "two holds": (add_entry("live", "hold", 20, -20, 20, None), "has more than one hold"),
    "two refunds": (add_entry("refunded", "refund", 1, 1, 0, None), "was refunded more than once"),
    "a refund of nothing": (add_entry("released", "refund", 1, 1, 0, None), "was refunded more than was taken"),
    "a missing hold": (forget_entry("live", "hold"), "has no hold"),
    "another price": (change_job("live", price=21), "its hold is not its price"),
    "another payer": (change_job("live", user_id="somebody"), "is paid for by somebody else"),
    "an end without settlement": (change_job("live", status="failed", charged=0), "finished, but its hold is open"),
    "a settlement without an end": (change_job("captured", status="running"), "is live, but its hold is closed"),
    "another charge": (change_job("captured", charged=19), "charged other than the ledger says"),
    "no charge": (change_job("captured", charged=None), "charged other than the ledger says"),
    "an orphaned hold": (forget_job("live"), "does not exist, but its hold is open"),
}  # fmt: skip


def test_verify_finds_every_contradiction(make_actor: Callable[..., Actor]) -> None:
    books = Books(make_actor)
    assert books.verified() == []
    missed = {}
    for contradiction, (tamper, expected) in CONTRADICTIONS.items():
        with Session(database()) as session:  # never committed
            tamper(session, books)
            session.flush()
            found = credits.verify(session)
        if not any(expected in line for line in found):
            missed[contradiction] = found
    assert missed == {}


def test_a_deleted_job_that_was_settled_is_no_contradiction(make_actor: Callable[..., Actor]) -> None:
    books = Books(make_actor)
    with transaction() as session:
        forget_job("captured")(session, books)
    assert books.verified() == []


def test_a_free_job_and_an_imported_one_are_no_contradictions(make_actor: Callable[..., Actor]) -> None:
    books = Books(make_actor)
    with transaction() as session:
        credits.hold(session, books.free.user_id, free := new_id("job"), 0)
        session.execute(insert(Job), [_bare_job(books.free, free), _bare_job(books.free, new_id("job"))])
    assert books.verified() == []
    with transaction() as session:
        assert lifecycle.finish(session, free, Status.SUCCEEDED, spent=None)
    assert books.verified() == []


def _bare_job(actor: Actor, job_id: str) -> dict[str, Any]:
    return {
        "id": job_id, "user_id": actor.user_id, "status": "running", "provider": "flux", "model": "flux/dev",
        "action": "generate", "input": {}, "metadata_": {}, "priority": 0, "price": 0, "progress": 0,
        "actions": [], "attempts": 1, "late": False, "deadline_at": clock.now(), "created_at": clock.now(),
    }  # fmt: skip


def test_verify_asks_as_often_for_many_entries_as_for_few(make_actor: Callable[..., Actor]) -> None:
    books = Books(make_actor)
    asked: list[str] = []
    listener = lambda connection, cursor, statement, *rest: asked.append(statement)  # noqa: E731
    event.listen(database(), "before_cursor_execute", listener)
    books.verified()
    few = len(asked)
    for _ in range(3):
        finish(submit(books.other), None)
    asked.clear()
    books.verified()
    event.remove(database(), "before_cursor_execute", listener)
    assert len(asked) == few


def test_a_broken_ledger_is_not_listed_without_end(
    make_actor: Callable[..., Actor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credits, "_LISTED", 3)
    books = Books(make_actor)
    for _ in range(5):
        finish(submit(books.other), None)
    with transaction() as session:
        session.execute(update(Job).values(charged=7))
    assert len([line for line in books.verified() if "charged other" in line]) == 3


# ---------------------------------------------------------------- the daily proof


def test_the_proof_is_done_once_a_day_by_one(engine: Any) -> None:
    start = threading.Barrier(8)
    claimed: list[bool] = []

    def run() -> None:
        start.wait(30)
        with transaction() as session:
            claimed.append(proof.claim(session))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(claimed) == [False] * 7 + [True]
    with transaction() as session:
        assert proof.last(session) is None
        proof.record(session, ["user u: wrong"])
    with transaction() as session:
        last = proof.last(session)
        assert last is not None
        assert last.findings == 1
        assert not proof.claim(session)


@pytest.mark.parametrize(("recorded", "after"), [(True, daily._EVERY), (False, daily._AGAIN)])
def test_the_next_proof_is_due(
    engine: Any, monkeypatch: pytest.MonkeyPatch, recorded: bool, after: Any
) -> None:
    with transaction() as session:
        assert proof.claim(session)
        if recorded:
            proof.record(session, [])
    begun = clock.now()
    for shift, due in ((after * 0.9, False), (after * 1.01, True)):
        monkeypatch.setattr(clock, "now", lambda shift=shift: begun + shift)
        with transaction() as session:
            assert proof.claim(session) is due
