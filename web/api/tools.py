"""Tools: saved presets, shared by access control."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from common.db import reading, transaction
from common.services import tools
from common.services.jobs import NewJob
from common.services.tools import Preset, tool_object, tool_objects
from common.services.users import Actor
from web import schemas, shapes
from web.answers import JsonResponse, listing
from web.api.submissions import HEADERS, once, options, submit
from web.endpoints import Access, endpoint

blueprint = Blueprint("tools", __name__, url_prefix="/v1/tools")


@blueprint.post("")
@endpoint(access=Access.USER, body=schemas.NewTool, returns=shapes.Tool, status=201)
def create(actor: Actor, body: schemas.NewTool) -> dict[str, Any]:
    """Save a tool. It is private unless `access_control` says otherwise."""
    with transaction() as session:
        tool = tools.create(
            session, actor, name=body.name, description=body.description, runs=Preset(body.model, body.input),
            access_control=_access(body),
        )  # fmt: skip
        return tool_object(session, actor, tool)


@blueprint.get("")
@endpoint(access=Access.USER, query=schemas.PageQuery, returns=shapes.Tool, many=True)
def index(actor: Actor, query: schemas.PageQuery) -> dict[str, Any]:
    """List the tools that you may use."""
    with reading() as session:
        found, has_more = tools.page(session, actor, limit=query.limit, after=query.after)
        return listing(tool_objects(session, actor, found), has_more=has_more)


@blueprint.get("/<tool_id>")
@endpoint(access=Access.USER, returns=shapes.Tool, errors=(404,))
def one(actor: Actor, tool_id: str) -> dict[str, Any]:
    """Show a tool."""
    with reading() as session:
        return tool_object(session, actor, tools.get(session, actor, tool_id))


@blueprint.route("/<tool_id>", methods=["PATCH", "PUT"])
@endpoint(access=Access.USER, body=schemas.ToolChange, returns=shapes.Tool, errors=(403, 404))
def change(actor: Actor, tool_id: str, body: schemas.ToolChange) -> dict[str, Any]:
    """Change a tool; what is absent stays as it is."""
    changes = body.model_dump(include=body.model_fields_set)
    if "access_control" in changes:
        changes["access_control"] = _access(body)
    with transaction() as session:
        return tool_object(session, actor, tools.change(session, actor, tool_id, changes))


@blueprint.delete("/<tool_id>")
@endpoint(access=Access.USER, status=204, errors=(403, 404))
def delete(actor: Actor, tool_id: str) -> Response:
    """Delete a tool."""
    with transaction() as session:
        tools.delete(session, actor, tool_id)
    return JsonResponse(status=204)


@blueprint.post("/<tool_id>/run")
@endpoint(access=Access.SUBMITTER, body=schemas.ToolRun, returns=shapes.Job, status=202, also=(200,),
          errors=(402, 404, 429), headers=HEADERS)  # fmt: skip
def run(actor: Actor, tool_id: str, body: schemas.ToolRun) -> Response:
    """Run a tool: a job of its model, with its input overlaid by yours."""
    new = NewJob(model="", input=body.input, parent_id=body.parent_id, **options(body))
    key = once("POST /v1/tools/run", {"tool": tool_id, **body.model_dump(exclude_unset=True)})
    return submit(actor, key, lambda session: tools.run(session, actor, tool_id, new, key))


def _access(body: schemas.ToolChange) -> dict[str, Any] | None:
    given = body.access_control
    return None if given is None else given.model_dump(exclude_unset=True, exclude_none=True)
