"""One function per statement: (connection, arguments) -> rows.

The statements are PostgreSQL's own SQL, written out, and handed to the driver as they are: on a statement of 100 us the
40 us that composing one costs would show.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection

from db.visitor import Visitor

RECENT_CLICKS = 10
"""How many clicks the analytics show one by one."""


@dataclass(frozen=True, slots=True)
class Link:
    """A short link and how often it was followed."""

    code: str
    url: str
    created: datetime
    clicks: int = 0

    @property
    def created_text(self) -> str:
        """The instant in RFC 3339's notation, UTC, with microseconds."""
        return self.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def ping(connection: Connection) -> None:
    """One round trip."""
    connection.exec_driver_sql("SELECT 1")


_ADD_LINK = """
INSERT INTO links (code, url) VALUES (%s, %s) ON CONFLICT (code) DO NOTHING RETURNING code, url, created
"""


def add_link(connection: Connection, code: str, url: str) -> Link | None:
    """The new link; None if the code is taken."""
    row = connection.exec_driver_sql(_ADD_LINK, (code, url)).first()
    return None if row is None else Link(*row)


# One statement is one transaction: when the answer is here, the click is on disk.
_FOLLOW = """
WITH link AS (SELECT id, url FROM links WHERE code = %s),
     click AS (INSERT INTO clicks (link_id, browser, platform, referrer) SELECT id, %s, %s, %s FROM link)
SELECT url FROM link
"""


def follow(connection: Connection, code: str, visitor: Visitor) -> str | None:
    """The link's URL, its click recorded; None if there is no such link."""
    row = connection.exec_driver_sql(_FOLLOW, (code, visitor.browser, visitor.platform, visitor.referrer)).first()
    return None if row is None else str(row[0])


_READ_LINK = """
SELECT code, url, created, (SELECT count(*) FROM clicks WHERE link_id = links.id) FROM links WHERE code = %s
"""


def read_link(connection: Connection, code: str) -> Link | None:
    """The link and the number of its clicks."""
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
    """Everything known about a link and its clicks, as the text of a JSON object assembled by the server."""
    row = connection.exec_driver_sql(_ANALYTICS, (code,)).first()
    return None if row is None else str(row[0])


_SEED_LINKS = """
INSERT INTO links (code, url)
SELECT 'seed' || n, 'https://example.com/articles/' || n FROM generate_series(1, %s) AS n
ON CONFLICT (code) DO NOTHING
"""

# Arithmetic instead of random(): the same call always gives the same clicks, spread over 30 days up to now.
_SEED_CLICKS = """
INSERT INTO clicks (link_id, at, browser, platform, referrer)
SELECT links.id,
       now() - interval '30 days' * ((n * 7919 + links.id * 104729) %% 100003) / 100003.0,
       (ARRAY['Chrome', 'Safari', 'Firefox', 'Edge', 'Chrome Mobile'])[1 + (n * 7 + links.id) %% 5],
       (ARRAY['Windows', 'Mac OS X', 'Linux', 'Android', 'iOS'])[1 + (n * 3 + n / 5 + links.id) %% 5],
       (ARRAY[NULL, 'www.google.com', 'news.ycombinator.com', 'github.com', 'duckduckgo.com', NULL, 't.co'])[1 + n %% 7]
FROM links, generate_series(1, %s) AS n
WHERE links.code IN (SELECT 'seed' || m FROM generate_series(1, %s) AS m)
"""


def seed_links(connection: Connection, count: int) -> int:
    """Add the links `seed1` … `seed<count>` where missing; how many were added."""
    return connection.exec_driver_sql(_SEED_LINKS, (count,)).rowcount


def seed_clicks(connection: Connection, links: int, clicks: int) -> int:
    """Add `clicks` clicks to each of the first `links` seeded links; how many were added."""
    return connection.exec_driver_sql(_SEED_CLICKS, (clicks, links)).rowcount


def analyze(connection: Connection) -> None:
    """Let the planner know what a bulk insert changed."""
    connection.exec_driver_sql("ANALYZE links, clicks")
