"""Invented links and clicks, as many as wanted, for trying the service out and for the lab."""

from collections.abc import Callable, Iterator

from sqlalchemy import Connection

from db import rollups

_BATCH_ROWS = 20_000
"""Rows of one statement: it takes a second at most, far from the statement timeout."""

_SEED_LINKS = """
INSERT INTO links (code, url)
SELECT 'seed' || n, 'https://example.com/articles/' || n FROM generate_series(%s::bigint, %s) AS n
ON CONFLICT (code) DO NOTHING
"""

# Arithmetic instead of random(), so that no chance is involved: the clicks are spread over 30 days up to now.
_SEED_CLICKS = """
INSERT INTO clicks (link_id, at, browser, platform, referrer)
SELECT links.id,
       now() - interval '30 days' * ((n * 7919 + links.id * 104729) %% 100003) / 100003.0,
       (ARRAY['Chrome', 'Safari', 'Firefox', 'Edge', 'Chrome Mobile'])[1 + (n * 7 + links.id) %% 5],
       (ARRAY['Windows', 'Mac OS X', 'Linux', 'Android', 'iOS'])[1 + (n * 3 + n / 5 + links.id) %% 5],
       (ARRAY[NULL, 'www.google.com', 'news.ycombinator.com', 'github.com', 'duckduckgo.com', NULL, 't.co'])[1 + n %% 7]
FROM links, generate_series(%s::bigint, %s) AS n
WHERE links.code IN (SELECT 'seed' || m FROM generate_series(%s::bigint, %s) AS m)
"""


def seed_links(connection: Connection, count: int) -> int:
    """Add the links `seed1` to `seed<count>` that are missing, and return how many were added."""
    batches = _ranges(count, _BATCH_ROWS)
    return sum(connection.exec_driver_sql(_SEED_LINKS, batch).rowcount for batch in batches)


def seed_clicks(
    connection: Connection,
    links: int,
    clicks: int,
    progress: Callable[[int], None] = lambda _rows: None,
    first: int = 1,
) -> int:
    """Add `clicks` clicks to each of the seeded links from number `first` to `links`; return how many were added in all.

    Each batch is a transaction of its own, and is folded into the roll-ups after it; then `progress` is called with the
    number of its rows.
    """
    added = 0
    for group in _ranges(links, _BATCH_ROWS, first):
        for batch in _ranges(clicks, max(1, _BATCH_ROWS // (group[1] - group[0] + 1))):
            rows = connection.exec_driver_sql(_SEED_CLICKS, (*batch, *group)).rowcount
            added += rows
            rollups.fold(connection)
            progress(rows)
    rollups.fold_all(connection)
    return added


def analyze(connection: Connection) -> None:
    """Renew the statistics that PostgreSQL plans by, which a bulk insert has made wrong."""
    connection.exec_driver_sql("ANALYZE links, clicks, click_totals, click_counts")


def _ranges(last: int, size: int, first: int = 1) -> Iterator[tuple[int, int]]:
    """The numbers `first` to `last` in ranges of at most `size`, each as its first and its last."""
    for start in range(first, last + 1, size):
        yield start, min(start + size - 1, last)
