"""add config table

Our own configuration. Not called `config`: that is Open WebUI's, and it was reshaped in 0.10.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "ca81bd47c050"
down_revision = "7e5b5dc7342b"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Create `app_setting`."""
    op.create_table_if_missing(
        "app_setting",
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("value", JSON, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
