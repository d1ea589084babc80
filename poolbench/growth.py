"""How many connections are opened at a time for the queue. Pure decisions: the clock's time is passed in.

A waiter is served by whatever comes first, a returned connection or a new one. So a queue begins with one attempt to open a
connection. While the queue lasts, the number of attempts may double after each *grace*, an eighth of the time that opening
takes; but only for those waiters whom returns will not have served by then, at the rate at which connections have come back
lately. Where no connection is lent, nothing can come back, and each waiter has its attempt at once.

After a failure one attempt is made at a time, each after a pause: the *back-off*. A success ends it.

Several threads may use this at once without a lock: all that they can do to each other is to count a moment's returns or a
pause twice. The bounds that must hold are kept elsewhere (`openers.py`).
"""

from __future__ import annotations

import copy
import random
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SHORTEST_GRACE_NS = 10_000_000
LONGEST_GRACE_NS = 50_000_000

FIRST_PAUSE_NS = 50_000_000
NEXT_PAUSE_NS = 100_000_000
LONGEST_PAUSE_NS = 2_000_000_000
PAUSES_PER_OUTAGE = 16
"""While the server stays away, a pause lasts this part of the time that it has been away, within the bounds above."""

CONNECT_SMOOTHING = 1 / 4
"""Weight of the newest duration in the mean time of opening a connection."""


class Growth:
    """Decides how many attempts may run. All instants and durations are in ns of the monotonic clock.

    openers: the most attempts at one time, or None. longest_pause_ns: a bound of the back-off, below its own. chance: returns
    a number from 0 to 1, for the jitter of the back-off. failures: attempts that have failed since the last success.
    last_failure: the newest of them, without its traceback.
    """

    def __init__(
        self,
        openers: int | None,
        longest_pause_ns: int = LONGEST_PAUSE_NS,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.openers = sys.maxsize if openers is None else openers
        self.connect_ns = 0.0
        self.failures = 0
        self.last_failure: BaseException | None = None
        self._longest_pause_ns = min(longest_pause_ns, LONGEST_PAUSE_NS)
        self._chance = chance
        self._away_since_ns = self._next_try_ns = self._returned_when_it_went = 0
        # The hand-overs since an instant, and their number per ns before it: the rate of the returns.
        self._watched_since_ns = self._returned_then = 0
        self._returns_per_ns = 0.0
        self._most = 1
        self._overslept = False

    @property
    def grace_ns(self) -> int:
        """How long returns are watched before more connections are opened at a time."""
        return round(min(max(self.connect_ns / 8, SHORTEST_GRACE_NS), LONGEST_GRACE_NS))

    def queue_began(self, now_ns: int, returned: int) -> None:
        """Somebody began to wait where nobody did; `returned`: the number of connections handed over so far."""
        self._watched_since_ns, self._returned_then = now_ns, returned
        self._returns_per_ns, self._most = 0.0, 1

    def wanted(self, now_ns: int, waiters: int, lent: int, returned: int, oldest_attempt_ns: int = 0) -> int:
        """How many attempts should be running, for this many waiters and lent connections.

        `returned` as above; `oldest_attempt_ns`: for how long the oldest attempt has been running.
        """
        if self.failures:
            return 1 if now_ns >= self._next_try_ns else 0
        most = min(waiters, self.openers)
        if not lent:
            return most
        watched_ns = now_ns - self._watched_since_ns
        if watched_ns >= 2 * self.grace_ns and not self._overslept:
            # This process did not run for a while: let it first catch up with what has come back meanwhile.
            self._overslept = True
        elif watched_ns >= self.grace_ns:
            self._overslept = False
            self._returns_per_ns = (returned - self._returned_then) / watched_ns
            self._most = min(2 * self._most, sys.maxsize)
            self._watched_since_ns, self._returned_then = now_ns, returned
        soon = self._returns_per_ns * max(self.connect_ns, oldest_attempt_ns)
        return min(most, self._most, max(1, round(waiters - soon)))

    def look_again_ns(self, now_ns: int) -> int:
        """When `wanted` may have grown though nothing has happened."""
        if self.failures and self._next_try_ns > now_ns:
            return self._next_try_ns
        return max(now_ns + 1_000_000, self._watched_since_ns + self.grace_ns)

    def may_try(self, now_ns: int) -> bool:
        """Whether the back-off allows an attempt now."""
        return not self.failures or now_ns >= self._next_try_ns

    def succeeded(self, took_ns: int) -> None:
        """A connection was opened, in `took_ns`."""
        self.connect_ns += (took_ns - self.connect_ns) * (CONNECT_SMOOTHING if self.connect_ns else 1)
        if self.failures:
            # All who wait are waiting for this; there is nothing to be learned from returns.
            self._most = sys.maxsize
            self._returns_per_ns = 0.0
            self.last_failure = None
            self.failures = 0

    def failed(self, now_ns: int, failure: BaseException, returned: int) -> None:
        """An attempt failed; `returned` as above."""
        if not self.failures:
            self._away_since_ns, self._returned_when_it_went = now_ns, returned
        away_ns = now_ns - self._away_since_ns
        least_ns = NEXT_PAUSE_NS if away_ns >= FIRST_PAUSE_NS // 2 else FIRST_PAUSE_NS
        pause_ns = min(max(least_ns, away_ns / PAUSES_PER_OUTAGE), self._longest_pause_ns)
        self._next_try_ns = now_ns + round(pause_ns * (0.75 + 0.5 * self._chance()))
        self.last_failure = another(failure)
        self.failures += 1

    def away_ns(self, now_ns: int, returned: int) -> int:
        """For how long all attempts have failed and nothing has come back either; 0 if something has."""
        return now_ns - self._away_since_ns if self.failures and returned == self._returned_when_it_went else 0


def another(failure: BaseException) -> BaseException:
    """A copy to be raised elsewhere: a traceback belongs to one raising. The same where it cannot be copied."""
    try:
        return copy.copy(failure)
    except Exception:  # noqa: BLE001 - an exception with a constructor of its own
        return failure
