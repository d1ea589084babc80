"""Predicts from a measured workload how each pool size would perform, with closed formulas beside the simulation. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, inf, nan, sqrt
from typing import Literal

import numpy as np

from loadgen.sizing import queueing
from loadgen.sizing.course import SERVED, SHED, TIMED_OUT, Arrangement
from loadgen.sizing.measured import MeasuredWorkload, draw_s, variation
from loadgen.sizing.simulate import (
    CpuTimes,
    Floats,
    Simulation,
    arrivals,
    busy_rate_per_s,
    quantile,
    simulate,
)
from reports.blocks import decimal

WAITING_PER_CONNECTION = 10
"""Places in the queue of a fair pool for each connection it keeps, unless the number is given."""

_BUSY_CORES = 0.7
_PARTED = 0.1
_PARTED_MS = 0.5
_PARTED_TAIL, _PARTED_TAIL_MS = 0.15, 2.0
_STRETCHED = 0.02
_LOST = 0.001
_OVERLAPPING = 0.1
"""Requests in progress at each worker from which on the CPU time of single ones is not told apart."""
LOST_ALIKE = 0.01
"""Shares of requests that are lost count as the same if they differ by less."""
WORSE = 0.1
_WARM_UP = 0.1
_WARM_UP_TIMEOUTS = 3
_BEFORE_IDLE = 0.9
_PARTS = 10
# Student's t for nine degrees of freedom, 95 %.
_T_OF_TEN = 2.262
TRIED = 10_000
"""Requests of a simulation that only a mean is taken from."""
_MOST_USERS = 2000
"""Users who keep everything busy, unless one server needs more."""
_REPLAYED, _REPLAYS = 5000, 3
"""Requests of a simulation of the measured run, and how often it is simulated."""
_AMPLE = 1000
"""Connections for which no request has to wait."""
_LEAST_REQUESTS, _MOST_REQUESTS = 1000, 100_000
_MOST_STEPS = 300_000
"""What a plan simulates altogether, unless it is told how much: about 10 s of CPU. A step is a request of workers that take no
turns."""
_STEPS_OF_POOL, _STEPS_OF_TURNS = 0.15, 3.0
"""The same for a request of servers without CPU, and for one of threads that interrupt each other's work."""
_TRIES = 6
"""Simulations of at most `TRIED` requests, beside one for each size: for what to change first, and for doubts."""


@dataclass(frozen=True, slots=True)
class Question:
    """The question to answer: the load, the arrangement, and the target."""

    workload: MeasuredWorkload
    arrangement: Arrangement
    """The servers, pools and database; its size is replaced by each of `sizes`."""
    sizes: tuple[int, ...]
    rate_per_s: float
    """Requests for a connection per second, all servers together."""
    arrival_variation: float
    connect_s: float | None = None
    """Cost of connecting, in s, used in place of the measured one."""
    measured_servers: int | None = None
    """Servers of the measured run; None: as many as in the arrangement."""
    p99_ms: float | None = None
    """Target for the p99 of the response time; None asks to be as good as the best size."""
    requests: int = 100_000
    seed: int = 0
    max_connections: int | None = None
    """Connections that the database allows, over all servers: no change that needs more is advised."""

    @property
    def measured(self) -> Arrangement:
        """The servers of the measured run, with pools in which nobody waited."""
        return replace(
            self.arrangement,
            servers=self.measured_servers or self.arrangement.servers,
            size=_AMPLE,
            max_overflow=0,
            timeout_s=inf,
            max_waiting=None,
            cold=False,
            prefers_first=False,
        )

    def of_size(self, size: int) -> Arrangement:
        """Return the arrangement with this size. Raises ValueError for an impossible size."""
        waiting = self.arrangement.max_waiting
        if waiting is None and self.arrangement.hand_over == "fifo":
            waiting = WAITING_PER_CONNECTION * max(size, 1)
        return replace(self.arrangement, size=size, max_waiting=waiting)


@dataclass(frozen=True, slots=True)
class Formulas:
    """The results of closed formulas for one server's pool; all servers are alike. Times in ms; None without a steady state."""

    connections: int
    load: float
    """Share of the connections in use."""
    db_load: float
    """Share of the database's cores in use; 0 if their number was not given."""
    mmc_mean_ms: float | None
    mmc_p50_ms: float | None
    mmc_p99_ms: float | None
    ggc_mean_ms: float | None
    ggc_p50_ms: float | None
    ggc_p99_ms: float | None
    timed_out: float
    """Share of requests that time out in M/M/c with the timeout and an unlimited queue."""
    shed: float
    """Share of requests that are shed in M/M/c with the limited queue and no timeout; 0 without a limit."""
    lost: float
    """Least share of requests that are lost under any law: what exceeds the capacity of connections or cores."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction for one size. Waits are those of requests that were served."""

    size: int
    connections: int | None
    """Connections that all servers may open together; None means no limit."""
    wait_mean_ms: float
    wait_p50_ms: float
    wait_p99_ms: float
    timed_out: float
    shed: float
    utilisation: float
    throughput_per_s: float
    hold_mean_ms: float
    """Mean time from getting a connection to returning it, with connecting."""
    response_p99_ms: float
    """p99 of the time in the service: waiting, connecting, holding, and its own work."""
    db_busy: float | None
    """Share of the database's cores in use; None if their number was not given."""
    wait_mean_error_ms: float
    """Half of the 95 % interval of the mean wait that the simulation itself leaves, from means of ten parts of it."""
    response_p99_error_ms: float
    """The same of the p99 of the response time."""
    cpu_busy: float | None
    """Share of the time that each worker's CPU is busy, or the cores if there are fewer; None if the run does not tell."""
    knee_per_s: float
    """Requests per second, over all servers, at which CPU, connections, places or database cores are all busy."""
    formulas: Formulas | None

    @property
    def lost(self) -> float:
        """The share of requests that got no connection."""
        return self.timed_out + self.shed


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """The requests to simulate, in order of arrival. Times in s."""

    arrived_s: Floats
    holds_s: Floats
    """Times that connections are held without the worker's CPU, where that is known."""
    connects_s: Floats
    cpu: CpuTimes | None
    counts_all: bool = False
    """Whether those of the first seconds count, too."""
    servers: Sequence[int] | None = None
    """The number of the server of each; None: an idle one gets the next."""


def requests(question: Question, arrived_s: Floats | None = None, shares: Floats | None = None) -> Requests:
    """Draw requests from the measured workload.

    `arrived_s`: the instants of a run that is to be predicted, instead of drawn ones; all requests count then. `shares`: for
    each request the share of requests that hold a connection for a shorter time, from 0 to 1, where it is known.
    """
    workload = question.workload
    streams = np.random.default_rng(question.seed).spawn(4)
    given = arrived_s is not None
    if arrived_s is None:
        arrived_s = arrivals(question.rate_per_s, question.requests, streams[0], question.arrival_variation)
    count = len(arrived_s)
    shares = streams[1].random(count) if shares is None else shares
    if question.connect_s is not None or workload.connects is None:
        connects_s = np.full(count, question.connect_s or 0.0)
    else:
        connects_s = draw_s(workload.connects, streams[2].random(count))
    if workload.cpu is None:
        return Requests(arrived_s, draw_s(workload.holds, shares), connects_s, None, given)
    cpu = _drawn_cpu(workload, question.measured, count, streams[3])
    below, elsewhere_s = _replayed(workload, question.measured, question.seed)
    return Requests(arrived_s, np.interp(shares, below, elsewhere_s), connects_s, cpu, given)


def elsewhere_mean_s(question: Question) -> float:
    """Mean time that a request holds a connection without computing or waiting for the CPU, as far as that is known."""
    if question.workload.cpu is None:
        return question.workload.holds.mean / 1000
    return float(_replayed(question.workload, question.measured, question.seed)[1].mean())


def with_db_cores(question: Question, cores: float, cpu_ms: float | None) -> Question:
    """The question with a database of so many cores. `cpu_ms`: how long a loan needs one; None: as long as it waits."""
    alone_s = elsewhere_mean_s(question)
    share = 1.0 if cpu_ms is None or not alone_s else min(1.0, cpu_ms / 1000 / alone_s)
    return replace(question, arrangement=replace(question.arrangement, db_cores=cores, db_share=share))


@lru_cache(maxsize=4)
def _replayed(workload: MeasuredWorkload, run: Arrangement, seed: int) -> tuple[Floats, Floats]:
    """Shares of requests, and how long they at most hold a connection without computing or waiting for the CPU.

    The measured run is simulated several times, and the times corrected until holds come out as they were measured.
    """
    rng = np.random.default_rng(seed)
    arrived_s = arrivals(workload.rate_per_s, _REPLAYED, rng, workload.arrival_variation)
    below = (np.arange(_REPLAYED) + 0.5) / _REPLAYED
    order, measured_s = rng.permutation(_REPLAYED), draw_s(workload.holds, below)
    cpu = _drawn_cpu(workload, run, _REPLAYED, rng)
    elsewhere_s = np.maximum(measured_s - cpu.inside_s.mean(), 0.0)
    for _ in range(_REPLAYS):
        held_s = simulate(run, arrived_s, elsewhere_s[order], 0.0, seed, cpu).held_s
        left_s = elsewhere_s.mean() - (held_s.mean() - measured_s.mean())
        elsewhere_s = np.maximum(np.sort(elsewhere_s - (np.sort(held_s) - measured_s)), 0.0)
        if elsewhere_s.any():
            elsewhere_s *= max(0.0, left_s) / elsewhere_s.mean()
    return below, elsewhere_s


def overloaded(question: Question) -> bool:
    """Whether the workers' CPU, their places or the database's cores are too few, whatever the size.

    The queue grows as long as the load lasts then. It does so before too few connections, too, but requests that wait for one
    are lost in the end.
    """
    limits = limits_per_s(question, question.arrangement)
    return any(question.rate_per_s >= limit for part, limit in limits.items() if part != "connections")


def affordable_requests(question: Question) -> int:
    """How many requests to simulate for each size so that a plan takes no more than about 10 s of CPU: at least 1000.

    Where the workers are overloaded, a few show as much as many: more of them would not settle the queue.
    """
    cpu, sizes, turn_s = question.workload.cpu, len(question.sizes), question.arrangement.turn_s
    steps = _MOST_STEPS / (_STEPS_OF_POOL if cpu is None else _STEPS_OF_TURNS if cpu.mean_ms > turn_s * 1000 else 1)
    replayed = 0 if cpu is None else _REPLAYS * _REPLAYED
    few = (steps - replayed) / (2 * sizes + _TRIES + 1)
    many = (steps - replayed - TRIED * (sizes + _TRIES)) / (sizes + 1)
    most = _MOST_REQUESTS
    if cpu is not None and overloaded(question):
        # No request is lost before the queue is as long as the timeout.
        most = int(min(most, max(TRIED, 2 * _WARM_UP_TIMEOUTS * question.arrangement.timeout_s * question.rate_per_s)))
    return max(_LEAST_REQUESTS, min(most, int(few if few < TRIED else many) // 1000 * 1000))


def grows(question: Question, found: Prediction) -> bool:
    """Whether the queue of a size grows as long as the load lasts, so that its response times only tell how long that was.

    If the workers are overloaded, it may still be the refused requests that keep the queue short.
    """
    kept = (1 - found.lost) * question.rate_per_s
    return overloaded(question) and (found.lost <= _LOST or found.throughput_per_s < (1 - LOST_ALIKE) * kept)


def predict(question: Question, given: Requests | None = None) -> Iterator[Prediction]:
    """Predict each size with the same requests, drawn unless given, and the same choices of server.

    Raises ValueError for an impossible size.
    """
    made = requests(question) if given is None else given
    for size in question.sizes:
        arrangement = question.of_size(size)
        outcome = simulate(
            arrangement, made.arrived_s, made.holds_s, made.connects_s, question.seed, made.cpu, made.servers
        )
        if not arrangement.cold and not made.counts_all:
            outcome = replace(outcome, since_s=settled_s(float(made.arrived_s[-1]), arrangement.timeout_s))
            if outcome.asked_s is not None and overloaded(question):
                # Workers are as busy with the queue that is left as while requests arrive, until the last of it.
                outcome = replace(outcome, until_s=quantile(outcome.asked_s, _BEFORE_IDLE))
        yield _prediction(question, outcome, made)


def _drawn_cpu(workload: MeasuredWorkload, run: Arrangement, count: int, rng: np.random.Generator) -> CpuTimes:
    """CPU times for so many requests; `run` is how they were measured.

    Where requests overlapped, the CPU time of a whole request is known only on average: it varies as that in its loan does then,
    if that is less.
    """
    assert workload.cpu is not None  # noqa: S101
    measured, server_share = workload.cpu, _server_share(workload)
    inside_s = draw_s(measured.loan_ms, rng.random(count))
    overlapped = run.slots != 1 and workload.rate_per_s * _spent_s(workload) / run.servers > _OVERLAPPING
    if overlapped and variation(measured.loan_ms) < variation(measured.all_ms):
        return CpuTimes(inside_s, inside_s * (measured.outside_mean_ms / measured.loan_ms.mean), server_share)
    all_s = draw_s(measured.all_ms, rng.random(count))
    return CpuTimes(inside_s, all_s * (measured.outside_mean_ms / measured.all_ms.mean), server_share)


def _server_share(workload: MeasuredWorkload) -> float:
    """The server program's share of the CPU time outside of loans: what is not within the time that the application takes.

    0 if the answers do not tell that time.
    """
    cpu = workload.cpu
    if cpu is None or not workload.own_s or not cpu.outside_mean_ms:
        return 0.0
    return max(0.0, 1 - workload.own_s * 1000 * cpu.answers / cpu.outside_mean_ms)


def settled_s(span_s: float, timeout_s: float) -> float:
    """Return the time, in s, after which a simulation that began with empty queues counts as settled.

    Under more load than capacity, no request is lost before the queue is as long as the timeout.
    """
    return max(_WARM_UP * span_s, min(span_s / 2, _WARM_UP_TIMEOUTS * timeout_s))


def _prediction(question: Question, outcome: Simulation, made: Requests) -> Prediction:
    holds_s = made.holds_s
    arrangement, waits_s, held_s = outcome.arrangement, outcome.waits_s, outcome.held_s
    limited = arrangement.max_overflow >= 0
    counted = (outcome.fates == SERVED) & (outcome.arrived_s >= outcome.since_s)
    # With the CPU of the workers in the simulation, their own work is part of the response times already.
    own_s = question.workload.own_s if question.workload.cpu is None else 0.0
    work_s = float(holds_s[counted].sum()) * arrangement.db_share
    all_cores_s = arrangement.db_cores * (float(outcome.ended_s.max()) - outcome.since_s)
    return Prediction(
        size=arrangement.size,
        connections=arrangement.servers * int(arrangement.limit) if limited else None,
        wait_mean_ms=float(waits_s.mean()) * 1000 if len(waits_s) else nan,
        wait_p50_ms=quantile(waits_s, 0.5) * 1000,
        wait_p99_ms=quantile(waits_s, 0.99) * 1000,
        timed_out=outcome.share(TIMED_OUT),
        shed=outcome.share(SHED),
        utilisation=outcome.utilisation,
        throughput_per_s=outcome.throughput_per_s,
        hold_mean_ms=float(held_s.mean()) * 1000 if len(held_s) else nan,
        response_p99_ms=(quantile(outcome.responses_s, 0.99) + own_s) * 1000,
        wait_mean_error_ms=_error(waits_s, np.mean) * 1000,
        response_p99_error_ms=_error(outcome.responses_s, lambda part: quantile(part, 0.99)) * 1000,
        cpu_busy=_cpu_busy(question),
        knee_per_s=knee_per_s(question, arrangement, made),
        db_busy=work_s / all_cores_s if all_cores_s < inf else None,
        formulas=formulas(question, arrangement) if limited else None,
    )


def _error(times_s: Floats, figure: Callable[[Floats], float]) -> float:
    """Half of the 95 % interval of a figure of a simulation, from its values in ten parts, one after the other; nan for few."""
    if len(times_s) < _PARTS * 10:
        return nan
    values = [float(figure(part)) for part in np.array_split(times_s, _PARTS)]
    return _T_OF_TEN * float(np.std(values, ddof=1)) / sqrt(_PARTS)


def knee_per_s(question: Question, arrangement: Arrangement, made: Requests) -> float:
    """Requests per second, over all servers, beyond which no queue can help.

    Where the CPU of the workers is known, the rate of a simulation with everything busy: less than any part could do alone,
    since a connection is idle while the worker that is to use it computes. Otherwise the least that any part can do.
    """
    most = min(limits_per_s(question, arrangement).values())
    if made.cpu is None:
        return most
    # Twice as many requests as the parts can deal with at one time.
    users = 2 * (most * _spent_s(question.workload) / arrangement.servers + 2)
    # Of very many servers, some with their part of the cores.
    servers = min(arrangement.servers, ceil(_MOST_USERS / users))
    part = servers / arrangement.servers
    some = replace(arrangement, servers=servers, cores=arrangement.cores * part, db_cores=arrangement.db_cores * part)
    tried = replace(made.cpu, inside_s=made.cpu.inside_s[:TRIED], outside_s=made.cpu.outside_s[:TRIED])
    return busy_rate_per_s(some, made.holds_s[:TRIED], tried, ceil(servers * users), question.seed) / part


Part = Literal["connections", "CPU", "places", "cores"]


def limits_per_s(question: Question, arrangement: Arrangement) -> dict[Part, float]:
    """Requests per second, over all servers, that each part could deal with if it were the only one.

    The parts: connections, the workers' CPU, their places for requests, and the database's cores.
    """
    workload, hold_s = question.workload, question.workload.holds.mean / 1000
    work_s = elsewhere_mean_s(question) * arrangement.db_share
    limits: dict[Part, float] = {"connections": arrangement.servers * arrangement.limit / hold_s}
    if workload.cpu is not None:
        limits["CPU"] = min(arrangement.servers, arrangement.cores) / (workload.cpu.mean_ms / 1000)
    if arrangement.slots is not None:
        limits["places"] = arrangement.servers * arrangement.slots / _spent_s(workload)
    if work_s:
        limits["cores"] = arrangement.db_cores / work_s
    return limits


def _spent_s(workload: MeasuredWorkload) -> float:
    """Mean time, in s, that a request takes without waiting."""
    outside_s = workload.cpu.outside_mean_ms / 1000 if workload.cpu else workload.own_s
    return workload.holds.mean / 1000 + outside_s


def _cpu_busy(question: Question) -> float | None:
    cpu = question.workload.cpu
    if cpu is None:
        return None
    return question.rate_per_s * cpu.mean_ms / 1000 / min(question.arrangement.servers, question.arrangement.cores)


def recommended(found: Sequence[Prediction], p99_ms: float | None = None) -> Prediction | None:
    """Return the smallest size that loses at most one request in a thousand and keeps the p99 within `p99_ms`.

    Without a target, it may lose one request in a hundred more than the best size, and its p99 may be a tenth above the
    lowest of such sizes. None if no size meets the target.
    """
    usable = [each for each in found if each.throughput_per_s > 0]
    most_lost = _LOST if p99_ms is not None else min((each.lost for each in usable), default=0.0) + LOST_ALIKE
    safe = [each for each in usable if each.lost <= most_lost]
    longest_ms = p99_ms if p99_ms is not None else (1 + WORSE) * min((e.response_p99_ms for e in safe), default=0.0)
    return min((e for e in safe if e.response_p99_ms <= longest_ms), key=lambda each: each.size, default=None)


def formulas(question: Question, arrangement: Arrangement) -> Formulas:
    """Apply the formulas to one server, which gets an equal part of the arrivals; with many servers these are Poisson again."""
    connections, hold_s = int(arrangement.limit), question.workload.holds.mean / 1000
    rate_per_s = question.rate_per_s / arrangement.servers
    of_holds = variation(question.workload.holds)
    # A part of 1/S, chosen at random, of arrivals of variation v has 1 + (v - 1)/S (Whitt, "The Queueing Network Analyzer",
    # Bell System Technical Journal 62, 1983, section 4.4).
    of_arrivals = 1 + (question.arrival_variation - 1) / arrangement.servers
    load = queueing.load(rate_per_s, hold_s, connections)
    db_load = question.rate_per_s * elsewhere_mean_s(question) * arrangement.db_share / arrangement.db_cores
    given = (rate_per_s, hold_s, connections)
    steady = load < 1
    laws = ((1.0, 1.0), (of_holds, of_arrivals))
    means = [queueing.ggc_mean_wait_s(*given, *law) * 1000 if steady else None for law in laws]
    p50s, p99s = (
        [queueing.mgc_wait_quantile_s(q, *given, *law) * 1000 if steady else None for law in laws] for q in (0.5, 0.99)
    )
    places = arrangement.max_waiting
    return Formulas(
        connections,
        load,
        db_load,
        means[0],
        p50s[0],
        p99s[0],
        means[1],
        p50s[1],
        p99s[1],
        timed_out=queueing.mmc_timeout_share(*given, arrangement.timeout_s),
        shed=0.0 if places is None else queueing.mmc_shed_share(*given, places),
        lost=queueing.lost_share(max(load, db_load)),
    )


def doubts(question: Question, found: Sequence[Prediction]) -> list[str]:
    """Return a sentence for each reason to doubt the predictions."""
    workload, arrangement = question.workload, question.arrangement
    said = list(workload.doubts)
    advised = recommended(found, question.p99_ms) or max(found, key=lambda each: each.size)
    if unlike := uneven(question, advised):
        said.append(unlike)
    cores_busy = workload.rate_per_s * workload.holds.mean / 1000 * arrangement.db_share
    # With the workers' CPU known, the measured run is simulated with these cores.
    if workload.cpu is None and cores_busy > _BUSY_CORES * arrangement.db_cores:
        said.append(
            f"the measured holds kept {decimal(cores_busy, 2)} of {decimal(arrangement.db_cores)} database cores "
            f"busy: they contain waiting "
            "for a core already, which is counted twice (measure at a lower rate)"
        )
    own = question.rate_per_s / arrangement.servers * workload.own_s
    if workload.cpu is None and own > _BUSY_CORES:
        said.append(
            f"at this rate each server is busy for {own:.0%} of the time beside the database: it will be the limit, not its pool"
        )
    if arrangement.hand_over == "barging" and arrangement.wake_s == workload.own_s:
        said.append(
            f"how often waiters are overtaken depends on how late they run: {decimal(workload.own_s * 1000, 2)} ms is "
            f"the service's part "
            "of that, without its server program's (--wake-ms)"
        )
    opens = arrangement.cold or arrangement.max_overflow != 0 or 0 in question.sizes
    if opens and question.connect_s is None and workload.connects is None:
        said.append("no connection was opened in the run: connecting is taken to cost nothing (--connect-ms)")
    return said


def uneven(question: Question, found: Prediction) -> str | None:
    """What becomes of a size if the kernel always wakes the first idle worker, in a sentence; None if that hardly matters."""
    arrangement = question.arrangement
    if question.workload.cpu is None or arrangement.servers == 1 or arrangement.slots == 1 or overloaded(question):
        return None
    asked = replace(question, sizes=(found.size,), requests=min(question.requests, TRIED))
    made = requests(asked)
    (even,) = predict(asked, made)
    (other,) = predict(replace(asked, arrangement=replace(arrangement, prefers_first=True)), made)
    waits_ms, tails_ms = other.wait_mean_ms - even.wait_mean_ms, other.response_p99_ms - even.response_p99_ms
    more_wait = waits_ms > max(_PARTED_MS, _PARTED * even.wait_mean_ms)
    if not (more_wait or tails_ms > max(_PARTED_TAIL_MS, _PARTED_TAIL * even.response_p99_ms)):
        return None
    if asked.requests < question.requests:
        # As many as the figures have with which these will be compared.
        (other,) = predict(replace(question, sizes=asked.sizes, arrangement=replace(arrangement, prefers_first=True)))
    lost = f", {other.lost:.1%} lost" if other.lost > _LOST else ""
    return (
        "which worker gets a request is up to the kernel, and it may prefer one: with a pool of "
        f"{found.size}, the mean wait would be up to {decimal(other.wait_mean_ms, 3)} ms instead of "
        f"{decimal(found.wait_mean_ms, 3)} ms, and the p99 {decimal(other.response_p99_ms, 3)} ms{lost}"
    )


def partings(question: Question, found: Prediction) -> list[str]:
    """Return a clause for each way in which simulation and formulas differ for a size, with the reason."""
    formula, arrangement = found.formulas, question.of_size(found.size)
    if formula is None:
        return ["no limit on connections: nobody waits, and there is no formula to ask"]
    if max(formula.load, formula.db_load) >= 1:
        what = "of the connections" if formula.load >= formula.db_load else "of the database's cores"
        load = max(formula.load, formula.db_load)
        lost = f"at least {formula.lost:.1%} must be lost, simulated {found.lost:.1%}"
        return [f"load {load:.0%} {what}: no steady state, so no formula of waits; {lost}"]
    pairs = ((formula.ggc_mean_ms, found.wait_mean_ms), (formula.ggc_p99_ms, found.wait_p99_ms))
    if all(abs((said or 0.0) - seen) <= max(_PARTED * seen, _PARTED_MS) for said, seen in pairs):
        return []
    return _reasons(question, arrangement, found) or [
        f"the formula of G/G/c is an approximation, and off at {formula.connections} connections and a load of {formula.load:.0%}"
    ]


def _reasons(question: Question, arrangement: Arrangement, found: Prediction) -> list[str]:
    lost, of_holds = found.lost, variation(question.workload.holds)
    stretched = found.hold_mean_ms / question.workload.holds.mean - 1
    is_shared = found.db_busy is not None and stretched > _STRETCHED
    opens = arrangement.cold or arrangement.max_overflow != 0
    wake_ms = arrangement.wake_s * 1000
    is_late = wake_ms > _STRETCHED * question.workload.holds.mean
    reasons = (
        (is_shared, f"the database's cores are shared: holds last {stretched:.0%} longer than the formulas know"),
        (
            is_late,
            f"a returned connection lies idle for {decimal(wake_ms, 2)} ms until its waiter runs: less capacity for all",
        ),
        (opens and not is_shared, f"connections are opened under load: with that, holds last {stretched:.0%} longer"),
        (
            arrangement.hand_over == "barging",
            "who is overtaken waits again behind all others: a longer tail",
        ),
        (lost > _LOST, f"{lost:.1%} give up or are shed, and shorten the queue for the others"),
        (
            of_holds > 1.5,
            f"holds vary by {decimal(of_holds, 2)}: the tail is longer than the exponential one of the formula",
        ),
        (of_holds < 0.5, f"holds vary by {decimal(of_holds, 2)}: the tail is not the exponential one of the formula"),
    )
    return [reason for holds, reason in reasons if holds]
