"""Jobs as tasks of a midjourney-proxy server, for clients that were written for one.

Facts: fact sheet midjourney_proxy.md, sections 5 (the task object), 6 (statuses) and 7 (buttons).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session, load_only
from sqlalchemy.orm.attributes import set_committed_value

from common.models import Artifact, Job
from common.providers.midjourney_models import ACTION
from common.services.acceptance import AcceptedJob
from common.services.presentation import WINDOW, artifact_object
from common.words import Status

DIALECT = "midjourney"
MOST_LISTED = 100  # tasks of /task/list, as the newer family has it (section 2)
_AT_ONCE = 200  # ids in a query
_STATUSES = {
    Status.QUEUED: "NOT_START",
    Status.SUBMITTING: "SUBMITTED",
    Status.RUNNING: "IN_PROGRESS",
    Status.STORING: "IN_PROGRESS",
    Status.SUCCEEDED: "SUCCESS",
    Status.FAILED: "FAILURE",
    Status.CANCELED: "FAILURE",  # older clients know no CANCEL, and would wait for ever
}
_VERBS = {"upsample": "UPSCALE", "variation": "VARIATION", "reroll": "REROLL"}
_NUMBERED = re.compile(r"(.+)_(\d)")
_CUSTOM_ID = re.compile(r"MJ::([A-Za-z]+)(?:::(\w+))?(?:::(\d+))?::job_\w+(?:::SOLO)?")
_SPECIAL = {"custom_zoom": "CustomZoom", "vary_region": "Inpaint::1", "zoom_out_2x": "Outpaint::50::1",
            "zoom_out_1_5x": "Outpaint::75::1", "make_square": "Outpaint::100::1"}  # fmt: skip
WINDOWS = ("custom_zoom", "vary_region")  # buttons that ask for something first (code 21)


def task_id(job: Job | AcceptedJob) -> str:
    """The id that clients know a task by: a window goes on under its own when it is answered."""
    return str((job.metadata_ or {}).get(WINDOW) or job.id) if job.dialect == DIALECT else job.id


def task_object(job: Job | AcceptedJob, artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """A job as such a server shows its task."""
    prompt = str(job.input.get("prompt", ""))
    shown = [artifact_object(artifact) for artifact in artifacts]
    pictures = [
        {"url": each["url"], "thumbnail": each["thumbnail_url"]} for each in shown if each["kind"] == "image"
    ]
    films = [
        {"url": each["url"], "thumbnail": each["thumbnail_url"]} for each in shown if each["kind"] == "video"
    ]
    has_succeeded = job.status == Status.SUCCEEDED
    return {
        "id": task_id(job),
        "parentId": job.parent_id,
        "action": _action(job),
        "status": _STATUSES[Status(job.status)],
        "prompt": prompt,
        "promptEn": prompt,
        "description": f"/{job.model.partition('/')[2]} {prompt}".strip(),
        "state": str((job.metadata_ or {}).get("state", "")),
        "submitTime": _ms(job.created_at),
        "startTime": _ms(job.submitted_at),
        "finishTime": _ms(job.finished_at),
        "progress": "" if job.error else f"{job.progress}%",
        "imageUrl": pictures[0]["url"] if pictures else job.preview_url,
        "imageUrls": pictures if len(pictures) > 1 else [],
        "videoUrl": films[0]["url"] if films else None,
        "videoUrls": films,
        "failReason": _reason(job),
        "properties": {"finalPrompt": _final_prompt(job, prompt)},
        "buttons": [_button(job.id, action) for action in job.actions or []] if has_succeeded else [],
    }


def window_object(parent: Job, action: str, window_id: str) -> dict[str, Any]:
    """A button that was pressed and asks for something before it becomes a job."""
    task = task_object(parent, [])
    return {**task, "id": window_id, "parentId": task["id"], "action": _verb(action), "status": "MODAL",
            "progress": "0%", "imageUrl": None, "failReason": None, "finishTime": None, "buttons": []}  # fmt: skip


def action_of(custom_id: str) -> str | None:
    """Our name of the action behind one of our buttons; None for what is none of ours."""
    found = _CUSTOM_ID.fullmatch(custom_id)
    if found is None:
        return None
    kind, name, number = found.groups()
    for action, start in _SPECIAL.items():
        if custom_id.startswith(f"MJ::{start}::"):
            return action
    if kind.upper() != "JOB" or name is None:
        return None
    return f"{name.lower()}_{number}" if number not in (None, "0") else name.lower()


def _button(job_id: str, action: dict[str, str]) -> dict[str, Any]:
    return {
        "customId": custom_id(job_id, action["id"]),
        "label": action["label"],
        "emoji": "",
        "style": 2,
        "type": 2,
    }


def custom_id(job_id: str, action: str) -> str:
    """What a button of this job sends, in the grammar of section 7, where clients look for `upsample::1`."""
    if action in _SPECIAL:
        return f"MJ::{_SPECIAL[action]}::{job_id}"
    numbered = _NUMBERED.fullmatch(action)
    if numbered is not None:
        return f"MJ::JOB::{numbered[1]}::{numbered[2]}::{job_id}"
    return f"MJ::JOB::{action}::0::{job_id}::SOLO"


def _action(job: Job | AcceptedJob) -> str:
    return _verb(job.action) if job.model == ACTION else job.model.partition("/")[2].upper()


def _verb(action: str) -> str:
    """UPSCALE for upsample_1; what older clients do not know stays what it is."""
    return _VERBS.get(action.partition("_")[0], action.upper())


def _reason(job: Job | AcceptedJob) -> str | None:
    return str(job.error["message"]) if job.error else None


def _final_prompt(job: Job | AcceptedJob, prompt: str) -> str:
    """What was drawn; or the prompts that were found, each behind a keycap digit (section 5)."""
    found = (job.output or {}).get("prompts")
    if not found:
        return prompt
    return "\n\n".join(f"{number}\ufe0f\u20e3 {text}" for number, text in enumerate(found, 1))


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)


# ---------------------------------------------------------------- windows


def new_window(parent_id: str, action: str) -> str:
    """The id of a button that was pressed and now asks for something; nothing is kept of it until it is answered."""
    return f"{parent_id}-{action}-{secrets.token_hex(4)}"


def is_window(task_id: str) -> bool:
    """Whether the id is a window's."""
    return _WINDOW_ID.fullmatch(task_id) is not None


def pressed(window_id: str) -> tuple[str, str]:
    """The parent job and the action of a window."""
    parent_id, action, _ = window_id.split("-")
    return parent_id, action


_WINDOW_ID = re.compile(r"job_[0-9a-z]{26}-[a-z0-9_]{1,64}-[0-9a-f]{8}")
WINDOW_ROUTE = "POST /mj/submit/modal"  # where of two answers to a window at the same time one makes the job


# ---------------------------------------------------------------- read


def find(session: Session, user_id: str, task_ids: Collection[str]) -> dict[str, Job]:
    """Those of these tasks that are the user's, by the ids that were asked for.

    A task that a window became is found by the window's id and by its job's own. Of a job's input there is only what
    a task shows: clients ask every few seconds (section 9), and there may be megabytes of pictures.
    """
    found: dict[str, Job] = {}
    wanted = list(dict.fromkeys(task_ids))
    for start in range(0, len(wanted), _AT_ONCE):
        ids = wanted[start : start + _AT_ONCE]
        windows = [each for each in ids if is_window(each)]
        found |= {job.id: job for job in _read(session, _tasks(user_id, Job.id.in_(ids)))}
        if windows:
            found |= {task_id(job): job for job in _read(session, _answers(user_id, windows))}
    return found


def latest(session: Session, user_id: str) -> list[Job]:
    """The user's last tasks, the newest first, read as `find` does."""
    return _read(session, _tasks(user_id).order_by(Job.id.desc()).limit(MOST_LISTED))


def _tasks(user_id: str, *conditions: ColumnElement[bool]) -> Select[Any]:
    prompt = Job.input["prompt"].as_string()
    mine = Job.user_id == user_id, Job.provider == DIALECT, Job.deleted_at.is_(None)
    return select(Job, prompt).options(load_only(*_SHOWN, raiseload=True)).where(*mine, *conditions)


def _answers(user_id: str, windows: Sequence[str]) -> Select[Any]:
    """Where an operator has run a task anew there are two, and the newer counts."""
    parents = Job.parent_id.in_({pressed(each)[0] for each in windows})
    names_it = Job.metadata_[WINDOW].as_string().in_(windows)
    return _tasks(user_id, Job.dialect == DIALECT, parents, names_it).order_by(Job.id)


def _read(session: Session, query: Select[Any]) -> list[Job]:
    """Not of the session any more, which may be asked for the whole job later."""
    found: list[Job] = []
    for job, prompt in session.execute(query):
        set_committed_value(job, "input", {} if prompt is None else {"prompt": prompt})
        session.expunge(job)
        found.append(job)
    return found


_SHOWN = (
    Job.parent_id, Job.status, Job.model, Job.dialect, Job.action, Job.metadata_, Job.actions, Job.progress,
    Job.preview_url, Job.output, Job.error, Job.created_at, Job.submitted_at, Job.finished_at,
)  # fmt: skip
