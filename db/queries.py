"""The service's statements, one function for each.

They are written out in PostgreSQL's own SQL and handed to the driver as they are: composing one with SQLAlchemy costs 40 us,
which would show beside a statement of 100 us.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection

from db.visitor import Visitor

RECENT_CLICKS = 10
"""Number of the latest clicks that the analytics list one by one."""


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


def read_url(connection: Connection, code: str) -> str | None:
    """The link's URL, without recording a click or counting the clicks; None if there is no such link."""
    row = connection.exec_driver_sql("SELECT url FROM links WHERE code = %s", (code,)).first()
    return None if row is None else str(row[0])


_READ_LINK = """
SELECT code, url, created, (SELECT count(*) FROM clicks WHERE link_id = links.id) FROM links WHERE code = %s
"""


def read_link(connection: Connection, code: str) -> Link | None:
    """The link and the number of its clicks, which takes longer the more there are; None if there is no such link."""
    row = connection.exec_driver_sql(_READ_LINK, (code,)).first()
    return None if row is None else Link(*row)


_INSTANT = '\'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\''

_ANALYTICS = f"""
WITH link AS (SELECT * FROM links WHERE code = %s),
     click AS MATERIALIZED (SELECT clicks.* FROM clicks JOIN link ON link_id = link.id),
     pair AS (SELECT browser, platform, count(*) AS n FROM click GROUP BY browser, platform),
     by_browser AS (SELECT browser, jsonb_object_agg(platform, n) AS counts FROM pair GROUP BY browser),
     by_platform AS (SELECT platform, jsonb_object_agg(browser, n) AS counts FROM pair GROUP BY platform),
     by_referrer AS (SELECT coalesce(referrer, 'direct') AS referrer, count(*) AS n FROM click GROUP BY 1),
     by_day AS (SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, count(*) AS n FROM click GROUP BY 1),
     recent AS (SELECT * FROM click ORDER BY at DESC, id DESC LIMIT {RECENT_CLICKS})
SELECT jsonb_build_object(
    'link', jsonb_build_object('code', code, 'url', url, 'created', to_char(created AT TIME ZONE 'UTC', {_INSTANT})),
    'totals', (SELECT jsonb_build_object(
        'clicks', count(*), 'referrers', count(DISTINCT referrer),
        'first', to_char(min(at) AT TIME ZONE 'UTC', {_INSTANT}), 'last', to_char(max(at) AT TIME ZONE 'UTC', {_INSTANT})
    ) FROM click),
    'clicks_per_day', (SELECT coalesce(jsonb_object_agg(day, n), '{{}}') FROM by_day),
    'referrers', (SELECT coalesce(jsonb_object_agg(referrer, n), '{{}}') FROM by_referrer),
    'browsers', (SELECT coalesce(jsonb_object_agg(browser, counts), '{{}}') FROM by_browser),
    'platforms', (SELECT coalesce(jsonb_object_agg(platform, counts), '{{}}') FROM by_platform),
    'recent_clicks', (SELECT coalesce(jsonb_agg(jsonb_build_object(
        'at', to_char(at AT TIME ZONE 'UTC', {_INSTANT}), 'browser', browser, 'platform', platform, 'referrer', referrer
    ) ORDER BY at DESC, id DESC), '[]') FROM recent)
)::text FROM link
"""  # noqa: S608 (composed of constants)


def analytics(connection: Connection, code: str) -> str | None:
    """Everything known about a link and its clicks, as JSON text that PostgreSQL puts together; None if there is no link."""
    row = connection.exec_driver_sql(_ANALYTICS, (code,)).first()
    return None if row is None else str(row[0])
