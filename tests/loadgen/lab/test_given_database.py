"""The lab's own schema in a database that the user gave."""

import pytest

from loadgen.lab.database import given_database
from loadgen.lab.own_database import DatabaseError
from loadgen.lab.stack import query


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"])
def test_every_notation_names_a_database_and_its_options_hold_beside_the_schema(postgres, scheme):
    text = postgres.url.replace("postgresql", scheme, 1)
    with given_database(f"{text}?options=-c%20statement_timeout%3D7s%20-csearch_path%3Dpublic") as database:
        ((timeout, path),) = query(
            database.url, "SELECT current_setting('statement_timeout'), current_setting('search_path')"
        )
        assert (timeout, path[:13]) == ("7s", "poolbench_lab")
    assert query(postgres.url, "SELECT count(*) FROM pg_namespace WHERE nspname = %s", (path,)) == [(0,)]


@pytest.mark.parametrize("text", ["mysql://u:secret@h/d", "", "postgresql://u:secret@h:x/d"])
def test_what_is_no_database_is_told_by_the_name_of_the_option(text):
    with pytest.raises(DatabaseError, match=r"^--database-url ") as error, given_database(text):
        pass
    assert "secret" not in str(error.value)
