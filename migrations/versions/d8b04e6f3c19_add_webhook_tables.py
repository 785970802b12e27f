"""add webhook tables"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "d8b04e6f3c19"
down_revision = "merge_heads_final"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the receivers of events, what signs them, and the outbox."""
    op.create_table_if_missing(
        "webhook_endpoint",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event_types", JSON, nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    op.create_index_if_missing("ix_webhook_endpoint_user_id", "webhook_endpoint", ["user_id"])
    op.create_table_if_missing(
        "webhook_secret",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    _deliveries()


def _deliveries() -> None:
    op.create_table_if_missing(
        "webhook_delivery",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("endpoint_id", sa.String(32)),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("due_at", sa.Float(53), nullable=False),
        sa.Column("lease_token", sa.String(32)),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("delivered_at", MOMENT),
    )
    op.create_index_if_missing("ix_webhook_delivery_job_id", "webhook_delivery", ["job_id"])
    op.create_index_if_missing("ix_webhook_delivery_status_due_at", "webhook_delivery", ["status", "due_at"])


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
