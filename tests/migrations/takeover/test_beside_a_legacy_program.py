"""Open WebUI goes on working on the database that was taken over: what it changes counts here at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from common.services import openwebui
from tests.integration.web.api import Api
from tests.migrations.takeover.conftest import Taken
from tests.migrations.takeover.people import Person
from tests.migrations.takeover.releases import OPEN_WEBUI

Serve = Callable[[], Callable[..., Api]]
NEW_KEY = "INSERT INTO api_key (id, user_id, key, created_at, updated_at) VALUES"
GRANTS = "resource_type, principal_type, principal_id, permission"


@pytest.fixture
def client(take_over: Taken, serve: Serve) -> Callable[[str], Api]:
    """Clients of a database of 0.12.4, by the name of the user: whose key is valid in any case."""
    take_over(OPEN_WEBUI["0.12.4"])
    make = serve()
    admin = make(Person("admin").key)
    return lambda name: make(admin.post(f"/v1/admin/users/{name}/tokens", {"name": "test"})["token"])


def do(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def grants(engine: sa.Engine, tool: str) -> set[tuple[Any, ...]]:
    with engine.connect() as connection:
        query = f"SELECT {GRANTS} FROM access_grant WHERE resource_id = '{tool}'"
        return {tuple(row) for row in connection.exec_driver_sql(query)}


def visible(api: Api) -> set[str]:
    return {tool["id"] for tool in api.get("/v1/tools?limit=100")["data"]}


def test_grants_and_members_come_and_go(client: Callable[[str], Api], engine: sa.Engine) -> None:
    reader, other = client("reader"), client("other")
    do(
        engine,
        "DELETE FROM access_grant WHERE resource_id = 'everyone'",
        f"INSERT INTO access_grant (id, resource_id, created_at, {GRANTS})"
        " VALUES ('new', 'nobody in lists', 1, 'tool', 'user', 'other', 'read')",
        "INSERT INTO tool (id, user_id, name, content, specs, meta) VALUES ('later', 'owner', 'n', '', '', '{}')",
    )
    assert visible(other) == {"everyone as JSON null", "nobody in lists"}
    assert visible(reader) == {"everyone as JSON null", "the reader", "the team", "the team may write"}
    do(
        engine,
        "DELETE FROM group_member",
        "INSERT INTO group_member (id, group_id, user_id) VALUES ('m2', 'team', 'other')",
    )
    assert visible(reader) == {"everyone as JSON null", "the reader"}
    assert visible(other) == {"everyone as JSON null", "nobody in lists", "the team", "the team may write"}
    do(engine, "DELETE FROM access_grant WHERE resource_type = 'tool'", "DELETE FROM group_member")
    assert (visible(reader), visible(other)) == (set(), set())


def test_what_is_shared_here_is_shared_there(client: Callable[[str], Api], engine: sa.Engine) -> None:
    owner, other = client("owner"), client("other")
    circle = {"user_ids": ["other", "other", "*"], "group_ids": ["team"]}
    changed = owner.ask("PATCH", "/v1/tools/nobody", {"access_control": {"read": circle}})
    assert changed.status == 200
    assert grants(engine, "nobody") == {
        ("tool", "user", "other", "read"),
        ("tool", "group", "team", "read"),
        ("model", "user", "*", "read"),
    }
    assert "nobody" in visible(other)
    assert owner.ask("PATCH", "/v1/tools/nobody", {"access_control": None}).status == 200
    assert ("tool", "user", "*", "read") in grants(engine, "nobody")
    assert owner.ask("PATCH", "/v1/tools/nobody", {"access_control": {}}).status == 200
    assert grants(engine, "nobody") == {("model", "user", "*", "read")}
    assert "nobody" not in visible(other)
    do(
        engine,
        f"INSERT INTO access_grant (id, resource_id, created_at, {GRANTS})"
        " VALUES ('new', 'everyone', 1, 'tool', 'user', '*', 'write')",
    )
    assert other.get("/v1/tools/everyone")["access_control"] is None
    assert other.ask("PATCH", "/v1/tools/everyone", {"description": "mine"}).status == 200
    assert len(grants(engine, "everyone")) == 2
    assert owner.ask("DELETE", "/v1/tools/everyone").status == 204
    assert grants(engine, "everyone") == set()  # the next tool of that name must not inherit them


def test_keys_come_and_go(client: Callable[[str], Api], engine: sa.Engine) -> None:
    """Also where `user.api_key`, which the take-over added again, says something else."""
    old = Person("owner").key
    do(
        engine,
        "UPDATE api_key SET key = 'sk-changed' WHERE user_id = 'owner'",
        f"""UPDATE "user" SET api_key = '{old}' WHERE id = 'owner'""",
        f"{NEW_KEY} ('second', 'owner', 'sk-second', 1, 1), ('lost', NULL, 'sk-lost', 1, 1)",
        "UPDATE api_key SET expires_at = 0 WHERE user_id = 'other'",
    )
    make = client("owner").app
    status = {
        key: Api(key, app=make).ask("GET", "/v1/me").status
        for key in (old, "sk-changed", "sk-second", "sk-lost", Person("other").key)
    }
    assert list(status.values()) == [401, 200, 200, 401, 401]
    do(engine, "DELETE FROM api_key WHERE id = 'second'")
    assert Api("sk-second", app=make).ask("GET", "/v1/me").status == 401


def test_what_cannot_be_read_is_nobodys(take_over: Taken, serve: Serve, engine: sa.Engine) -> None:
    """Nor does it stop the others from being read."""
    take_over(OPEN_WEBUI["0.6.18"])
    if engine.dialect.name == "sqlite":  # PostgreSQL lets nothing else into a column of JSON
        do(
            engine,
            "UPDATE tool SET access_control = 'no JSON' WHERE id = 'everyone'",
            "UPDATE tool SET access_control = 5 WHERE id = 'the reader'",
            """UPDATE "group" SET user_ids = '' WHERE id = 'empty'""",
        )
    else:
        do(
            engine,
            """UPDATE tool SET access_control = '"null"' WHERE id = 'everyone'""",
            "UPDATE tool SET access_control = '5' WHERE id = 'the reader'",
            """UPDATE "group" SET user_ids = '"reader"' WHERE id = 'empty'""",
        )
    reader = serve()(Person("reader").key)
    assert visible(reader) == {"everyone as JSON null", "the team", "the team may write"}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_release_that_moved_its_keys_and_members(
    take_over: Taken, serve: Serve, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open WebUI was upgraded after the take-over: as soon as it has written its tables, they count."""
    monkeypatch.setattr(openwebui, "_CACHED_S", 0.0)
    take_over(OPEN_WEBUI["0.6.18"])
    reader = serve()(Person("reader").key)
    seen = visible(reader)
    newer = OPEN_WEBUI["0.6.43"]
    with engine.begin() as connection:
        for name in ("api_key", "group_member"):
            for statement in newer.tables[name].ddl(name, connection.dialect.name):
                connection.exec_driver_sql(statement)
    assert visible(reader) == seen  # not yet filled
    do(
        engine,
        "INSERT INTO group_member (id, group_id, user_id) VALUES ('m1', 'team', 'other')",
        f"{NEW_KEY} ('k', 'reader', '{reader.token}', 1, 1)",
    )
    assert visible(reader) == {"everyone", "everyone as JSON null", "the reader"}
    do(
        engine,
        *OPEN_WEBUI["0.8.12"].tables["access_grant"].ddl("access_grant", engine.dialect.name),
        f"INSERT INTO access_grant (id, resource_id, created_at, {GRANTS})"
        " VALUES ('new', 'nobody', 1, 'tool', 'user', 'reader', 'read')",
        "ALTER TABLE tool DROP COLUMN access_control",
        'ALTER TABLE "group" DROP COLUMN user_ids',
        "DROP INDEX user_api_key",
        'ALTER TABLE "user" DROP COLUMN api_key',
    )
    assert visible(reader) == {"nobody"}
    do(engine, "UPDATE api_key SET expires_at = 1")
    assert reader.ask("GET", "/v1/me").status == 401
