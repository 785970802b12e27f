"""add cloud urls to all tasks

What the ancestor kept in every provider's task table, each artifact has here: its address in the storage.
"""

import sqlalchemy as sa
from alembic import op

revision = "abc123def456"
down_revision = "ef6fab585ac1"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add `artifact.url`."""
    op.add_column_if_missing("artifact", sa.Column("url", sa.Text()))


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
