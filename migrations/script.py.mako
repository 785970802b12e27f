"""${message}
% if not body:

Only add, with `op.create_table_if_missing`, `op.add_column_if_missing` and `op.create_index_if_missing`: new tables, new
nullable columns or ones with a constant default, new indexes. `python -m migrations lint` knows the rules.
% endif
"""

% for line in imports:
${line}
% endfor

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """${message.capitalize()}."""
% for line in body:
    ${line}
% endfor


def downgrade() -> None:
    """Nothing: dropping would lose data. Roll back the code; an older release runs on this schema."""
