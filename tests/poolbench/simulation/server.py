"""A database server of the simulated machine: what opening, resetting and closing a connection take, and how they fail."""

from __future__ import annotations

from typing import Any

from tests.poolbench.simulation.world import MS, World


class Refused(Exception):
    """The server did not let us in."""


class Disconnected(Exception):
    """The connection is broken."""


class Server:
    """Counts the connections that are open or being opened, and fails as its schedule wants.

    limit: the most connections that may be open at once; None for no limit. connect_ns: the durations of connecting, one
    of which is drawn each time. The shares are the probabilities that a call fails or lets others run; idle_share: that a
    connection comes back outside any transaction, and its driver knows.
    """

    def __init__(self, world: World, limit: int | None) -> None:
        self.world, self.limit = world, limit
        self.connect_ns: tuple[int, ...] = (0, 10 * MS)
        self.refusing_share = self.closing_fails_share = self.reset_fails_share = 0.0
        self.switching_share = 0.5
        self.idle_share = 0.0
        self.is_down = False
        self.open: set[StubConnection] = set()
        self.opening = self.opened = self.closed = self.attempts = self.attempts_while_down = 0

    def connect(self) -> StubConnection:
        """The pool's creator."""
        world, rng = self.world, self.world.rng
        self.opening += 1
        self.attempts += 1
        self.attempts_while_down += self.is_down
        self.check()
        mine = self
        try:
            world.pause(self.connect_ns[int(rng.random() * len(self.connect_ns))])
            if self.is_down or rng.random() < self.refusing_share:
                raise Refused("the server is away")
        finally:
            mine.opening = max(0, mine.opening - 1)
        connection = StubConnection(self)
        self.open.add(connection)
        self.opened += 1
        self.check()
        return connection

    def outside_test(self, _connection: Any, _dialect: Any) -> Any:
        """As `transactions.outside_test`."""

        def is_outside(connection: StubConnection) -> bool:
            if connection.is_closed or self.world.rng.random() >= self.idle_share:
                return False
            connection.borrower = None
            return True

        return is_outside if self.idle_share else None

    def check(self) -> None:
        """Fail if there are more connections than allowed."""
        if self.limit is not None and len(self.open) + self.opening > self.limit:
            self.world.fail(
                f"{len(self.open)} connections are open and {self.opening} being opened; {self.limit} are allowed"
            )

    def restart(self) -> None:
        """Break all connections."""
        for connection in self.open:
            connection.is_broken = True

    def fork(self) -> None:
        """From here on the connections are the parent's."""
        for connection in self.open:
            connection.is_the_parents = True
        self.open = set()
        self.opening = 0


class StubConnection:
    """A connection to the server. borrower: who has it at the moment. number: 1 for the first that the server let in."""

    autocommit = True

    def __init__(self, server: Server) -> None:
        self.server, self.number = server, server.opened + 1
        self.borrower: Any = None
        self.is_broken = self.is_closed = self.is_the_parents = self.is_disposed = False

    def rollback(self) -> None:
        """Ends a transaction; what returning a connection does."""
        self._sends("rollback")
        self.borrower = None
        server, rng = self.server, self.server.world.rng
        if rng.random() < server.switching_share:
            server.world.pause(0)
        if self.is_broken or rng.random() < server.reset_fails_share:
            raise Disconnected

    def commit(self) -> None:
        """Does nothing."""
        self._sends("commit")

    def cursor(self, *_: Any) -> Any:
        """A test of the connection."""
        self._sends("query")
        server = self.server
        if server.world.rng.random() < server.switching_share:
            server.world.pause(0)
        if self.is_broken:
            raise Disconnected
        return _Cursor()

    def close(self) -> None:
        """Leaves the server, even if it raises."""
        self._sends("close")
        self.borrower = None
        server, rng = self.server, self.server.world.rng
        try:
            if not self.is_closed and rng.random() < server.switching_share:
                server.world.pause(0)
        finally:
            if not self.is_closed:
                self.is_closed = True
                server.closed += 1
                server.open.discard(self)
        if rng.random() < server.closing_fails_share:
            raise Disconnected

    def _sends(self, what: str) -> None:
        if self.is_the_parents and not self.server.world.is_over:
            self.server.world.fail(f"a forked child sent {what} on a connection of its parent")


class _Cursor:
    def execute(self, *_: Any) -> None:
        pass

    def close(self) -> None:
        pass
