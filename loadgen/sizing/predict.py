"""From a measured workload to what each pool size would give, with the formulas beside it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from loadgen.sizing import queueing
from loadgen.sizing.measured import Workload, draw_s, variation
from loadgen.sizing.simulate import SHED, TIMED_OUT, Arrangement, arrivals, simulate

WAITING_PER_CONNECTION = 10
"""Places in the queue of a fair pool for each connection it keeps, where nobody says how many."""

_BUSY_CORES = 0.7
_PARTED = 0.1
_PARTED_MS = 0.5
_LOST = 0.001


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be predicted."""

    workload: Workload
    arrangement: Arrangement
    """Its size is replaced by each of `sizes`."""
    sizes: tuple[int, ...]
    rate_per_s: float
    """At all servers together."""
    arrival_variation: float
    connect_s: float | None = None
    """In place of the measured cost of connecting."""
    requests: int = 100_000
    seed: int = 0

    def of_size(self, size: int) -> Arrangement:
        """Raises ValueError for a size that cannot be."""
        waiting = self.arrangement.max_waiting
        if waiting is None and self.arrangement.hand_over == "fifo":
            waiting = WAITING_PER_CONNECTION * max(size, 1)
        return replace(self.arrangement, size=size, max_waiting=waiting)


@dataclass(frozen=True, slots=True)
class Formulas:
    """What closed formulas say of one server's pool, all servers being alike. ms; None where there is no steady state."""

    connections: int
    load: float
    mmc_mean_ms: float | None
    mmc_p50_ms: float | None
    mmc_p99_ms: float | None
    ggc_mean_ms: float | None
    ggc_p50_ms: float | None
    ggc_p99_ms: float | None
    timed_out: float
    """M/M/c with the timeout, and an unlimited queue."""
    shed: float
    """M/M/c with the limited queue, and no timeout; 0 without a limit."""
    lost: float
    """At least so many, whatever the law."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One size. Waits are of those that were served."""

    size: int
    connections: int | None
    """That all servers may open together; None: no limit."""
    wait_mean_ms: float
    wait_p50_ms: float
    wait_p99_ms: float
    timed_out: float
    shed: float
    utilisation: float
    throughput_per_s: float
    hold_mean_ms: float
    """From having a connection to giving it back, connecting included."""
    db_busy: float | None
    """Share of the database's cores at work; None where their number was not said."""
    formulas: Formulas | None


def predict(question: Question) -> Iterator[Prediction]:
    """Each size, all with the same arrivals, holds and choices of server. Raises ValueError."""
    workload, seed = question.workload, question.seed
    streams = np.random.default_rng(seed).spawn(3)
    arrived_s = arrivals(question.rate_per_s, question.requests, streams[0], question.arrival_variation)
    holds_s = draw_s(workload.holds, question.requests, streams[1])
    if question.connect_s is not None or workload.connects is None:
        connects_s = np.full(question.requests, question.connect_s or 0.0)
    else:
        connects_s = draw_s(workload.connects, question.requests, streams[2])
    for size in question.sizes:
        arrangement = question.of_size(size)
        outcome = simulate(arrangement, arrived_s, holds_s, connects_s, seed)
        served = outcome.fates == 0
        held_s = outcome.ended_s[served] - outcome.granted_s[served]
        limited = arrangement.max_overflow >= 0
        work_s = float(holds_s[served].sum()) * arrangement.db_share
        has_cores = arrangement.db_cores < np.inf
        yield Prediction(
            size=size,
            connections=arrangement.servers * int(arrangement.limit) if limited else None,
            wait_mean_ms=float(outcome.waits_s.mean()) * 1000 if served.any() else float("nan"),
            wait_p50_ms=outcome.wait_quantile_s(0.5) * 1000,
            wait_p99_ms=outcome.wait_quantile_s(0.99) * 1000,
            timed_out=outcome.share(TIMED_OUT),
            shed=outcome.share(SHED),
            utilisation=outcome.utilisation,
            throughput_per_s=outcome.throughput_per_s,
            hold_mean_ms=float(held_s.mean()) * 1000 if served.any() else float("nan"),
            db_busy=work_s / (arrangement.db_cores * float(outcome.ended_s.max())) if has_cores else None,
            formulas=formulas(question, arrangement) if limited else None,
        )


def formulas(question: Question, arrangement: Arrangement) -> Formulas:
    """For one of the servers: an equal part of the arrivals, which are Poisson again where there are many servers."""
    connections, hold_s = int(arrangement.limit), question.workload.holds.mean / 1000
    rate_per_s = question.rate_per_s / arrangement.servers
    of_holds = variation(question.workload.holds)
    # A part of 1/S, chosen at random, of arrivals of variation v has 1 + (v - 1)/S (Whitt, "The Queueing Network Analyzer",
    # Bell System Technical Journal 62, 1983, section 4.4).
    of_arrivals = 1 + (question.arrival_variation - 1) / arrangement.servers
    load = queueing.load(rate_per_s, hold_s, connections)
    given = (rate_per_s, hold_s, connections)
    steady = load < 1
    laws = ((1.0, 1.0), (of_holds, of_arrivals))
    means = [queueing.ggc_mean_wait_s(*given, *law) * 1000 if steady else None for law in laws]
    p50s, p99s = (
        [queueing.mgc_wait_quantile_s(q, *given, *law) * 1000 if steady else None for law in laws] for q in (0.5, 0.99)
    )
    places = arrangement.max_waiting
    return Formulas(
        connections, load, means[0], p50s[0], p99s[0], means[1], p50s[1], p99s[1],
        timed_out=queueing.mmc_timeout_share(*given, arrangement.timeout_s),
        shed=0.0 if places is None else queueing.mmc_shed_share(*given, places),
        lost=queueing.lost_share(*given),
    )  # fmt: skip


def doubts(question: Question) -> list[str]:
    """What makes the predictions doubtful, a sentence each."""
    workload, arrangement = question.workload, question.arrangement
    said = list(workload.doubts)
    cores_busy = workload.rate_per_s * workload.holds.mean / 1000 * arrangement.db_share
    if cores_busy > _BUSY_CORES * arrangement.db_cores:
        said.append(
            f"the measured holds kept {cores_busy:.2g} of {arrangement.db_cores:g} database cores busy: they contain waiting "
            "for a core already, which is counted twice (measure at a lower rate)"
        )
    own = question.rate_per_s / arrangement.servers * workload.own_s
    if own > _BUSY_CORES:
        said.append(
            f"at this rate each server is busy for {own:.0%} of the time beside the database: it will be the limit, not its pool"
        )
    opens = arrangement.cold or arrangement.max_overflow != 0 or 0 in question.sizes
    if opens and question.connect_s is None and workload.connects is None:
        said.append("no connection was opened in the run: connecting is taken to cost nothing (--connect-ms)")
    return said


def partings(question: Question, found: Prediction) -> list[str]:
    """Where simulation and formulas say different things of a size, and why: a clause each."""
    formula, arrangement = found.formulas, question.of_size(found.size)
    if formula is None:
        return ["no limit on connections: nobody waits, and there is no formula to ask"]
    if formula.load >= 1:
        lost = found.timed_out + found.shed
        return [f"load {formula.load:.0%}: no steady state, so no formula of waits; at least {formula.lost:.1%} must be lost, "
                f"simulated {lost:.1%}"]  # fmt: skip
    pairs = ((formula.ggc_mean_ms, found.wait_mean_ms), (formula.ggc_p99_ms, found.wait_p99_ms))
    if all(abs((said or 0.0) - seen) <= max(_PARTED * seen, _PARTED_MS) for said, seen in pairs):
        return []
    return list(_reasons(question, arrangement, formula, found))


def _reasons(question: Question, arrangement: Arrangement, formula: Formulas, found: Prediction) -> Iterator[str]:
    nothing = True
    stretched = found.hold_mean_ms / question.workload.holds.mean - 1
    if found.db_busy is not None and stretched > _PARTED / 5:
        yield f"the database's cores are shared: holds last {stretched:.0%} longer than the formulas know"
        nothing = False
    elif arrangement.cold or arrangement.max_overflow:
        yield "connections are opened while there is load: the formulas know of none that costs time to open"
        nothing = False
    if arrangement.hand_over == "barging":
        yield "barging: who is overtaken waits again behind all others; the mean stays, the tail grows"
        nothing = False
    if found.timed_out + found.shed > _LOST:
        yield f"{found.timed_out + found.shed:.1%} give up or are shed, and shorten the queue for the others"
        nothing = False
    of_holds = variation(question.workload.holds)
    if of_holds > 1.5 or of_holds < 0.5:
        law = "longer" if of_holds > 1.5 else "shorter"
        yield f"the holds' variation is {of_holds:.2g}: tails are {law} than any exponential law, which the formula of p99 keeps to"
        nothing = False
    if nothing:
        yield f"the formula of G/G/c is an approximation: at {formula.connections} connections and a load of {formula.load:.0%} it is off"
