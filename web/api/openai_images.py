"""Pictures through OpenAI's API: `client.images.generate` and `client.images.edit` of its SDK.

The call is held until the pictures are there. One that would take too long is answered 409 with the ids of the jobs,
which go on; one that fails is answered with the job's own error. The SDK is to repeat neither: `x-should-retry: false`.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response

from common.db import reading, transaction
from common.errors import InvalidInput, StorageUnavailable, TooLarge, Unavailable
from common.providers.base import ModelSpec
from common.services import jobs
from common.services.jobs import NewJob, Once
from common.services.presentation import artifact_object
from common.services.users import Actor
from common.storage import storage
from common.words import TERMINAL, ErrorCode, Status
from web import schemas, shapes
from web.answers import REPLAYED, answer, error_object
from web.api.openai_mapping import model_of, new_job, require_neutral, size_of
from web.api.submissions import HEADERS, once_each
from web.endpoints import Access, endpoint
from web.live import until_finished

HOLD_S = 50.0  # Heroku's router gives up after 55
MOST_BYTES = 32 * 1024 * 1024  # of a picture that is answered in base64
MOST_CHARACTERS = 64 * 1024 * 1024  # of the inputs of all jobs that one call makes: each has its own copy
NO_RETRY = {"x-should-retry": "false"}
_NOT_OURS = ("background", "complexity", "frame_count", "frame_duration_ms", "input_fidelity", "markup", "moderation",
             "output_compression", "partial_images", "quality", "stream", "style", "svg")  # fmt: skip
_BAD = (ErrorCode.CONTENT_MODERATED, ErrorCode.INVALID_INPUT)

blueprint = Blueprint("openai_images", __name__, url_prefix="/v1/images")


@blueprint.post("/generations")
@endpoint(access=Access.SUBMITTER, body=schemas.OpenAIImage, returns=shapes.OpenAIImages, errors=(402, 409, 424),
          headers=HEADERS)  # fmt: skip
def generate(actor: Actor, body: schemas.OpenAIImage) -> Response:
    """Make pictures and answer with their addresses, or with themselves in base64.

    What the model takes beside OpenAI's parameters is given beside them (`extra_body` of the SDK).
    """
    spec = model_of(body.model, "image")
    return _made(actor, "POST /v1/images/generations", spec, body, {})


@blueprint.post("/edits")
@endpoint(access=Access.SUBMITTER, body=schemas.OpenAIImageEdit, as_form=True, returns=shapes.OpenAIImages,
          errors=(402, 409, 424), headers=HEADERS)  # fmt: skip
def edit(actor: Actor, body: schemas.OpenAIImageEdit) -> Response:
    """The same from pictures: `image` (one or several), `mask`."""
    spec = model_of(body.model, "image")
    fields = spec.input_schema["properties"]
    several = body.image if isinstance(body.image, list) else [body.image]
    if "image" in fields and len(several) == 1:
        media: dict[str, Any] = {"image": several[0]}
    elif "images" in fields:
        media = {"images": several}
    else:
        raise InvalidInput("This model takes no pictures, or only one.", param="image")
    return _made(actor, "POST /v1/images/edits", spec, body, {**media, "mask": body.mask})


def _made(
    actor: Actor, route: str, spec: ModelSpec, body: schemas.OpenAIImage, media: dict[str, Any]
) -> Response:
    more = body.model_extra or {}
    require_neutral(more, *_NOT_OURS)
    own = {name: value for name, value in more.items() if name not in _NOT_OURS}
    fields = spec.input_schema["properties"]
    formats = {"output_format": body.output_format} if "output_format" in fields else {}
    given = {"prompt": body.prompt, **size_of(spec, body.size), **formats, **own, **media}
    if body.n > 1 and "n" in fields:
        wanted = [new_job(spec, {**given, "n": body.n}, {})]
    else:
        wanted = [new_job(spec, given, {})] * body.n
    _require_bearable(wanted)
    keys = once_each(route, body.model_dump(exclude_unset=True), len(wanted))
    job_ids, replayed = _accept(actor, list(zip(wanted, keys, strict=True)))
    headers = {**NO_RETRY, **(REPLAYED if replayed else {})}
    return _awaited(actor, job_ids, body.response_format, headers)


def _require_bearable(wanted: Sequence[NewJob]) -> None:
    """Raises TooLarge for a file that one call would write down many times."""
    if len(wanted) > 1 and len(wanted) * _characters(wanted[0].input) > MOST_CHARACTERS:
        raise TooLarge(
            f"{len(wanted)} jobs with a copy each of what was sent are too much; send the file to POST /v1/uploads "
            "and give its id instead, or ask for fewer pictures.", param="n",
        )  # fmt: skip


def _characters(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    if isinstance(value, list):
        return sum(map(_characters, value))
    return len(value) if isinstance(value, str) else 0


def _accept(actor: Actor, wanted: Sequence[tuple[NewJob, Once | None]]) -> tuple[list[str], bool]:
    """All of them or none; those of the first try where this is a repeat of it."""
    with transaction() as session:
        made = [jobs.accept(session, actor, new, key) for new, key in wanted]
    return [job.id for job, _ in made], all(replayed for _, replayed in made)


def _awaited(actor: Actor, job_ids: Sequence[str], form: str, headers: dict[str, str]) -> Response:
    end = time.monotonic() + HOLD_S
    for job_id in job_ids:
        until_finished(job_id, max(0.0, end - time.monotonic()))
    with reading() as session:
        found = [jobs.get(session, actor, job_id) for job_id in job_ids]
        artifacts = jobs.artifacts(session, list(job_ids))
    waiting = [job.id for job in found if job.status not in TERMINAL]
    if waiting:
        message = f"Not finished yet: {', '.join(waiting)}. It goes on; see GET /v1/jobs/{waiting[0]}."
        return answer(error_object("not_finished", "conflict", message), 409, headers)
    for job in found:
        if job.status != Status.SUCCEEDED:
            error = job.error or {"code": "canceled", "message": "The job was canceled."}
            status, kind = (400, "invalid_request") if error["code"] in _BAD else (424, "failed")
            return answer(error_object(error["code"], kind, f"{job.id}: {error['message']}"), status, headers)
    shown = [_shown(artifact, form) for job in found for artifact in artifacts[job.id]]
    created = int(min(job.created_at for job in found).timestamp())
    return answer({"created": created, "data": shown}, 200, headers)


def _shown(artifact: Any, form: str) -> dict[str, Any]:
    if form != "b64_json":
        return {"url": artifact_object(artifact)["url"]}
    try:
        content = storage().read(artifact.key, MOST_BYTES)
    except StorageUnavailable as error:
        raise Unavailable(f"The picture is stored, but cannot be read just now: {error}") from None
    if content is None:
        raise Unavailable("The picture is not in the storage any more.")
    return {"b64_json": base64.b64encode(content).decode()}
