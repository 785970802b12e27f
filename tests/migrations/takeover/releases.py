"""Databases as each release of Open WebUI, and each stage of wxiai's chain, made them: in its own columns and keys.

A column is written `name type!=default`: `!` is NOT NULL. TIME and FLAG are what differs between the databases:
INTEGER on SQLite, BIGINT and BOOLEAN on PostgreSQL.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

_TYPES = {"sqlite": {"TIME": "INTEGER", "FLAG": "INTEGER", "DATETIME": "DATETIME"},
          "postgresql": {"TIME": "BIGINT", "FLAG": "BOOLEAN", "DATETIME": "TIMESTAMP"}}  # fmt: skip
_CHAT_TIME = {"sqlite": "DATETIME", "postgresql": "BIGINT"}  # on SQLite it holds integers all the same


@dataclass(frozen=True)
class Table:
    """Columns, and the rest of CREATE TABLE; `unique` are indexes, which is all that peewee's tables have."""

    columns: str
    rest: tuple[str, ...] = ()
    unique: tuple[str, ...] = ()

    def plus(self, columns: str) -> Table:
        return Table(f"{self.columns}, {columns}", self.rest, self.unique)

    def without(self, name: str) -> Table:
        kept = [part for part in self.columns.split(", ") if not part.startswith(f"{name} ")]
        return Table(", ".join(kept), self.rest, self.unique)

    @property
    def names(self) -> list[str]:
        return [part.split()[0] for part in self.columns.split(", ")]

    def ddl(self, name: str, dialect: str) -> list[str]:
        """The statements that make it."""
        parts = [*(_column(part, dialect) for part in self.columns.split(", ")), *self.rest]
        made = [f'CREATE TABLE "{name}" ({", ".join(parts)})']
        return made + [
            f'CREATE UNIQUE INDEX "{index}" ON "{name}" ({_indexed(index, name)})' for index in self.unique
        ]


def _column(text: str, dialect: str) -> str:
    name, _, kind = text.partition(" ")
    kind, _, default = kind.partition("=")
    must = kind.endswith("!")
    kind = kind.removesuffix("!")
    kind = _CHAT_TIME[dialect] if kind == "CHATTIME" else _TYPES[dialect].get(kind, kind)
    return f'"{name}" {kind}' + (" NOT NULL" if must else "") + (f" DEFAULT {default}" if default else "")


def _indexed(index: str, table: str) -> str:
    return (
        "lower(email)"
        if index.endswith("lower")
        else f'"{index.removeprefix("ix_").removeprefix(table + "_")}"'
    )


@dataclass(frozen=True)
class Shape:
    """One release's tables, and what its `alembic_version` says (None: there is no such table)."""

    tables: dict[str, Table]
    versions: list[str] | None = field(default_factory=list)

    def plus(self, versions: list[str] | None, **tables: Table) -> Shape:
        return Shape({**self.tables, **tables}, versions)

    def without(self, *names: str) -> Shape:
        return Shape({name: table for name, table in self.tables.items() if name not in names}, self.versions)

    def has(self, table: str, column: str = "") -> bool:
        return table in self.tables and (not column or column in self.tables[table].names)

    def build(self, connection: sa.Connection) -> None:
        """Make the tables, empty."""
        for name, table in self.tables.items():
            for statement in table.ddl(name, connection.dialect.name):
                connection.exec_driver_sql(statement)
        if self.versions is not None:
            connection.exec_driver_sql(
                "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL,"
                " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
            )
            for version in self.versions:
                connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{version}')")

    def insert(self, connection: sa.Connection, table: str, *rows: dict[str, Any]) -> None:
        """Add rows, of which only the columns that this release has are taken."""
        columns = [name for name in self.tables[table].names if name in rows[0]]
        target = sa.table(table, *map(sa.column, columns))
        connection.execute(target.insert(), [{name: row[name] for name in columns} for row in rows])


# ---------------------------------------------------------------- Open WebUI

_KEY = ("PRIMARY KEY (id)",)
_USER_035 = Table(
    "id VARCHAR(255)!, name VARCHAR(255)!, email VARCHAR(255)!, role VARCHAR(255)!, profile_image_url TEXT!,"
    " api_key VARCHAR(255), created_at TIME!, updated_at TIME!, last_active_at TIME!, settings TEXT, info TEXT",
    unique=("user_id", "user_api_key"),
)
_USER_0335 = Table(
    f"{_USER_035.columns}, oauth_sub TEXT", unique=("user_id", "user_api_key", "user_oauth_sub")
)
_PROFILE = (
    "username VARCHAR(50), bio TEXT, gender TEXT, date_of_birth DATE, profile_banner_image_url TEXT, timezone VARCHAR,"
    " presence_state VARCHAR, status_emoji VARCHAR, status_message TEXT, status_expires_at BIGINT, oauth JSON,"
    " info JSON, settings JSON"
)
_USER_0643 = Table(
    "id VARCHAR(255)!, name VARCHAR(255)!, email VARCHAR(255)!, role VARCHAR(255)!, profile_image_url TEXT!,"
    f" created_at TIME!, updated_at TIME!, last_active_at TIME!, {_PROFILE}",
    rest=_KEY, unique=("user_id",),
)  # fmt: skip
_USER_096 = Table(
    "id VARCHAR!, name VARCHAR, email VARCHAR, role VARCHAR, profile_image_url TEXT, last_active_at BIGINT,"
    f" updated_at BIGINT, created_at BIGINT, {_PROFILE}, scim JSON",
    rest=_KEY,
)
_USER_0114 = Table(f"{_USER_096.columns}, variables JSON", rest=_KEY, unique=("uq_user_email_lower",))

_AUTH_035 = Table("id VARCHAR(255)!, email VARCHAR(255)!, password TEXT!, active FLAG!", unique=("auth_id",))
_AUTH_096 = Table("id VARCHAR!, email VARCHAR, password TEXT, active BOOLEAN", rest=_KEY)

_TOOL_035 = Table(
    "id TEXT!, user_id TEXT!, name TEXT!, content TEXT!, specs TEXT!, meta TEXT!, created_at TIME!, updated_at TIME!",
    unique=("tool_id",),
)
_TOOL_096 = Table(
    "id VARCHAR!, user_id VARCHAR, name TEXT, content TEXT, specs TEXT, meta TEXT, valves TEXT, updated_at BIGINT,"
    " created_at BIGINT",
    rest=_KEY,
)

_GROUP_0643 = Table(
    "id TEXT!, user_id TEXT, name TEXT, description TEXT, data JSON, meta JSON, permissions JSON, created_at BIGINT,"
    " updated_at BIGINT",
    rest=(*_KEY, "UNIQUE (id)"),
)
_GROUP_048 = _GROUP_0643.plus("user_ids JSON")

_API_KEY = Table(
    "id TEXT!, user_id TEXT, key TEXT!, data JSON, expires_at BIGINT, last_used_at BIGINT, created_at BIGINT!,"
    " updated_at BIGINT!",
    rest=(*_KEY, "UNIQUE (key)", 'FOREIGN KEY (user_id) REFERENCES "user" (id) ON DELETE CASCADE'),
)
_GROUP_MEMBER = Table(
    "id TEXT!, group_id TEXT!, user_id TEXT!, created_at BIGINT, updated_at BIGINT",
    rest=(
        *_KEY,
        "UNIQUE (group_id, user_id)",
        'FOREIGN KEY (group_id) REFERENCES "group" (id) ON DELETE CASCADE',
    ),
)
_ACCESS_GRANT = Table(
    "id TEXT!, resource_type TEXT!, resource_id TEXT!, principal_type TEXT!, principal_id TEXT!, permission TEXT!,"
    " created_at BIGINT!",
    rest=(*_KEY, "UNIQUE (resource_type, resource_id, principal_type, principal_id, permission)"),
)

_CONFIG = Table(
    "id INTEGER!, data JSON!, version INTEGER!, created_at DATETIME!=CURRENT_TIMESTAMP,"
    " updated_at DATETIME=CURRENT_TIMESTAMP",
    rest=_KEY,
)
_CONFIG_010 = Table("key TEXT!, value JSON!, updated_at BIGINT", rest=("PRIMARY KEY (key)",))
_CHAT_035 = Table(
    "id VARCHAR(255)!, user_id VARCHAR(255)!, title TEXT!, chat TEXT!, share_id VARCHAR(255), archived FLAG!,"
    " created_at CHATTIME!, updated_at CHATTIME!",
    unique=("chat_id", "chat_share_id"),
)
_CHAT_0335 = Table(
    "id VARCHAR(255)!, user_id VARCHAR(255)!, title TEXT!, share_id VARCHAR(255), archived FLAG!,"
    " created_at CHATTIME!, updated_at CHATTIME!, chat JSON, pinned BOOLEAN, meta JSON!='{}', folder_id TEXT",
    unique=("chat_id", "chat_share_id"),
)
_CHAT_096 = Table(
    "id VARCHAR!, user_id VARCHAR, title TEXT, created_at BIGINT, updated_at BIGINT, share_id TEXT, archived BOOLEAN,"
    " chat JSON, pinned BOOLEAN, meta JSON!='{}', folder_id TEXT, tasks JSON, summary TEXT, last_read_at BIGINT",
    rest=(*_KEY, "UNIQUE (share_id)"),
)
_MODEL = Table(  # a name that must stay theirs
    "id TEXT!, user_id TEXT!, base_model_id TEXT, name TEXT!, meta TEXT!, params TEXT!, created_at TIME!,"
    " updated_at TIME!",
    unique=("model_id",),
)
_MIGRATEHISTORY = Table("id INTEGER!, name VARCHAR(255)!, migrated_at DATETIME!", rest=_KEY)

_035 = Shape(
    {"user": _USER_035, "auth": _AUTH_035, "tool": _TOOL_035, "chat": _CHAT_035, "model": _MODEL,
     "migratehistory": _MIGRATEHISTORY},
    None,
)  # fmt: skip
_0335 = _035.plus(
    ["3ab32c4b8f59"],
    user=_USER_0335, tool=_TOOL_035.plus("valves TEXT"), config=_CONFIG, chat=_CHAT_0335,
)  # fmt: skip
_048 = _0335.plus(["922e7a387820"], tool=_TOOL_035.plus("valves TEXT, access_control JSON"), group=_GROUP_048)
_0643 = _048.plus(
    ["c440947495f3"], user=_USER_0643, group=_GROUP_0643, api_key=_API_KEY, group_member=_GROUP_MEMBER
)
_0812 = _0643.plus(
    ["b2c3d4e5f6a7"],
    user=_USER_0643.plus("scim JSON"),
    tool=_TOOL_035.plus("valves TEXT"),
    access_grant=_ACCESS_GRANT,
)
_096 = _0812.plus(["461111b60977"], user=_USER_096, auth=_AUTH_096, tool=_TOOL_096, chat=_CHAT_096)
_0102 = _096.plus(["3ff2c63645b8"], config=_CONFIG_010, config_old=_CONFIG)
_0114 = _0102.plus(["6d09d1bf1f23"], user=_USER_0114)

OPEN_WEBUI: dict[str, Shape] = {
    "0.3.5": _035,
    "0.3.35": _0335,
    "0.4.8": _048,
    "0.6.18": _048.plus(["d31026856c01"]),
    "0.6.43": _0643,
    "0.7.2": _0643.plus(["a5c220713937"]),
    "0.8.12": _0812,
    "0.9.6": _096,
    "0.10.2": _0102,
    "0.10.2 halted on its way to 0.11": _0102.plus(["959eaac8f909"]),
    "0.11.4": _0114,
    "0.12.4": _0114.plus(
        ["0bd252b206fb"],
        auth=_AUTH_096.plus("mfa JSON, session_stamp TEXT"),
        tool=_TOOL_096.plus("version_id TEXT"),
        group=_GROUP_0643.plus("parent_group_id TEXT"),
    ),
}

# ---------------------------------------------------------------- wxiai

_USER_WXIAI = Table(
    f"{_USER_0335.columns}, phone VARCHAR",
    rest=("CONSTRAINT uq_user_phone UNIQUE (phone)",),
    unique=(*_USER_0335.unique, "ix_user_phone"),
)
_MJ_TASKS = Table(
    "id VARCHAR(50)!, user_id VARCHAR(50), action VARCHAR(50), status VARCHAR(50), prompt TEXT, mode VARCHAR(50),"
    " credits_cost INTEGER, submit_time DATETIME, progress VARCHAR(20), image_url TEXT, properties JSON, buttons JSON,"
    " created_at DATETIME, updated_at DATETIME",
    rest=_KEY,
)
_KLING_TASKS = Table(
    "id VARCHAR(50)!, user_id VARCHAR(50)!, external_task_id VARCHAR(100), action VARCHAR(50)!, status VARCHAR(50),"
    " model_name VARCHAR(100), prompt TEXT, cfg_scale FLOAT, credits_cost INTEGER, video_url TEXT, properties JSON,"
    " created_at DATETIME, updated_at DATETIME",
    rest=_KEY,
)
_FLUX_CONFIG = Table(
    "id VARCHAR(255)!, api_key TEXT!, base_url VARCHAR(500)!, enabled BOOLEAN!, timeout INTEGER!", rest=_KEY
)
_CREDIT = Table(
    "id VARCHAR!, user_id VARCHAR!, credit NUMERIC(24,12), updated_at BIGINT, created_at BIGINT",
    rest=(*_KEY, "UNIQUE (user_id)"),
)
_FOLDER = Table(
    "id TEXT!, parent_id TEXT, user_id TEXT!, name TEXT!, items JSON, meta JSON, is_expanded BOOLEAN!,"
    " created_at BIGINT!, updated_at BIGINT!",
    rest=("PRIMARY KEY (id, user_id)",),
)

_CHAIN = _048.plus(
    ["f1e2d3c4b5a6"], user=_USER_WXIAI, credit=_CREDIT, mj_tasks=_MJ_TASKS,
    kling_tasks=_KLING_TASKS.plus("serviceType VARCHAR(50)"), flux_config=_FLUX_CONFIG, folder=_FOLDER,
)  # fmt: skip
_WITH_CLOUD = {
    "mj_tasks": _MJ_TASKS.plus("cloud_image_url TEXT"),
    "kling_tasks": _KLING_TASKS.plus("serviceType VARCHAR(50), cloud_video_url TEXT"),
}
_MERGED = _CHAIN.plus(
    ["merge_heads_final"], **_WITH_CLOUD, flux_config=_FLUX_CONFIG.plus("model_credits TEXT")
)
_CREATE_ALL = _CHAIN.plus(
    None, user=_USER_0335, tool=_TOOL_035.plus("valves TEXT"), kling_tasks=_KLING_TASKS.plus("cloud_video_url TEXT"),
    mj_tasks=_WITH_CLOUD["mj_tasks"],
)  # fmt: skip
_FALLBACK = _CREATE_ALL.without("credit", "mj_tasks", "flux_config", "config")

WXIAI: dict[str, Shape] = {
    "the common ancestor's revision": _CHAIN.plus(["d31026856c01"]),
    "one head": _MERGED.plus(["merge_heads_kling_lip_sync"]),
    "two heads": _MERGED.plus(["24e8f9a7b1c2", "abc123def456"]),
    "merge_heads_final, which our chain has too": _MERGED,
    "three rows": _MERGED.plus(["f4e8b6c2a1d9", "68ab2b32", "68ab2be4"]),
    "four rows": _MERGED.plus(["e1f2g3h4i5j6", "f4e8b6c2a1d9", "68ab2b32", "68ab2be4"]),
    "half applied by hand": _CHAIN.plus(
        ["abc123def456"],
        mj_tasks=_WITH_CLOUD["mj_tasks"],
        flux_config=_FLUX_CONFIG.plus("model_credits TEXT"),
    ),
    "a revision that nobody has any more": _CHAIN.plus(["8e9f2a5b3c1d"]),
    "create_all": _CREATE_ALL,
    "create_all, then the chain that died at once": _CREATE_ALL.plus(["7e5b5dc7342b"]),
    "create_all, and a version table without a row": _CREATE_ALL.plus([]),
    "the fallback of a failed start": _FALLBACK,
    "the fallback, started again": _FALLBACK.plus(["3ab32c4b8f59"]),
    "an orphan root beside the chain": _CHAIN.plus(["68ab2b32", "f1e2d3c4b5a6"]),
}
ORPHAN_ROOT_ALONE = Shape({}, ["68ab2be4"])
