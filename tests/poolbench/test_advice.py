"""What to change about a statement, with its own tables and columns."""

import pytest

from poolbench.advice import for_repeated, for_slow
from poolbench.surroundings import Index


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


INDEXES = (
    Index("items", ("id",), True, "public"),
    Index("items", ("sku", "at"), schema="public"),
    Index("Order", ("b",), schema="shop"),
    Index("posts", ("body",)),
    Index("sales", ("customer",), schema="archive"),
    Index("sales", ("id",), True, schema="public"),
)


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("SELECT * FROM items WHERE id = %s", "whether it uses the index on items (id) that is there"),
        (
            "SELECT * FROM items WHERE items.id = %s AND shop = 3",
            "whether it uses the index on items (id) that is there",
        ),
        (
            "SELECT * FROM public.items WHERE at > now() AND sku = 'a'",
            "the index on public.items (sku, at) that is there",
        ),
        ('SELECT a FROM shop."Order" WHERE "b" = %s', 'whether it uses the index on shop."Order" (b) that is there'),
        ("SELECT * FROM items WHERE at > now()", "an index on items (at), fewer"),
        ("SELECT * FROM items WHERE sku = 'a' AND size = 3", "an index on items (sku, size), fewer"),
        ("SELECT id FROM posts WHERE body LIKE %s", "an index on posts (body) (for LIKE"),
        ("SELECT id FROM orders WHERE id = %s", "an index on orders (id), fewer"),
        ("SELECT id FROM sales WHERE customer = %s", "an index on sales (customer), fewer"),
        ("SELECT id FROM archive.sales WHERE customer = %s", "the index on archive.sales (customer) that is there"),
        ("SELECT id FROM public.sales WHERE customer = %s", "an index on public.sales (customer), fewer"),
    ],
)
def test_no_index_is_advised_that_is_there(text, way):
    assert way in for_slow(text, INDEXES)


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
