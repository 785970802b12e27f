"""merge heads final"""

revision = "merge_heads_final"
down_revision = ("24e8f9a7b1c2", "abc123def456")
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing: it only joins two branches."""


def downgrade() -> None:
    """Nothing: it only joins two branches."""
