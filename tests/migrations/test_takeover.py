"""Databases of Open WebUI in their own shapes: every row kept, nothing more visible than before."""

from __future__ import annotations

import json
import lzma
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from common.settings import Settings
from migrations import runner
from migrations.chain import Chain
from tests.infrastructure.environment import ROOT
from tests.migrations.conftest import settings_for

SAMPLES = ROOT.parent / "shared" / "legacy"  # too large for the repository; looked for beside the checkout

OLD_USER = """CREATE TABLE "user" (id VARCHAR(255) NOT NULL, name VARCHAR(255) NOT NULL, email VARCHAR(255) NOT NULL,
 role VARCHAR(255) NOT NULL, profile_image_url TEXT NOT NULL, api_key VARCHAR(255), created_at BIGINT NOT NULL,
 updated_at BIGINT NOT NULL, last_active_at BIGINT NOT NULL, settings TEXT, info TEXT)"""
NEW_USER = """CREATE TABLE "user" (id VARCHAR NOT NULL PRIMARY KEY, name VARCHAR, email VARCHAR, role VARCHAR,
 profile_image_url TEXT, last_active_at BIGINT, updated_at BIGINT, created_at BIGINT, settings JSON, scim JSON)"""
OLD_TOOL = """CREATE TABLE tool (id TEXT NOT NULL, user_id TEXT NOT NULL, name TEXT NOT NULL, content TEXT NOT NULL,
 specs TEXT NOT NULL, meta TEXT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, valves TEXT)"""
GRANT = """CREATE TABLE access_grant (id TEXT NOT NULL PRIMARY KEY, resource_type TEXT NOT NULL,
 resource_id TEXT NOT NULL, principal_type TEXT NOT NULL, principal_id TEXT NOT NULL, permission TEXT NOT NULL,
 created_at BIGINT NOT NULL)"""


def build(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def tool(name: str) -> str:
    return f"INSERT INTO tool VALUES ('{name}', 'u1', '{name}', '', '[]', '{{}}', 1, 1, NULL)"


def grant(number: int, resource: str, kind: str, principal: str, permission: str) -> str:
    row = f"'g{number}', 'tool', '{resource}', '{kind}', '{principal}', '{permission}', 1"
    return f"INSERT INTO access_grant VALUES ({row})"


def access(engine: sa.Engine) -> dict[str, object]:
    column = sa.column("access_control", sa.Text())
    with engine.connect() as connection:
        rows = connection.execute(
            sa.select(sa.column("id"), sa.cast(column, sa.Text())).select_from(sa.table("tool"))
        )
        return {name: value and json.loads(value) for name, value in rows}


def test_old_open_webui_keeps_its_rows_and_gets_no_admin(
    given: Settings, engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    row = "INSERT INTO \"user\" VALUES ('u1', 'U', 'u@x', 'admin', '', 'sk-1', 1, 1, 1, NULL, NULL)"
    build(engine, OLD_USER, 'CREATE UNIQUE INDEX user_id ON "user" (id)', OLD_TOOL, row, tool("t1"))
    caplog.set_level("INFO")
    assert runner.upgrade(given, Chain()).code == 0
    assert "Existing users: 1, tools: 1 (all kept)" in caplog.messages
    assert access(engine) == {"t1": {}}  # no access control there meant no sharing here
    columns = {column["name"] for column in sa.inspect(engine).get_columns("user")}
    assert {"phone", "settings", "info"} <= columns


def test_grants_of_newer_open_webui_become_access_control(given: Settings, engine: sa.Engine) -> None:
    build(
        engine,
        NEW_USER,
        OLD_TOOL,
        GRANT,
        *map(tool, ["public", "shared", "private", "odd"]),
        grant(1, "public", "user", "*", "read"),
        grant(2, "shared", "user", "u2", "read"),
        grant(3, "shared", "group", "g1", "write"),
        grant(4, "odd", "robot", "*", "read"),
    )
    assert runner.upgrade(given, Chain()).code == 0
    lists = {"read": {"user_ids": ["u2"], "group_ids": []}, "write": {"user_ids": [], "group_ids": ["g1"]}}
    assert access(engine) == {"public": None, "shared": lists, "private": {}, "odd": {}}
    build(engine, "INSERT INTO tool (id, user_id, name, content, specs, meta, created_at, updated_at)"
          " VALUES ('later', 'u1', 'n', '', '', '', 1, 1)")  # fmt: skip
    assert access(engine)["later"] == {}  # the legacy program goes on, and its new tools stay private
    assert "api_key" in {column["name"] for column in sa.inspect(engine).get_columns("user")}


def test_access_control_that_is_there_is_not_touched(given: Settings, engine: sa.Engine) -> None:
    with_column = OLD_TOOL.replace("valves TEXT", "valves TEXT, access_control JSON")
    values = "('{name}', 'u1', 'n', '', '', '', 1, 1, NULL, {access})"
    build(
        engine,
        with_column,
        "INSERT INTO tool VALUES " + values.format(name="everyone", access="NULL"),
        "INSERT INTO tool VALUES " + values.format(name="owner", access="'{}'"),
    )
    assert runner.upgrade(given, Chain()).code == 0
    assert access(engine) == {"everyone": None, "owner": {}}


def test_a_half_applied_ancestor_is_completed(given: Settings, engine: sa.Engine) -> None:
    build(
        engine,
        OLD_USER.replace("info TEXT", "info TEXT, phone VARCHAR"),
        'CREATE UNIQUE INDEX ix_user_phone ON "user" (phone)',
    )
    assert runner.upgrade(given, Chain()).code == 0


@pytest.mark.parametrize(
    "sample",
    [
        "owui-0.12.4-sqlite",
        "owui-0.6.18-sqlite",
        "wxiai-d-merge_heads_final-sqlite",
        "wxiai-f1-half-applied-sqlite",
    ],
)
def test_real_databases(sample: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    packed = SAMPLES / f"{sample}.db.xz"
    if not packed.exists():
        pytest.skip(f"{packed} is not here")
    path = tmp_path / "webui.db"
    with lzma.open(packed) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)
    before = contents(path)
    caplog.set_level("INFO")
    outcome = runner.upgrade(settings_for(f"sqlite:///{path}"), Chain())
    assert outcome.code == 0, outcome.line
    assert any("users: 1250" in message and "tools: 40" in message for message in caplog.messages)
    after = contents(path)
    assert before.keys() <= after.keys()
    for table in before:
        if table != "user":  # the set-up of these tests adds one
            assert after[table] == before[table], table


def contents(path: Path) -> dict[str, int]:
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with engine.connect() as connection:
        tables = sa.inspect(connection).get_table_names()
        return {
            table: connection.scalar(sa.select(sa.func.count()).select_from(sa.table(table))) or 0
            for table in tables
        }
