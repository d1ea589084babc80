"""How many connections a database has left, as a role without more rights sees it."""

from contextlib import ExitStack, closing

import pytest

from db.embedded import ROLE, temporary_postgres
from loadgen.lab.own_database import DatabaseError, UsersDatabase
from loadgen.lab.stack import BackendWatch, connect, count_backends, free_connections, query
from tests.support.server_process import wait_until

pytestmark = pytest.mark.slow

ALLOWED, OF_SUPERUSERS, RESERVED = 40, 3, 4
FREE = ALLOWED - OF_SUPERUSERS - RESERVED - 1
"""One less, as the one that asks counts, too."""


@pytest.fixture(scope="module")
def server():
    with temporary_postgres(max_connections=ALLOWED, settings={"reserved_connections": str(RESERVED)}) as postgres:
        yield postgres


def await_free(url, number):
    """A session ends a little after its connection was closed."""
    wait_until(lambda: free_connections(url) == (number, ALLOWED), f"{number} connections are free")


def test_the_sessions_of_other_roles_and_databases_are_not_free(server):
    await_free(server.url, FREE)
    others = [server.admin_url] * 5 + [f"{server.admin_url.rpartition('/')[0]}/postgres"] * 2
    with ExitStack() as opened:
        for url in others:
            opened.enter_context(closing(connect(url)))
        await_free(server.url, FREE - 7)
        # Of this database alone.
        wait_until(lambda: count_backends(server.url) == 5, "only the five are left")
        with BackendWatch(server.url) as watch:
            pass
        assert watch.peak >= 5


@pytest.mark.parametrize("limited", [f"ROLE {ROLE}", f"DATABASE {ROLE}"])
def test_the_limits_of_the_role_and_of_the_database_count(server, limited):
    query(server.admin_url, f"ALTER {limited} CONNECTION LIMIT 9")
    try:
        with closing(connect(server.url)):
            await_free(server.url, 7)
        # A superuser has none of these limits.
        await_free(server.admin_url, FREE)
    finally:
        query(server.admin_url, f"ALTER {limited} CONNECTION LIMIT -1")


def test_half_of_what_is_free_is_shared_by_the_servers_and_too_little_is_refused(server):
    await_free(server.url, FREE)
    assert UsersDatabase(server.url, None, 3).most == FREE // 2 // 3
    query(server.admin_url, f"ALTER ROLE {ROLE} CONNECTION LIMIT 8")
    try:
        assert UsersDatabase(server.url, None, 3).most == 1
        with pytest.raises(DatabaseError, match=r"would let in [567] more connections.*--servers 4") as error:
            UsersDatabase(server.url, None, 4)
        assert "@" not in str(error.value)
    finally:
        query(server.admin_url, f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")
