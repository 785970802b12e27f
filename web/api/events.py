"""What happens to a job: live, as Server-Sent Events, and afterwards, as its timeline."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from flask import Blueprint, Response, request

from common.clock import iso
from common.db import again, reading
from common.live import State
from common.services import jobs, timeline
from common.services.users import Actor
from web import live, shapes
from web.answers import listing
from web.endpoints import Access, endpoint
from web.live import Watch
from web.waiting import stopping

HEARTBEAT_S = 15.0  # Heroku's router ends what is silent for 55 s
LONGEST_S = 3600.0
_RETRY_MS = 2000
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
blueprint = Blueprint("events", __name__, url_prefix="/v1/jobs")


@blueprint.get("/<job_id>/events")
@endpoint(
    access=Access.USER, returns=shapes.JobEvent, also=(204,), errors=(404, 503), headers=("Last-Event-ID",)
)
def stream(actor: Actor, job_id: str) -> Response:
    """Watch a job: `status`, `progress` and `preview` events until it is finished.

    Each holds the job's whole present state, and the stream begins with it. With `Last-Event-ID` it begins where that
    left off; 204 when nothing can follow any more.
    """
    seen = request.headers.get("Last-Event-ID")

    def read() -> State:
        def once() -> State:
            with reading() as session:
                return jobs.state(jobs.get(session, actor, job_id))

        return again(once)

    with ExitStack() as stack:
        watch = stack.enter_context(live.view(job_id, read))
        state = watch.now()[1]
        if state.is_last and _id(state) == seen:
            return Response(status=204, headers=_HEADERS)
        viewing = stack.pop_all()
    made = Response(_events(job_id, watch, seen), mimetype="text/event-stream", headers=_HEADERS)
    made.call_on_close(viewing.close)
    return made


def _events(job_id: str, watch: Watch, seen: str | None) -> Iterator[str]:
    """The stream's text. It also ends after an hour and when this process stops: the client comes back by itself."""
    end = time.monotonic() + LONGEST_S
    number, state = watch.now()
    yield f"retry: {_RETRY_MS}\n\n"
    if _id(state) != seen:
        yield _event(job_id, "status", state)
    while not state.is_last and not stopping.is_set() and time.monotonic() < end:
        number, changes = watch.since(number, HEARTBEAT_S)
        if not changes:
            yield ": still there\n\n"
        for change in changes:
            yield _event(job_id, _kind(state, change), change)
            state = change


def _kind(before: State, state: State) -> str:
    if state.status != before.status:
        return "status"
    return "preview" if state.preview_url != before.preview_url else "progress"


def _event(job_id: str, kind: str, state: State) -> str:
    data = {"id": job_id, "object": "job.event", "status": state.status, "progress": state.progress,
            "preview_url": state.preview_url}  # fmt: skip
    return f"event: {kind}\nid: {_id(state)}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


def _id(state: State) -> str:
    """Says what the viewer has seen, so that any process can go on from there, and nothing need be kept for it."""
    preview = f"-{zlib.crc32(state.preview_url.encode()):x}" if state.preview_url else ""
    return f"{state.status}-{state.progress}{preview}"


@blueprint.get("/<job_id>/timeline")
@endpoint(access=Access.USER, returns=shapes.Moment, many=True, errors=(404,))
def moments(actor: Actor, job_id: str) -> dict[str, Any]:
    """Show what has happened to a job: attempts, the provider's verdicts, results, credits, webhooks."""
    with reading() as session:
        told = timeline.of_job(session, jobs.get(session, actor, job_id))
    return listing(
        [
            {
                "object": "moment",
                "at": iso(moment.at),
                "kind": moment.kind,
                "message": moment.message,
                "attempt": moment.attempt,
                "data": moment.data,
            }
            for moment in told
        ]
    )
