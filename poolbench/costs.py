"""What borrowing a connection costs: waiting for it, opening it, holding it. Pools, engines and services all use this.

`LoanCost` is the cost of one loan, or the sum of several. `asking(cost)` charges to it what the running greenlet (or
thread) spends until it has its connection, and `connecting()`, around whatever opens connections, tells opening from
waiting. `costs` keeps the sum for each greenlet (or thread); `server_timing_header` shows a cost to the client.

"Greenlet (or thread)": a greenlet where gevent has patched `threading` before this import, else a thread.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from poolbench.cpu import own_cpu_ns


@dataclass(slots=True)
class LoanCost:
    """What one loan of a connection, or several in a row, have cost, in ns; filled in while it happens, so that the cost
    of a loan that failed is known, too.
    """

    wait_ns: int = 0
    """From asking for a connection to having it, less the time spent opening it."""
    connect_ns: int = 0
    """Opening connections for this loan, listeners of the "connect" event included."""
    held_ns: int = 0
    """From having the connection to giving it back, or until now if it is still lent."""
    cpu_ns: int = 0
    """CPU time that the borrower used while it held the connection."""


def server_timing_header(cost: LoanCost, total_ns: int) -> str:
    """The value of a Server-Timing header: waiting (`pool`), opening (`connect`), holding (`db`) and the whole request
    (`total`, of `total_ns`), each in ms with three decimals.
    """
    return (
        f"pool;dur={cost.wait_ns / 1e6:.3f}, connect;dur={cost.connect_ns / 1e6:.3f}, "
        f"db;dur={cost.held_ns / 1e6:.3f}, total;dur={total_ns / 1e6:.3f}"
    )


class _Asking(threading.local):
    """The cost that the running greenlet (or thread) is charged with at this moment; None while it asks for nothing.

    Not a context variable: a greenlet inherits those, and one that opens connections in the background would charge
    them to the request in which it was born.
    """

    cost: LoanCost | None = None
    connect_before_ns: int = 0
    """What opening had cost when the block of `asking` began."""


_asking = _Asking()


class asking:  # noqa: N801 - a context manager, read as a word: `with asking(cost):`
    """Charge the block to `cost`: opening connections as connect_ns, all other time as wait_ns."""

    __slots__ = ("_began_ns", "_connect_before_ns", "_cost", "_outer")

    def __init__(self, cost: LoanCost) -> None:
        self._cost = cost

    def __enter__(self) -> None:
        self._outer, _asking.cost = _asking.cost, self._cost
        self._connect_before_ns = _asking.connect_before_ns = self._cost.connect_ns
        self._began_ns = perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        cost = self._cost
        spent_ns = perf_counter_ns() - self._began_ns
        cost.wait_ns += spent_ns - (cost.connect_ns - self._connect_before_ns)
        _asking.cost = self._outer


class connecting:  # noqa: N801 - as `asking`
    """Charge the block, as opening a connection, to the cost that the running greenlet (or thread) is charged with, if any.

    Of nested blocks only the outermost counts.
    """

    __slots__ = ("_began_ns", "_cost")

    def __enter__(self) -> None:
        self._cost, _asking.cost = _asking.cost, None
        self._began_ns = perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        if self._cost is not None:
            self._cost.connect_ns += perf_counter_ns() - self._began_ns
            _asking.cost = self._cost


def charge_opening(duration_ns: int) -> None:
    """Charge `duration_ns` of the block of `asking` that is running, if any, as the opening of a connection: it was opened in
    the background, and awaited here. What has been charged already counts: greenlets of one thread, where gevent has not
    patched `threading`, are not told apart.
    """
    cost = _asking.cost
    if cost is not None:
        cost.connect_ns = max(cost.connect_ns, _asking.connect_before_ns + duration_ns)


class Costs(threading.local):
    """What the running greenlet (or thread) has spent on connections since `reset`, over all engines with the plugin."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start again from zero; loans that have not ended are no longer counted."""
        self._ended = LoanCost()
        self._lent_since_ns: dict[Any, tuple[int, int]] = {}

    def asking(self) -> asking:
        """A context manager around a request for a connection."""
        return asking(self._ended)

    def lent(self, loan: Any) -> CountedLoan:
        """Record the start of a loan, identified by any hashable object. Call `end()` on the result when it is returned."""
        return CountedLoan(loan, self._ended, self._lent_since_ns)

    def sum(self) -> LoanCost:
        """The cost so far, including loans that have not ended."""
        ended, now_ns = self._ended, perf_counter_ns()
        total = LoanCost(ended.wait_ns, ended.connect_ns, ended.held_ns, ended.cpu_ns)
        if self._lent_since_ns:
            cpu_ns = own_cpu_ns()
            for since_ns, cpu_since_ns in self._lent_since_ns.values():
                total.held_ns += now_ns - since_ns
                total.cpu_ns += cpu_ns - cpu_since_ns
        return total

    def lent_now(self) -> int:
        """Number of loans that have not ended."""
        return len(self._lent_since_ns)


class CountedLoan:
    """A loan that counts for the greenlet (or thread) in which it began, wherever it ends."""

    __slots__ = ("_borrower", "_key", "_lent_since_ns", "_sum")

    def __init__(self, key: Any, total: LoanCost, lent_since_ns: dict[Any, tuple[int, int]]) -> None:
        self._key, self._sum, self._lent_since_ns = key, total, lent_since_ns
        self._borrower = threading.get_ident()
        lent_since_ns[key] = perf_counter_ns(), own_cpu_ns()

    def end(self) -> None:
        """Record that the connection was given back."""
        since = self._lent_since_ns.pop(self._key, None)
        if since is not None:
            self._sum.held_ns += perf_counter_ns() - since[0]
            # Elsewhere, such as in a collection of garbage, the clock is another one.
            if threading.get_ident() == self._borrower:
                self._sum.cpu_ns += own_cpu_ns() - since[1]


costs = Costs()
"""The costs of the running greenlet (or thread)."""


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of the most recent loans, in ms."""

    p50: float
    p90: float
    p99: float
    max: float


class RecentCosts:
    """The costs of the last `kept` loans, for quantiles by the nearest rank."""

    def __init__(self, kept: int = 1024) -> None:
        self._waits_ns: deque[int] = deque(maxlen=kept)
        self._holds_ns: deque[int] = deque(maxlen=kept)

    def add_wait(self, wait_ns: int) -> None:
        """Count the wait of a loan, also of one that failed."""
        self._waits_ns.append(wait_ns)

    def add_hold(self, held_ns: int) -> None:
        """Count how long a connection was held."""
        self._holds_ns.append(held_ns)

    def wait_ms(self) -> Quantiles:
        """Quantiles of the waits; zeros when there were none."""
        return _quantiles(self._waits_ns)

    def hold_ms(self) -> Quantiles:
        """Quantiles of the holds; zeros when there were none."""
        return _quantiles(self._holds_ns)


def _quantiles(sample_ns: deque[int]) -> Quantiles:
    ordered = sorted(sample_ns) or [0]
    last = len(ordered) - 1
    p50, p90, p99 = (ordered[round(q * last)] / 1e6 for q in (0.5, 0.9, 0.99))
    return Quantiles(p50, p90, p99, ordered[-1] / 1e6)
