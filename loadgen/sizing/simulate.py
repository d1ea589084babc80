"""A discrete-event simulation of servers that borrow database connections from their pools. Pure: numbers in, numbers out.

`course.py` has the model of the pools and of the database, `workers.py` that of servers whose CPU time is given.
Times are in seconds. All random numbers come from numpy's PCG64: the same seed gives the same outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loadgen.sizing.course import SERVED, SHED, TIMED_OUT, Arrangement, SimulationCourse
from loadgen.sizing.workers import ClosedCourse, WorkersCourse

Floats = NDArray[np.float64]

_REQUESTS_OF_USER = 4
"""Requests that each user makes at least, where users ask again and again."""


@dataclass(frozen=True, slots=True)
class SimulationCounts:
    """How many requests have arrived, and where they are: the other four counts add up to `arrived`."""

    arrived: int
    served: int
    timed_out: int
    shed: int
    in_flight: int
    """Requests that are waiting, connecting or holding a connection."""


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """The outcome of each request, in order of arrival. All requests ran to their end.

    All figures except `counts` cover the requests that arrived from `since_s` on; throughput and utilisation are those until the
    last arrival, or until `until_s` if that is later.
    """

    arrangement: Arrangement
    arrived_s: Floats
    granted_s: Floats
    """When the wait ended: by a connection, by giving up, or, for a shed request, at its arrival."""
    ended_s: Floats
    """When the connection was returned; equal to `granted_s` for requests that got none."""
    fates: NDArray[np.uint8]
    since_s: float = 0.0
    until_s: float = 0.0
    asked_s: Floats | None = None
    """When the request asked for a connection; None: at its arrival."""
    done_s: Floats | None = None
    """When the request was done with; None: when it returned the connection."""

    @property
    def waits_s(self) -> Floats:
        """Waits of the requests that were served, without connecting."""
        return self._of_served(self.granted_s - (self.arrived_s if self.asked_s is None else self.asked_s))

    @property
    def held_s(self) -> Floats:
        """Times from getting a connection, or the right to open one, to returning it."""
        return self._of_served(self.ended_s - self.granted_s)

    @property
    def responses_s(self) -> Floats:
        """Times from arrival to being done with: the return of the connection, or the end of the work after it."""
        return self._of_served((self.ended_s if self.done_s is None else self.done_s) - self.arrived_s)

    @property
    def throughput_per_s(self) -> float:
        """Connections returned per second; nan if all requests arrived at once."""
        given_back = (self.fates == SERVED) & (self.ended_s > self.since_s) & (self.ended_s <= self._end_s)
        return int(np.count_nonzero(given_back)) / self._span_s if self._span_s else nan

    @property
    def utilisation(self) -> float:
        """Average share of the possible connections that are lent or being opened."""
        window = (self.since_s, self._end_s)
        busy_s = float((np.clip(self.ended_s, *window) - np.clip(self.granted_s, *window)).sum())
        return busy_s / self._span_s / (self.arrangement.servers * self.arrangement.limit) if self._span_s else nan

    def share(self, fate: int) -> float:
        """Return the share of requests that ended in the given way."""
        return float(np.mean(self.fates[self.arrived_s >= self.since_s] == fate))

    def counts(self, at_s: float = inf) -> SimulationCounts:
        """Count where the requests are at an instant."""
        here = self.arrived_s <= at_s
        over = self.ended_s <= at_s
        served, timed_out, shed = (int(np.count_nonzero(over & (self.fates == f))) for f in (SERVED, TIMED_OUT, SHED))
        return SimulationCounts(
            int(np.count_nonzero(here)), served, timed_out, shed, int(np.count_nonzero(here & ~over))
        )

    def _of_served(self, times_s: Floats) -> Floats:
        chosen: Floats = times_s[(self.fates == SERVED) & (self.arrived_s >= self.since_s)]
        return chosen

    @property
    def _span_s(self) -> float:
        return self._end_s - self.since_s

    @property
    def _end_s(self) -> float:
        return max(self.until_s, float(self.arrived_s[-1]))


def quantile(values: Floats, q: float) -> float:
    """Return the value of rank q * (count - 1), rounded down, as sketches do; nan without values."""
    return float(np.quantile(values, q, method="lower")) if len(values) else nan


def arrivals(rate_per_s: float, count: int, rng: np.random.Generator, variation: float = 1.0) -> Floats:
    """Draw the instants of `count` arrivals whose distances follow a gamma law.

    `variation`: variance of the distances over their mean squared. 1 is Poisson, 0 a steady beat, more than 1 bursts.
    """
    if variation == 0:
        return np.cumsum(np.full(count, 1 / rate_per_s))
    return np.cumsum(rng.gamma(1 / variation, variation / rate_per_s, count))


@dataclass(frozen=True, slots=True, eq=False)
class CpuTimes:
    """CPU time of the worker for each request, in s."""

    inside_s: Floats
    """While it holds a connection; comes on top of the hold that the simulation is given."""
    outside_s: Floats
    """Before and after."""
    server_share: float = 0.0
    """The part of `outside_s` that is the server program's own: receiving requests, and what it does when the answer is sent."""


def simulate(
    arrangement: Arrangement,
    arrived_s: Floats,
    holds_s: Floats,
    connects_s: ArrayLike = 0.0,
    seed: int = 0,
    cpu: CpuTimes | None = None,
    servers: Sequence[int] | None = None,
) -> Simulation:
    """Run every request to its end.

    `arrived_s`: instants in order. `holds_s`, `connects_s`: how long each request holds a connection and connecting takes
    when it has the database's cores to itself. `cpu`: None for servers that need no CPU. `servers`: the number
    of the server of each request; without it `seed` determines the choice. Raises ValueError if lengths differ, instants go back,
    or a time is negative.
    """
    connects = np.broadcast_to(np.asarray(connects_s, np.float64), arrived_s.shape)
    if not len(arrived_s) or holds_s.shape != arrived_s.shape:
        raise ValueError(f"{len(arrived_s)} arrivals and {len(holds_s)} holds")
    if min(arrived_s[0], holds_s.min(), connects.min(), np.diff(arrived_s).min(initial=0.0)) < 0:
        raise ValueError("instants must be in order, and no time negative")
    drawn = np.random.default_rng(seed).integers(arrangement.servers, size=len(arrived_s)).tolist()
    of_each = drawn if servers is None else list(servers)
    if cpu is None:
        course = SimulationCourse(arrangement, arrived_s.tolist(), holds_s.tolist(), connects.tolist())
        course.run(of_each)
        return Simulation(
            arrangement,
            arrived_s,
            np.array(course.granted_s),
            np.array(course.ended_s),
            np.frombuffer(course.fates, np.uint8),
        )
    worked = WorkersCourse(
        arrangement,
        arrived_s.tolist(),
        holds_s.tolist(),
        connects.tolist(),
        cpu.inside_s.tolist(),
        cpu.outside_s.tolist(),
        cpu.server_share,
        is_split=servers is not None,
    )
    worked.run(of_each)
    return Simulation(
        arrangement,
        arrived_s,
        np.array(worked.granted_s),
        np.array(worked.ended_s),
        np.frombuffer(worked.fates, np.uint8),
        asked_s=np.array(worked.asked_s),
        done_s=np.array(worked.done_s),
    )


def busy_rate_per_s(arrangement: Arrangement, holds_s: Floats, cpu: CpuTimes, users: int, seed: int = 0) -> float:
    """Requests per second that the servers answer to `users` who each ask again when they have their answer: the most they can.

    `holds_s` and `cpu`: of each request, as for `simulate`, and repeated where that is less than some for each user; the last
    requests and the first tenth do not count.
    """
    count = max(len(holds_s), _REQUESTS_OF_USER * users)
    held_s, inside_s, outside_s = (np.resize(each, count).tolist() for each in (holds_s, cpu.inside_s, cpu.outside_s))
    patient = replace(arrangement, timeout_s=inf, max_waiting=None, cold=False)
    course = ClosedCourse(patient, [0.0] * count, held_s, [0.0] * count, inside_s, outside_s, cpu.server_share)
    course.run_users(users, np.random.default_rng(seed).integers(arrangement.servers, size=count).tolist())
    done_s = np.sort(course.done_s)
    begins_s, ends_s = done_s[count // 10], course.began_s
    return float(np.count_nonzero((done_s > begins_s) & (done_s <= ends_s)) / (ends_s - begins_s))
