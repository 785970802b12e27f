"""Tools: saved, shareable presets of a model and part of its input, in Open WebUI's table.

Ours keep `{"description": …, "wxiai": {"model": …, "input": {…}}}` in `meta`. Programs that an Open WebUI left
in the same table are listed without a model, keep their access control, and cannot be run here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session, defer
from sqlalchemy.orm.attributes import set_committed_value

from common import clock
from common.errors import Forbidden, InvalidInput, NotFound
from common.ids import new_id
from common.models import Job, Tool
from common.services import catalog, jobs, openwebui
from common.services.acceptance import AcceptedJob
from common.services.jobs import NewJob, Once
from common.services.openwebui import Granted
from common.services.users import Actor

Permission = Literal["read", "write"]
_OURS = "wxiai"
_BATCH = 200


@dataclass(frozen=True, slots=True)
class Preset:
    """What a tool of ours runs."""

    model: str
    input: dict[str, Any]


# ---------------------------------------------------------------- access


def may(
    permission: Permission,
    actor: Actor,
    owner_id: str,
    access_control: Any,
    groups: Callable[[], Collection[str]],
) -> bool:
    """Whether the actor may read (and run) or change a tool; `groups` are the actor's, asked for only if needed.

    NULL: everyone reads, only the owner writes. An object: the owner, and whom its lists name; reading and
    writing are separate. Whatever else stands there counts as private. Administrators may do everything.
    """
    if actor.is_admin or actor.user_id == owner_id:
        return True
    if access_control is None:
        return permission == "read"
    if isinstance(access_control, Granted) and permission in access_control.everyone:
        return True
    circle = access_control.get(permission) if isinstance(access_control, dict) else None
    if not isinstance(circle, dict):
        return False
    named = _ids(circle, "group_ids")
    return actor.user_id in _ids(circle, "user_ids") or (bool(named) and not named.isdisjoint(groups()))


def _ids(circle: dict[str, Any], name: str) -> set[str]:
    listed = circle.get(name)
    return {item for item in listed if isinstance(item, str)} if isinstance(listed, list) else set()


def _groups_of(session: Session, actor: Actor) -> Callable[[], Collection[str]]:
    """The ids of the actor's groups, read at the first use."""
    known: list[set[str]] = []

    def groups() -> Collection[str]:
        if not known:
            known.append(openwebui.groups_of(session, actor.user_id))
        return known[0]

    return groups


def _know_access(session: Session, tools: list[Tool]) -> None:
    """Put into `access_control` what this database means by it.

    A release of Open WebUI that keeps grants means those for its programs, whatever is left in the column.
    """
    if not openwebui.beside(session).grants:
        return
    theirs = {tool.id: tool for tool in tools if preset(tool) is None}
    if theirs:
        for tool_id, access in openwebui.granted(session, theirs.keys()).items():
            set_committed_value(theirs[tool_id], "access_control", access)


# ---------------------------------------------------------------- show


def get(session: Session, actor: Actor, tool_id: str) -> Tool:
    """A tool that the actor may read. Raises NotFound."""
    tool = session.get(Tool, tool_id)
    if tool is not None:
        _know_access(session, [tool])
        if may("read", actor, tool.user_id, tool.access_control, _groups_of(session, actor)):
            return tool
    raise NotFound("There is no such tool.")


def page(session: Session, actor: Actor, *, limit: int, after: str | None) -> tuple[list[Tool], bool]:
    """The tools that the actor may read, by id, from behind the tool `after`; and whether there are more."""
    groups = _groups_of(session, actor)
    found: list[Tool] = []
    while len(found) <= limit:
        query = select(Tool).options(defer(Tool.content), defer(Tool.specs)).order_by(Tool.id).limit(_BATCH)
        batch = list(session.scalars(query.where(Tool.id > after) if after is not None else query))
        _know_access(session, batch)
        found += [tool for tool in batch if may("read", actor, tool.user_id, tool.access_control, groups)]
        if len(batch) < _BATCH:
            break
        after = batch[-1].id
    return found[:limit], len(found) > limit


def preset(tool: Tool) -> Preset | None:
    """What the tool runs, or None for a program of Open WebUI."""
    ours = _meta(tool).get(_OURS)
    if not isinstance(ours, dict) or not isinstance(ours.get("model"), str):
        return None
    given = ours.get("input")
    return Preset(ours["model"], given if isinstance(given, dict) else {})


def tool_objects(session: Session, actor: Actor, tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """Tools as the API shows them to the actor: who else may use one is told to those who may change it."""
    groups = _groups_of(session, actor)
    return [
        _object(tool, whole=may("write", actor, tool.user_id, tool.access_control, groups)) for tool in tools
    ]


def tool_object(session: Session, actor: Actor, tool: Tool) -> dict[str, Any]:
    """One of them."""
    return tool_objects(session, actor, [tool])[0]


def _object(tool: Tool, *, whole: bool) -> dict[str, Any]:
    runs = preset(tool)
    description = _meta(tool).get("description")
    access = tool.access_control
    is_public = isinstance(access, Granted) and "read" in access.everyone
    return {
        "id": tool.id,
        "object": "tool",
        "name": tool.name or "",
        "description": description if isinstance(description, str) else "",
        "model": runs.model if runs else None,
        "input": runs.input if runs else None,
        "access_control": access if whole and not is_public else None,
        "user_id": tool.user_id or "",
        "created_at": clock.iso_epoch(tool.created_at or 0),
        "updated_at": clock.iso_epoch(tool.updated_at or 0),
    }


def _meta(tool: Tool) -> dict[str, Any]:
    try:
        meta = json.loads(tool.meta or "{}")
    except ValueError:
        return {}
    return meta if isinstance(meta, dict) else {}


# ---------------------------------------------------------------- change


def create(
    session: Session,
    actor: Actor,
    *,
    name: str,
    description: str,
    runs: Preset,
    access_control: dict[str, Any] | None,
) -> Tool:
    """A new tool of the actor. Raises UnknownModel."""
    catalog.offer(session, runs.model)
    now = int(clock.epoch())
    meta = {"description": description, _OURS: {"model": runs.model, "input": runs.input}}
    tool = Tool(
        id=new_id("tool"),
        user_id=actor.user_id,
        name=name,
        content="",
        specs="[]",
        meta=json.dumps(meta),
        access_control=access_control,
        created_at=now,
        updated_at=now,
    )
    session.add(tool)
    session.flush()
    return tool


def change(session: Session, actor: Actor, tool_id: str, changes: dict[str, Any]) -> Tool:
    """Change what is given of `name description model input access_control`.

    Raises NotFound, Forbidden, UnknownModel, and InvalidInput where a foreign program would get a model.
    """
    tool = _writable(session, actor, tool_id)
    meta = _meta(tool)
    if "description" in changes:
        meta["description"] = changes["description"]
    if "model" in changes or "input" in changes:
        meta[_OURS] = _changed_preset(session, tool, changes)
    tool.meta = json.dumps(meta)
    tool.name = changes.get("name", tool.name)
    if "access_control" in changes:
        if isinstance(tool.access_control, Granted):
            openwebui.replace_grants(session, tool.id, changes["access_control"])
        tool.access_control = changes["access_control"]
    tool.updated_at = int(clock.epoch())
    session.flush()
    return tool


def _changed_preset(session: Session, tool: Tool, changes: dict[str, Any]) -> dict[str, Any]:
    runs = preset(tool)
    if runs is None:
        raise InvalidInput(FOREIGN, param="model" if "model" in changes else "input")
    if "model" in changes:
        catalog.offer(session, changes["model"])
    return {"model": changes.get("model", runs.model), "input": changes.get("input", runs.input)}


FOREIGN = "This tool is a program of Open WebUI and has no model."


def delete(session: Session, actor: Actor, tool_id: str) -> None:
    """Remove a tool. Raises NotFound or Forbidden."""
    tool = _writable(session, actor, tool_id)
    if openwebui.beside(session).grants:
        openwebui.forget_grants(session, tool.id)
    session.delete(tool)


def _writable(session: Session, actor: Actor, tool_id: str) -> Tool:
    tool = get(session, actor, tool_id)
    if not may("write", actor, tool.user_id, tool.access_control, _groups_of(session, actor)):
        raise Forbidden("You may use this tool, but not change it.")
    return tool


# ---------------------------------------------------------------- run


def run(
    session: Session, actor: Actor, tool_id: str, new: NewJob, once: Once | None = None
) -> tuple[Job | AcceptedJob, bool]:
    """Accept a job made of the tool's model and input, overlaid by `new.input`; else as `jobs.accept`."""
    tool = get(session, actor, tool_id)
    runs = preset(tool)
    if runs is None:
        raise InvalidInput(FOREIGN, param="id")
    merged = {**runs.input, **new.input}
    return jobs.accept(session, actor, replace(new, model=runs.model, input=merged, tool_id=tool.id), once)
