"""What to change about a statement, with its own tables and columns."""

import pytest

from poolbench.advice import for_repeated, for_slow


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("SELECT count(*) FROM items WHERE sku = %(sku)s AND items.id < 60000", "an index on items (sku, id), fewer"),
        ('SELECT a FROM shop."Order" WHERE "b" IN (%s) ORDER BY c LIMIT 1', 'an index on shop."Order" (b), fewer'),
        (
            "SELECT id FROM posts WHERE body ILIKE %(body)s LIMIT 20",
            "an index on posts (body) (for LIKE with a % in front",
        ),
        (
            "SELECT o.id FROM orders o JOIN items i ON o.id = i.order_id WHERE i.sku = 'a'",
            "an index on what WHERE compares,",
        ),
        ("SELECT b FROM (SELECT b FROM c WHERE d = 1) x WHERE b = 2", "an index on what WHERE compares,"),
        ("SELECT count(*) FROM generate_series(1, 9) i WHERE md5(i::text) < '1'", "an index on what WHERE compares,"),
        ("DELETE FROM orders WHERE id = %s", "an index on the columns of other tables that refer to orders, fewer"),
        ("SELECT id FROM posts ORDER BY at LIMIT 20 OFFSET 9000", "it: pages by WHERE … > the last row seen"),
        ("SELECT city, count(*) FROM customers GROUP BY city", "it: fewer rows looked at, or the result"),
        ("", "an index on what WHERE compares,"),
    ],
)
def test_a_slow_statement_needs_an_index_on_what_it_compares(text, way):
    assert way in for_slow(text)


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("SELECT authors.id AS a FROM authors WHERE authors.id = %(pk_1)s", "all from authors with one statement: WHERE id IN"),
        ("SELECT a FROM b, c WHERE d = %s", "Fetch all with one statement: WHERE … IN (…)"),
        ("INSERT INTO log (what) VALUES (%s)", "Write all rows of log with one statement: execute(insert(…), rows)"),
        ("update posts SET body = %s WHERE id = %s", "rows of posts with one statement: UPDATE posts … FROM (VALUES …)"),
        ("DELETE  FROM posts WHERE id = %s", "DELETE FROM posts WHERE … IN (…)"),
    ],
)  # fmt: skip
def test_a_repeated_statement_is_replaced_by_one_for_all(text, way):
    assert way in for_repeated(text)
