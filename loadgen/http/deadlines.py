"""Time limits of many waits with one timer of the event loop.

An ordinary exchange is over long before its time limit: a libev timer for each connection would be made, put in order and
thrown away for nothing, which costs more than sending the request. So limits lie in a heap, and one timer stands for the
earliest. What is over in the meantime is dropped when it comes to the top.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import Any, Protocol

from gevent import get_hub

from loadgen.clock import now_ns

_NEVER_NS = 1 << 62


class Limited(Protocol):
    """What has a time limit."""

    over: bool
    """Nothing will ever wait here again."""

    def time_is_up(self) -> None:
        """The instant it asked for has come."""


class Deadlines:
    """Calls `time_is_up` at the instants asked for, or up to a millisecond later, from the event loop."""

    __slots__ = ("_fires_ns", "_heap", "_loop", "_numbers", "_timer")

    def __init__(self) -> None:
        self._loop = get_hub().loop
        self._heap: list[tuple[int, int, Limited]] = []
        self._numbers = count()  # equal instants are not ordered by comparing what waits
        self._timer: Any = None
        self._fires_ns = _NEVER_NS

    def watch(self, limited: Limited, instant_ns: int) -> None:
        """Tell it once at that monotonic instant, unless it is over by then."""
        heap = self._heap
        while heap and heap[0][2].over:
            heappop(heap)
        heappush(heap, (instant_ns, next(self._numbers), limited))
        if instant_ns < self._fires_ns:
            self._arm(instant_ns)

    def close(self) -> None:
        """Give the timer back; nothing is told any more."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _arm(self, instant_ns: int) -> None:
        if self._timer is not None:
            self._timer.close()
        self._fires_ns = instant_ns
        self._timer = self._loop.timer(max(0.0, (instant_ns - now_ns()) / 1e9), ref=False)
        self._timer.start(self._on_timer, update=True)

    def _on_timer(self) -> None:
        heap = self._heap
        while heap and (heap[0][2].over or heap[0][0] <= now_ns()):
            limited = heappop(heap)[2]
            if not limited.over:
                limited.time_is_up()
        self._fires_ns = _NEVER_NS
        if heap:
            self._arm(heap[0][0])
