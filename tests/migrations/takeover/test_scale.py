"""A database of a real size: 1,250 users, 5,000 chats, 40 tools and 2,500 tasks, and not a byte of them changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from common.settings import Settings
from migrations import runner
from migrations.chain import Chain
from tests.integration.web.api import Api
from tests.migrations.takeover.contents import check_kept, contents
from tests.migrations.takeover.people import Person, fill
from tests.migrations.takeover.releases import WXIAI

USERS, CHATS, TOOLS, TASKS = 1250, 5000, 40, 2500
LIMIT_S = 60
_CHAT = json.dumps(
    {"messages": [{"role": "user", "content": "画一只猫 🐈 \u0000" * 20}], "timestamp": 1700000000000}
)
_AT = 1_700_000_000
_MOMENT = datetime(2025, 8, 1, 12, 30, tzinfo=UTC).replace(tzinfo=None)  # without a zone, as theirs are


def crowd(connection: sa.Connection) -> None:
    """Add rows of the same kinds until there are so many of each."""
    shape = WXIAI["two heads"]

    def missing(table: str, wanted: int) -> range:
        there = connection.scalar(sa.select(sa.func.count()).select_from(sa.table(table))) or 0
        return range(there, wanted)

    numbers = missing("user", USERS)
    shape.insert(
        connection, "user",
        *({"id": f"u{n}", "name": f"用户{n}", "email": f"u{n}@example.com", "role": "user",
           "profile_image_url": "x" * 99, "created_at": _AT + n, "updated_at": _AT, "last_active_at": _AT,
           "phone": f"138{n:08}"} for n in numbers),
    )  # fmt: skip
    active = connection.dialect.name == "postgresql" or 1
    shape.insert(
        connection, "auth",
        *({"id": f"u{n}", "email": f"u{n}@example.com", "password": "$2b$12$" + "a" * 53, "active": active}
          for n in numbers),
    )  # fmt: skip
    shape.insert(
        connection, "chat",
        *({"id": f"c{n}", "user_id": f"u{n % USERS}", "title": f"chat {n}", "chat": _CHAT, "archived": active,
           "created_at": _AT, "updated_at": _AT, "meta": "{}"} for n in missing("chat", CHATS)),
    )  # fmt: skip
    shape.insert(
        connection, "tool",
        *({"id": f"t{n}", "user_id": "owner", "name": "n", "content": "x" * 1000, "specs": "[]", "meta": "{}",
           "created_at": _AT, "updated_at": _AT, "access_control": "{}"} for n in missing("tool", TOOLS)),
    )  # fmt: skip
    for table in ("mj_tasks", "kling_tasks"):
        shape.insert(
            connection, table,
            *({"id": f"{n}", "user_id": None if table == "mj_tasks" else f"u{n}", "action": "IMAGINE", "prompt": "狐狸",
               "status": "SUCCESS", "credits_cost": 10, "submit_time": _MOMENT, "properties": "null",
               "cloud_image_url": f"https://cdn.example.com/{n}.png"} for n in range(TASKS // 2)),
        )  # fmt: skip


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_a_database_of_a_real_size(
    given: Settings,
    engine: sa.Engine,
    serve: Callable[[], Callable[..., Api]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with engine.begin() as connection:
        WXIAI["two heads"].build(connection)
        fill(connection, WXIAI["two heads"])
        crowd(connection)
    before = contents(engine)
    assert [before.rows[name][1] for name in ("user", "chat", "tool")] == [USERS, CHATS, TOOLS]
    caplog.set_level("INFO")
    began = time.monotonic()
    assert runner.upgrade(given, Chain()).code == 0
    assert time.monotonic() - began < LIMIT_S
    assert (
        f"Existing users: {USERS}, tools: {TOOLS}, groups: 2, passwords: {USERS} (all kept)"
        in caplog.messages
    )
    check_kept(before, engine)
    assert serve()(Person("reader").key).get("/v1/me")["id"] == "reader"
