"""Makes the tables of these applications and their rows, in the database that DATABASE_URL names."""

import os

from sqlalchemy import create_engine, text

with create_engine(os.environ["DATABASE_URL"]).begin() as connection:
    for statement in (
        "CREATE TABLE authors (id int PRIMARY KEY, name text NOT NULL)",
        "CREATE TABLE posts (id int PRIMARY KEY, author_id int NOT NULL REFERENCES authors, body text NOT NULL)",
        "CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL)",
        "CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind int NOT NULL, body text NOT NULL)",
        "INSERT INTO authors SELECT i, 'author ' || i FROM generate_series(1, 100) i",
        "INSERT INTO posts SELECT i, 1 + i % 100, repeat('x', 200) FROM generate_series(1, 2000) i",
        "INSERT INTO counters SELECT i, 0 FROM generate_series(1, 100) i",
    ):
        connection.execute(text(statement))
