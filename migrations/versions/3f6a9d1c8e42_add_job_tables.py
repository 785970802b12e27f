"""add job tables"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "3f6a9d1c8e42"
down_revision = "ca81bd47c050"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the accounts at the providers, the jobs, and everything that hangs on a job."""
    _provider_accounts()
    _jobs()
    _steps()
    _attempts()
    _events()
    _artifacts()
    _idempotency_keys()


def _provider_accounts() -> None:
    op.create_table_if_missing(
        "provider_account",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("provider", sa.String(32), nullable=False),
        sa.Column("adapter", sa.String(32), nullable=False),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("base_url", sa.Text(), nullable=False),
        sa.Column("credentials", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("max_concurrency", sa.Integer(), nullable=False),
        sa.Column("max_submits_per_minute", sa.Integer()),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("open_until", sa.Float(53), nullable=False),
        sa.Column("trouble", sa.String(32)),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
    )
    op.create_index_if_missing("ix_provider_account_provider", "provider_account", ["provider"])


def _jobs() -> None:
    op.create_table_if_missing(
        "job",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("provider", sa.String(32), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("input", JSON, nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("parent_id", sa.String(32)),
        sa.Column("tool_id", sa.Text()),
        sa.Column("webhook_url", sa.Text()),
        sa.Column("price", sa.BigInteger(), nullable=False),
        sa.Column("charged", sa.BigInteger()),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("preview_url", sa.Text()),
        sa.Column("actions", JSON, nullable=False),
        sa.Column("output", JSON),
        sa.Column("error", JSON),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("deadline_at", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("submitted_at", MOMENT),
        sa.Column("finished_at", MOMENT),
    )
    op.create_index_if_missing("ix_job_parent_id", "job", ["parent_id"])
    op.create_index_if_missing("ix_job_user_id_id", "job", ["user_id", "id"])
    op.create_index_if_missing("ix_job_finished_at", "job", ["finished_at"])


def _steps() -> None:
    op.create_table_if_missing(
        "job_step",
        sa.Column("job_id", sa.String(32), sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("step", sa.String(16), nullable=False),
        sa.Column("due_at", sa.Float(53), nullable=False),
        sa.Column("lease_token", sa.String(32)),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("deadline_at", sa.Float(53), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("pinned_account_id", sa.String(32)),
        sa.Column("account_id", sa.String(32)),
        sa.Column("attempt_id", sa.String(32)),
        sa.Column("expires_at", sa.Float(53)),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("cancel_at", sa.Float(53)),
    )
    op.create_index_if_missing("ix_job_step_step_due_at", "job_step", ["step", "due_at"])
    op.create_index_if_missing("ix_job_step_account_id", "job_step", ["account_id"])
    op.create_index_if_missing("ix_job_step_deadline_at", "job_step", ["deadline_at"])
    op.create_index_if_missing("ix_job_step_user_id", "job_step", ["user_id"])


def _attempts() -> None:
    op.create_table_if_missing(
        "job_attempt",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("job_id", sa.String(32), sa.ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("callback_token", sa.String(64), nullable=False, unique=True),
        sa.Column("provider_ref", sa.Text()),
        sa.Column("memo", JSON),
        sa.Column("outputs", JSON),
        sa.Column("cost", sa.String(64)),
        sa.Column("error_code", sa.String(32)),
        sa.Column("error_message", sa.Text()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("sent_at", MOMENT),
        sa.Column("answered_at", MOMENT),
        sa.UniqueConstraint("job_id", "number"),
    )
    op.create_index_if_missing("ix_job_attempt_account_id", "job_attempt", ["account_id"])


def _events() -> None:
    op.create_table_if_missing(
        "job_event",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("job_id", sa.String(32), sa.ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("detail", sa.Text()),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    op.create_index_if_missing("ix_job_event_job_id", "job_event", ["job_id"])


def _artifacts() -> None:
    op.create_table_if_missing(
        "artifact",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("job_id", sa.String(32), sa.ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("thumbnail_key", sa.Text()),
        sa.Column("content_type", sa.String(128), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("width", sa.Integer()),
        sa.Column("height", sa.Integer()),
        sa.Column("duration_s", sa.Float(53)),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.UniqueConstraint("job_id", "number"),
    )


def _idempotency_keys() -> None:
    op.create_table_if_missing(
        "idempotency_key",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("route", sa.String(128), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("body_sha256", sa.String(64), nullable=False),
        sa.Column("result_id", sa.String(32), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    op.create_index_if_missing("ix_idempotency_key_created_at", "idempotency_key", ["created_at"])


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
