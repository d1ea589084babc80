"""What a diagnosis mentions beside its findings: what may be meant, what limits the whole, and what was not seen. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator

from poolbench.findings import in_rows, in_seconds, quoted
from poolbench.observed import LIBRARY, MANY_ROWS, Observed
from poolbench.surroundings import SATURATED, Server

LEAST_WAIT = 0.1
"""The least share of all requests' time from which on waiting, and what may be meant, is mentioned."""
_MUCH = 0.2
"""The least share from which on fetching many rows is mentioned."""


def notes(
    observed: Observed,
    server: Server,
    share: Callable[[float], float],
    *,
    has_lock_queue: bool,
    told_apart: Collection[str],
) -> Iterator[str]:
    """The notes, a sentence or two each.

    `share` gives the share of all requests' time that a duration in ns is; `has_lock_queue`: the findings tell of a queue
    for locks already; `told_apart`: the endpoints of which they tell that these borrow a connection for each row.
    """
    worker, database = server.worker_cpu, server.database_cpu
    if server.is_crowded_out:
        yield (
            "Other programs kept the machine busy: a worker got less than a third of the CPU that it needed. What waits for"
            " connections this caused cannot be told; run it again while the machine has less to do."
        )
    elif worker is not None and worker >= SATURATED:
        yield f"A worker process used, or waited for, {100 * worker:.0f} % of a core: it has no CPU to spare."
    if database is not None and database >= SATURATED:
        yield f"The database used {100 * database:.0f} % of the machine's CPU: it is what limits the application."
    if not has_lock_queue:
        yield from _lock_waits(server, share)
    yield from _borrowed_apart(observed, share, told_apart)
    yield from _many_rows(observed, share)
    if observed.fault:
        yield f"Some looks at the connections failed: {observed.fault}"
    if server.statements_missing:
        yield (
            "pg_stat_statements was not used: the times of statements are those that the application saw"
            f" ({server.statements_missing})."
        )
    if observed.dropped:
        yield f"{observed.dropped} loans and requests came too fast to be counted."


def _lock_waits(server: Server, share: Callable[[float], float]) -> Iterator[str]:
    """How long statements waited for locks of transactions that are at work."""
    waited_s = sum(part * server.active_s.get(name, 0.0) for name, part in server.lock_waits.items())
    busy_ns = 1e9 * (waited_s - server.waits_for_idle_s)
    if share(busy_ns) >= LEAST_WAIT:
        yield f"Statements waited {in_seconds(busy_ns)} for locks of other transactions that were at work."


def _borrowed_apart(observed: Observed, share: Callable[[float], float], told_apart: Collection[str]) -> Iterator[str]:
    """Reading row by row on connections borrowed anew, where it is no finding: a loop that gives others their turn."""
    changing = {key.endpoint for key, row in observed.statements.items() if row.apart_changes}
    changing.update(told_apart)
    rows = {
        key: row for key, row in observed.statements.items() if row.apart and key.place and key.endpoint not in changing
    }
    worst = max(rows, key=lambda key: rows[key].apart_ns, default=None)
    if worst is not None and share(rows[worst].apart_ns) >= LEAST_WAIT:
        row, to = rows[worst], f" to {worst.endpoint}" if worst.endpoint else ""
        yield (
            f"A request{to} executed the same statement {row.apart / row.apart_requests:.0f} times at"
            f" {worst.place}, each time on a connection borrowed anew. One statement for all rows would be quicker:"
            f" {quoted(worst.text)}"
        )


def _many_rows(observed: Observed, share: Callable[[float], float]) -> Iterator[str]:
    """The place that spends most with fetching many rows at once: an export has to, and whoever only counts them has not."""
    spent_ns: Counter[tuple[str, str]] = Counter()
    most: dict[tuple[str, str], float] = {}
    for key, row in observed.statements.items():
        is_reading = key.text.lower().startswith(("select", "with"))
        if is_reading and key.place and row.count and row.rows >= MANY_ROWS * row.count:
            at = key.endpoint, key.place
            spent_ns[at] += row.duration_ns
            most[at] = max(most.get(at, 0.0), row.rows / row.count)
    for sample, looks in observed.samples.items():
        at = sample.endpoint, sample.place
        if sample.doing == LIBRARY and at in most:
            spent_ns[at] += looks.own_ns
    for (endpoint, place), cost_ns in spent_ns.most_common(1):
        if share(cost_ns) >= _MUCH:
            to = f" in {endpoint}" if endpoint else ""
            yield (
                f"The statement at {place}{to} fetches {in_rows(most[endpoint, place])} each time. This and making objects of"
                f" them take {100 * share(cost_ns):.0f} % of the requests' time. If only their number, a sum or a few of them are"
                " needed, let the database count, add up or choose."
            )
