"""Films through OpenAI's API: `client.videos` of its SDK. A video is a job of one of our video models."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response
from werkzeug.urls import iri_to_uri

from common.db import reading, transaction
from common.errors import Conflict, InvalidInput, NotFound
from common.providers.base import ModelSpec
from common.providers.registry import MODELS
from common.services import jobs
from common.services.jobs import NewJob, Once
from common.services.presentation import artifact_object
from common.services.users import Actor
from common.words import TERMINAL, Status
from web import schemas, shapes
from web.answers import REPLAYED, answer, listing
from web.api.openai_mapping import DIALECT, model_of, new_job, size_of
from web.api.submissions import HEADERS, once
from web.endpoints import Access, endpoint

POLL_AFTER_MS = 2000
VIDEO_MODELS = tuple(model for model, spec in MODELS.items() if spec.kind == "video")
_STATUSES = {
    Status.QUEUED: "queued",
    Status.SUCCEEDED: "completed",
    Status.FAILED: "failed",
    Status.CANCELED: "failed",
}

blueprint = Blueprint("openai_videos", __name__, url_prefix="/v1/videos")


# ---------------------------------------------------------------- make


@blueprint.post("")
@endpoint(access=Access.SUBMITTER, body=schemas.OpenAIVideo, as_form=True, returns=shapes.OpenAIVideo, errors=(402,),
          headers=HEADERS)  # fmt: skip
def create(actor: Actor, body: schemas.OpenAIVideo) -> Response:
    """Make a film; JSON or a form with a file.

    What the model takes beside OpenAI's parameters is given beside them (`extra_body` of the SDK).
    """
    spec = model_of(body.model, "video")
    given = {
        **(body.model_extra or {}),
        "prompt": body.prompt,
        **_reference(spec, body.input_reference),
        **_seconds(spec, body.seconds),
        **size_of(spec, body.size),
    }
    told = {name: value for name, value in (("size", body.size), ("seconds", body.seconds)) if value}
    key = once("POST /v1/videos", body.model_dump(exclude_unset=True))
    return _accepted(actor, new_job(spec, given, told), key)


def _reference(spec: ModelSpec, said: Any) -> dict[str, Any]:
    """The first frame: a file, an address, or an upload of ours."""
    if said is None:
        return {}
    if "image" not in spec.input_schema["properties"]:
        raise InvalidInput("This model begins with no picture.", param="input_reference")
    value = said if isinstance(said, str) else said.get("image_url") or said.get("file_id")
    if not isinstance(value, str):
        raise InvalidInput(
            "Give a file, or an object with `image_url` or `file_id`.", param="input_reference"
        )
    return {"image": value}


def _seconds(spec: ModelSpec, said: str | None) -> dict[str, Any]:
    if said is None:
        return {}
    if not said.isdecimal():
        raise InvalidInput("A whole number of seconds, as text.", param="seconds")
    if "duration_s" not in spec.input_schema["properties"]:
        raise InvalidInput("This model's films have their own length.", param="seconds")
    return {"duration_s": int(said)}


def _accepted(actor: Actor, new: NewJob, key: Once | None) -> Response:
    with transaction() as session:
        job, replayed = jobs.accept(session, actor, new, key)
    headers = {
        "openai-poll-after-ms": str(POLL_AFTER_MS),
        **(REPLAYED if replayed else {}),
    }
    return answer(_one(actor, job.id), 200, headers)


@blueprint.post("/<video_id>/remix")
@endpoint(access=Access.SUBMITTER, body=schemas.OpenAIRemix, returns=shapes.OpenAIVideo, errors=(402, 404),
          headers=HEADERS)  # fmt: skip
def remix(actor: Actor, video_id: str, body: schemas.OpenAIRemix) -> Response:
    """Make a film as another one, from another prompt."""
    with reading() as session:
        before = _own(session, actor, video_id)
    spec = model_of(before.model, "video")
    # What continues another job goes on continuing that one.
    parent_id = before.parent_id if spec.follows else before.id
    new = new_job(spec, {**before.input, "prompt": body.prompt}, _told(before), parent_id=parent_id)
    return _accepted(actor, new, once(f"POST /v1/videos/{video_id}/remix", body.model_dump()))


# ---------------------------------------------------------------- show, list, fetch, delete


@blueprint.get("/<video_id>")
@endpoint(access=Access.USER, returns=shapes.OpenAIVideo, errors=(404,))
def retrieve(actor: Actor, video_id: str) -> Response:
    """Show a film; `openai-poll-after-ms` says when to look again."""
    return answer(_one(actor, video_id), 200, {"openai-poll-after-ms": str(POLL_AFTER_MS)})


@blueprint.get("")
@endpoint(access=Access.USER, query=schemas.OpenAIVideosQuery, returns=shapes.OpenAIVideo, many=True)
def index(actor: Actor, query: schemas.OpenAIVideosQuery) -> dict[str, Any]:
    """List your films, newest first, or oldest first with `order=asc`."""
    with reading() as session:
        found, has_more = jobs.page(
            session, actor, status=None, model=None, models=VIDEO_MODELS, limit=query.limit, after=query.after,
            oldest_first=query.order == "asc",
        )  # fmt: skip
        artifacts = jobs.artifacts(session, [job.id for job in found])
        shown = [_video(job, artifacts[job.id]) for job in found]
    ends = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
    return {**listing(shown, has_more=has_more), **ends}


@blueprint.get("/<video_id>/content")
@endpoint(access=Access.USER, query=schemas.OpenAIContentQuery, also=(302,), errors=(404, 409))
def content(actor: Actor, video_id: str, query: schemas.OpenAIContentQuery) -> Response:
    """Fetch a film: leads to its address in the operator's storage."""
    with reading() as session:
        job = _own(session, actor, video_id)
        found = jobs.artifacts(session, [job.id])[job.id]
    if job.status not in TERMINAL:
        raise Conflict("This film is not finished yet.")
    films = [artifact for artifact in found if artifact.kind == "video"]
    if query.variant != "video" or not films:
        raise NotFound(f"There is no {query.variant} of this film.")
    return Response(status=302, headers={"Location": iri_to_uri(artifact_object(films[0])["url"])})


@blueprint.delete("/<video_id>")
@endpoint(access=Access.USER, returns=shapes.OpenAIDeletedVideo, errors=(404, 409))
def delete(actor: Actor, video_id: str) -> dict[str, Any]:
    """Delete a film that is finished."""
    with transaction() as session:
        jobs.delete(session, actor, _own(session, actor, video_id).id)
    return {"id": video_id, "object": "video.deleted", "deleted": True}


def _own(session: Any, actor: Actor, video_id: str) -> Any:
    job = jobs.get(session, actor, video_id)
    if job.model not in VIDEO_MODELS:
        raise NotFound("There is no such video.")
    return job


def _one(actor: Actor, video_id: str) -> dict[str, Any]:
    with reading() as session:
        job = _own(session, actor, video_id)
        return _video(job, jobs.artifacts(session, [job.id])[job.id])


def _told(job: Any) -> dict[str, Any]:
    """What its client said of size and length; the metadata of any other job are its user's own."""
    return (job.metadata_ or {}) if job.dialect == DIALECT else {}


def _video(job: Any, artifacts: Any) -> dict[str, Any]:
    """A job as the SDK parses a video."""
    film = next((artifact for artifact in artifacts if artifact.kind == "video"), None)
    told = _told(job)
    size = f"{film.width}x{film.height}" if film and film.width and film.height else told.get("size")
    seconds = told.get("seconds") or job.input.get("duration_s") or (film.duration_s if film else None)
    error = job.error and {"code": job.error["code"], "message": job.error["message"]}
    return {
        "id": job.id,
        "object": "video",
        "model": job.model,
        "status": _STATUSES.get(Status(job.status), "in_progress"),
        "progress": job.progress,
        "created_at": int(job.created_at.timestamp()),
        "completed_at": int(job.finished_at.timestamp()) if job.status == Status.SUCCEEDED else None,
        "expires_at": None,
        "error": error,
        "prompt": job.input.get("prompt"),
        "remixed_from_video_id": job.parent_id,
        "seconds": f"{float(seconds):g}" if seconds else "",
        "size": size or "",
    }
