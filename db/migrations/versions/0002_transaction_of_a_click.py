"""Each click names the transaction that recorded it; the clicks so far name none (0). Takes no time, however many there are."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column, and the promise that 0003 proves."""
    op.add_column("clicks", sa.Column("transaction_id", sa.BigInteger, nullable=False, server_default="0"))
    op.execute("ALTER TABLE clicks ADD CONSTRAINT clicks_before_rollups CHECK (transaction_id = 0) NOT VALID")


def downgrade() -> None:
    """Drop the column, and with it the constraint."""
    op.drop_column("clicks", "transaction_id")
