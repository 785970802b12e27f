"""add legacy records"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "556b7b9b932e"
down_revision = "5b1d9e7c2a48"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add legacy records."""
    op.create_table_if_missing(
        "legacy_record",
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("legacy_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=True),
        sa.Column("data", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.Column("imported_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "legacy_id", name="pk_legacy_record"),
    )
    op.create_index_if_missing("ix_legacy_record_user_id", "legacy_record", ["user_id"])


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
