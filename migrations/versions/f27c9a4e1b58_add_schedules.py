"""add schedules"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "f27c9a4e1b58"
down_revision = "e15a8f3d6b92"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create schedules of jobs, and let a token have a rate limit of its own."""
    op.create_table_if_missing(
        "schedule",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("cron", sa.String(255)),
        sa.Column("interval_s", sa.Integer()),
        sa.Column("timezone", sa.String(64), nullable=False),
        sa.Column("job", JSON, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("catch_up", sa.Boolean(), nullable=False),
        sa.Column("next_at", sa.Float(53)),
        sa.Column("last_at", sa.Float(53)),
        sa.Column("last_job_id", sa.String(32)),
        sa.Column("last_error", sa.Text()),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
    )
    op.create_index_if_missing("ix_schedule_user_id", "schedule", ["user_id"])
    op.create_index_if_missing("ix_schedule_next_at", "schedule", ["next_at"])
    op.add_column_if_missing("api_token", sa.Column("rate_limit", sa.String(32)))


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
