"""add credit tables"""

import sqlalchemy as sa
from alembic import op

revision = "9c2e5b7f1a60"
down_revision = "3f6a9d1c8e42"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create balances, their ledger, Bearer tokens, and the operator's say about models."""
    _credits()
    _tokens()
    op.create_table_if_missing(
        "catalog_model",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
    )


def _credits() -> None:
    op.create_table_if_missing(
        "credit_account",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("available", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.CheckConstraint("available >= 0", name="available_not_negative"),
        sa.CheckConstraint("held >= 0", name="held_not_negative"),
    )
    op.create_table_if_missing(
        "ledger_entry",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("available_delta", sa.BigInteger(), nullable=False),
        sa.Column("held_delta", sa.BigInteger(), nullable=False),
        sa.Column("available_after", sa.BigInteger(), nullable=False),
        sa.Column("held_after", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.String(32)),
        sa.Column("closes_id", sa.String(32), unique=True),
        sa.Column("reference", sa.String(255), nullable=False, unique=True),
        sa.Column("note", sa.Text()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint("amount >= 0", name="amount_not_negative"),
    )
    op.create_index_if_missing("ix_ledger_entry_user_id", "ledger_entry", ["user_id"])
    op.create_index_if_missing("ix_ledger_entry_job_id", "ledger_entry", ["job_id"])


def _tokens() -> None:
    op.create_table_if_missing(
        "api_token",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False, unique=True),
        sa.Column("expires_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    op.create_index_if_missing("ix_api_token_user_id", "api_token", ["user_id"])


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
