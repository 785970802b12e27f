"""${message}

Additive only: new tables, new nullable columns or ones with a constant default, new indexes. Inspect first
(`op.…_if_missing`), one path, no downgrade that drops. Write the new head into migrations/HEAD.
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """${message.capitalize()}."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
