"""Who and what is in the taken-over databases: a few users of every kind, their keys, groups and tools."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import bcrypt
import sqlalchemy as sa

from tests.migrations.takeover.releases import Shape

LATER, LONG_AGO = 4_000_000_000, 1_600_000_000
_AT = 1_700_000_000


@dataclass(frozen=True)
class Person:
    """A user. `gets_in`: the status of a sign-in with the right password; None where there is no password."""

    id: str
    role: str | None = "user"
    email: str = ""
    name: str | None = "Someone"
    gets_in: int | None = 200
    active: bool = True
    key_expires_at: int | None = None

    @property
    def address(self) -> str:
        return self.email or f"{self.id}@example.com"

    @property
    def key(self) -> str:
        return f"sk-{self.id:0>32}"

    @property
    def password(self) -> str:
        return f"密码 of {self.id}"


PEOPLE = [
    Person("admin", "admin"),
    Person("owner"),
    Person("reader"),
    Person("other", key_expires_at=LATER),
    Person("pending", "pending", gets_in=403),
    Person("strange", "Admin ", gets_in=403),
    Person("inactive", active=False, gets_in=401),
    Person("ghost", gets_in=None),  # has no row in `auth`
    Person("phone", email="13318092044"),
    Person("capital", email="Upper.Case@Example.COM"),
    Person("foreign", email="Üser@测试.example"),
]
TWINS = [Person("twin1", email="twin@example.com"), Person("twin2", email="Twin@example.com")]
NAMELESS = Person("nameless", None, name=None, gets_in=403)


def people(shape: Shape) -> list[Person]:
    """Those that this release allows."""
    is_loose = "name VARCHAR," in shape.tables["user"].columns  # 0.9 and later: hardly a NOT NULL
    has_unique_emails = "uq_user_email_lower" in shape.tables["user"].unique
    return PEOPLE + ([NAMELESS] if is_loose else []) + ([] if has_unique_emails else TWINS)


@cache
def _hash(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


# Who besides the owner and admins may read and who may write, in both languages.
_LISTS = {"user_ids": ["reader"], "group_ids": []}, {"user_ids": [], "group_ids": ["team"]}
ACCESS: dict[str, Any] = {
    "everyone": None,
    "everyone as JSON null": sa.JSON.NULL,
    "nobody": {},
    "nobody in lists": {"read": {"user_ids": [], "group_ids": []}, "write": {}},
    "the reader": {"read": _LISTS[0], "write": {"user_ids": [], "group_ids": []}},
    "the team": {"read": _LISTS[1]},
    "the team may write": {"read": _LISTS[1], "write": _LISTS[1]},
    "write without read": {"write": _LISTS[0]},
    "a group that is gone": {"read": {"user_ids": ["gone"], "group_ids": ["gone"]}},
}
READS = {
    "reader": {"everyone", "everyone as JSON null", "the reader", "the team", "the team may write"},
    "other": {"everyone", "everyone as JSON null"},
}
WRITES = {"reader": {"the team may write"}, "other": set[str]()}


def fill(connection: sa.Connection, shape: Shape) -> None:
    """Put them all in, each fact where this release keeps it."""
    users = people(shape)
    shape.insert(connection, "user", *map(_user_row, users))
    shape.insert(connection, "auth", *(_auth_row(who, connection) for who in users if who.id != "ghost"))
    shape.insert(connection, "auth", _auth_row(Person("nobody"), connection))
    _keys(connection, shape, users)
    _groups(connection, shape)
    _tools(connection, shape)
    shape.insert(
        connection, "chat",
        *({"id": f"chat{number}", "user_id": "owner", "title": "标题", "chat": json.dumps({"text": "😀 \x01"}),
           "archived": bool(number), "created_at": _AT, "updated_at": _AT, "meta": "{}"} for number in range(2)),
    )  # fmt: skip


def _user_row(who: Person) -> dict[str, Any]:
    return {
        "id": who.id, "name": who.name, "email": who.address, "role": who.role, "profile_image_url": "/user.png",
        "api_key": who.key, "created_at": 10**15 if who.id == "strange" else _AT, "updated_at": _AT,
        "last_active_at": _AT, "settings": "null", "phone": who.email if who.email.isdigit() else None,
    }  # fmt: skip


def _auth_row(who: Person, connection: sa.Connection) -> dict[str, Any]:
    active: Any = who.active if connection.dialect.name == "postgresql" else int(who.active)
    mfa = '{"enabled": true}' if who.id == "capital" else "null"
    return {"id": who.id, "email": who.address, "password": _hash(who.password), "active": active, "mfa": mfa}


def _keys(connection: sa.Connection, shape: Shape, users: list[Person]) -> None:
    if shape.has("api_key"):
        rows = [
            {"id": f"key_{who.id}", "user_id": who.id, "key": who.key, "created_at": _AT, "updated_at": _AT,
             "expires_at": LONG_AGO if who.id == "reader" else who.key_expires_at}
            for who in users
        ]  # fmt: skip
        shape.insert(connection, "api_key", *rows)


def _groups(connection: sa.Connection, shape: Shape) -> None:
    if shape.has("group"):
        members = {"team": ["reader", "gone"], "empty": []}
        shape.insert(
            connection, "group",
            *({"id": group, "name": group, "user_ids": json.dumps(ids)} for group, ids in members.items()),
        )  # fmt: skip
    if shape.has("group_member"):
        shape.insert(connection, "group_member", {"id": "m1", "group_id": "team", "user_id": "reader"})


def _tools(connection: sa.Connection, shape: Shape) -> None:
    rows = [
        {"id": name, "user_id": "owner", "name": name, "content": "class Tools: pass", "specs": "[]",
         "meta": json.dumps({"description": f"for {name}", "manifest": {}}), "created_at": _AT, "updated_at": _AT,
         "access_control": _as_text(access)}
        for name, access in ACCESS.items()
    ]  # fmt: skip
    shape.insert(connection, "tool", *rows)
    if shape.has("access_grant"):
        shape.insert(connection, "access_grant", *_grant_rows())


def _as_text(access: Any) -> str | None:
    if access is None:
        return None
    return "null" if access is sa.JSON.NULL else json.dumps(access)


def _grant_rows() -> list[dict[str, Any]]:
    grants = [
        (name, "user", "*", "read") for name, access in ACCESS.items() if access in (None, sa.JSON.NULL)
    ]
    grants += [
        (name, kind, principal, permission)
        for name, access in ACCESS.items() if isinstance(access, dict)
        for permission, lists in access.items()
        for kind in ("user", "group")
        for principal in lists.get(f"{kind}_ids", [])
    ]  # fmt: skip
    grants += [
        ("nobody", "robot", "*", "read"),
        ("nobody", "group", "*", "read"),
        ("nobody", "user", "*", "use"),
    ]
    return [
        {"id": f"grant{number}", "resource_type": "tool", "resource_id": name, "principal_type": kind,
         "principal_id": principal, "permission": permission, "created_at": _AT}
        for number, (name, kind, principal, permission) in enumerate(grants)
    ] + [{"id": "of a model", "resource_type": "model", "resource_id": "nobody", "principal_type": "user",
          "principal_id": "*", "permission": "read", "created_at": _AT}]  # fmt: skip
