"""Settings as people write them, right and wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.settings import DatabaseSettings, PoolSettings, SettingError, database_url
from db.visitor import visitor


@pytest.mark.parametrize("text", [
    "postgresql://me:pw@db:5433/x", "postgres://me:pw@db:5433/x", "postgresql+psycopg2://me:pw@db:5433/x",
    "postgresql+psycopg://me:pw@db:5433/x",
    "host=db port=5433 user=me password=pw dbname=x", "dbname='x' user=me password='pw' host = db port=5433",
])  # fmt: skip
def test_every_notation_of_a_database_means_the_same(text):
    assert database_url(text).render_as_string(hide_password=False) == "postgresql+psycopg2://me:pw@db:5433/x"


def test_what_libpq_knows_is_kept():
    url = database_url("postgresql://me@a:1,b:2/x?sslmode=require&options=-csearch_path%3Dlab")
    assert dict(url.query) == {"sslmode": "require", "options": "-csearch_path=lab", "host": "a,b", "port": "1,2"}
    of_sqlalchemy = database_url("postgresql+psycopg2://me@/x?host=a:1&host=b&application_name=n")
    assert dict(of_sqlalchemy.query) == {"host": "a,b", "port": "1,", "application_name": "n"}
    both = [dict(database_url(f"postgresql://me@/x?host=a:1&host=b&port={port}").query) for port in ("5433", "7,8")]
    assert both == [{"host": "a,b", "port": "1,5433"}, {"host": "a,b", "port": "1,8"}]
    assert dict(database_url("hostaddr=::1,127.0.0.1 port=1,2").query) == {"hostaddr": "::1,127.0.0.1", "port": "1,2"}


@pytest.mark.parametrize("text", ["mysql://x", "postgresql://me:s3cret@h:port/x", "s3cret", "host", "postgresql://h/?nosuch=s3cret",
                                  "postgresql+asyncpg://s3cret@h/x", "postgresql://h:99999/x", "host=h s3cret",
                                  "postgresql://h/x?connect_timeout=s3cret", "host=h connect_timeout=inf",
                                  "postgresql://u:s3cret@h/x?plugin=poolbench&pool=fair"])  # fmt: skip
def test_a_wrong_url_is_named_and_not_shown(text):
    with pytest.raises(SettingError, match=r"^DATABASE_URL must be ") as error:
        DatabaseSettings.from_mapping({"DATABASE_URL": text})
    assert "s3cret" not in str(error.value) and "\n" not in str(error.value)


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@given(user=words, password=words, database=words)
def test_any_name_and_password_survives_the_round_trip(user, password, database):
    def quoted(text):
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    url = database_url(f"host=h user={quoted(user)} password={quoted(password)} dbname={quoted(database)}")
    assert (url.username, url.password, url.database) == (user, password, database)
    assert database_url(url.render_as_string(hide_password=False)) == url


def test_defaults_are_the_documented_ones():
    pool = PoolSettings.from_mapping({})
    assert (pool.strategy, pool.size, pool.max_overflow, pool.timeout_s, pool.min_size) == ("fair", 10, 0, 5.0, 0)
    assert (pool.recycle_s, pool.idle_s, pool.pre_ping, pool.max_waiting) == (3600.0, 1800.0, False, 100)
    assert PoolSettings.from_mapping({"DB_POOL": "per-request"}).min_size == 5
    assert PoolSettings.from_mapping({"DB_POOL_SIZE": ""}).size == 10, "an empty setting is none"


@pytest.mark.parametrize(("name", "value"), [
    ("DB_POOL", "other"), ("DB_POOL_SIZE", "-1"), ("DB_POOL_SIZE", "1.5"), ("DB_POOL_SIZE", "٣"), ("DB_POOL_MAX_OVERFLOW", "-2"),
    ("DB_POOL_TIMEOUT", "inf"), ("DB_POOL_PRE_PING", "maybe"), ("DB_POOL_MIN", "--1"), ("DB_POOL_MAX_WAITING", "x"),
])  # fmt: skip
def test_a_setting_that_does_not_parse_is_named(name, value):
    with pytest.raises(SettingError, match=f"^{name} must be ") as error:
        PoolSettings.from_mapping({name: value})
    assert "\n" not in str(error.value)


@given(user_agent=st.text(max_size=700), referrer=st.text(max_size=300) | st.text(max_size=50).map("http://{}".format))
def test_any_header_gives_a_visitor_of_bounded_printable_names(user_agent, referrer):
    who = visitor(user_agent, referrer)
    for name in (who.browser, who.platform, who.referrer or "-"):
        assert name.isprintable() and 0 < len(name) <= 255


def test_a_reserve_is_smaller_than_the_pool():
    assert PoolSettings.from_mapping({"DB_POOL_RESERVE": "9"}).reserve == 9
    assert PoolSettings.from_mapping({"DB_POOL_RESERVE": "9", "DB_POOL_SIZE": "0"}).reserve == 9, "no limit"
    with pytest.raises(SettingError, match="DB_POOL_RESERVE must be a whole number from 0 to 9"):
        PoolSettings.from_mapping({"DB_POOL_RESERVE": "10"})
