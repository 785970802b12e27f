"""Every release of Open WebUI, taken over: all of theirs is kept, and everybody is who they were, here too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from common.settings import Settings
from migrations import runner
from migrations.chain import Chain
from tests.integration.web.api import Api
from tests.migrations.takeover.conftest import Taken
from tests.migrations.takeover.contents import check_kept
from tests.migrations.takeover.people import ACCESS, READS, WRITES, Person, people
from tests.migrations.takeover.releases import OPEN_WEBUI, WXIAI, Shape

Client = Callable[..., Api]
Serve = Callable[[], Client]

ON_POSTGRESQL = {"0.3.5", "0.6.18", "0.8.12", "0.12.4", "two heads", "the fallback of a failed start"}
SHAPES = OPEN_WEBUI | WXIAI
CASES = [
    (name, kind)
    for name in SHAPES
    for kind in ("sqlite", "postgresql")
    if kind == "sqlite" or name in ON_POSTGRESQL
]


@pytest.mark.parametrize(("name", "database_url"), CASES, indirect=["database_url"])
def test_a_database_is_taken_over(
    name: str, take_over: Taken, serve: Serve, given: Settings, engine: sa.Engine
) -> None:
    shape = SHAPES[name]
    before = take_over(shape)
    check_kept(before, engine)
    client = serve()
    keys_work(client, shape)
    passwords_work(client, shape)
    tools_are_as_visible_as_before(client, shape)
    new_ones_fit_in(client)
    assert runner.upgrade(given, Chain()).line == f"current: {Chain().aim}"


def keys_work(client: Client, shape: Shape) -> None:
    for who in people(shape):
        answer = client(who.key).ask("GET", "/v1/me")
        has_expired = shape.has("api_key") and who.id == "reader"
        allowed = 403 if who.gets_in == 403 else 200
        assert answer.status == (401 if has_expired else allowed), who
        if answer.status == 200:
            assert (answer.json["id"], answer.json["role"]) == (who.id, who.role)
    assert client("sk-unknown").ask("GET", "/v1/me").status == 401


def sign_in(client: Client, who: Person, email: str = "") -> int:
    answer = client().ask(
        "POST", "/v1/auth/signin", {"email": email or who.address, "password": who.password}
    )
    if answer.status == 200:
        assert answer.json["user"]["id"] == who.id
        assert client(answer.json["token"]).get("/v1/me")["id"] == who.id
    return answer.status


def passwords_work(client: Client, shape: Shape) -> None:
    for who in people(shape):
        has_second_factor = shape.has("auth", "mfa") and who.id == "capital"
        if who.gets_in in (200, 403):
            assert sign_in(client, who) == (403 if has_second_factor else who.gets_in), who


def tools_are_as_visible_as_before(client: Client, shape: Shape) -> None:
    knows_sharing = shape.has("tool", "access_control") or shape.has("access_grant")
    for token, expected in (
        ("owner", set(ACCESS)),
        ("admin", set(ACCESS)),
        ("reader", READS["reader"] if knows_sharing else set()),
        ("other", READS["other"] if knows_sharing else set()),
    ):
        api = client(session_of(client, token))
        listed = {tool["id"] for tool in api.get("/v1/tools?limit=100")["data"]}
        assert listed == expected, token
        for name in ACCESS if token in WRITES else ():
            change = api.ask("PATCH", f"/v1/tools/{name}", {"description": "changed"}).status
            may_write = knows_sharing and name in WRITES[token]
            assert change == (200 if may_write else 403 if name in expected else 404), (token, name)


def session_of(client: Client, name: str) -> str:
    who = Person(name)
    body = {"email": who.address, "password": who.password}
    return str(client().post("/v1/auth/signin", body)["token"])


def new_ones_fit_in(client: Client) -> None:
    admin = client(Person("admin").key)
    body = {"email": "new@example.com", "name": "New", "role": "user", "password": "a new password"}
    made = admin.post("/v1/admin/users", body)
    body = {"email": "New@Example.com", "password": "a new password"}
    new = client(client().post("/v1/auth/signin", body)["token"])
    preset = {"name": "Fox", "model": "flux/schnell", "input": {"prompt": "a fox"}}
    tool = new.post("/v1/tools", {**preset, "access_control": None})
    assert (tool["user_id"], tool["access_control"]) == (made["id"], None)
    private = new.post("/v1/tools", preset)
    listed = {one["id"] for one in client(Person("owner").key).get("/v1/tools?limit=100")["data"]}
    assert (tool["id"] in listed, private["id"] in listed) == (True, False)
    seen = [one["id"] for one in admin.get("/v1/admin/users?limit=100")["data"]]
    assert {"owner", "ghost", made["id"]} <= set(seen)
    assert new.ask("DELETE", f"/v1/tools/{private['id']}").status == 204
