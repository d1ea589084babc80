"""Pools that are unfair, too small or too large. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import inf

from poolbench import observed as seen
from poolbench.asks import LEAST_WAIT_NS, MANY_TIMES, demanded, overtaken, used
from poolbench.diagnosis_case import LEAST_SHARE, MOST_PER_CORE, Case
from poolbench.diagnosis_notes import LEAST_WAIT
from poolbench.findings import Finding, in_ms, may_open
from poolbench.observed import Ask, EngineSum, LoanSum, made_at
from poolbench.surroundings import SATURATED

_LEAST_OVERTAKEN = 10
_MUCH = 0.2
_FAIR = {"FairPool", "Fair"}
_OVERLOAD = 1.25
"""Where requests ask for this many times what all connections can do, the pool is too small, whatever its order."""


def pools(case: Case) -> Iterator[Finding]:
    """Pools that are unfair, too small or too large."""
    asks: dict[str, dict[int, list[Ask]]] = defaultdict(lambda: defaultdict(list))
    for ask in case.observed.asks:
        asks[ask.engine][ask.process].append(ask)
    for engine, about in case.observed.engines.items():
        yield from _too_large(case, engine, about)
        if case.is_made_again(engine):
            continue
        limit = case.limit(engine)
        if limit:
            yield from _unfair_or_small(case, engine, about, limit, list(asks[engine].values()))


def _unfair_or_small(
    case: Case, engine: str, about: EngineSum, limit: int, processes: Sequence[Sequence[Ask]]
) -> Iterator[Finding]:
    loans = case.of_engines.get(engine, LoanSum())
    wait_ns, timeouts = loans.wait_ns, loans.timeouts
    if case.share(wait_ns) < LEAST_WAIT / 2:
        return
    # Where workers have no CPU left, holds have waited for it, too: they say nothing about the connections.
    demand = 0.0 if _is_out_of_cpu(case) else demanded(processes, limit)
    # Where more is asked for than the connections can do, no order of service helps.
    if demand < _OVERLOAD and about.pool not in _FAIR:
        yield from _unfair(case, engine, limit, processes, wait_ns, timeouts)
    yield from _too_small(case, engine, limit, demand, is_demand_known=bool(processes))


def _is_out_of_cpu(case: Case) -> bool:
    return (case.server.worker_cpu or 0.0) >= SATURATED


def _unfair(
    case: Case, engine: str, limit: int, processes: Sequence[Sequence[Ask]], wait_ns: int, timeouts: int
) -> Iterator[Finding]:
    late = [each for asks in processes for each in overtaken(asks, limit)]
    # Of a long run, the first requests are known one by one: they stand for the others.
    stands_for = max(1.0, wait_ns / max(1, sum(each.wait_ns for asks in processes for each in asks)))
    excess_ns = stands_for * sum(each.excess_ns for each in late)
    if len(late) < _LEAST_OVERTAKEN or excess_ns <= 0.25 * wait_ns:
        return
    # Those who have a connection may wait for their turn to run, too: it takes more to blame the pool.
    if _is_out_of_cpu(case) and (excess_ns <= 0.5 * wait_ns or case.share(excess_ns) <= _MUCH):
        return
    case.explained_ns += excess_ns
    case.is_unfair = True
    worst = max(late, key=lambda each: each.wait_ns)
    gave_up = f" {timeouts} gave up." if timeouts else ""
    in_use = used(processes, limit)
    few = (
        f" The connections were in use {100 * in_use:.0f} % of the time: the pool also needs more connections."
        if in_use >= SATURATED
        else ""
    )
    yield Finding(
        "starvation",
        made_at(engine),
        None,
        f"{len(late)} requests for a connection were overtaken by {MANY_TIMES} or more that came later for each of the"
        f" pool's {limit} connections; the longest waited {in_ms(worst.wait_ns)} while {worst.by} others went"
        f" before.{gave_up}{few}",
        "Use a pool that serves in the order of arrival: poolclass=FairPool, or ?plugin=poolbench&pool=fair in the URL.",
        case.share(excess_ns),
    )


def _too_small(case: Case, engine: str, limit: int, demand: float, *, is_demand_known: bool) -> Iterator[Finding]:
    """Waiting that nothing else explains. Where it is not known what was asked for, a short wait may be a look at the connection
    (pre_ping) rather than a queue.
    """
    loans = case.of_engines.get(engine, LoanSum())
    turns_ns = case.blame * sum(
        row.blamed_ns for key, row in case.observed.samples.items() if key.doing == seen.CPU and key.engine == engine
    )
    share = case.share(loans.wait_ns - turns_ns - case.explained_ns)
    database = case.server.database_cpu
    # Connections that are busy in the database most of the time do not wait for their borrowers' CPU.
    is_workers = _is_out_of_cpu(case) and case.share_in_database() < 0.5
    if share < LEAST_WAIT or is_workers or (database or 0.0) >= SATURATED:
        return
    mean_ns = loans.wait_ns / max(1, loans.count + loans.timeouts + loans.waiting)
    if not (is_demand_known or loans.timeouts) and mean_ns < LEAST_WAIT_NS:
        return
    busy = "" if database is None else f" The database used {100 * database:.0f} % of the machine's CPU meanwhile."
    if demand >= _OVERLOAD:
        busy = f" Requests asked for {demand:.1f} times what these can do.{busy}"
    if not is_demand_known and case.observed.engines[engine].pool not in _FAIR:
        busy += " Whether the pool also serves some of them out of order was not seen; loadgen doctor sees it."
    in_vain = f", {loans.timeouts} times in vain" if loans.timeouts else ""
    yield Finding(
        "pool-too-small",
        made_at(engine),
        None,
        f"Requests waited {in_ms(mean_ns)} on average for one of {limit} connections{in_vain}; the connections were busy with"
        f" ordinary statements.{busy}",
        "Allow more connections (pool_size, max_overflow), as many as the database can work on; loadgen sweep finds the"
        " number by measuring.",
        share,
    )


def _too_large(case: Case, engine: str, about: EngineSum) -> Iterator[Finding]:
    # Those of an engine without a pool, or of one for each request, are told of where that is.
    is_told = case.opens_for_each(engine) or case.is_made_again(engine)
    refused = 0 if is_told else case.refusals.get(engine, 0)
    server, together = case.server, case.may_have(engine)
    may = may_open(about.processes, None if together == inf else int(together))
    if refused:
        allowed = f", which allows {server.max_connections}," if server.max_connections else ""
        yield Finding(
            "pool-too-large",
            made_at(engine),
            None,
            f"The database{allowed} refused {refused} connections: too many clients. {may}.",
            "Make pool_size + max_overflow, times the number of processes, less than max_connections; PgBouncer if that is"
            " not enough.",
            max(case.refused_share(engine), LEAST_SHARE),
            is_mistake=True,
        )
    elif server.cores and case.crowding > 1:
        most = MOST_PER_CORE * server.cores / 2
        yield Finding(
            "pool-too-large",
            made_at(engine),
            None,
            f"{server.mean_active:.0f} connections were active at a time in a database with {server.cores} cores, all busy:"
            " they only took turns, and each statement became slower.",
            f"Fewer connections: some {most:.0f} over all processes keep {server.cores} cores busy; the others wait in the"
            " pool, in order.",
            min(1.0, max(0.0, 1 - most / server.mean_active)),
        )
    elif server.max_connections and server.max_connections < together < inf and not is_told:
        yield Finding(
            "pool-too-large",
            made_at(engine),
            None,
            f"{may}; the database allows {server.max_connections}.",
            "Make pool_size + max_overflow, times the number of processes, less than max_connections.",
            LEAST_SHARE,
        )
