"""`http.pool`: all virtual users together have at most so many connections to an origin, and wait for one in order."""

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

    Waiting comes before the exchange's first instant: it is in the session's length, not in `http.response_time`.
    Who waits longest is served first.
    """

    def __init__(self, limit: int, connections: Callable[[], Connections]) -> None:
        """`limit` per origin; `connections` makes a holder of one."""
        self._limit = limit
        self._connections = connections
        self._pools: dict[Origin, _ConnectionPool] = {}

    def exchange(self, origin: Origin, *what: Any, **how: Any) -> Exchange | Failure:
        """One exchange with the origin; the arguments are those of `Connections.exchange`."""
        pool = self._pools.get(origin) or self._pools.setdefault(
            origin, _ConnectionPool(self._limit, self._connections)
        )
        lent = pool.take()
        try:
            return lent.exchange(origin, *what, **how)
        except BaseException:  # its greenlet was killed: nobody knows what is under way on that connection
            lent.close()
            raise
        finally:
            pool.give_back(lent)

    def close(self) -> None:
        """A virtual user has ended: its connections were never its own."""

    def close_all(self) -> None:
        """The run is over."""
        for pool in self._pools.values():
            pool.close()


class _ConnectionPool:
    """The connections to one origin. `_made` of them exist; the free ones are in `_free` only while nobody waits."""

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
        except BaseException:  # killed while waiting, perhaps just after its turn had come
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
