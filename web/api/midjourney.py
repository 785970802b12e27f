"""The protocol of midjourney-proxy servers, for clients that were written for one.

Facts: fact sheet midjourney_proxy.md. Submits are answered with HTTP 200 also where they are refused: `code` tells. All
routes exist once more under `/mj-fast`, `/mj-relax` and `/mj-turbo`, which choose the speed (section 1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from flask import Blueprint, Response

from common.db import reading, transaction
from common.errors import AppError, InsufficientCredits, InvalidInput, Kind, NotFound
from common.services import jobs, midjourney_tasks
from common.services.jobs import NewJob, Once
from common.services.midjourney_tasks import DIALECT, WINDOW_ROUTE, task_object, window_object
from common.services.users import Actor
from web import schemas, shapes
from web.answers import answer
from web.api.submissions import HEADERS, fingerprint, once
from web.endpoints import Access, endpoint
from web.errors import app_error

SPEEDS = ("fast", "relax", "turbo")
MOST_LISTED = 100  # tasks of /task/list, as the newer family has it
_ACCEPTED, _WINDOW, _NOT_FOUND, _INVALID = 1, 21, 3, 4  # section 4
_IN_HTTP = (Kind.UNAUTHENTICATED, Kind.FORBIDDEN, Kind.LIMITED, Kind.UNAVAILABLE, Kind.TOO_LARGE)
_BOTS = {"mj": "MID_JOURNEY", "niji": "NIJI_JOURNEY"}
_RATIOS = {"PORTRAIT": "2:3", "SQUARE": "1:1", "LANDSCAPE": "3:2"}
_SPEED_FLAG = re.compile(r"\s*(?:--|—|–)\s*(fast|relax|turbo)\b", re.IGNORECASE)
_CHANGES = {"UPSCALE": "upsample", "VARIATION": "variation"}
_SIMPLE = re.compile(r"(\S+) +(?:([UV])([1-4])|R)", re.IGNORECASE)

submits = Blueprint("midjourney", __name__)
tasks = Blueprint("midjourney_tasks", __name__)


def _route(blueprint: Blueprint, method: str, path: str) -> Callable[[Any], Any]:
    """The route with and without a speed before it."""
    at_speed = f"/mj-<any({', '.join(SPEEDS)}):speed>/mj{path}"

    def decorate(view: Any) -> Any:
        name = view.__name__
        blueprint.add_url_rule(f"/mj{path}", name, view, methods=[method])
        blueprint.add_url_rule(at_speed, f"{name}_at_speed", view, methods=[method])
        return view

    return decorate


def _submit_route(path: str, body: type[schemas.MidjourneyBody]) -> Callable[[Any], Any]:
    def decorate(view: Any) -> Any:
        declared = endpoint(
            access=Access.SUBMITTER, body=body, returns=shapes.MidjourneySubmitted, headers=HEADERS
        )
        return _route(submits, "POST", f"/submit/{path}")(declared(view))

    return decorate


@submits.errorhandler(AppError)
def _refused(error: AppError) -> Response:
    """HTTP statuses for tokens, limits and outages, as such servers have them; a `code` for all else."""
    if error.kind in _IN_HTTP:
        return app_error(error)
    message = f"{error.param}: {error}" if error.param else str(error)
    if isinstance(error, InsufficientCredits):
        message = f"额度不足: {error}"  # what clients look for where a quota is spent
    code = _NOT_FOUND if error.kind is Kind.NOT_FOUND else _INVALID
    return answer({"code": code, "description": message, "result": None, "properties": {}})


# ---------------------------------------------------------------- submit


@_submit_route("imagine", schemas.MidjourneyImagine)
def imagine(actor: Actor, body: schemas.MidjourneyImagine, speed: str = "") -> dict[str, Any]:
    """Imagine. The speed comes from the path, from `accountFilter.modes`, or from a flag in the prompt."""
    flags = [flag.lower() for flag in _SPEED_FLAG.findall(body.prompt)]
    modes = body.accountFilter.modes if body.accountFilter else None
    wanted = [speed, *(mode.lower() for mode in modes or ()), *flags]
    pictures = [*(body.base64Array or ()), *([body.base64] if body.base64 else ())]
    given = {
        "prompt": _SPEED_FLAG.sub("", body.prompt).strip(),
        "images": pictures or None,
        "mode": next((mode for mode in wanted if mode in SPEEDS), None),
        "bot_type": _bot(body.botType),
    }
    return _accept(actor, body, "midjourney/imagine", given)


@_submit_route("change", schemas.MidjourneyChange)
def change(actor: Actor, body: schemas.MidjourneyChange, speed: str = "") -> dict[str, Any]:
    """Upscale, vary or reroll a grid (the older family's way)."""
    verb = body.action.upper()
    if verb not in (*_CHANGES, "REROLL"):
        raise InvalidInput("must be UPSCALE, VARIATION or REROLL", param="action")
    if verb != "REROLL" and body.index is None:
        raise InvalidInput("is required", param="index")
    return _follow(
        actor, body, body.taskId, f"{_CHANGES[verb]}_{body.index}" if verb in _CHANGES else "reroll"
    )


@_submit_route("simple-change", schemas.MidjourneySimpleChange)
def simple_change(actor: Actor, body: schemas.MidjourneySimpleChange, speed: str = "") -> dict[str, Any]:
    """The same in one text: `<task> U1`."""
    found = _SIMPLE.fullmatch(body.content.strip())
    if found is None:
        raise InvalidInput("must be a task's id, a blank, and one of U1 to U4, V1 to V4, R", param="content")
    verb = {"U": "upsample", "V": "variation"}.get((found[2] or "").upper())
    return _follow(actor, body, found[1], f"{verb}_{found[3]}" if verb else "reroll")


@_submit_route("action", schemas.MidjourneyAction)
def action(actor: Actor, body: schemas.MidjourneyAction, speed: str = "") -> dict[str, Any]:
    """Press a button. One that asks for something first is answered with code 21 and the id for /submit/modal."""
    wanted = midjourney_tasks.action_of(body.customId)
    if wanted is None:
        raise InvalidInput("is none of this task's buttons", param="customId")
    if wanted not in midjourney_tasks.WINDOWS:
        return _follow(actor, body, body.taskId, wanted)
    with reading() as session:
        parent = _own(jobs.some(session, actor, [body.taskId]), body.taskId)
    if wanted not in [offered["id"] for offered in parent.actions]:
        raise InvalidInput("is none of this task's buttons", param="customId")
    window = midjourney_tasks.new_window(parent.id, wanted)
    prompt = str(parent.input.get("prompt", ""))
    return {"code": _WINDOW, "description": "Waiting for window confirm", "result": window,
            "properties": {"finalPrompt": prompt, "remix": False}}  # fmt: skip


@_submit_route("modal", schemas.MidjourneyModal)
def modal(actor: Actor, body: schemas.MidjourneyModal, speed: str = "") -> dict[str, Any]:
    """Answer a window: with a prompt (custom zoom), or a mask and a prompt (vary region)."""
    if not midjourney_tasks.is_window(body.taskId):
        raise NotFound("There is no such window.")
    parent_id, wanted = midjourney_tasks.pressed(body.taskId)
    answered = Once(WINDOW_ROUTE, body.taskId, fingerprint(body.model_dump(exclude_unset=True)))
    given = {"prompt": body.prompt or None, "mask": body.maskBase64 or None}
    return {**_follow(actor, body, parent_id, wanted, given, answered), "result": body.taskId}


@_submit_route("blend", schemas.MidjourneyBlend)
def blend(actor: Actor, body: schemas.MidjourneyBlend, speed: str = "") -> dict[str, Any]:
    """Blend two to five pictures."""
    ratio = _RATIOS.get((body.dimensions or "SQUARE").upper())
    if ratio is None:
        raise InvalidInput("must be PORTRAIT, SQUARE or LANDSCAPE", param="dimensions")
    given = {"images": body.base64Array, "aspect_ratio": ratio, "bot_type": _bot(body.botType)}
    return _accept(actor, body, "midjourney/blend", given)


@_submit_route("describe", schemas.MidjourneyDescribe)
def describe(actor: Actor, body: schemas.MidjourneyDescribe, speed: str = "") -> dict[str, Any]:
    """Find prompts for a picture."""
    given = {"image": body.base64 or body.link, "bot_type": _bot(body.botType)}
    return _accept(actor, body, "midjourney/describe", given)


@_submit_route("shorten", schemas.MidjourneyShorten)
def shorten(actor: Actor, body: schemas.MidjourneyShorten, speed: str = "") -> dict[str, Any]:
    """Find shorter prompts."""
    return _accept(actor, body, "midjourney/shorten", {"prompt": body.prompt, "bot_type": _bot(body.botType)})


def _bot(said: str | None) -> str | None:
    return _BOTS.get((said or "").lower(), said)


def _follow(
    actor: Actor, body: schemas.MidjourneyBody, task_id: str, wanted: str, more: dict[str, Any] | None = None,
    key: Once | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A job that continues the task. Raises NotFound where there is none."""
    with reading() as session:
        parent = _own(_known(session, actor, [task_id]), task_id)
    given = {"action": wanted, **(more or {})}
    return _accept(actor, body, "midjourney/action", given, parent_id=parent.id, key=key)


def _accept(
    actor: Actor, body: schemas.MidjourneyBody, model: str, given: dict[str, Any], *, parent_id: str | None = None,
    key: Once | None = None,
) -> dict[str, Any]:  # fmt: skip
    new = NewJob(
        model=model,
        input={name: value for name, value in given.items() if value is not None},
        parent_id=parent_id,
        webhook_url=body.notifyHook or None,
        metadata={"state": body.state} if body.state else {},
        dialect=DIALECT,
    )
    key = key or once(f"POST /mj/{model}", body.model_dump(exclude_unset=True))
    with transaction(one_write=key is None) as session:
        job, _ = jobs.accept(session, actor, new, key)
    return {"code": _ACCEPTED, "description": "Submit success", "result": job.id, "properties": {}}


# ---------------------------------------------------------------- tasks


@_route(tasks, "GET", "/task/<task_id>/fetch")
@endpoint(access=Access.USER)
def fetch(actor: Actor, task_id: str, speed: str = "") -> Response:
    """Show a task; `null` where there is none (section 5)."""
    return answer(next(iter(_shown(actor, [task_id])), None))


@_route(tasks, "POST", "/task/list-by-condition")
@endpoint(access=Access.USER, body=schemas.MidjourneyIds)
def by_condition(actor: Actor, body: schemas.MidjourneyIds, speed: str = "") -> Response:
    """Show these tasks, in any order; what there is none of is left out."""
    return answer(_shown(actor, list(dict.fromkeys(body.ids or ()))))


@_route(tasks, "GET", "/task/list")
@endpoint(access=Access.USER)
def latest(actor: Actor, speed: str = "") -> Response:
    """Show your last 100 tasks."""
    with reading() as session:
        found, _ = jobs.page(session, actor, status=None, model=None, provider="midjourney", limit=MOST_LISTED,
                             after=None)  # fmt: skip
        artifacts = jobs.artifacts(session, [job.id for job in found])
        return answer([task_object(job, artifacts[job.id]) for job in found])


@_route(tasks, "POST", "/task/<task_id>/cancel")
@endpoint(access=Access.USER, errors=(404, 409))
def cancel(actor: Actor, task_id: str, speed: str = "") -> Response:
    """Cancel a task."""
    with transaction() as session:
        jobs.cancel(session, actor, _own(_known(session, actor, [task_id]), task_id).id)
    return answer(None)


def _shown(actor: Actor, task_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The tasks with these ids; a window that waits for its answer is one, too."""
    with reading() as session:
        known = _known(session, actor, task_ids)
        open_windows = [each for each in task_ids if each not in known and midjourney_tasks.is_window(each)]
        parents = jobs.some(session, actor, [midjourney_tasks.pressed(each)[0] for each in open_windows])
        artifacts = jobs.artifacts(session, [job.id for job in known.values()])
        shown = [task_object(job, artifacts[job.id], task_id) for task_id, job in known.items()]
        for window in open_windows:
            parent_id, wanted = midjourney_tasks.pressed(window)
            if parent_id in parents:
                shown.append(window_object(parents[parent_id], wanted, window))
        return shown


def _known(session: Any, actor: Actor, task_ids: Sequence[str]) -> dict[str, Any]:
    """The actor's Midjourney jobs by the ids that clients know them by: a window's goes on as its job's."""
    windows = [each for each in task_ids if midjourney_tasks.is_window(each)]
    became = jobs.results_of_keys(session, actor, WINDOW_ROUTE, windows)
    found = jobs.some(session, actor, [became.get(each, each) for each in task_ids])
    by_id = {each: found.get(became.get(each, each)) for each in task_ids}
    return {each: job for each, job in by_id.items() if job is not None and job.provider == "midjourney"}


def _own(found: dict[str, Any], task_id: str) -> Any:
    if task_id not in found:
        raise NotFound("There is no such task.")
    return found[task_id]
