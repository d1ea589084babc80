"""Clicks in partitions, their counts by link (the roll-ups), and the functions that keep these right: docs/rollups.md.

Takes no time, however many clicks there are: the table of the clicks so far becomes the first partition as it is, and
`fold_clicks` counts its rows in batches later, while the service runs. Programs that know only 0001 go on working.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

_OLD_CLICKS = """
ALTER TABLE clicks RENAME TO clicks_before_rollups;
ALTER TABLE clicks_before_rollups ALTER id DROP IDENTITY;
ALTER TABLE clicks_before_rollups ALTER transaction_id DROP DEFAULT;
CREATE SEQUENCE clicks_id_seq;
SELECT setval('clicks_id_seq', (SELECT coalesce(max(id), 0) + 1 FROM clicks_before_rollups), false);
"""

# No index here: it would have to be built on the first partition, too. Each later partition gets its own. And no foreign
# key: to check it would lock the link's row for each click, which cost a fifth of the clicks that one link could get.
_CLICKS = """
CREATE TABLE clicks (
    id bigint NOT NULL DEFAULT nextval('clicks_id_seq'),
    link_id bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    browser text NOT NULL,
    platform text NOT NULL,
    referrer text,
    transaction_id bigint NOT NULL DEFAULT txid_current()
) PARTITION BY RANGE (transaction_id);
ALTER SEQUENCE clicks_id_seq OWNED BY clicks.id;
ALTER TABLE clicks ATTACH PARTITION clicks_before_rollups FOR VALUES FROM (MINVALUE) TO (1);

-- For clicks whose partition was not made in time.
CREATE TABLE clicks_elsewhere PARTITION OF clicks DEFAULT;
CREATE INDEX ON clicks_elsewhere (transaction_id);
CREATE INDEX ON clicks_elsewhere (link_id, transaction_id);

CREATE TABLE click_partitions (
    name text PRIMARY KEY,
    -- The clicks of all transactions below this one, and not in an earlier partition.
    ends bigint NOT NULL,
    -- Known once all of them are in the roll-ups.
    clicks bigint,
    newest timestamptz,
    dropped timestamptz
);
INSERT INTO click_partitions VALUES ('clicks_before_rollups', 1);
"""

_ROLLUPS = """
CREATE TABLE click_totals (
    link_id bigint PRIMARY KEY,
    clicks bigint NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    -- The latest ten, newest first.
    latest jsonb NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE click_counts (
    link_id bigint NOT NULL,
    -- What dimensions_of says.
    dimension text NOT NULL,
    value text NOT NULL,
    detail text NOT NULL,
    clicks bigint NOT NULL,
    PRIMARY KEY (link_id, dimension, value, detail)
) WITH (fillfactor = 70);

-- One row: which clicks are in the roll-ups.
CREATE TABLE click_folding (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- Those of the transactions from 1 up to, but not including, this one.
    watermark bigint NOT NULL DEFAULT 1,
    -- Added to this server's transaction numbers, which begin anew where a dump is restored.
    added bigint NOT NULL DEFAULT 0,
    -- Of the clicks from before the roll-ups: those up to this id.
    old_id bigint NOT NULL DEFAULT 0,
    last_old_id bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO click_folding (last_old_id) SELECT coalesce(max(id), 0) FROM clicks_before_rollups;
"""

_SMALL_FUNCTIONS = """
CREATE FUNCTION dimensions_of(click clicks) RETURNS TABLE (dimension text, value text, detail text)
LANGUAGE sql STABLE AS $$
SELECT * FROM (VALUES
    ('day', to_char(click.at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), ''),
    (CASE WHEN click.referrer IS NULL THEN 'direct' ELSE 'referrer' END, coalesce(click.referrer, ''), ''),
    ('program', click.browser, click.platform)
) AS named
$$;

CREATE FUNCTION click_as_json(click clicks) RETURNS jsonb LANGUAGE sql STABLE AS $$
SELECT jsonb_build_object(
    'id', click.id, 'at', to_char(click.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'browser', click.browser, 'platform', click.platform, 'referrer', click.referrer)
$$;

CREATE FUNCTION latest_of(clicks jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
SELECT coalesce(jsonb_agg(click ORDER BY place), '[]') FROM (
    SELECT click, row_number() OVER (ORDER BY click->>'at' DESC, (click->>'id')::bigint DESC) AS place
    FROM jsonb_array_elements(clicks) AS click
) AS ranked WHERE place <= 10
$$;
"""

# The planner cannot know how few clicks are above the watermark, and without the settings might read a whole partition.
_UNFOLDED = """
CREATE FUNCTION unfolded_clicks(of_link bigint) RETURNS SETOF clicks
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    folding click_folding;
BEGIN
    SELECT * INTO folding FROM click_folding;
    RETURN QUERY SELECT * FROM clicks WHERE link_id = of_link AND transaction_id >= folding.watermark;
    IF folding.old_id < folding.last_old_id THEN
        RETURN QUERY SELECT * FROM clicks WHERE link_id = of_link AND transaction_id = 0 AND id > folding.old_id;
    END IF;
END
$$;
"""

FOLD = """
CREATE FUNCTION fold_clicks(most integer) RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    folding click_folding;
    ended bigint;
    upto bigint;
    old_upto bigint;
    folded bigint;
BEGIN
    -- One at a time. The lock also makes the statements below see all that was folded before.
    SELECT * INTO folding FROM click_folding FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    -- All transactions below have ended: the statements below see all their clicks, and no more will come.
    ended := greatest(folding.watermark, txid_snapshot_xmin(txid_current_snapshot()) + folding.added);
    -- A batch holds whole transactions, at least one.
    SELECT transaction_id INTO upto FROM clicks
        WHERE transaction_id >= folding.watermark AND transaction_id < ended
        ORDER BY transaction_id OFFSET most LIMIT 1;
    IF FOUND THEN
        upto := greatest(upto, 1 + (SELECT min(transaction_id) FROM clicks WHERE transaction_id >= folding.watermark));
    ELSE
        upto := ended;
    END IF;
    old_upto := least(folding.last_old_id, folding.old_id + most);
    WITH batch AS MATERIALIZED (
        SELECT * FROM clicks WHERE transaction_id >= folding.watermark AND transaction_id < upto
        UNION ALL
        SELECT * FROM clicks WHERE transaction_id = 0 AND id > folding.old_id AND id <= old_upto
    ), counted AS (
        INSERT INTO click_counts AS known (link_id, dimension, value, detail, clicks)
        SELECT batch.link_id, dimension, value, detail, count(*)
        FROM batch, dimensions_of(batch::clicks) GROUP BY 1, 2, 3, 4
        ON CONFLICT (link_id, dimension, value, detail) DO UPDATE SET clicks = known.clicks + excluded.clicks
    ), ranked AS (
        SELECT batch::clicks AS click, row_number() OVER (PARTITION BY link_id ORDER BY at DESC, id DESC) AS place
        FROM batch
    ), latest AS (
        SELECT (click).link_id, jsonb_agg(click_as_json(click) ORDER BY place) AS clicks
        FROM ranked WHERE place <= 10 GROUP BY 1
    ), summed AS (
        SELECT link_id, count(*) AS clicks, min(at) AS first_at, max(at) AS last_at FROM batch GROUP BY 1
    ), totalled AS (
        INSERT INTO click_totals AS known (link_id, clicks, first_at, last_at, latest)
        SELECT link_id, summed.clicks, first_at, last_at, latest.clicks FROM summed JOIN latest USING (link_id)
        ON CONFLICT (link_id) DO UPDATE SET
            clicks = known.clicks + excluded.clicks,
            first_at = least(known.first_at, excluded.first_at),
            last_at = greatest(known.last_at, excluded.last_at),
            latest = latest_of(known.latest || excluded.latest)
    )
    SELECT coalesce(sum(clicks), 0) INTO folded FROM summed;
    IF upto > folding.watermark OR old_upto > folding.old_id THEN
        UPDATE click_folding SET watermark = upto, old_id = old_upto;
    END IF;
    RETURN folded;
END
$$;
"""

DIFFERENCES = """
CREATE VIEW click_differences AS
WITH counted AS (
    SELECT link_id, named.*, count(*) AS clicks
    FROM click_folding, clicks, dimensions_of(clicks) AS named
    WHERE transaction_id BETWEEN 1 AND watermark - 1 OR transaction_id = 0 AND clicks.id <= old_id
    GROUP BY 1, 2, 3, 4
), all_counted AS (
    SELECT * FROM counted
    UNION ALL SELECT link_id, 'total', '', '', sum(clicks) FROM counted WHERE dimension = 'day' GROUP BY 1
), rolled_up AS (
    SELECT * FROM click_counts
    UNION ALL SELECT link_id, 'total', '', '', clicks FROM click_totals
)
SELECT link_id, dimension, value, detail,
       coalesce(all_counted.clicks, 0) AS clicks, coalesce(rolled_up.clicks, 0) AS rolled_up
FROM all_counted FULL JOIN rolled_up USING (link_id, dimension, value, detail)
WHERE all_counted.clicks IS DISTINCT FROM rolled_up.clicks;
"""

# Instead of the foreign key.
_KEEP_LINKS = """
CREATE FUNCTION keep_link_with_clicks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM click_totals WHERE link_id = OLD.id) OR EXISTS (SELECT FROM unfolded_clicks(OLD.id)) THEN
        RAISE foreign_key_violation USING MESSAGE = format('the link %s has clicks', OLD.code);
    END IF;
    RETURN OLD;
END
$$;
CREATE TRIGGER keep_link_with_clicks BEFORE DELETE ON links FOR EACH ROW EXECUTE FUNCTION keep_link_with_clicks();
"""

_TRUNCATE = """
CREATE FUNCTION forget_rollups() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE click_totals, click_counts;
    UPDATE click_folding SET old_id = last_old_id;
    UPDATE click_partitions SET clicks = 0 WHERE clicks IS NOT NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER forget_rollups AFTER TRUNCATE ON clicks EXECUTE FUNCTION forget_rollups();
"""


def upgrade() -> None:
    """Make the tables, the first two partitions, and the functions."""
    for each in (
        *(_OLD_CLICKS, _CLICKS, _ROLLUPS, _SMALL_FUNCTIONS),
        *(_UNFOLDED, FOLD, DIFFERENCES, _KEEP_LINKS, _TRUNCATE),
    ):
        op.execute(each)


def downgrade() -> None:
    """Put all clicks that are still there into one table again, which takes time, and drop the rest."""
    op.execute("""
        DROP VIEW click_differences;
        DROP TRIGGER keep_link_with_clicks ON links;
        DROP FUNCTION keep_link_with_clicks;
        DROP FUNCTION unfolded_clicks, fold_clicks, latest_of, click_as_json, dimensions_of;
        DROP TABLE click_totals, click_counts, click_folding, click_partitions;
        CREATE TABLE clicks_again (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            link_id bigint NOT NULL REFERENCES links (id),
            at timestamptz NOT NULL DEFAULT now(),
            browser text NOT NULL,
            platform text NOT NULL,
            referrer text,
            transaction_id bigint NOT NULL DEFAULT 0,
            CONSTRAINT clicks_before_rollups CHECK (transaction_id = 0)
        );
        INSERT INTO clicks_again (link_id, at, browser, platform, referrer)
            SELECT link_id, at, browser, platform, referrer FROM clicks ORDER BY at, id;
        DROP TABLE clicks;
        DROP FUNCTION forget_rollups;
        ALTER TABLE clicks_again RENAME TO clicks;
        ALTER INDEX clicks_again_pkey RENAME TO clicks_pkey;
        CREATE INDEX clicks_link_id_at_idx ON clicks (link_id, at);
    """)
