"""Jobs by the clock."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from common.db import reading, transaction
from common.services import schedules
from common.services.presentation import schedule_object
from common.services.schedules import Timing
from common.services.users import Actor
from web import rates, schemas, shapes
from web.answers import JsonResponse, listing
from web.endpoints import Access, endpoint

blueprint = Blueprint("schedules", __name__, url_prefix="/v1/schedules")


@blueprint.post("")
@endpoint(access=Access.USER, body=schemas.NewSchedule, returns=shapes.Schedule, status=201, errors=(409,))
def create(actor: Actor, body: schemas.NewSchedule) -> dict[str, Any]:
    """Have a job submitted again and again: by cron in a time zone, or every so many seconds.

    Each due time makes one job, at the price of its day; one that cannot be accepted is told in `last_error`. These
    jobs do not count for rate limits, so a token that has one cannot make or change schedules.
    """
    rates.refuse_limited_token(actor)
    when = Timing(cron=body.cron, interval_s=body.interval_s, timezone=body.timezone)
    with transaction() as session:
        made = schedules.create(
            session, actor, name=body.name, when=when, job=body.job.model_dump(exclude_unset=True),
            enabled=body.enabled, catch_up=body.catch_up,
        )  # fmt: skip
        return schedule_object(made, schedules.next_runs(made))


@blueprint.get("")
@endpoint(access=Access.USER, query=schemas.PageQuery, returns=shapes.Schedule, many=True)
def index(actor: Actor, query: schemas.PageQuery) -> dict[str, Any]:
    """List your schedules, newest first."""
    with reading() as session:
        found, has_more = schedules.page(session, actor, limit=query.limit, after=query.after)
        shown = [schedule_object(each, schedules.next_runs(each)) for each in found]
    return listing(shown, has_more=has_more)


@blueprint.get("/<schedule_id>")
@endpoint(access=Access.USER, returns=shapes.Schedule, errors=(404,))
def one(actor: Actor, schedule_id: str) -> dict[str, Any]:
    """Show a schedule and its next runs."""
    with reading() as session:
        found = schedules.get(session, actor, schedule_id)
        return schedule_object(found, schedules.next_runs(found))


@blueprint.patch("/<schedule_id>")
@endpoint(access=Access.USER, body=schemas.ScheduleChange, returns=shapes.Schedule, errors=(404,))
def change(actor: Actor, schedule_id: str, body: schemas.ScheduleChange) -> dict[str, Any]:
    """Change a schedule; what is absent stays."""
    rates.refuse_limited_token(actor)
    with transaction() as session:
        changed = schedules.change(session, actor, schedule_id, body.model_dump(exclude_unset=True))
        return schedule_object(changed, schedules.next_runs(changed))


@blueprint.delete("/<schedule_id>")
@endpoint(access=Access.USER, status=204, errors=(404,))
def delete(actor: Actor, schedule_id: str) -> Response:
    """Delete a schedule; jobs that it has submitted go on."""
    with transaction() as session:
        schedules.delete(session, actor, schedule_id)
    return JsonResponse(status=204)
