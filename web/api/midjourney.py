"""The protocol of midjourney-proxy servers, for clients that were written for one.

Facts: fact sheet midjourney_proxy.md. Submits are answered with HTTP 200 also where they are refused: `code` tells. All
routes exist once more under `/mj-fast`, `/mj-relax` and `/mj-turbo`, which choose the speed (section 1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from flask import Blueprint, Response
from sqlalchemy.orm import Session

from common.db import reading, transaction
from common.errors import AppError, InsufficientCredits, InvalidInput, Kind, NotFound
from common.providers.midjourney_models import ACTION
from common.services import jobs, midjourney_tasks
from common.services.jobs import NewJob, Once
from common.services.midjourney_tasks import DIALECT, WINDOW_ROUTE, task_object, window_object
from common.services.presentation import WINDOW
from common.services.users import Actor
from web import schemas, shapes
from web.answers import answer
from web.api.submissions import HEADERS, fingerprint, once
from web.endpoints import Access, endpoint
from web.errors import app_error

SPEEDS = ("fast", "relax", "turbo")
_ACCEPTED, _WINDOW, _NOT_FOUND, _INVALID = 1, 21, 3, 4  # section 4
_IN_HTTP = (Kind.UNAUTHENTICATED, Kind.FORBIDDEN, Kind.LIMITED, Kind.UNAVAILABLE, Kind.TOO_LARGE)
_BOTS = {"mj": "MID_JOURNEY", "niji": "NIJI_JOURNEY"}
_RATIOS = {"PORTRAIT": "2:3", "SQUARE": "1:1", "LANDSCAPE": "3:2"}
# Servers make -- of a typed dash. One with a blank behind it, or a word before it, is punctuation.
_SPEED_FLAG = re.compile(r"(?:\s*--\s*|(?:^|\s+)[—–])(fast|relax|turbo)\b", re.IGNORECASE)
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
    wanted = f"{_CHANGES[verb]}_{body.index}" if verb in _CHANGES else "reroll"
    return _follow(actor, body, body.taskId, {"action": wanted})


@_submit_route("simple-change", schemas.MidjourneySimpleChange)
def simple_change(actor: Actor, body: schemas.MidjourneySimpleChange, speed: str = "") -> dict[str, Any]:
    """The same in one text: `<task> U1`."""
    found = _SIMPLE.fullmatch(body.content.strip())
    if found is None:
        raise InvalidInput("must be a task's id, a blank, and one of U1 to U4, V1 to V4, R", param="content")
    verb = {"U": "upsample", "V": "variation"}.get((found[2] or "").upper())
    return _follow(actor, body, found[1], {"action": f"{verb}_{found[3]}" if verb else "reroll"})


@_submit_route("action", schemas.MidjourneyAction)
def action(actor: Actor, body: schemas.MidjourneyAction, speed: str = "") -> dict[str, Any]:
    """Press a button. One that asks for something first is answered with code 21 and the id for /submit/modal."""
    wanted = midjourney_tasks.action_of(body.customId)
    if wanted is None:
        raise InvalidInput("is none of this task's buttons", param="customId")
    if wanted not in midjourney_tasks.WINDOWS:
        return _follow(actor, body, body.taskId, {"action": wanted})
    with reading() as session:
        parent = _own(session, actor, body.taskId)
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
    told = {"prompt": body.prompt or None, "mask": body.maskBase64 or None}
    given = {"action": wanted, **{name: value for name, value in told.items() if value is not None}}
    if not _was_answered(actor, body.taskId, given):
        _follow(actor, body, parent_id, given, window=body.taskId)
    return _accepted(body.taskId)


def _was_answered(actor: Actor, window: str, given: dict[str, Any]) -> bool:
    """Whether there is a job of this window. Raises InvalidInput where the window was told something else."""
    with reading() as session:
        known = midjourney_tasks.find(session, actor.user_id, [window]).get(window)
        if known is None:
            return False
        if jobs.get(session, actor, known.id).input != given:
            raise InvalidInput("was answered already, and otherwise", param="taskId")
    return True


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
    actor: Actor, body: schemas.MidjourneyBody, task_id: str, given: dict[str, Any], window: str = ""
) -> dict[str, Any]:
    """A job that continues the task. Raises NotFound where there is none."""
    with reading() as session:
        parent = _own(session, actor, task_id)
    return _accept(actor, body, ACTION, given, parent_id=parent.id, window=window)


def _accept(
    actor: Actor, body: schemas.MidjourneyBody, model: str, given: dict[str, Any], *, parent_id: str | None = None,
    window: str = "",
) -> dict[str, Any]:  # fmt: skip
    told = {"state": body.state, WINDOW: window}
    new = NewJob(
        model=model,
        input={name: value for name, value in given.items() if value is not None},
        parent_id=parent_id,
        webhook_url=body.notifyHook or None,
        metadata={name: value for name, value in told.items() if value},
        dialect=DIALECT,
    )
    key = (
        Once(WINDOW_ROUTE, window, fingerprint(new.input))
        if window
        else once(f"POST /mj/{model}", body.model_dump(exclude_unset=True))
    )
    with transaction(one_write=key is None) as session:
        job, _ = jobs.accept(session, actor, new, key)
    return _accepted(job.id)


def _accepted(task_id: str) -> dict[str, Any]:
    return {"code": _ACCEPTED, "description": "Submit success", "result": task_id, "properties": {}}


# ---------------------------------------------------------------- tasks


@_route(tasks, "GET", "/task/<task_id>/fetch")
@endpoint(access=Access.USER, returns=shapes.MidjourneyFetched)
def fetch(actor: Actor, task_id: str, speed: str = "") -> Response:
    """Show a task; `null` where there is none (section 5)."""
    return answer(next(iter(_shown(actor, [task_id])), None))


@_route(tasks, "POST", "/task/list-by-condition")
@endpoint(access=Access.USER, body=schemas.MidjourneyIds, returns=shapes.MidjourneyTasks)
def by_condition(actor: Actor, body: schemas.MidjourneyIds, speed: str = "") -> Response:
    """Show these tasks, in any order; what there is none of is left out."""
    return answer(_shown(actor, body.ids or ()))


@_route(tasks, "GET", "/task/list")
@endpoint(access=Access.USER, returns=shapes.MidjourneyTasks)
def latest(actor: Actor, speed: str = "") -> Response:
    """Show your last 100 tasks."""
    with reading() as session:
        found = midjourney_tasks.latest(session, actor.user_id)
        artifacts = jobs.artifacts(session, [job.id for job in found])
        return answer([task_object(job, artifacts[job.id]) for job in found])


@_route(tasks, "POST", "/task/<task_id>/cancel")
@endpoint(access=Access.USER, returns=shapes.MidjourneyCanceled, errors=(404, 409))
def cancel(actor: Actor, task_id: str, speed: str = "") -> Response:
    """Cancel a task."""
    with transaction() as session:
        jobs.cancel(session, actor, _own(session, actor, task_id).id)
    return answer(None)


def _shown(actor: Actor, task_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The tasks with these ids; a window that waits for its answer is one, too."""
    with reading() as session:
        known = midjourney_tasks.find(session, actor.user_id, task_ids)
        found = {job.id: job for job in known.values()}
        artifacts = jobs.artifacts(session, list(found))
        shown = [task_object(job, artifacts[job.id]) for job in found.values()]
        windows = [
            each for each in dict.fromkeys(task_ids) if each not in known and midjourney_tasks.is_window(each)
        ]
        buttons = {each: midjourney_tasks.pressed(each) for each in windows}
        parents = midjourney_tasks.find(session, actor.user_id, [parent for parent, _ in buttons.values()])
        return shown + [
            window_object(parents[parent], wanted, window)
            for window, (parent, wanted) in buttons.items()
            if parent in parents
        ]


def _own(session: Session, actor: Actor, task_id: str) -> Any:
    """The actor's task. Raises NotFound."""
    found = midjourney_tasks.find(session, actor.user_id, [task_id])
    if task_id not in found:
        raise NotFound("There is no such task.")
    return found[task_id]
