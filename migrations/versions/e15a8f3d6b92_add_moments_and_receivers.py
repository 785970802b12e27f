"""add moments and receivers"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "e15a8f3d6b92"
down_revision = "8c41d7e2f905"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add what a job's timeline tells, the API a job came through, and how receivers of webhooks are doing."""
    op.add_column_if_missing("job", sa.Column("dialect", sa.String(16)))
    op.add_column_if_missing("job_attempt", sa.Column("ended_at", MOMENT))
    op.add_column_if_missing("webhook_endpoint", sa.Column("name", sa.String(255)))
    op.add_column_if_missing("webhook_endpoint", sa.Column("previous_secret", sa.Text()))
    op.add_column_if_missing("webhook_endpoint", sa.Column("previous_until", MOMENT))
    op.add_column_if_missing("webhook_endpoint", sa.Column("updated_at", MOMENT))
    op.add_column_if_missing("webhook_endpoint", sa.Column("failures", sa.Integer(), server_default="0"))
    op.add_column_if_missing("webhook_endpoint", sa.Column("paused_until", sa.Float(53)))
    op.add_column_if_missing("webhook_endpoint", sa.Column("disabled_reason", sa.String(255)))
    op.add_column_if_missing("webhook_secret", sa.Column("previous_secret", sa.Text()))
    op.add_column_if_missing("webhook_secret", sa.Column("previous_until", MOMENT))
    op.add_column_if_missing("webhook_delivery", sa.Column("receiver", sa.String(255)))
    op.add_column_if_missing("webhook_delivery", sa.Column("data", JSON))
    op.add_column_if_missing("webhook_delivery", sa.Column("response_status", sa.Integer()))
    op.add_column_if_missing("webhook_delivery", sa.Column("tried_at", MOMENT))
    op.add_column_if_missing("webhook_delivery", sa.Column("gives_up_at", sa.Float(53)))
    op.create_index_if_missing("ix_webhook_delivery_user_id_id", "webhook_delivery", ["user_id", "id"])
    op.create_index_if_missing("ix_webhook_delivery_endpoint_id", "webhook_delivery", ["endpoint_id"])


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
