"""What looks at running jobs write down about their progress, a whole batch in one statement."""

from __future__ import annotations

import pytest

from common.db import transaction
from common.models import Job
from common.providers.base import Running
from common.services import claims, lifecycle
from common.services.claims import Claim
from common.services.users import Actor
from common.words import Step
from tests.integration.services.life import claim_poll, make_due, produce, run

A, B = "https://media.example/a.png", "https://media.example/b.png"


@pytest.mark.parametrize(
    ("looks", "progress", "preview_url"),
    [
        ([Running()], 0, None),
        ([Running(progress=40)], 40, None),
        ([Running(progress=40), Running(progress=30)], 40, None),  # it never goes back
        ([Running(progress=200)], 99, None),
        ([Running(preview_url=A)], 0, A),
        ([Running(progress=40, preview_url=A), Running(progress=50)], 50, A),
        ([Running(progress=40, preview_url=A), Running(progress=40, preview_url=B)], 40, B),
        ([Running(progress=40, preview_url=A), Running(progress=30, preview_url=B)], 40, B),
    ],
)
def test_progress_grows_and_the_latest_preview_stays(
    actor: Actor, looks: list[Running], progress: int, preview_url: str | None
) -> None:
    job_id, claim = run(actor)
    for number, seen in enumerate(looks):
        look(claim if number == 0 else claim_poll(), seen)
    assert shown(job_id) == (progress, preview_url)


def test_a_batch_tells_each_job_its_own(actor: Actor) -> None:
    for _ in range(3):
        run(actor)
    make_due()
    with transaction() as session:
        due = claims.due(session, Step.POLL, 10)
        looked = [(claim, Running(progress=number)) for number, claim in enumerate(due, 1)]
        lifecycle.still_running(session, looked)
    assert [shown(claim.job_id) for claim in due] == [(1, None), (2, None), (3, None)]


def test_a_job_that_runs_no_more_keeps_what_it_has(actor: Actor) -> None:
    job_id, claim = run(actor)
    produce(claim)
    look(claim, Running(progress=50, preview_url=A))
    assert shown(job_id) == (99, None)


def look(claim: Claim, seen: Running) -> None:
    with transaction() as session:
        lifecycle.still_running(session, [(claim, seen)])


def shown(job_id: str) -> tuple[int, str | None]:
    with transaction() as session:
        job = session.get_one(Job, job_id)
        return job.progress, job.preview_url
