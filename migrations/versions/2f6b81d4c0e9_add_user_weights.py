"""add user weights"""

import sqlalchemy as sa
from alembic import op

revision = "2f6b81d4c0e9"
down_revision = "556b7b9b932e"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add `credit_account.weight`: the user's part when slots are shared out."""
    op.add_column_if_missing("credit_account", sa.Column("weight", sa.Integer(), server_default="1"))


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
