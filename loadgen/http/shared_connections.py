"""Artillery's `http.pool`: all virtual users share a limited number of connections to an origin, and wait for them in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from gevent.event import AsyncResult

from loadgen.http.dialer import Connections
from loadgen.http.exchange import Exchange, Failure
from loadgen.http.route import Origin


class SharedConnections:
    """Lends each exchange a connection: the one given back last, else a new one, else the next that becomes free.

    The exchange that has waited longest is served first. The wait is over before the exchange starts: it is part of
    `vusers.session_length`, and not of `http.response_time`.
    """

    def __init__(self, limit: int, connections: Callable[[], Connections]) -> None:
        """`limit` is the number of connections to each origin; `connections` makes an object that keeps one of them."""
        self._limit = limit
        self._connections = connections
        self._pools: dict[Origin, _ConnectionPool] = {}

    def exchange(self, origin: Origin, *what: Any, **how: Any) -> Exchange | Failure:
        """Make one exchange with the origin; the arguments are those of `Connections.exchange`."""
        pool = self._pools.get(origin) or self._pools.setdefault(
            origin, _ConnectionPool(self._limit, self._connections)
        )
        lent = pool.take()
        try:
            return lent.exchange(origin, *what, **how)
        except BaseException:
            # The greenlet was killed in the middle of an exchange, so the connection cannot be used again.
            lent.close()
            raise
        finally:
            pool.give_back(lent)

    def close(self) -> None:
        """Do nothing when a virtual user ends: the connections are not its own."""

    def close_all(self) -> None:
        """Close all connections, once the run is over."""
        for pool in self._pools.values():
            pool.close()


class _ConnectionPool:
    """The connections to one origin. `_made` has all of them; `_free` has some only while nobody waits."""

    def __init__(self, limit: int, connections: Callable[[], Connections]) -> None:
        self._limit = limit
        self._connections = connections
        self._free: list[Connections] = []
        self._made: list[Connections] = []
        self._waiting: deque[AsyncResult] = deque()

    def take(self) -> Connections:
        if self._free:
            return self._free.pop()
        if len(self._made) < self._limit:
            self._made.append(self._connections())
            return self._made[-1]
        turn: AsyncResult = AsyncResult()
        self._waiting.append(turn)
        try:
            lent: Connections = turn.get()
        except BaseException:
            # The greenlet was killed while it waited, perhaps just after its turn had come.
            if turn.ready():
                self.give_back(turn.value)
            else:
                self._waiting.remove(turn)
            raise
        return lent

    def give_back(self, lent: Connections) -> None:
        if self._waiting:
            self._waiting.popleft().set(lent)
        else:
            self._free.append(lent)

    def close(self) -> None:
        for each in self._made:
            each.close()
