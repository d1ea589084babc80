"""The time limits of many waits, kept with one timer of the event loop.

An ordinary exchange is over long before its time limit. A libev timer for each connection would be made, sorted and thrown
away for nothing, which costs more than sending the request. So the limits lie in a heap, and one timer is set for the
earliest. Limits of connections that are closed by then are dropped when they reach the top of the heap.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import Any, Protocol

from gevent import get_hub

from loadgen.clock import now_ns

_NEVER_NS = 1 << 62


class Limited(Protocol):
    """Something with a time limit; connections are."""

    over: bool
    """Whether nothing will ever wait here again."""

    def time_is_up(self) -> None:
        """Called when an instant that was asked for has come."""


class Deadlines:
    """Calls `time_is_up` at the instants that were asked for, or up to a millisecond later, in the event loop."""

    __slots__ = ("_fires_ns", "_heap", "_loop", "_numbers", "_timer")

    def __init__(self) -> None:
        self._loop = get_hub().loop
        self._heap: list[tuple[int, int, Limited]] = []
        # A number for each entry, so that entries with equal instants are not compared any further.
        self._numbers = count()
        self._timer: Any = None
        self._fires_ns = _NEVER_NS

    def watch(self, limited: Limited, instant_ns: int) -> None:
        """Call `limited.time_is_up` once at this monotonic instant, unless `limited` is over by then."""
        heap = self._heap
        while heap and heap[0][2].over:
            heappop(heap)
        heappush(heap, (instant_ns, next(self._numbers), limited))
        if instant_ns < self._fires_ns:
            self._arm(instant_ns)

    def close(self) -> None:
        """Close the timer; nothing is called any more."""
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
