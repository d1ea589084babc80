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
from threading import get_ident
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
    return _HEADER % (cost.wait_ns / 1e6, cost.connect_ns / 1e6, cost.held_ns / 1e6, total_ns / 1e6)


_HEADER = "pool;dur=%.3f, connect;dur=%.3f, db;dur=%.3f, total;dur=%.3f"


class _Asking(threading.local):
    """The block of `asking` that the running greenlet (or thread) is in at this moment; None while it asks for nothing.

    Not a context variable: a greenlet inherits those, and one that opens connections in the background would charge
    them to the request in which it was born.
    """

    block: asking | None = None


_asking = _Asking()


class asking:  # noqa: N801 - a context manager, read as a word: `with asking(cost):`
    """Charge the block to `cost`: opening connections as connect_ns, all other time as wait_ns."""

    __slots__ = ("_began_ns", "_outer", "connect_before_ns", "cost")

    def __init__(self, cost: LoanCost) -> None:
        self.cost = cost

    def __enter__(self) -> None:
        # Under gevent each look at a thread's local value costs about as much as all the rest.
        self._outer, _asking.block = _asking.block, self
        self.connect_before_ns = self.cost.connect_ns
        """What opening had cost when the block began."""
        self._began_ns = perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        cost = self.cost
        spent_ns = perf_counter_ns() - self._began_ns
        cost.wait_ns += spent_ns - (cost.connect_ns - self.connect_before_ns)
        _asking.block = self._outer


class connecting:  # noqa: N801 - as `asking`
    """Charge the block, as opening a connection, to the cost that the running greenlet (or thread) is charged with, if any.

    Of nested blocks only the outermost counts.
    """

    __slots__ = ("_began_ns", "_block")

    def __enter__(self) -> None:
        self._block, _asking.block = _asking.block, None
        self._began_ns = perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        if self._block is not None:
            self._block.cost.connect_ns += perf_counter_ns() - self._began_ns
            _asking.block = self._block


def charge_opening(duration_ns: int) -> None:
    """Charge `duration_ns` of the block of `asking` that is running, if any, as the opening of a connection: it was opened in
    the background, and awaited here. What has been charged already counts: greenlets of one thread, where gevent has not
    patched `threading`, are not told apart.
    """
    block = _asking.block
    if block is not None:
        block.cost.connect_ns = max(block.cost.connect_ns, block.connect_before_ns + duration_ns)


class Account:
    """What one greenlet (or thread) has spent on connections, over all engines with the plugin."""

    __slots__ = ("ended", "lent")

    def __init__(self) -> None:
        self.ended = LoanCost()
        self.lent: dict[Any, CountedLoan] = {}
        """The loans that have not ended, by whatever tells them apart."""

    def sum(self) -> LoanCost:
        """The cost so far, including loans that have not ended; for the greenlet (or thread) itself to ask."""
        ended = self.ended
        total = LoanCost(ended.wait_ns, ended.connect_ns, ended.held_ns, ended.cpu_ns)
        if self.lent:
            now_ns, cpu_ns = perf_counter_ns(), own_cpu_ns()
            for loan in self.lent.values():
                total.held_ns += now_ns - loan.since_ns
                total.cpu_ns += cpu_ns - loan.cpu_since_ns
        return total


class Costs(threading.local):
    """What the running greenlet (or thread) has spent on connections since `reset`, over all engines with the plugin."""

    def __init__(self) -> None:
        self.account = Account()

    def reset(self) -> Account:
        """Start again from zero; loans that have not ended are no longer counted. Returns the new account."""
        self.account = account = Account()
        return account

    def sum(self) -> LoanCost:
        """The cost so far, including loans that have not ended."""
        return self.account.sum()

    def lent_now(self) -> int:
        """Number of loans that have not ended."""
        return len(self.account.lent)


class CountedLoan:
    """A loan that counts for the greenlet (or thread) in which it began, wherever it ends.

    `key`: any hashable object that tells it apart from the other loans of the account.
    """

    __slots__ = ("_account", "_borrower", "_key", "cpu_since_ns", "since_ns")

    def __init__(self, key: Any, account: Account) -> None:
        self._key, self._account = key, account
        self._borrower = get_ident()
        self.since_ns, self.cpu_since_ns = perf_counter_ns(), own_cpu_ns()
        account.lent[key] = self

    def end(self) -> None:
        """Record that the connection was given back."""
        account = self._account
        if account.lent.get(self._key) is self:
            del account.lent[self._key]
            account.ended.held_ns += perf_counter_ns() - self.since_ns
            # Elsewhere, such as in a collection of garbage, the clock is another one.
            if get_ident() == self._borrower:
                account.ended.cpu_ns += own_cpu_ns() - self.cpu_since_ns


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
