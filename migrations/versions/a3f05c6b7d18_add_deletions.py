"""add deletions"""

import sqlalchemy as sa
from alembic import op

revision = "a3f05c6b7d18"
down_revision = "f27c9a4e1b58"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let users delete jobs, remember which objects are still to be removed, and count what a source refuses."""
    op.add_column_if_missing("job_step", sa.Column("refusals", sa.Integer(), server_default="0"))
    op.add_column_if_missing("job", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    op.create_table_if_missing(
        "object_deletion",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("due_at", sa.Float(53), nullable=False),
        sa.Column("lease_token", sa.String(32)),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index_if_missing("ix_object_deletion_due_at", "object_deletion", ["due_at"])


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
