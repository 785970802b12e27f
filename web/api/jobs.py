"""Jobs: submit, show, list, cancel."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from common.db import reading, transaction
from common.errors import InvalidInput
from common.services import catalog, jobs
from common.services.jobs import NewJob
from common.services.presentation import job_object
from common.services.users import Actor
from common.words import TERMINAL
from web import schemas, shapes
from web.answers import JsonResponse, answer, listing
from web.api.submissions import HEADERS, once, options, show, submit
from web.endpoints import Access, endpoint
from web.live import until_finished
from web.waiting import preferred_wait_s

CANCEL_WAIT_S = 3.0  # long enough for a worker to ask the provider
blueprint = Blueprint("jobs", __name__, url_prefix="/v1/jobs")


@blueprint.post("")
@endpoint(access=Access.SUBMITTER, body=schemas.NewJob, returns=shapes.Job, status=202, also=(200,), errors=(402, 429),
          headers=HEADERS)  # fmt: skip
def create(actor: Actor, body: schemas.NewJob) -> Response:
    """Submit a job.

    The credits it costs are held at once and settled when it is finished. `Idempotency-Key` makes a repeat safe;
    `Prefer: wait=N` holds the answer until the job is finished (200) or N seconds are over (202).
    """
    new = NewJob(model=body.model, input=body.input, parent_id=body.parent_id, **options(body))
    key = once("POST /v1/jobs", body.model_dump(exclude_unset=True))
    return submit(actor, key, lambda session: jobs.accept(session, actor, new, key))


@blueprint.get("")
@endpoint(access=Access.USER, query=schemas.JobsQuery, returns=shapes.Job, many=True)
def index(actor: Actor, query: schemas.JobsQuery) -> dict[str, Any]:
    """List your jobs, newest first."""
    if query.model is not None and not catalog.is_known(query.model):
        raise InvalidInput("There is no such model.", param="model")
    with reading() as session:
        found, has_more = jobs.page(
            session, actor, status=query.status, model=query.model, limit=query.limit, after=query.after
        )
        artifacts = jobs.artifacts(session, [job.id for job in found])
        return listing([job_object(job, artifacts[job.id]) for job in found], has_more=has_more)


@blueprint.get("/<job_id>")
@endpoint(access=Access.USER, returns=shapes.Job, errors=(404,), headers=("Prefer",))
def one(actor: Actor, job_id: str) -> Response:
    """Show a job; `Prefer: wait=N` holds the answer until it is finished or N seconds are over."""
    shown = show(actor, job_id)
    wait_s = preferred_wait_s()
    if not wait_s:
        return answer(shown)
    if shown["status"] not in TERMINAL and until_finished(job_id, wait_s):
        shown = show(actor, job_id)
    return answer(shown, 200, {"Preference-Applied": f"wait={wait_s}"})


@blueprint.delete("/<job_id>")
@endpoint(access=Access.USER, status=204, errors=(404, 409))
def delete(actor: Actor, job_id: str) -> Response:
    """Delete a finished job and its results; one that is not finished answers 409. What it cost stays in the ledger."""
    with transaction() as session:
        jobs.delete(session, actor, job_id)
    return JsonResponse(status=204)


@blueprint.post("/<job_id>/cancel")
@endpoint(access=Access.USER, returns=shapes.Job, errors=(404, 409))
def cancel(actor: Actor, job_id: str) -> dict[str, Any]:
    """Cancel a job. A finished one answers 409.

    Before a provider has accepted it, or where the provider confirms the cancel, nothing is charged.
    """
    with transaction() as session:
        status = jobs.cancel(session, actor, job_id).status
    if status not in TERMINAL:
        until_finished(job_id, CANCEL_WAIT_S)
    return show(actor, job_id)
