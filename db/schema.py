"""The tables as SQLAlchemy sees them, partitions left out. `db/migrations` creates them, and a test compares the two."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, ForeignKey, Identity, MetaData, Table, Text, func
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()

links = Table(
    "links",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("code", Text, nullable=False, unique=True),
    Column("url", Text, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

clicks = Table(
    "clicks",
    metadata,
    Column("id", BigInteger, nullable=False),
    Column("link_id", BigInteger, ForeignKey("links.id"), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("browser", Text, nullable=False),
    Column("platform", Text, nullable=False),
    # The host only.
    Column("referrer", Text),
    # The partitions are ranges of it; 0 for clicks from before there were any.
    Column("transaction_id", BigInteger, nullable=False),
)

click_totals = Table(
    "click_totals",
    metadata,
    Column("link_id", BigInteger, ForeignKey("links.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("clicks", BigInteger, nullable=False),
    Column("first_at", DateTime(timezone=True), nullable=False),
    Column("last_at", DateTime(timezone=True), nullable=False),
    Column("latest", JSONB, nullable=False),
)

click_counts = Table(
    "click_counts",
    metadata,
    Column("link_id", BigInteger, ForeignKey("links.id", ondelete="CASCADE"), primary_key=True),
    Column("dimension", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Column("detail", Text, primary_key=True),
    Column("clicks", BigInteger, nullable=False),
)

click_folding = Table(
    "click_folding",
    metadata,
    Column("only_row", Boolean, primary_key=True),
    Column("watermark", BigInteger, nullable=False),
    Column("added", BigInteger, nullable=False),
    Column("old_id", BigInteger, nullable=False),
    Column("last_old_id", BigInteger, nullable=False),
)

click_partitions = Table(
    "click_partitions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("ends", BigInteger, nullable=False),
    Column("clicks", BigInteger),
    Column("newest", DateTime(timezone=True)),
    Column("dropped", DateTime(timezone=True)),
)
