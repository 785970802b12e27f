"""add uploads"""

import sqlalchemy as sa
from alembic import op

revision = "8c41d7e2f905"
down_revision = "2f6b81d4c0e9"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the media that users bring for their jobs, one row for each content and user."""
    op.create_table_if_missing(
        "upload",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("content_type", sa.String(length=128), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("duration_s", sa.Float(precision=53), nullable=True),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_upload"),
    )
    op.create_index_if_missing(
        "ix_upload_deleted_at", "upload", ["deleted_at"], where="deleted_at IS NOT NULL"
    )
    op.create_index_if_missing(
        "ix_upload_unstored", "upload", ["created_at"], where="stored_at IS NULL AND deleted_at IS NULL"
    )
    op.create_index_if_missing("ix_upload_user_id_id", "upload", ["user_id", "id"])
    op.create_index_if_missing(
        "uq_upload_user_id_sha256", "upload", ["user_id", "sha256"], unique=True, where="deleted_at IS NULL"
    )


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
