"""add tool access control column

NULL means that everyone may read the tool, so a plain new column would publish the tools of a taken-over
database. There it starts as `{}` (owner only) in every row, also in those that the legacy program will still
add, and the grants of Open WebUI 0.8 and later are then written into it.
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

revision = "70c7b727736e"
down_revision = "9c2e5b7f1a60"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
EVERYONE = "*"


def upgrade() -> None:
    """Add `tool.access_control`, never making a tool more visible than it was."""
    private = sa.text("'{}'") if _is_taken_over() else None
    added = op.add_column_if_missing("tool", sa.Column("access_control", JSON, server_default=private))
    if added and private is not None and _has_grants():
        _share_as_granted()


def _is_taken_over() -> bool:
    """Does a legacy program keep its tools here?"""
    if context.is_offline_mode():
        return False
    return _has_grants() or op.get_bind().execute(sa.text("SELECT 1 FROM tool LIMIT 1")).first() is not None


def _has_grants() -> bool:
    return sa.inspect(op.get_bind()).has_table("access_grant")


def _share_as_granted() -> None:
    tool = sa.table("tool", sa.column("id", sa.Text()), sa.column("access_control", JSON))
    for tool_id, access in _granted_access().items():
        op.execute(tool.update().where(tool.c.id == tool_id).values(access_control=access))


def _granted_access() -> dict[str, object]:
    """What `access_control` says for every tool that has grants; `sa.null()` where everyone may read."""
    rows = op.get_bind().execute(
        sa.text(
            "SELECT resource_id, principal_type, principal_id, permission FROM access_grant"
            " WHERE resource_type = 'tool' AND principal_type IN ('user', 'group')"
            " AND permission IN ('read', 'write') ORDER BY created_at, id"
        )
    )
    access: dict[str, dict[str, dict[str, list[str]]]] = {}
    public = set()
    for tool_id, kind, principal, permission in rows:
        lists = access.setdefault(
            tool_id, {side: {"user_ids": [], "group_ids": []} for side in ("read", "write")}
        )
        if principal != EVERYONE:
            lists[permission][f"{kind}_ids"].append(principal)
        elif permission == "read":
            public.add(tool_id)
    return {tool_id: sa.null() if tool_id in public else lists for tool_id, lists in access.items()}


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
