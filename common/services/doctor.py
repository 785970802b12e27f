"""Is the platform well? The same figures for the `doctor` command and for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from common import clock
from common.models import Job, JobStep, ProviderAccount
from common.services import credits
from common.services.accounts import BREAKER_THRESHOLD
from common.settings import settings
from common.words import TERMINAL, Step

_STEPS = (Step.SUBMIT, Step.RECONCILE, Step.POLL, Step.STORE)
_STALE_S = 60.0
_STORAGE_STALE_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What can be counted cheaply at any time. Ages are in seconds, 0 where nothing waits."""

    jobs_by_step: dict[str, int]
    overdue_s: dict[str, float]  # by step: how long the oldest due row has been waiting for a worker
    slots_used: dict[str, int]  # by account name
    slots_limit: dict[str, int]
    breakers_open: tuple[str, ...]


def figures(session: Session) -> Figures:
    """The present figures; a handful of small queries over the live work only."""
    now = clock.epoch()
    counts = dict(session.execute(select(JobStep.step, func.count()).group_by(JobStep.step)).all())
    oldest = dict(
        session.execute(select(JobStep.step, func.min(JobStep.due_at)).group_by(JobStep.step)).all()
    )
    used = dict(
        session.execute(
            select(JobStep.account_id, func.sum(JobStep.slots))
            .where(JobStep.account_id.is_not(None), JobStep.step != Step.STORE)
            .group_by(JobStep.account_id)
        ).all()
    )
    accounts = session.scalars(select(ProviderAccount).where(ProviderAccount.enabled)).all()
    return Figures(
        jobs_by_step={step: counts.get(step, 0) for step in _STEPS},
        overdue_s={step: max(0.0, now - oldest[step]) if step in oldest else 0.0 for step in _STEPS},
        slots_used={account.name: int(used.get(account.id, 0)) for account in accounts},
        slots_limit={account.name: account.max_concurrency for account in accounts},
        breakers_open=tuple(
            account.name
            for account in accounts
            if account.failures >= BREAKER_THRESHOLD or account.open_until > now + _STALE_S
        ),
    )


def findings(session: Session) -> list[str]:
    """What is wrong, a line each; empty when all is well."""
    seen = figures(session)
    lines = [
        f"{step}: the oldest due work has waited {age:.0f} s for a worker"
        for step, age in seen.overdue_s.items()
        if step in (Step.POLL, Step.RECONCILE) and age > _STALE_S
    ]
    if seen.overdue_s[Step.STORE] > _STORAGE_STALE_S:
        lines.append(f"storage: results have waited {seen.overdue_s[Step.STORE]:.0f} s to be stored")
    lines += [f"account {name}: {used} slots in use of {seen.slots_limit[name]}"
              for name, used in seen.slots_used.items() if used > seen.slots_limit[name]]  # fmt: skip
    lines += [f"account {name}: paused after repeated trouble" for name in seen.breakers_open]
    lines += _ambiguous(session) + _leaked(session)
    return lines + [f"ledger: {line}" for line in credits.verify(session)]


def _ambiguous(session: Session) -> list[str]:
    """Lost submits that should have been decided by now."""
    late = clock.epoch() - settings().reconcile_window_s - _STALE_S
    overdue = session.scalar(
        select(func.count())
        .select_from(JobStep)
        .where(
            JobStep.step == Step.RECONCILE,
            JobStep.created_at < late,
            JobStep.due_at < clock.epoch() - _STALE_S,
        )
    )
    return [f"{overdue} lost submits are undecided past the reconciliation window"] if overdue else []


def _leaked(session: Session) -> list[str]:
    """Slots held for jobs that are over and not watched, and live jobs that nothing will ever move."""
    leaked = session.scalar(
        select(func.count())
        .select_from(JobStep)
        .join(Job, Job.id == JobStep.job_id)
        .where(Job.status.in_(TERMINAL), JobStep.step.in_((Step.SUBMIT, Step.RECONCILE)))
    )
    stuck = session.scalars(
        select(Job.id)
        .outerjoin(JobStep, JobStep.job_id == Job.id)
        .where(Job.finished_at.is_(None), JobStep.job_id.is_(None))
        .limit(20)
    ).all()
    lines = [f"{leaked} slots are held for jobs that are over"] if leaked else []
    return lines + [f"job {job_id}: live, but nothing is waiting to move it" for job_id in stuck]
