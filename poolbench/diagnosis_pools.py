"""Pools that are unfair, too small or too large. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import ceil, inf

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
_SPARE = 0.7
"""The part of a pool's connections that may be in use at a time, on average, without long waits."""
_OVERLOAD = 1.25
"""Where requests ask for this many times what all connections can do, the pool is too small, whatever its order."""


def pools(case: Case) -> Iterator[Finding]:
    """Pools that are unfair, too small or too large."""
    asks: dict[str, dict[int, list[Ask]]] = defaultdict(lambda: defaultdict(list))
    for ask in case.observed.asks:
        asks[ask.engine][ask.process].append(ask)
    places: dict[str | None, list[str]] = defaultdict(list)
    for engine in case.observed.engines:
        places[made_at(engine)].append(engine)
    for place, engines in places.items():
        yield from _too_large(case, place, engines)
    for engine, about in case.observed.engines.items():
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
    if case.server.is_crowded_out and case.share_in_database() < 0.5:
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
    # Connections that are busy in the database most of the time do not wait for the CPU.
    is_cpu = case.server.is_machine_busy and case.share_in_database() < 0.5
    if share < LEAST_WAIT or is_cpu or (database or 0.0) >= SATURATED:
        return
    mean_ns = loans.wait_ns / max(1, loans.count + loans.timeouts + loans.waiting)
    if not (is_demand_known or loans.timeouts) and mean_ns < LEAST_WAIT_NS:
        return
    busy = "" if database is None else f" The database used {100 * database:.0f} % of the machine's CPU meanwhile."
    if demand >= _OVERLOAD:
        busy = f" Requests asked for {demand:.1f} times what these can do.{busy}"
    if not is_demand_known and case.observed.engines[engine].pool not in _FAIR:
        busy += " Whether the pool also serves some of them out of order was not seen; loadgen doctor sees it."
    # So many are in use at a time, and some to spare, as requests come in bursts.
    some = f", at this load about {max(limit + 1, ceil(demand * limit / _SPARE))} in each process" if demand else ""
    in_vain = f", {loans.timeouts} times in vain" if loans.timeouts else ""
    yield Finding(
        "pool-too-small",
        made_at(engine),
        None,
        f"Requests waited {in_ms(mean_ns)} on average for one of {limit} connections{in_vain}; the connections were busy with"
        f" ordinary statements.{busy}",
        f"Allow more connections (pool_size, max_overflow){some}, as many as the database can work on; loadgen sweep finds the"
        " number by measuring.",
        share,
    )


def _too_large(case: Case, place: str | None, engines: Sequence[str]) -> Iterator[Finding]:
    """The pools of `engines`, all made at one place, where they have or may have more connections than the database can serve."""
    # Those of an engine without a pool, or of one for each request, are told of where that is.
    pools = [each for each in engines if not (case.opens_for_each(each) or case.is_made_again(each))]
    refused = sum(case.refusals.get(each, 0) for each in pools)
    server, together = case.server, sum(map(case.may_have, pools))
    processes = max((case.observed.engines[each].processes for each in pools), default=0)
    may = may_open(len(pools), processes, None if together == inf else int(together))
    most = server.max_connections or 0
    times = f", times the {processes} processes," if processes > 1 else ""
    all_pools = f"pool_size + max_overflow{f', summed over the {len(pools)} pools' if len(pools) > 1 else ''}{times}"
    less = f"Make {all_pools} less than max_connections{f', which is {most}' if most else ''}"
    if refused:
        allowed = f", which allows {most}," if most else ""
        yield Finding(
            "pool-too-large",
            place,
            None,
            f"The database{allowed} refused {refused} connections: too many clients. {may}.",
            f"{less}; PgBouncer if that is not enough.",
            max(refused / (refused + case.loans), LEAST_SHARE),
            fails_requests=True,
        )
    elif pools and server.cores and case.crowding > 1:
        busy = MOST_PER_CORE * server.cores / 2
        yield Finding(
            "pool-too-large",
            place,
            None,
            f"{server.mean_active:.0f} connections were active at a time in a database with {server.cores} cores, all busy:"
            " they only took turns, and each statement became slower.",
            f"Fewer connections: some {busy:.0f} over all processes keep {server.cores} cores busy; the others wait in the"
            " pool, in order.",
            min(1.0, max(0.0, 1 - busy / server.mean_active)),
        )
    elif most and most < together < inf:
        yield Finding("pool-too-large", place, None, f"{may}; the database allows {most}.", f"{less}.", LEAST_SHARE)
