"""add user phone column"""

import sqlalchemy as sa
from alembic import op

revision = "ef6fab585ac1"
down_revision = "70c7b727736e"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add `user.phone`, unique where it is known."""
    op.add_column_if_missing("user", sa.Column("phone", sa.String(64)))
    op.create_index_if_missing("ix_user_phone", "user", ["phone"], unique=True)


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
