"""Every release of Open WebUI, taken over: all of theirs is kept, and everybody is who they were, here too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from common.db import reading
from common.services import users
from common.settings import Settings
from migrations import runner, status
from migrations.chain import Chain
from tests.integration.web.api import Api
from tests.migrations.takeover.conftest import Taken
from tests.migrations.takeover.contents import check_kept, contents
from tests.migrations.takeover.people import ACCESS, READS, WRITES, Person, people
from tests.migrations.takeover.releases import OPEN_WEBUI, ORPHAN_ROOT_ALONE, WXIAI, Shape

Client = Callable[..., Api]
Serve = Callable[[], Client]

SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
SHAPES = OPEN_WEBUI | WXIAI
ON_POSTGRESQL = ["0.6.18", "0.12.4", "the fallback of a failed start"]
# Where something is new in what is asked there.
ASKED = ["0.3.35", "0.6.18", "0.7.2", "0.8.12", "0.9.6", "0.12.4", "two heads", "create_all"]
CASES = [(name, "sqlite") for name in ASKED] + [(name, "postgresql") for name in ON_POSTGRESQL]
# Where only tables differ, and where only the version does, which is theirs.
OTHER_TABLES = ["0.3.5", "0.10.2", "0.11.4", "half applied by hand", "the fallback, started again"]
OTHER_VERSIONS = [name for name in SHAPES if name not in {*ASKED, *ON_POSTGRESQL, *OTHER_TABLES}]


@pytest.mark.parametrize(("name", "database_url"), CASES, indirect=["database_url"])
def test_everybody_is_who_they_were(name: str, take_over: Taken, serve: Serve, engine: sa.Engine) -> None:
    shape = SHAPES[name]
    check_kept(take_over(shape), engine)
    client = serve()
    keys_work(client, shape)
    passwords_work(client, shape)
    tools_are_as_visible_as_before(client, shape)
    new_ones_fit_in(client)


@SQLITE
@pytest.mark.parametrize("name", OTHER_TABLES)
def test_all_of_theirs_is_kept(name: str, take_over: Taken, given: Settings, engine: sa.Engine) -> None:
    before = take_over(SHAPES[name])
    assert runner.upgrade(given, Chain()).line == f"current: {Chain().aim}"
    check_kept(before, engine)


@SQLITE
@pytest.mark.parametrize("name", OTHER_VERSIONS)
def test_their_version_means_nothing_to_us(name: str, given: Settings, engine: sa.Engine) -> None:
    shape = SHAPES[name]
    assert any(shape.tables == known.tables and known != shape for known in SHAPES.values())
    with engine.begin() as connection:
        shape.build(connection)
    found = status.status(given.database_url, Chain())
    assert (found.state, found.db, found.findings.conflicts) == ("behind", [], [])
    assert len(found.pending) == len(Chain().revisions)


@SQLITE
def test_an_orphan_root_alone_is_a_new_database(given: Settings, engine: sa.Engine, serve: Serve) -> None:
    with engine.begin() as connection:
        ORPHAN_ROOT_ALONE.build(connection)
    before = contents(engine)
    assert runner.upgrade(given, Chain()).code == 0
    check_kept(before, engine)
    [admin] = people_there(engine)
    assert admin == ("admin@example.com", "admin")


def people_there(engine: sa.Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql('SELECT email, role FROM "user"')]


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
    """A user, a token and tools that are made here; without a password, which would take most of the time."""
    admin = client(Person("admin").key)
    made = admin.post("/v1/admin/users", {"email": "new@example.com", "name": "New", "role": "user"})
    new = client(admin.post(f"/v1/admin/users/{made['id']}/tokens", {"name": "first"})["token"])
    preset = {"name": "Fox", "model": "flux/schnell", "input": {"prompt": "a fox"}}
    tool = new.post("/v1/tools", {**preset, "access_control": None})
    assert (tool["user_id"], tool["access_control"]) == (made["id"], None)
    private = new.post("/v1/tools", preset)
    listed = {one["id"] for one in client(Person("owner").key).get("/v1/tools?limit=100")["data"]}
    assert (tool["id"] in listed, private["id"] in listed) == (True, False)
    assert new.ask("DELETE", f"/v1/tools/{private['id']}").status == 204
    seen = [
        one["id"]
        for page in ("", "&after=owner")
        for one in admin.get(f"/v1/admin/users?limit=100{page}")["data"]
    ]
    assert {"owner", "ghost", made["id"]} <= set(seen)


@SQLITE
def test_passwords_given_here_and_logins_that_are_nobodys(take_over: Taken, serve: Serve) -> None:
    take_over(OPEN_WEBUI["0.12.4"])
    client = serve()
    admin = client(Person("admin").key)
    body = {"email": "new@example.com", "name": "New", "role": "user", "password": "a new password"}
    admin.post("/v1/admin/users", body)
    changed = {"password": "another password"}
    assert admin.ask("PATCH", "/v1/admin/users/ghost", changed).status == 200  # who had none
    for email, password in [("NEW@example.com", "a new password"), ("ghost@example.com", "another password")]:
        assert client().ask("POST", "/v1/auth/signin", {"email": email, "password": password}).status == 200
    with reading() as session:
        for email in ("inactive@example.com", "nobody@example.com"):  # the second has no row in `user`
            assert users.login_of(session, email).user_id is None
