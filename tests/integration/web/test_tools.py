"""Tools: saved presets, who may see, change and run them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common import clock
from common.db import reading, transaction
from common.ids import new_id
from common.models import Group, Tool
from common.words import Role
from tests.integration.web.api import Api
from tests.integration.web.conftest import MakeUser
from tests.integration.web.jobs import MODEL, PRICE, jobs_of

PRESET = {
    "name": "Fox",
    "description": "draws foxes",
    "model": MODEL,
    "input": {"prompt": "a fox", "aspect_ratio": "1:1"},
}


def make(user: Api, **fields: Any) -> Any:
    return user.post("/v1/tools", {**PRESET, **fields})


def group_of(*members: Api) -> str:
    """A group of Open WebUI's with these members."""
    with transaction() as session:
        made = Group(id=new_id("grp"), name="friends", user_ids=[member.user_id for member in members])
        session.add(made)
        return made.id


def reads(user: Api, tool: Any) -> bool:
    """Whether the user sees the tool, alone and in the list, and may run it: always all or nothing."""
    seen = user.ask("GET", f"/v1/tools/{tool['id']}").status
    runs = user.ask("POST", f"/v1/tools/{tool['id']}/run", {}).status
    listed = tool["id"] in ids(user)
    assert (seen, runs, listed) in ((200, 202, True), (404, 404, False))
    return listed


def writes(user: Api, tool: Any) -> int:
    """The status of a change."""
    return user.ask("PATCH", f"/v1/tools/{tool['id']}", {"description": f"changed {new_id('x')}"}).status


def ids(user: Api) -> list[str]:
    """The whole list."""
    found: list[str] = []
    page = user.get("/v1/tools?limit=100")
    while True:
        found += [tool["id"] for tool in page["data"]]
        if not page["has_more"]:
            return found
        page = user.get(f"/v1/tools?limit=100&after={page['next']}")


# ---------------------------------------------------------------- keep


def test_create_show_change_delete(user: Api) -> None:
    answer = user.ask("POST", "/v1/tools", PRESET)
    assert answer.status == 201
    tool = answer.json
    assert tool | PRESET == tool
    assert (tool["object"], tool["user_id"], tool["access_control"]) == ("tool", user.user_id, {})
    assert user.get(f"/v1/tools/{tool['id']}") == tool
    changed = user.ask(
        "PATCH", f"/v1/tools/{tool['id']}", {"name": "Wolf", "input": {"prompt": "a wolf"}}
    ).json
    assert (changed["name"], changed["input"]) == ("Wolf", {"prompt": "a wolf"})
    assert (changed["description"], changed["model"]) == (PRESET["description"], MODEL)
    assert user.get(f"/v1/tools/{tool['id']}") == changed
    assert user.ask("DELETE", f"/v1/tools/{tool['id']}").status == 204
    assert user.ask("GET", f"/v1/tools/{tool['id']}").status == 404
    assert user.ask("DELETE", f"/v1/tools/{tool['id']}").status == 404


def test_put_changes_like_patch(user: Api) -> None:
    tool = make(user)
    changed = user.ask("PUT", f"/v1/tools/{tool['id']}", {"model": "flux/dev"})
    assert (changed.status, changed.json["model"], changed.json["name"]) == (200, "flux/dev", "Fox")


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_tool_needs_a_known_model(user: Api, method: str) -> None:
    path = "/v1/tools" if method == "POST" else f"/v1/tools/{make(user)['id']}"
    answer = user.ask(method, path, {**PRESET, "model": "flux/none"})
    assert (answer.status, answer.json["error"]["code"]) == (422, "unknown_model")


def test_the_list_has_a_cursor(make_user: MakeUser) -> None:
    user = make_user()
    made = sorted(make(user)["id"] for _ in range(5))
    first = user.get("/v1/tools?limit=3")
    second = user.get(f"/v1/tools?limit=3&after={first['next']}")
    mine = [tool["id"] for tool in first["data"] + second["data"] if tool["user_id"] == user.user_id]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert mine == made


# ---------------------------------------------------------------- share


def test_null_is_for_everyone_to_run_and_the_owner_to_change(user: Api, other: Api, admin: Api) -> None:
    tool = make(user, access_control=None)
    assert tool["access_control"] is None
    assert reads(other, tool)
    assert writes(other, tool) == 403
    assert other.ask("DELETE", f"/v1/tools/{tool['id']}").status == 403
    assert (writes(user, tool), writes(admin, tool)) == (200, 200)


@pytest.mark.parametrize("access", [{}, {"read": None}, {"read": {}}, {"read": {"user_ids": []}}])
def test_empty_is_for_the_owner_alone(user: Api, other: Api, admin: Api, access: Any) -> None:
    tool = make(user, access_control=access)
    assert not reads(other, tool)
    assert writes(other, tool) == 404
    assert (writes(user, tool), writes(admin, tool)) == (200, 200)


def test_lists_of_users(user: Api, other: Api, make_user: MakeUser) -> None:
    third = make_user()
    tool = make(user, access_control={"read": {"user_ids": [other.user_id]}})
    assert tool["access_control"] == {"read": {"user_ids": [other.user_id]}}
    assert (reads(other, tool), reads(third, tool)) == (True, False)
    assert (writes(other, tool), writes(third, tool)) == (403, 404)


def test_who_else_may_use_a_tool_is_for_those_who_may_change_it(
    user: Api, other: Api, admin: Api, make_user: MakeUser
) -> None:
    writer, member = make_user(), make_user()
    group = group_of(member)
    access = {
        "read": {"user_ids": [other.user_id, writer.user_id], "group_ids": [group]},
        "write": {"user_ids": [writer.user_id], "group_ids": [group]},
    }
    tool = make(user, access_control=access)
    for reader, told in ((user, access), (writer, access), (member, access), (admin, access), (other, None)):
        listed = [each for each in reader.get("/v1/tools?limit=100")["data"] if each["id"] == tool["id"]]
        for shown in (reader.get(f"/v1/tools/{tool['id']}"), *listed):
            assert shown["access_control"] == told


def test_lists_of_groups(user: Api, other: Api, make_user: MakeUser) -> None:
    third = make_user()
    group = group_of(other)
    tool = make(
        user, access_control={"read": {"group_ids": ["gone", group]}, "write": {"group_ids": [group]}}
    )
    assert (reads(other, tool), reads(third, tool)) == (True, False)
    assert (writes(other, tool), writes(third, tool)) == (200, 404)


def test_who_may_write_but_not_read_sees_nothing(user: Api, other: Api) -> None:
    tool = make(user, access_control={"write": {"user_ids": [other.user_id]}})
    assert not reads(other, tool)
    assert writes(other, tool) == 404


def test_a_writer_may_share_further(user: Api, other: Api, make_user: MakeUser) -> None:
    third = make_user()
    circle = {"user_ids": [other.user_id]}
    tool = make(user, access_control={"read": circle, "write": circle})
    wider = {"read": {"user_ids": [other.user_id, third.user_id]}, "write": circle}
    changed = other.ask("PATCH", f"/v1/tools/{tool['id']}", {"access_control": wider})
    assert changed.json["access_control"] == wider
    assert reads(third, tool)
    assert other.ask("PATCH", f"/v1/tools/{tool['id']}", {"access_control": None}).status == 200
    assert writes(other, tool) == 403  # for everyone to run, for the owner to change
    assert user.ask("PATCH", f"/v1/tools/{tool['id']}", {"access_control": {}}).status == 200
    assert not reads(other, tool)


def test_a_writer_may_delete(user: Api, other: Api) -> None:
    circle = {"user_ids": [other.user_id]}
    tool = make(user, access_control={"read": circle, "write": circle})
    assert other.ask("DELETE", f"/v1/tools/{tool['id']}").status == 204
    assert user.ask("GET", f"/v1/tools/{tool['id']}").status == 404


def test_a_change_of_something_else_leaves_the_access_alone(user: Api, other: Api) -> None:
    for access in (None, {}, {"read": {"user_ids": [other.user_id]}}):
        tool = make(user, access_control=access)
        changed = user.ask("PATCH", f"/v1/tools/{tool['id']}", {"name": "Wolf"}).json
        assert changed["access_control"] == access


@pytest.mark.parametrize(
    "stored", ["everyone", [], {"read": "all"}, {"read": {"user_ids": "*"}}, {"public": True}, 1]
)
def test_what_nobody_understands_is_private(user: Api, other: Api, stored: Any) -> None:
    tool = make(user, access_control=None)
    with transaction() as session:
        session.get_one(Tool, tool["id"]).access_control = stored
    assert other.ask("GET", f"/v1/tools/{tool['id']}").status == 404
    assert tool["id"] not in ids(other)


def test_a_pending_user_in_a_list_is_still_pending(user: Api, make_user: MakeUser) -> None:
    pending = make_user(role=Role.PENDING)
    tool = make(user, access_control={"read": {"user_ids": [pending.user_id]}})
    assert pending.ask("GET", f"/v1/tools/{tool['id']}").status == 403


# ---------------------------------------------------------------- run


def test_a_run_is_a_job_of_the_runner(user: Api, other: Api) -> None:
    tool = make(user, access_control=None)
    answer = other.ask("POST", f"/v1/tools/{tool['id']}/run", {})
    assert answer.status == 202
    assert answer.headers["location"] == f"/v1/jobs/{answer.json['id']}"
    assert (answer.json["model"], answer.json["input"]) == (MODEL, PRESET["input"])
    assert other.credits() == (1000 - PRICE, PRICE)
    assert user.credits() == (1000, 0)
    (row,) = jobs_of(other)
    assert row.tool_id == tool["id"]


def test_what_the_run_says_wins(user: Api) -> None:
    tool = make(user)
    run = user.post(
        f"/v1/tools/{tool['id']}/run",
        {"input": {"prompt": "a wolf", "seed": 7}, "metadata": {"a": 1}, "priority": 2},
    )
    assert run["input"] == {"prompt": "a wolf", "aspect_ratio": "1:1", "seed": 7}
    assert run["metadata"] == {"a": 1}
    assert user.get(f"/v1/tools/{tool['id']}")["input"] == PRESET["input"]


def test_the_whole_input_is_checked(user: Api) -> None:
    tool = make(user, input={"aspect_ratio": "1:1"})
    answer = user.ask("POST", f"/v1/tools/{tool['id']}/run", {"input": {"seed": 7}})
    assert (answer.status, answer.json["error"]["param"]) == (422, "input.prompt")
    assert user.credits() == (1000, 0)


def test_a_run_costs_what_the_runner_has(user: Api, make_user: MakeUser) -> None:
    tool = make(user, access_control=None)
    poor = make_user(PRICE - 1)
    assert poor.ask("POST", f"/v1/tools/{tool['id']}/run", {}).status == 402


# ---------------------------------------------------------------- what an Open WebUI left


@pytest.fixture
def program(user: Api) -> str:
    """A Python tool of Open WebUI that the user owns and everyone may use."""
    now = int(clock.epoch())
    with transaction() as session:
        made = Tool(
            id=f"weather_{new_id('x')}",
            user_id=user.user_id,
            name="Weather",
            content="class Tools: ...",
            specs="[]",
            meta=json.dumps({"description": "asks for the weather", "manifest": {"a": 1}}),
            access_control=None,
            created_at=now,
            updated_at=now,
        )
        session.add(made)
        return made.id


def test_a_program_is_shown_but_cannot_run(user: Api, other: Api, program: str) -> None:
    shown = other.get(f"/v1/tools/{program}")
    assert (shown["model"], shown["input"], shown["description"]) == (None, None, "asks for the weather")
    answer = other.ask("POST", f"/v1/tools/{program}/run", {})
    assert (answer.status, answer.json["error"]["param"]) == (422, "id")
    assert user.ask("PATCH", f"/v1/tools/{program}", {"model": MODEL}).status == 422


def test_a_program_keeps_what_is_its_own(user: Api, program: str) -> None:
    user.ask("PATCH", f"/v1/tools/{program}", {"description": "new", "access_control": {}})
    with reading() as session:
        row = session.get_one(Tool, program)
    assert json.loads(row.meta) == {"description": "new", "manifest": {"a": 1}}
    assert (row.content, row.access_control) == ("class Tools: ...", {})
