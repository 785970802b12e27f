"""What the take-over writes into `tool.access_control` where the release has none: never more than was shared."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa

from common.settings import Settings
from migrations import runner
from migrations.chain import Chain
from tests.migrations.takeover.people import fill
from tests.migrations.takeover.releases import OPEN_WEBUI, Shape

READER, TEAM = {"user_ids": ["reader"], "group_ids": []}, {"user_ids": [], "group_ids": ["team"]}
EMPTY: dict[str, list[str]] = {"user_ids": [], "group_ids": []}


def taken_over(given: Settings, engine: sa.Engine, shape: Shape) -> dict[str, object]:
    """The column of every tool, and of one that the legacy program adds later."""
    with engine.begin() as connection:
        shape.build(connection)
        fill(connection, shape)
    assert runner.upgrade(given, Chain()).code == 0
    values = dict.fromkeys(("user_id", "name", "content", "specs", "meta"), "x") | {"id": "later"}
    column = sa.column("access_control", sa.Text())
    with engine.begin() as connection:
        shape.insert(connection, "tool", {**values, "created_at": 1, "updated_at": 1})
        rows = connection.execute(
            sa.select(sa.column("id"), sa.cast(column, sa.Text())).select_from(sa.table("tool"))
        )
        return {name: value and json.loads(value) for name, value in rows}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_without_sharing_all_is_private(given: Settings, engine: sa.Engine) -> None:
    access = taken_over(given, engine, OPEN_WEBUI["0.3.35"])
    assert set(map(str, access.values())) == {"{}"}


def test_grants_become_access_control(given: Settings, engine: sa.Engine) -> None:
    access = taken_over(given, engine, OPEN_WEBUI["0.8.12"])
    del access["nobody"]  # has grants of kinds that nobody knows; what counts are the grants themselves
    assert access == {
        "everyone": None,
        "everyone as JSON null": None,
        "nobody in lists": {},
        "the reader": {"read": READER, "write": EMPTY},
        "the team": {"read": TEAM, "write": EMPTY},
        "the team may write": {"read": TEAM, "write": TEAM},
        "write without read": {"read": EMPTY, "write": READER},
        "a group that is gone": {"read": {"user_ids": ["gone"], "group_ids": ["gone"]}, "write": EMPTY},
        "later": {},
    }
