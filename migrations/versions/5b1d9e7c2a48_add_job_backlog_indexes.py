"""add job backlog indexes"""

from alembic import op

revision = "5b1d9e7c2a48"
down_revision = "d8b04e6f3c19"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let the scheduler find every user's next job, and submits left behind, however long the backlog is."""
    op.create_index_if_missing(
        "ix_job_step_waiting",
        "job_step",
        ["model", "user_id", "priority", "created_at"],
        descending=["priority"],
        where="attempt_id IS NULL",
    )
    op.create_index_if_missing(
        "ix_job_step_submitting",
        "job_step",
        ["step", "due_at"],
        where="step = 'submit' AND attempt_id IS NOT NULL",
    )


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
