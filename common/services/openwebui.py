"""What newer releases of Open WebUI keep beside the tables we share with them: API keys, members, grants.

Where such a table exists, the release on this database means it and no longer the column it replaced
(`user.api_key`, `group.user_ids`, `tool.access_control`), which may have been dropped or, after a take-over, is
ours. A legacy program that goes on working here changes its own tables, so they are asked each time.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, column, delete, insert, select, table
from sqlalchemy.orm import Session

from common import clock
from common.db import schema
from common.db.types import SharedJson
from common.models import Group, User

PERMISSIONS = ("read", "write")
_EVERYONE = "*"  # as a grant's principal
_CACHED_S = 30.0  # a legacy program may be upgraded while we work

_KEYS = table("api_key", column("user_id"), column("key"), column("expires_at"))
_AUTH = table("auth", column("id"), column("mfa", SharedJson()))
_MEMBERS = table("group_member", column("group_id"), column("user_id"))
_GRANTS = table("access_grant", *map(column, [
    "id", "resource_type", "resource_id", "principal_type", "principal_id", "permission", "created_at",
]))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Beside:
    """Which of those tables this database has, and whether it has `auth.mfa`."""

    keys: bool
    members: bool
    grants: bool
    second_factors: bool


_known: WeakKeyDictionary[Engine, tuple[float, Beside]] = WeakKeyDictionary()


def beside(session: Session) -> Beside:
    """What the legacy program has here; looked up at most every half a minute."""
    connection = session.connection()
    at, found = _known.get(connection.engine, (0.0, None))
    now = clock.epoch()
    if found is None or not at <= now < at + _CACHED_S:
        have = schema.columns(connection)
        keys, members, grants = (
            {part.name for part in theirs.columns} <= have.get(theirs.name, set())
            for theirs in (_KEYS, _MEMBERS, _GRANTS)
        )
        found = Beside(keys, members, grants, second_factors="mfa" in have.get("auth", ()))
        _known[connection.engine] = (now, found)
    return found


# ---------------------------------------------------------------- keys


def owner_of_key(session: Session, key: str) -> User | None:
    """Whose API key this is. The column counts only while the table, if there is one, is still empty."""
    if beside(session).keys:
        row = session.execute(select(_KEYS.c.user_id, _KEYS.c.expires_at).where(_KEYS.c.key == key)).first()
        if row is not None:
            has_expired = row.expires_at is not None and row.expires_at <= clock.epoch()
            return None if has_expired or row.user_id is None else session.get(User, row.user_id)
        if session.execute(select(_KEYS.c.key).limit(1)).first() is not None:
            return None
    return session.scalars(select(User).where(User.api_key == key).limit(1)).first()


def wants_second_factor(session: Session, user_id: str) -> bool:
    """Whether a password alone does not open this account in the legacy program (0.12 and later)."""
    if not beside(session).second_factors:
        return False
    mfa = session.scalars(select(_AUTH.c.mfa).where(_AUTH.c.id == user_id)).first()
    return mfa is not None and not (isinstance(mfa, dict) and not mfa.get("enabled"))


# ---------------------------------------------------------------- groups


def groups_of(session: Session, user_id: str) -> set[str]:
    """The ids of the groups that this user is in; the column counts as for keys."""
    if beside(session).members:
        mine = set(session.scalars(select(_MEMBERS.c.group_id).where(_MEMBERS.c.user_id == user_id)))
        if mine or session.execute(select(_MEMBERS.c.user_id).limit(1)).first() is not None:
            return mine
    rows = session.execute(select(Group.id, Group.user_ids))
    return {group for group, members in rows if isinstance(members, list) and user_id in members}


# ---------------------------------------------------------------- tools


class Granted(dict[str, Any]):
    """Grants in the form of `access_control`, which has no word for what `everyone` may do."""

    def __init__(self) -> None:
        super().__init__()
        self.everyone: set[str] = set()

    def add(self, kind: str, principal: str, permission: str) -> None:
        """Take in one grant; one of a kind that nobody knows gives nothing."""
        if permission not in PERMISSIONS or kind not in ("user", "group"):
            return
        if (kind, principal) == ("user", _EVERYONE):
            self.everyone.add(permission)
            return
        lists = self.setdefault(permission, {"user_ids": [], "group_ids": []})
        lists[f"{kind}_ids"].append(principal)


def granted(session: Session, tool_ids: Collection[str]) -> dict[str, Granted]:
    """What the grants say of each of these tools; without any a tool is its owner's alone."""
    found = {tool_id: Granted() for tool_id in tool_ids}
    rows = select(
        _GRANTS.c.resource_id, _GRANTS.c.principal_type, _GRANTS.c.principal_id, _GRANTS.c.permission
    )
    mine = _GRANTS.c.resource_type == "tool", _GRANTS.c.resource_id.in_(tool_ids)
    for tool_id, *grant in session.execute(rows.where(*mine).order_by(_GRANTS.c.id)):
        found[tool_id].add(*grant)
    return found


def replace_grants(session: Session, tool_id: str, access_control: Any) -> None:
    """Write `access_control` where the legacy program looks for it."""
    forget_grants(session, tool_id)
    now = int(clock.epoch())
    rows = [
        {"id": str(uuid.uuid4()), "resource_type": "tool", "resource_id": tool_id, "principal_type": kind,
         "principal_id": principal, "permission": permission, "created_at": now}
        for kind, principal, permission in _grants(access_control)
    ]  # fmt: skip
    if rows:
        session.execute(insert(_GRANTS), rows)


def forget_grants(session: Session, tool_id: str) -> None:
    """Take all grants of a tool away: the next tool of that name must not inherit them."""
    session.execute(
        delete(_GRANTS).where(_GRANTS.c.resource_type == "tool", _GRANTS.c.resource_id == tool_id)
    )


def _grants(access_control: Any) -> Iterator[tuple[str, str, str]]:
    if access_control is None:
        yield "user", _EVERYONE, "read"
        return
    for permission in PERMISSIONS:
        circle = access_control.get(permission) or {}
        for kind in ("user", "group"):
            for principal in _distinct(circle.get(f"{kind}_ids", ())):
                yield kind, principal, permission


def _distinct(principals: Iterable[str]) -> list[str]:
    """Each once, as the grants' unique constraint wants it; and nobody becomes everyone by a name."""
    return [principal for principal in dict.fromkeys(principals) if principal != _EVERYONE]
