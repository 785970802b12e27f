"""Before tools had access control, users a telephone and results a URL of their own.

No release is out yet: this stands for one, as our chain has it at that revision.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB

HEAD = "9c2e5b7f1a60"

_JSON = JSON().with_variant(JSONB(), "postgresql")
_MOMENT = DateTime(timezone=True)
_METADATA = MetaData()

USER = Table(
    "user",
    _METADATA,
    Column("id", String(255), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("email", String(255), nullable=False),
    Column("role", String(255), nullable=False),
    Column("profile_image_url", Text, nullable=False),
    Column("api_key", String(255)),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("last_active_at", BigInteger, nullable=False),
)

TOOL = Table(
    "tool",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("specs", Text, nullable=False),
    Column("meta", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

JOB = Table(
    "job",
    _METADATA,
    Column("id", String(32), primary_key=True),
    Column("user_id", String(255), nullable=False),
    Column("status", String(16), nullable=False),
    Column("provider", String(32), nullable=False),
    Column("model", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("input", _JSON, nullable=False),
    Column("metadata", _JSON, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("parent_id", String(32)),
    Column("tool_id", Text),
    Column("webhook_url", Text),
    Column("price", BigInteger, nullable=False),
    Column("charged", BigInteger),
    Column("progress", Integer, nullable=False),
    Column("preview_url", Text),
    Column("actions", _JSON, nullable=False),
    Column("output", _JSON),
    Column("error", _JSON),
    Column("attempts", Integer, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("deadline_at", _MOMENT, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("submitted_at", _MOMENT),
    Column("finished_at", _MOMENT),
)

ARTIFACT = Table(
    "artifact",
    _METADATA,
    Column("id", String(32), primary_key=True),
    Column("job_id", String(32), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("key", Text, nullable=False),
    Column("thumbnail_key", Text),
    Column("content_type", String(128), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("width", Integer),
    Column("height", Integer),
    Column("duration_s", Float(53)),
    Column("created_at", _MOMENT, nullable=False),
)
