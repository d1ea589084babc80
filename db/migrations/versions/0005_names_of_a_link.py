"""At most a thousand referrers, and as many programs, of a link are counted by their names: docs/rollups.md.

Anybody can invent names in the headers of a click, and each one made the link's analytics longer and slower, for ever.
Names that a link has already stay. Takes no time; programs that know only 0004 go on working.
"""

from importlib import import_module

from alembic import op

revision = "0005"
down_revision = "0004"

# A name that finds no room is counted with the others: referrers under an empty name, which no referrer has, and programs
# with those that are not known.
_PLACE = """
CREATE FUNCTION place_of(text, text, text, has_room boolean)
RETURNS TABLE (dimension text, value text, detail text) LANGUAGE sql IMMUTABLE AS $$
SELECT $1, CASE WHEN has_room THEN $2 WHEN $1 = 'referrer' THEN '' ELSE 'Other' END,
       CASE WHEN has_room THEN $3 WHEN $1 = 'referrer' THEN '' ELSE 'Other' END
$$;
"""

# As in 0004, except for what is counted in click_counts.
_FOLD = """
CREATE OR REPLACE FUNCTION fold_clicks(most integer) RETURNS bigint
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
    ), named AS MATERIALIZED (
        SELECT batch.link_id, dimension, value, detail, count(*) AS clicks
        FROM batch, dimensions_of(batch::clicks) GROUP BY 1, 2, 3, 4
    ), fresh AS MATERIALIZED (
        SELECT link_id, dimension, value, detail,
               row_number() OVER (PARTITION BY link_id, dimension ORDER BY clicks DESC, value, detail) AS place
        FROM named WHERE dimension IN ('referrer', 'program') AND NOT EXISTS (
            SELECT FROM click_counts AS known WHERE known.link_id = named.link_id
                AND known.dimension = named.dimension AND known.value = named.value AND known.detail = named.detail)
    ), room AS MATERIALIZED (
        SELECT link_id, dimension, 1000 - (
            SELECT count(*) FROM (
                SELECT FROM click_counts AS known
                WHERE known.link_id = wanted.link_id AND known.dimension = wanted.dimension LIMIT 1000
            ) AS taken) AS places
        FROM (SELECT DISTINCT link_id, dimension FROM fresh) AS wanted
    ), excess AS MATERIALIZED (
        SELECT link_id, dimension, value, detail FROM fresh JOIN room USING (link_id, dimension) WHERE place > places
    ), placed AS (
        SELECT named.link_id, placed.*, sum(named.clicks)::bigint AS clicks
        FROM named LEFT JOIN excess USING (link_id, dimension, value, detail),
            place_of(named.dimension, named.value, named.detail, excess.link_id IS NULL) AS placed
        GROUP BY 1, 2, 3, 4
    ), counted AS (
        INSERT INTO click_counts AS known (link_id, dimension, value, detail, clicks)
        SELECT link_id, dimension, value, detail, clicks FROM placed
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

# A name without a row of its own must be among the others.
_DIFFERENCES = """
CREATE OR REPLACE VIEW click_differences AS
WITH named AS (
    SELECT link_id, named.*, count(*) AS clicks
    FROM click_folding, clicks, dimensions_of(clicks) AS named
    WHERE transaction_id BETWEEN 1 AND watermark - 1 OR transaction_id = 0 AND clicks.id <= old_id
    GROUP BY 1, 2, 3, 4
), counted AS (
    SELECT named.link_id, placed.*, sum(named.clicks)::bigint AS clicks
    FROM named LEFT JOIN click_counts AS known USING (link_id, dimension, value, detail),
        place_of(named.dimension, named.value, named.detail,
                 known.clicks IS NOT NULL OR named.dimension NOT IN ('referrer', 'program')) AS placed
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


def upgrade() -> None:
    """Replace the functions that count and that check."""
    for each in (_PLACE, _FOLD, _DIFFERENCES):
        op.execute(each)


def downgrade() -> None:
    """Put back the functions of 0004. What is counted under an empty name stays there, and shows as a difference."""
    before = import_module("db.migrations.versions.0004_click_rollups")
    op.execute("DROP VIEW click_differences; DROP FUNCTION fold_clicks, place_of;")
    op.execute(before.FOLD)
    op.execute(before.DIFFERENCES)
