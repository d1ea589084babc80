"""The service's statements, one function for each.

They are written out in PostgreSQL's own SQL and handed to the driver as they are: composing one with SQLAlchemy costs 40 us,
which would show beside a statement of 100 us.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection

from db import rollups
from db.visitor import Visitor

RECENT_CLICKS = 10
"""Number of the latest clicks that the analytics list one by one; `latest_of` in the database keeps as many."""

_MANY_UNFOLDED = 1000
"""Clicks of a link that are not folded yet and still cost a reader little."""


@dataclass(frozen=True, slots=True)
class Link:
    """A short link and the number of its clicks."""

    code: str
    url: str
    created: datetime
    clicks: int = 0

    @property
    def created_text(self) -> str:
        """Time of creation in the notation of RFC 3339: UTC, with microseconds."""
        return self.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def ping(connection: Connection) -> None:
    """Make one round trip to the database."""
    connection.exec_driver_sql("SELECT 1")


_ADD_LINK = """
INSERT INTO links (code, url) VALUES (%s, %s) ON CONFLICT (code) DO NOTHING RETURNING code, url, created
"""


def add_link(connection: Connection, code: str, url: str) -> Link | None:
    """Add a link and return it; None if the code is taken."""
    row = connection.exec_driver_sql(_ADD_LINK, (code, url)).first()
    return None if row is None else Link(*row)


# One statement is one transaction: when its answer arrives, the click is on disk.
_FOLLOW = """
WITH link AS (SELECT id, url FROM links WHERE code = %s),
     click AS (INSERT INTO clicks (link_id, browser, platform, referrer) SELECT id, %s, %s, %s FROM link)
SELECT url FROM link
"""


def follow(connection: Connection, code: str, visitor: Visitor) -> str | None:
    """Record a click and return the link's URL; None if there is no such link."""
    row = connection.exec_driver_sql(_FOLLOW, (code, visitor.browser, visitor.platform, visitor.referrer)).first()
    return None if row is None else str(row[0])


_READ_URL = "SELECT url FROM links WHERE code = %s"


def read_url(connection: Connection, code: str) -> str | None:
    """The link's URL, without recording a click or counting the clicks; None if there is no such link."""
    row = connection.exec_driver_sql(_READ_URL, (code,)).first()
    return None if row is None else str(row[0])


_READ_LINK = """
SELECT code, url, created, coalesce(click_totals.clicks, 0) + unfolded, unfolded
FROM links LEFT JOIN click_totals ON link_id = links.id,
    LATERAL (SELECT count(*) AS unfolded FROM unfolded_clicks(links.id)) AS fresh
WHERE code = %s
"""


def read_link(connection: Connection, code: str) -> Link | None:
    """The link and the number of its clicks; None if there is no such link."""
    row = connection.exec_driver_sql(_READ_LINK, (code,)).first()
    if row is None:
        return None
    _fold_many(connection, row[4])
    return Link(*row[:4])


_INSTANT = '\'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\''

# What is in the roll-ups, and the clicks that are not yet, in one snapshot.
_ANALYTICS = f"""
WITH link AS MATERIALIZED (SELECT * FROM links WHERE code = %s),
     known AS MATERIALIZED (SELECT * FROM click_totals WHERE link_id = (SELECT id FROM link)),
     fresh AS MATERIALIZED (SELECT unfolded.* FROM link, unfolded_clicks(link.id) AS unfolded),
     count AS MATERIALIZED (
         SELECT dimension, value, detail, sum(clicks)::bigint AS n FROM (
             SELECT dimension, value, detail, clicks FROM click_counts WHERE link_id = (SELECT id FROM link)
             UNION ALL SELECT named.*, 1 FROM fresh, dimensions_of(fresh::clicks) AS named
         ) AS each GROUP BY 1, 2, 3),
     total AS (
         SELECT sum(clicks)::bigint AS n, min(first_at) AS first_at, max(last_at) AS last_at FROM (
             SELECT clicks, first_at, last_at FROM known UNION ALL SELECT count(*), min(at), max(at) FROM fresh
         ) AS each),
     by_referrer AS (
         SELECT CASE WHEN dimension = 'direct' THEN dimension WHEN value = '' THEN 'others' ELSE value END AS referrer,
             sum(n)::bigint AS n
         FROM count WHERE dimension IN ('direct', 'referrer') GROUP BY 1),
     by_browser AS (
         SELECT value AS browser, jsonb_object_agg(detail, n) AS counts FROM count WHERE dimension = 'program' GROUP BY 1),
     by_platform AS (
         SELECT detail AS platform, jsonb_object_agg(value, n) AS counts FROM count WHERE dimension = 'program' GROUP BY 1),
     newest AS (SELECT fresh::clicks AS click FROM fresh ORDER BY at DESC, id DESC LIMIT {RECENT_CLICKS}),
     latest AS (
         SELECT latest_of(coalesce((SELECT latest FROM known), '[]')
             || (SELECT coalesce(jsonb_agg(click_as_json(click)), '[]') FROM newest)) AS clicks)
SELECT jsonb_build_object(
    'link', jsonb_build_object('code', code, 'url', url, 'created', to_char(created AT TIME ZONE 'UTC', {_INSTANT})),
    'totals', (SELECT jsonb_build_object(
        'clicks', n, 'referrers', (SELECT count(*) FROM count WHERE dimension = 'referrer' AND value <> ''),
        'first', to_char(first_at AT TIME ZONE 'UTC', {_INSTANT}), 'last', to_char(last_at AT TIME ZONE 'UTC', {_INSTANT})
    ) FROM total),
    'clicks_per_day', (SELECT coalesce(jsonb_object_agg(value, n), '{{}}') FROM count WHERE dimension = 'day'),
    'referrers', (SELECT coalesce(jsonb_object_agg(referrer, n), '{{}}') FROM by_referrer),
    'browsers', (SELECT coalesce(jsonb_object_agg(browser, counts), '{{}}') FROM by_browser),
    'platforms', (SELECT coalesce(jsonb_object_agg(platform, counts), '{{}}') FROM by_platform),
    'recent_clicks', (SELECT coalesce(jsonb_agg(click - 'id' ORDER BY place), '[]')
        FROM latest, jsonb_array_elements(latest.clicks) WITH ORDINALITY AS listed (click, place))
)::text, (SELECT count(*) FROM fresh) FROM link
"""  # noqa: S608 (composed of constants)


def analytics(connection: Connection, code: str) -> str | None:
    """Everything known about a link and its clicks, as JSON text that PostgreSQL puts together; None if there is no link."""
    row = connection.exec_driver_sql(_ANALYTICS, (code,)).first()
    if row is None:
        return None
    _fold_many(connection, row[1])
    return str(row[0])


def _fold_many(connection: Connection, unfolded: int) -> None:
    """Fold clicks if the caller had to read many that are not folded, so that the next one need not."""
    if unfolded > _MANY_UNFOLDED:
        rollups.fold(connection)
