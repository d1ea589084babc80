"""Chooses the requests that `loadgen doctor` notes in full, so that noting costs a fast application little. See watching.py.

A request is noted in full with all of its loans and statements, or with none of them. Which ones is drawn by chance: one in k
requests of an endpoint, each of which stands for k in the sums. So the expected value of a sum is what noting all would have
given. k follows from what the endpoint's requests of the last period would have cost. While all endpoints together cost less
than the budget, every k is 1. If they cost more, the cheapest and the rarest endpoints are still noted in full, and only the
others are drawn, so that each of those costs the same. The budget is a part of a core, by what adding up the notes is seen to
cost: a larger part while the process has CPU to spare, since noting takes no throughput from it then.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from random import Random

from poolbench.observed import OTHERS

LOAN_COST = 3
"""What noting a loan in full costs, in units of what noting a statement costs."""
_BUDGET_PER_S, _LEAST_PER_S = 600, 30
"""Most that a process spends on noting, in these units per second, and what it may spend however long one takes."""
_MOST_CPU, _OF_IDLE = 0.001, 0.004
"""Most of a core that it spends on noting, beyond that; and how much of the part of a core that it does not use."""
_TIMES_ADDING = 2
"""Borrowers spend as much CPU on noting as the thread that adds up what they have noted."""
_PERIOD_NS = 500_000_000
_MOST_ENDPOINTS = 200
"""Endpoints that are told apart; all further ones count as one."""


class Shares:
    """Draws requests, by endpoint. Borrowers call `draw`, and one thread calls `spend`."""

    def __init__(self, budget_per_s: float = _BUDGET_PER_S) -> None:
        self.budget_per_s = budget_per_s
        # Not the application's generator, whose numbers would change.
        self._random = Random().random
        self._every: dict[str, int] = {OTHERS: 1}
        self._wanted: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._elapsed_ns = 0
        self._noted, self._adding_ns, self._used_ns = 0, 0, 0
        self._idle = 1.0

    def draw(self, endpoint: str) -> int:
        """The number of requests of this endpoint that the next one stands for; 0 if it is not to be noted in full."""
        every = self._every.get(endpoint)
        if every is None:
            if len(self._every) < _MOST_ENDPOINTS:
                self._every[endpoint] = 1
                return 1
            every = self._every[OTHERS]
        return every if every == 1 or self._random() * every < 1 else 0

    def count(self, noted: int, adding_ns: int, used_ns: int) -> None:
        """Learn what noting costs here: adding up what was noted, of `noted` units, has taken `adding_ns` of CPU. Since the last
        call, the process has used `used_ns` of CPU in all.
        """
        self._noted += noted
        self._adding_ns += adding_ns
        self._used_ns += used_ns

    def affordable_per_s(self) -> float:
        """Units per second that may be noted."""
        if not self._noted or not self._adding_ns:
            return self.budget_per_s
        affordable = (_MOST_CPU + _OF_IDLE * self._idle) * 1e9 * self._noted / (_TIMES_ADDING * self._adding_ns)
        return min(self.budget_per_s, max(_LEAST_PER_S, affordable))

    def spend(self, costs: Mapping[str, int], requests: Mapping[str, int], elapsed_ns: int) -> None:
        """Adapt the shares to what was noted in the last `elapsed_ns`.

        costs: by endpoint, in units of a statement, what noting all of its requests would have cost. requests: their number;
        outside requests, that of loans.
        """
        for found, into in ((costs, self._wanted), (requests, self._requests)):
            for endpoint, number in found.items():
                into[endpoint if endpoint in self._every else OTHERS] += number
        self._elapsed_ns += elapsed_ns
        if self._elapsed_ns < _PERIOD_NS:
            return
        self._idle = max(0.0, 1 - self._used_ns / self._elapsed_ns)
        most = level(self._wanted.values(), self.affordable_per_s() * self._elapsed_ns / 1e9)
        for endpoint, count in self._requests.items():
            # By steps: of an endpoint that is drawn seldom, a period may have noted none. At least one in a period is noted. What
            # was not called keeps its share, so that each burst after a pause is not noted whole anew.
            wanted = max(self._every[endpoint] // 2, math.ceil(self._wanted[endpoint] / most))
            self._every[endpoint] = max(1, min(count, wanted))
        self._wanted.clear()
        self._requests.clear()
        self._elapsed_ns = self._used_ns = 0


def level(wanted: Collection[float], budget: float) -> float:
    """The most that each may have, so that all who want less get what they want, and all together `budget`; else infinity."""
    left = budget
    for served, each in enumerate(sorted(wanted)):
        fair = left / (len(wanted) - served)
        if each > fair:
            return fair
        left -= each
    return math.inf
