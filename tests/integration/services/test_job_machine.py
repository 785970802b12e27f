"""Any life of a few jobs: whatever users, providers, clocks and dying workers do, each ends once and is settled once.

The model below is the table "What ends a job, and what it costs" once more, in the simplest words that hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from sqlalchemy import func, select, update

from common import clock
from common.db import transaction
from common.errors import Conflict, InsufficientCredits, LeaseLost
from common.models import Artifact, Job, JobAttempt, JobStep, LedgerEntry, ProviderAccount, WebhookDelivery
from common.providers.base import (
    Accepted,
    Failed,
    NotAccepted,
    NoVerdict,
    Rejected,
    Running,
    Succeeded,
    Trouble,
    Unknown,
)
from common.services import claims, credits, doctor, jobs, lifecycle
from common.services.claims import SubmitClaim
from common.services.credits import Balance
from common.services.users import Actor
from common.settings import settings as configured
from common.words import TERMINAL, Outcome, Status, Step
from tests.integration.services.life import MODEL, PICTURE, PRICE, picture, wipe

T = TypeVar("T")
End = tuple[Status, str | None, int]  # status, error code, charged

SLOTS, CREDITS = 3, 5 * PRICE
STAGES = ["storing", "running", "lost", "sent", "queued"]
FREE = (Status.CANCELED, "canceled", 0)
NEVER_HERE = {
    Trouble.CREDENTIALS: "provider_unavailable",
    Trouble.BALANCE: "account_exhausted",
    Trouble.MODEL: "provider_unavailable",
}
UNDECIDED = (Outcome.INTENT, Outcome.SENT, Outcome.UNKNOWN)
WHICH = st.integers(0, 11)


@dataclass(eq=False)
class Life:
    """What one job must look like. `step` None: nothing is to be done for it any more."""

    id: str
    step: Step | None = Step.SUBMIT
    claim: Any = None  # in whose hands it is
    is_due: bool = False  # although it is in somebody's hands: the lease has run out
    at_provider: bool = False  # a submit is under way, or was lost, or was taken
    given_up: bool = False  # it is only watched, or asked for addresses, and holds no slot
    asked_anew: int = 0  # how often its provider was asked for new addresses
    anew: bool = False  # it is being asked
    is_sent: bool = False
    cancel: bool = False
    overdue: bool = False
    end: End | None = None
    late: bool = False
    outputs: int = 0
    stored: set[int] = field(default_factory=set)
    words: bool = False
    captured: bool = False
    old_claims: list[Any] = field(default_factory=list)

    def finish(self, end: End, *, watch: bool = False) -> bool:
        """False if it had ended before, and stays as it was."""
        if self.end is not None:
            return False
        self.end, self.cancel, self.overdue = end, False, False
        self.captured = end[2] > 0
        if not watch:
            self.forget()
        return True

    def finish_free(self, code: str, *, watch: bool = False) -> bool:
        """Without a result: as canceled if the user wanted that."""
        return self.finish(FREE if self.cancel else (Status.FAILED, code, 0), watch=watch)

    def finish_canceled(self) -> None:
        """At a price."""
        charge = PRICE if configured().cancel_charge == "full" else 0
        self.finish((Status.CANCELED, "canceled", charge), watch=True)

    def refund(self) -> bool:
        """Whatever was taken is given back."""
        if self.end is None or self.end[2] == 0:
            return False
        self.end = (*self.end[:2], 0)
        return True

    def succeed(self) -> None:
        """All is there, in time or late."""
        if not self.finish((Status.SUCCEEDED, None, PRICE)):
            self.late = True
            self.forget()

    def come_to_nothing(self, code: str) -> None:
        """A final no; where the job had ended before, a charge for canceling is given back."""
        if not self.finish_free(code):
            self.refund()
            self.forget()

    def forget(self) -> None:
        self.put_down()
        self.step, self.at_provider = None, False

    def put_down(self, step: Step | None = None) -> None:
        """Nobody's any more; whoever had it may come back too late."""
        if self.claim is not None:
            self.old_claims.append(self.claim)
        self.claim, self.is_due, self.step = None, False, step or self.step

    @property
    def has_slot(self) -> bool:
        return self.at_provider and not self.given_up

    @property
    def is_being_stopped(self) -> bool:
        """Whether the worker that has it in hands asks the provider to stop."""
        return bool(self.claim.cancel_requested and not self.claim.finished and not self.anew)

    @property
    def status(self) -> Status:
        if self.end is not None:
            return self.end[0]
        if self.step is Step.SUBMIT:
            return Status.SUBMITTING if self.at_provider else Status.QUEUED
        if self.anew:
            return Status.STORING
        return {Step.RECONCILE: Status.SUBMITTING, Step.POLL: Status.RUNNING, Step.STORE: Status.STORING}[
            self.step  # type: ignore[index]
        ]


def write(report: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    with transaction() as session:
        return report(session, *args, **kwargs)


# ---------------------------------------------------------------- which jobs a rule is about


Choose = Callable[["Lives"], list[Life]]


def held(step: Step, condition: Callable[[Life], bool] = lambda life: True) -> Choose:
    """Those whose step a worker has in hands."""
    return lambda machine: [
        life for life in machine.lives if life.step is step and life.claim is not None and condition(life)
    ]


def any_with(condition: Callable[[Life], bool]) -> Choose:
    return lambda machine: [life for life in machine.lives if condition(life)]


UNSENT, ASKED = held(Step.SUBMIT, lambda life: not life.is_sent), held(Step.SUBMIT, lambda life: life.is_sent)
LOOKED_FOR, STORING = held(Step.RECONCILE), held(Step.STORE)
LOOKED_AT = held(Step.POLL, lambda life: not life.is_being_stopped and not life.anew)
ASKED_ANEW = held(Step.POLL, lambda life: life.anew)
BEING_STOPPED = held(Step.POLL, lambda life: life.is_being_stopped)


def about(choose: Choose, **drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """A rule about one of these jobs, which is only used while there is one."""

    def decorate(act: Callable[..., None]) -> Any:
        def run(self: Lives, which: int, **values: Any) -> None:
            among = choose(self)
            act(self, among[which % len(among)], **values)

        run.__name__ = act.__name__
        return precondition(lambda self: bool(choose(self)))(rule(which=WHICH, **drawn)(run))

    return decorate


# ---------------------------------------------------------------- the machine


class Lives(RuleBasedStateMachine):
    """A few jobs of one user, and one account."""

    make_actor: Callable[..., Actor]
    account_id: str

    @initialize(stages=st.lists(st.sampled_from(STAGES), min_size=1, max_size=4), charge=st.booleans())
    def somebody(self, stages: list[str], charge: bool) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setenv("CANCEL_CHARGE", "full" if charge else "none")
        configured.cache_clear()
        wipe()  # the last example has not come to its end if it failed
        self.actor = type(self).make_actor(CREDITS)
        self.available = CREDITS
        self.lives: list[Life] = []
        self.sends: Counter[str] = Counter()
        for stage in sorted(stages, key=STAGES.index):
            self.bring_to(stage)

    def bring_to(self, stage: str) -> None:
        """A new job in this stage of its life, so that what follows does not have to begin at the beginning."""
        self.accept_one()
        if stage == "queued" or sum(life.has_slot for life in self.lives) == SLOTS:
            return
        life = self.lives[-1]
        self.take_submits(1)
        self.send(life)
        if stage == "lost":
            self.is_unknown(life)
            self.look_for_lost_ones()
        elif stage != "sent":
            self.is_taken(life)
            self.take_polls()
        if stage == "storing":
            self.makes(life, 2)
            self.take_results()

    def teardown(self) -> None:
        """Whatever state they are in, all jobs come to an end, and nothing is left over."""
        if not hasattr(self, "lives"):
            return
        for _ in range(20):
            if all(life.step is None for life in self.lives):
                break
            self.everything_goes_well()
        self.all_is_as_expected()
        assert all(life.end is not None and life.step is None for life in self.lives)
        with transaction() as session:
            assert credits.verify(session) == []  # an entry that was ever wrong still is
        self.patch.undo()
        configured.cache_clear()

    def everything_goes_well(self) -> None:
        self.workers_die()
        self.workers_claim(SLOTS)
        for life in UNSENT(self):
            self.send(life)
        for life in ASKED(self):
            self.is_taken(life)
        for life in LOOKED_FOR(self):
            self.is_found(life)
        for life in BEING_STOPPED(self):
            self.is_asked_to_stop(life, confirmed=False)
        for life in LOOKED_AT(self):
            self.makes(life, 1)
        for life in ASKED_ANEW(self):
            self.names_new_addresses(life)
        for life in STORING(self):
            self.stores(life)

    def free(self, step: Step) -> list[Life]:
        return [life for life in self.lives if life.step is step and (life.claim is None or life.is_due)]

    # ------------------------------------------------------------ users

    @precondition(lambda self: len(self.lives) < 5)
    @rule()
    def accept_one(self) -> None:
        new = jobs.NewJob(model=MODEL, input={"prompt": "a fox"}, webhook_url="https://example.com/hook")
        try:
            job = write(jobs.accept, self.actor, new)[0]
        except InsufficientCredits:
            assert self.available < PRICE
            return
        self.available -= PRICE
        self.lives.append(Life(job.id))

    @about(any_with(lambda life: life.end is None))
    def cancel(self, life: Life) -> None:
        write(jobs.cancel, self.actor, life.id)
        if life.step is Step.SUBMIT and not life.at_provider:
            life.finish(FREE)
        elif life.step is Step.STORE or life.anew:
            life.finish_canceled()
        else:
            life.cancel = True

    @about(any_with(lambda life: life.end is not None))
    def cancel_too_late(self, life: Life) -> None:
        with pytest.raises(Conflict):
            write(jobs.cancel, self.actor, life.id)

    @about(any_with(lambda life: life.end is not None))
    def refund(self, life: Life) -> None:
        assert write(lifecycle.refund, life.id, reason="sorry") is life.refund()

    # ------------------------------------------------------------ time, and workers that die

    @about(any_with(lambda life: life.step is not None))
    def deadline(self, life: Life) -> None:
        life.overdue = True
        self.set_step([life], deadline_at=0)
        self.sweep()

    def sweep(self) -> None:
        write(lifecycle.past_deadline)
        for life in self.lives:
            if life.overdue and life.end is not None and life.step is Step.POLL:
                life.forget()  # the watch is over
            elif life.overdue and life.anew:
                life.finish_free("storage_failed")
            elif life.overdue and life.step is Step.POLL:
                life.finish_free("timeout", watch=True)
            elif life.overdue and life.step is Step.SUBMIT and not life.at_provider:
                life.finish_free("timeout")

    @about(any_with(lambda life: life.claim is not None))
    def worker_dies(self, life: Life) -> None:
        self.workers_die([life])

    def workers_die(self, some: list[Life] | None = None) -> None:
        dead = [life for life in (self.lives if some is None else some) if life.claim is not None]
        self.set_step(dead, due_at=0)
        write(lifecycle.recover)
        for life in dead:
            if life.step is not Step.SUBMIT:
                life.is_due = True  # if nobody else takes it, the worker may still come back
            elif life.is_sent:
                life.put_down(Step.RECONCILE)
            else:
                life.put_down()
                self.back_to_queue(life)

    def nothing_is_paused(self) -> None:
        self.set_step([life for life in self.lives if life.step and life.claim is None], due_at=0)
        with transaction() as session:
            session.execute(update(ProviderAccount).values(failures=0, open_until=0, trouble=None))

    def set_step(self, lives: list[Life], **values: Any) -> None:
        with transaction() as session:
            session.execute(
                update(JobStep).where(JobStep.job_id.in_([life.id for life in lives])).values(values)
            )

    @about(any_with(lambda life: bool(life.old_claims)), back=st.integers(0, 5))
    def somebody_comes_back_too_late(self, life: Life, back: int) -> None:
        claim = life.old_claims[back % len(life.old_claims)]
        late_reports: list[Callable[[], Any]] = [
            lambda: write(lifecycle.failed, claim, Failed(code="internal", message="late")),
            lambda: write(lifecycle.produced, claim, Succeeded(outputs=(PICTURE,))),
            lambda: write(lifecycle.stored, claim, [picture(9)]),
            lambda: write(lifecycle.rejected, claim, Rejected(code="internal", message="late")),
            lambda: write(lifecycle.accepted, claim, Accepted(provider_ref="late")),
            lambda: write(lifecycle.cancel_answered, claim, confirmed=True),
        ]
        with pytest.raises(LeaseLost):
            late_reports[back]()
        write(lifecycle.still_running, [(claim, Running(progress=50))])
        write(claims.renew, [claim])
        assert write(lifecycle.sending, [claim]) == []
        if isinstance(claim, SubmitClaim):
            write(lifecycle.answered_late, claim, Accepted(provider_ref="late"))

    @about(any_with(lambda life: life.claim is not None and life.step is not Step.SUBMIT))
    def worker_stops(self, life: Life) -> None:
        write(claims.put_back, [life.claim])
        life.put_down()

    # ------------------------------------------------------------ claims

    @rule(limit=st.integers(1, SLOTS))
    def workers_claim(self, limit: int) -> None:
        self.take_submits(limit)
        self.look_for_lost_ones()
        self.take_polls()
        self.take_results()

    def take_submits(self, limit: int) -> None:
        self.nothing_is_paused()
        waiting = [life for life in self.free(Step.SUBMIT) if not life.at_provider]
        used = sum(life.has_slot for life in self.lives)
        taken = write(claims.submits, limit)
        assert len(taken) == min(limit, len(waiting), SLOTS - used)
        for claim in taken:
            life = self.by_id(claim.job_id)
            assert life in waiting
            life.claim, life.at_provider, life.is_sent = claim, True, False

    def look_for_lost_ones(self) -> None:
        self.nothing_is_paused()
        self.took(Step.RECONCILE, write(claims.lost_submits, 10))

    def take_polls(self) -> None:
        self.nothing_is_paused()
        self.took(Step.POLL, write(claims.due, Step.POLL, 10))

    def take_results(self) -> None:
        self.nothing_is_paused()
        self.took(Step.STORE, write(claims.results_to_store, 10))

    def took(self, step: Step, taken: Sequence[Any]) -> None:
        assert {claim.job_id for claim in taken} == {life.id for life in self.free(step)}
        for claim in taken:
            life = self.by_id(claim.job_id)
            assert (claim.cancel_requested, claim.finished) == (life.cancel, life.end is not None)
            assert step is not Step.STORE or claim.stored == life.stored
            assert claim.made == (life.anew or step is Step.STORE)
            life.put_down()
            life.claim = claim

    # ------------------------------------------------------------ submit

    @about(UNSENT)
    def is_sent(self, life: Life) -> None:
        self.send(life)

    def send(self, life: Life) -> None:
        sent = write(lifecycle.sending, [life.claim])
        if life.cancel:
            assert sent == []
            life.finish(FREE)
        else:
            assert sent == [life.claim]
            self.sends[life.claim.attempt_id] += 1
            life.is_sent = True

    @about(ASKED)
    def is_accepted(self, life: Life) -> None:
        self.is_taken(life)

    def is_taken(self, life: Life) -> None:
        write(lifecycle.accepted, life.claim, Accepted(provider_ref=life.claim.attempt_id))
        life.put_down(Step.POLL)

    @about(ASKED)
    def is_rejected(self, life: Life) -> None:
        write(lifecycle.rejected, life.claim, Rejected(code="invalid_input", message="no"))
        life.finish_free("invalid_input")

    @about(ASKED, trouble=st.sampled_from(Trouble))
    def is_not_accepted(self, life: Life, trouble: Trouble) -> None:
        write(lifecycle.not_accepted, life.claim, NotAccepted(trouble=trouble, message="not now"))
        if trouble in NEVER_HERE:  # there is no other account
            life.finish_free(NEVER_HERE[trouble])
        else:
            life.put_down()
            self.back_to_queue(life)

    def back_to_queue(self, life: Life) -> None:
        life.at_provider = False
        if life.cancel:
            life.finish(FREE)

    @about(ASKED)
    def answer_is_lost(self, life: Life) -> None:
        self.is_unknown(life)

    def is_unknown(self, life: Life) -> None:
        write(lifecycle.unknown, life.claim, Unknown(message="time-out"))
        life.put_down(Step.RECONCILE)

    # ------------------------------------------------------------ reconcile

    @about(LOOKED_FOR)
    def is_adopted(self, life: Life) -> None:
        self.is_found(life)

    def is_found(self, life: Life) -> None:
        write(lifecycle.accepted, life.claim, Accepted(provider_ref="found"), adopted=True)
        life.put_down(Step.POLL)

    @about(LOOKED_FOR, window_is_over=st.booleans())
    def is_not_found(self, life: Life, window_is_over: bool) -> None:
        if window_is_over:
            with transaction() as session:
                long_ago = clock.now() - timedelta(days=1)
                attempt = session.get_one(JobAttempt, life.claim.attempt_id)
                attempt.sent_at = attempt.answered_at = long_ago
        write(lifecycle.not_found_yet, life.claim)
        if window_is_over:
            life.finish_free("submit_unknown")
        else:
            life.put_down()

    @about(any_with(lambda life: life.claim is not None and life.at_provider))
    def provider_calls(self, life: Life) -> None:
        with transaction() as session:
            token = session.get_one(JobAttempt, life.claim.attempt_id).callback_token
        assert write(jobs.called_back, token, {"status": "OK"}) == life.id

    # ------------------------------------------------------------ poll

    @about(LOOKED_AT, progress=st.none() | st.integers(0, 100))
    def still_running(self, life: Life, progress: int | None) -> None:
        write(lifecycle.still_running, [(life.claim, Running(progress=progress))])
        life.put_down()

    @about(LOOKED_AT, outputs=st.integers(0, 2))
    def provider_is_done(self, life: Life, outputs: int) -> None:
        self.makes(life, outputs)

    def makes(self, life: Life, outputs: int) -> None:
        words = None if outputs else {"prompts": ["a fox"]}
        write(lifecycle.produced, life.claim, Succeeded(outputs=(PICTURE,) * outputs, output=words))
        life.outputs, life.words, life.at_provider = outputs, not outputs, False
        life.put_down(Step.STORE if outputs else None)
        if life.cancel:
            life.finish_canceled()
        if not outputs:
            life.succeed()

    @about(LOOKED_AT)
    def provider_fails(self, life: Life) -> None:
        write(lifecycle.failed, life.claim, Failed(code="content_moderated", message="no"))
        life.come_to_nothing("content_moderated")

    @about(LOOKED_AT, failures=st.integers(0, 9))
    def look_tells_nothing(self, life: Life, failures: int) -> None:
        claim = replace(life.claim, failures=failures, refusals=lifecycle.GONE_LIMIT - 1)
        write(lifecycle.no_verdict, claim, NoVerdict(message="?"))
        life.put_down()

    @about(
        LOOKED_AT,
        denial=st.sampled_from([NoVerdict(message="?", gone=True), NoVerdict(message="?", final_after=5)]),
        before=st.sampled_from([0, lifecycle.GONE_LIMIT - 1]),
    )
    def provider_denies(self, life: Life, denial: NoVerdict, before: int) -> None:
        write(lifecycle.no_verdict, replace(life.claim, refusals=before), denial)
        is_final = before + 1 >= lifecycle.GONE_LIMIT
        if life.claim.finished and is_final:
            life.come_to_nothing("provider_failed")
            return
        life.given_up = life.given_up or is_final or life.claim.finished
        if is_final:
            life.finish_free("provider_failed", watch=True)
        life.put_down()

    @about(BEING_STOPPED, confirmed=st.booleans())
    def provider_says_whether_it_stops(self, life: Life, confirmed: bool) -> None:
        self.is_asked_to_stop(life, confirmed=confirmed)

    def is_asked_to_stop(self, life: Life, *, confirmed: bool) -> None:
        write(lifecycle.cancel_answered, life.claim, confirmed=confirmed)
        if confirmed:
            life.come_to_nothing("canceled")
        else:
            life.put_down()
            life.finish_canceled()

    # ------------------------------------------------------------ store

    @about(STORING)
    def all_is_stored(self, life: Life) -> None:
        self.stores(life)

    def stores(self, life: Life) -> None:
        rest = set(range(1, life.outputs + 1)) - life.stored
        write(lifecycle.stored, life.claim, [picture(number) for number in sorted(rest)])
        life.stored |= rest
        life.succeed()

    @about(STORING, number=st.none() | st.integers(1, 2), never=st.booleans())
    def not_all_is_stored(self, life: Life, number: int | None, never: bool) -> None:
        new = {number} - life.stored if number is not None and number <= life.outputs else set()
        life.stored |= new
        life.late = life.late or (bool(new) and life.end is not None)
        results = [picture(each) for each in new]
        if not never:
            write(lifecycle.partly_stored, life.claim, results)
            life.put_down()
            return
        write(lifecycle.unstorable, life.claim, results, "404")
        self.is_unstorable(life)

    def is_unstorable(self, life: Life) -> None:
        if not life.finish((Status.FAILED, "storage_failed", 0)):
            life.forget()

    @about(STORING, expired=st.booleans())
    def source_is_gone(self, life: Life, expired: bool) -> None:
        write(lifecycle.source_gone, life.claim, [], "404", expired=expired)
        if life.asked_anew:  # not twice within so short a time
            self.is_unstorable(life)
            return
        life.put_down(Step.POLL)
        life.anew, life.given_up, life.overdue = True, True, False
        life.asked_anew += 1

    @about(ASKED_ANEW)
    def provider_names_new_addresses(self, life: Life) -> None:
        self.names_new_addresses(life)

    def names_new_addresses(self, life: Life) -> None:
        fresh = replace(PICTURE, url=f"{PICTURE.url}?{life.asked_anew}")
        write(lifecycle.asked_anew, life.claim, Succeeded(outputs=(fresh,) * life.outputs))
        life.put_down(Step.STORE)
        life.anew = False

    @about(
        ASKED_ANEW,
        said=st.sampled_from(
            [Failed(code="internal", message="no"), NoVerdict(message="?", gone=True), Succeeded()]
        ),
        again=st.sampled_from(
            [Running(progress=1), NoVerdict(message="?"), NoVerdict(message="?", gone=True), None]
        ),
    )
    def provider_names_no_new_addresses(self, life: Life, said: Any, again: Any) -> None:
        if again is not None:
            write(lifecycle.asked_anew, life.claim, again)
            life.put_down()
            return
        write(lifecycle.asked_anew, replace(life.claim, refusals=lifecycle.GONE_LIMIT - 1), said)
        self.is_unstorable(life)

    # ------------------------------------------------------------ what holds after every step

    def by_id(self, job_id: str) -> Life:
        return next(life for life in self.lives if life.id == job_id)

    @invariant()
    def all_is_as_expected(self) -> None:
        if not hasattr(self, "lives"):
            return
        with transaction() as session:
            rows = {
                job.id: job for job in session.scalars(select(Job).where(Job.user_id == self.actor.user_id))
            }
            steps = {step.job_id: step for step in session.scalars(select(JobStep))}
            counts = {what: self.counted(session, what) for what in _COUNTED}
            balance = credits.balance(session, self.actor.user_id)
            total = doctor.totals(session)
        assert (total.leaked, total.stuck, total.unsettled) == (0, (), 0)
        assert set(rows) == {life.id for life in self.lives}
        for life in self.lives:
            self.is_as_expected(
                life, rows[life.id], steps.get(life.id), {k: v[life.id] for k, v in counts.items()}
            )
        live = [life for life in self.lives if life.end is None]
        charged = sum(life.end[2] for life in self.lives if life.end is not None)
        self.available = CREDITS - charged - PRICE * len(live)
        assert balance == Balance(self.available, PRICE * len(live))
        assert (
            sum(step.slots for step in steps.values() if step.account_id and step.step != Step.STORE) <= SLOTS
        )
        assert set(self.sends.values()) <= {1}

    def counted(self, session: Any, what: str) -> Counter[str]:
        model, condition = _COUNTED[what]
        query = select(model.job_id, func.count()).where(condition).group_by(model.job_id)
        return Counter(dict(session.execute(query).all()))

    def is_as_expected(self, life: Life, job: Job, step: JobStep | None, count: dict[str, int]) -> None:
        code = (job.error or {}).get("code")
        assert (job.status, job.late, job.output is not None) == (life.status, life.late, life.words)
        assert count["artifacts"] == len(life.stored)
        assert (step.step if step else None) == life.step
        assert (count["settlements"], count["webhooks"]) == ((1, 1) if life.end is not None else (0, 0))
        assert count["undecided"] == (life.at_provider and life.step in (Step.SUBMIT, Step.RECONCILE))
        if life.end is not None:
            assert (job.status, code, job.charged) == life.end
            assert job.status in TERMINAL
            assert job.finished_at is not None
        else:
            assert (code, job.charged, job.finished_at) == (None, None, None)
        if step is not None:
            assert (step.lease_token is not None) == (life.claim is not None)
            assert (step.cancel_at is not None) == life.cancel
            assert (step.account_id is not None) == (life.at_provider or life.anew or life.step is Step.STORE)
            assert (step.slots == 0) == life.given_up


_COUNTED: dict[str, tuple[Any, Any]] = {
    "settlements": (LedgerEntry, LedgerEntry.kind.in_(("capture", "release"))),
    "webhooks": (WebhookDelivery, WebhookDelivery.type.like("job.%")),
    "artifacts": (Artifact, Artifact.number > 0),
    "undecided": (JobAttempt, JobAttempt.outcome.in_(UNDECIDED)),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("lives", [8, pytest.param(60, marks=pytest.mark.chaos)])
def test_any_life_ends_once_and_is_settled_once(
    make_actor: Callable[..., Actor], make_account: Callable[..., str], lives: int
) -> None:
    make_account(limit=SLOTS)
    machine: Any = type("Machine", (Lives,), {"make_actor": staticmethod(make_actor)})
    bounds = settings(max_examples=lives, stateful_step_count=25, suppress_health_check=list(HealthCheck))
    run_machine(machine, settings=bounds)
