"""The tables as SQLAlchemy sees them. `db/migrations` creates them, and a test compares the two."""

from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, Identity, Index, MetaData, Table, Text, func

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
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("link_id", BigInteger, ForeignKey("links.id"), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("browser", Text, nullable=False),
    Column("platform", Text, nullable=False),
    # The host only.
    Column("referrer", Text),
    Index("clicks_link_id_at_idx", "link_id", "at"),
)
