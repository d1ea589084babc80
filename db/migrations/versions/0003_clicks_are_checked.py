"""Proves that all clicks are from before the roll-ups, so that 0004 need not. Reads the whole table, and blocks nobody."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Check the rows that are there; clicks may be read and added meanwhile."""
    op.execute("ALTER TABLE clicks VALIDATE CONSTRAINT clicks_before_rollups")


def downgrade() -> None:
    """Nothing was added."""
