"""add flux model credits column

What the ancestor kept for Flux alone, every model has here: the operator's own price.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "24e8f9a7b1c2"
down_revision = "ef6fab585ac1"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add `catalog_model.price`."""
    price = sa.Column("price", sa.JSON().with_variant(JSONB(), "postgresql"))
    op.add_column_if_missing("catalog_model", price)


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
