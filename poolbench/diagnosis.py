"""Why a pool's limit was reached: from what was seen of an application to findings with a place, a share and an advice. Pure.

The share of a finding is the part of all requests' time that it costs: its own time, and the time that others waited for a
connection while it had one. Waiting is charged to what the lent connections were doing meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from poolbench import observed as seen
from poolbench.asks import MANY_TIMES, demanded, overtaken, used
from poolbench.diagnosis_notes import LEAST_WAIT, notes
from poolbench.findings import KINDS, Diagnosis, Finding, in_ms, in_seconds, in_times, may_open, merged, quoted
from poolbench.observed import (
    Ask,
    EngineSum,
    LoanKey,
    LoanSum,
    Observed,
    RequestSum,
    SampleSum,
    StatementKey,
    StatementSum,
    made_at,
)
from poolbench.surroundings import SATURATED, Server, statement_key

_LEAST_SHARE = 0.03
"""What costs less than this is no finding, unless it is wrong in itself."""
_LEAST_NS = 5_000_000
"""Work or sleep of less than this per loan is ordinary."""
_LEAST_LOANS = 10
_LONG_QUEUE = 0.3
"""Waiting for locks of transactions at work that costs less than this share is no finding."""
_MUCH = 0.2
_OVERLOAD = 1.25
"""Where requests ask for this many times what all connections can do, the pool is too small, whatever its order."""
_TIMES_OPENED, _OFTEN_OPENED = 2, 0.1
"""A pool that has opened this many times as many connections as it may have, and for this part of loans, does not keep them."""
_WASTEFUL_MS, _WASTEFUL_PAGES, _WASTEFUL_PAGES_A_ROW = 20, 1000, 50
"""A statement of a few rows that takes the database this long, and this many pages of 8 kB, lacks an index."""
_MOST_PER_CORE = 8
"""A database with more active connections than this for each core only has them take turns."""


def diagnose(observed: Observed, server: Server | None = None) -> Diagnosis:
    """What holds the application back, from what was seen of it."""
    case = _Case(observed, server or Server())
    findings = sorted(merged(case.findings()), key=lambda finding: (-finding.rank, -finding.share))
    kinds = {finding.kind for finding in findings}
    return Diagnosis(
        tuple(findings),
        tuple(kind for kind in KINDS if kind not in kinds),
        tuple(notes(observed, case.server, case.share, has_lock_queue=case.has_lock_queue)),
    )


class _Case:
    """The figures from which all findings follow."""

    def __init__(self, observed: Observed, server: Server) -> None:
        self.observed, self.server = observed, server
        loans = observed.loans.values()
        self.wait_ns = sum(row.wait_ns for row in loans)
        requests_ns = sum(row.duration_ns for row in observed.requests.values())
        asked_ns = sum(row.wait_ns + row.connect_ns + row.held_ns for row in loans)
        self.total_ns = max(requests_ns or asked_ns, 1)
        self.loans = sum(row.count for row in loans)
        self.held_ns = max(1, sum(row.held_ns for row in loans))
        blamed = sum(row.blamed_ns for row in observed.samples.values())
        # Looks are few where waits are short: what was blamed is a share of the waiting that was measured.
        self.blame = self.wait_ns / blamed if blamed else 0.0
        self.explained_ns = 0.0
        self.has_lock_queue = self.has_idle_locks = self.is_unfair = False
        cores, active = server.cores or 0, server.mean_active
        is_full = server.is_full and cores and active >= max(24, _MOST_PER_CORE * cores)
        self.crowding = active / cores if is_full else 1.0
        """How many times as long a statement takes because so many take turns at the database's cores."""

    def share(self, cost_ns: float) -> float:
        """A share of all requests' time."""
        return min(1.0, cost_ns / self.total_ns)

    def in_requests(self, endpoint: str, own_ns: float) -> float:
        """The part of some time that requests took: none of a background thread's, who may take its time."""
        return own_ns if endpoint or not self.observed.requests else 0.0

    def findings(self) -> Iterator[Finding]:
        """All findings, in no order."""
        yield from self.leaks()
        yield from self.nested()
        yield from self.forks()
        yield from self.engines()
        yield from self.connections()
        yield from self.holding()
        yield from self.repeated()
        yield from self.slow()
        yield from self.pools()
        if not self.is_unfair:
            yield from self.committed_apart()

    # What is wrong in itself

    def leaks(self) -> Iterator[Finding]:
        """Loans that outlive their request or their borrower."""
        left_open = self._by_place(seen.LEFT_OPEN)
        for (engine, endpoint, place), row in self._by_place(seen.LEAKED, seen.LEFT_OPEN).items():
            if not place or row.looks <= 1 or row.own_ns < 500_000_000:
                continue
            limit, span_ns = self._limit(engine), self._span_ns()
            mean = row.own_ns / span_ns if span_ns else 0.0
            cost_ns = row.blamed_ns * self.blame
            self.explained_ns += cost_ns
            share = max(self.share(cost_ns), min(1.0, mean / limit) if limit else 0.0)
            is_open = left_open.get((engine, endpoint, place), SampleSum()).own_ns > 0.5 * row.own_ns
            loans = self.observed.loans.get(LoanKey(engine, endpoint, place), LoanSum())
            # Where most of them do end with their request, the others end on no path: that is a leak.
            if is_open and loans.adopted > 0.5 * loans.count:
                yield Finding(
                    "idle-in-transaction",
                    place,
                    endpoint,
                    f"The connection borrowed here, and its transaction, stay open after the answer; later requests of the"
                    f" same thread go on with them. They were held so for {in_seconds(row.own_ns)} in all.",
                    "End the session with the request: session.remove() or close() in teardown_appcontext, or a with block.",
                    share,
                )
                continue
            yield Finding(
                "leak",
                place,
                endpoint,
                f"Connections borrowed here are not given back: they were held for {in_seconds(row.own_ns)} in all after their"
                " requests had ended.",
                "Give the connection back on every path, also when something fails: `with engine.connect() as connection:`,"
                " or close() in a finally block.",
                max(share, _LEAST_SHARE),
            )

    def nested(self) -> Iterator[Finding]:
        """A second connection asked for while the first is held."""
        blamed = self._by_place(seen.NESTED)
        for (engine, endpoint, place), row in self._loans():
            if not row.nested or (not endpoint and self.observed.requests):
                # Once, while a process starts, nobody competes for the connections.
                continue
            waits = blamed.get((engine, endpoint, place), SampleSum())
            cost_ns = blamed_ns = waits.blamed_ns * self.blame
            cost_ns += row.nested_ns
            self.explained_ns += blamed_ns + row.wait_ns
            share = self.share(cost_ns)
            failed = f" ({row.timeouts} of these requests for it timed out)" if row.timeouts else ""
            yield Finding(
                "nested-checkout",
                place or None,
                endpoint or None,
                f"A second connection was asked for here {in_times(row.nested)} by a borrower that held one already{failed}. When"
                " all connections are held by such borrowers, each waits for another and none goes on.",
                "Use the connection (or session) at hand for both: pass it to the function called, or give the first one back"
                " before.",
                max(share, _LEAST_SHARE),
            )

    def forks(self) -> Iterator[Finding]:
        """Connections opened by one process and used by another."""
        places: dict[tuple[str, str], list[Any]] = {}
        for (engine, endpoint, place), row in self._loans():
            if row.foreign:
                known = places.setdefault((engine, place), [0, endpoint])
                known[0] += row.foreign
                known[1] = known[1] or endpoint
        for (engine, place), (count, endpoint) in places.items():
            yield Finding(
                "fork-shared",
                place or made_at(engine),
                endpoint or None,
                f"{count} loans used a connection that another process had opened before it forked. Two processes that write to"
                " one connection read each other's answers.",
                "Open no connection before the workers are forked (no preload, nothing at import), or call"
                " engine.dispose(close=False) in each worker after the fork, as in gunicorn's post_fork.",
                max(min(1.0, count / max(1, self.loans)), _LEAST_SHARE),
            )

    def engines(self) -> Iterator[Finding]:
        """Engines made in requests."""
        for key, row in self.observed.engines.items():
            if row.made_in_requests < 3:
                continue
            connect_ns = sum(each.connect_ns for (engine, _, _), each in self._loans() if engine == key)
            share = self.share(connect_ns + row.making_ns)
            yield Finding(
                "pool-per-request",
                made_at(key),
                row.endpoint or None,
                f"{row.made_in_requests} engines were made while requests were answered. Each has a pool of its own, which opens"
                f" its own connections: {in_ms(connect_ns / row.made_in_requests)} of connecting for each.",
                "Make the engine once for the process, at import or in the application's factory, and use it in all requests.",
                max(share, _LEAST_SHARE),
            )

    def connections(self) -> Iterator[Finding]:
        """Connections opened for each loan."""
        engines: dict[str, LoanSum] = defaultdict(LoanSum)
        endpoints: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for (engine, endpoint, _), row in self._loans():
            known = engines[engine]
            known.count += row.count
            known.opened += row.opened
            known.connect_ns += row.connect_ns
            endpoints[engine][endpoint] += row.opened
        for engine, row in engines.items():
            about = self.observed.engines.get(engine, EngineSum())
            if row.count < _LEAST_LOANS or about.made_in_requests >= 3:
                continue
            has_no_pool = about.pool in {"NullPool", "Null", "driver", ""}
            kept = (self._limit(engine) or about.size or 1) * max(1, about.processes)
            is_churning = row.opened > max(_TIMES_OPENED * kept, _OFTEN_OPENED * row.count)
            is_churning = is_churning and self.share(row.connect_ns) >= _LEAST_SHARE
            if (row.opened < 0.5 * row.count) if has_no_pool else not is_churning:
                continue
            worst = max(endpoints[engine], key=lambda name: endpoints[engine][name])
            yield Finding(
                "connection-per-request",
                made_at(engine),
                worst or None,
                f"{row.opened} of {row.count} loans opened a connection of their own, {in_ms(row.connect_ns / row.opened)} each:"
                f" {100 * row.connect_ns / max(1, row.connect_ns + self.held_ns):.0f} % of the time that they were in use.",
                "Keep connections in a pool: leave out poolclass=NullPool, or use QueuePool or FairPool."
                if has_no_pool
                else f"The pool keeps {about.size} connections and closes what it lends beyond them: raise pool_size to what is"
                " needed at a time, with a small max_overflow; or raise pool_recycle.",
                max(self.share(row.connect_ns), _LEAST_SHARE),
                has_no_pool,
            )

    # What costs time

    def holding(self) -> Iterator[Finding]:
        """Work and sleep while a connection is held."""
        rows: dict[tuple[str, str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for key, row in self.observed.samples.items():
            if key.doing in {seen.WORK, seen.SLEEP} and key.place:
                known = rows[key.engine, key.endpoint, key.place]
                known["own"] += row.own_ns
                known["blamed"] += row.blamed_ns * self.blame
                known["looks"] += row.looks
                if key.wrote:
                    known["wrote"] += row.own_ns
                if key.doing == seen.SLEEP and key.wrote:
                    known["slept"] += row.own_ns
        lock_ns = self.server.waits_for_idle_s * 1e9
        most_wrote = max((known["wrote"] for known in rows.values()), default=0.0)
        locked_out_ns = self._waits_behind_locks()
        for (engine, endpoint, place), known in rows.items():
            loans = max(1, self._loans_of(engine, endpoint))
            # Whatever the application does meanwhile, others that wait for its locks make it an open transaction's fault.
            is_locking = known["wrote"] == most_wrote > 0.5 * known["own"] and lock_ns > 0.5 * known["own"]
            is_idle = known["slept"] > 0.5 * known["own"] or is_locking
            cost_ns = self.in_requests(endpoint, known["own"]) + known["blamed"]
            if is_idle and known["wrote"] == most_wrote:
                known["blamed"] += locked_out_ns
                cost_ns += lock_ns + locked_out_ns
            share = self.share(cost_ns)
            if known["own"] / loans < _LEAST_NS or known["looks"] < 3 or share < _LEAST_SHARE:
                continue
            self.explained_ns += known["blamed"]
            each, blamed = in_ms(known["own"] / loans), known["blamed"]
            waited = f" Others waited {in_seconds(blamed)} for a connection meanwhile." if blamed else ""
            if is_idle:
                self.has_idle_locks = self.has_idle_locks or lock_ns > 0
                locked = f" Statements of others waited {lock_ns / 1e9:.1f} s for its locks." if lock_ns else ""
                yield Finding(
                    "idle-in-transaction",
                    place,
                    endpoint or None,
                    f"For {each} in each loan of this endpoint the application does not use the database here, while its"
                    f" transaction has changed or locked rows and is open.{locked}{waited}",
                    "Commit before waiting, or wait before the transaction begins; idle_in_transaction_session_timeout bounds"
                    " what is overlooked.",
                    share,
                )
                continue
            yield Finding(
                "work-while-holding",
                place,
                endpoint or None,
                f"Here the application does something other than use the database, {each} for each loan of this endpoint, while"
                f" it holds a connection.{waited}",
                "Do this before borrowing the connection or after giving it back: read, close, work, then borrow again to write.",
                share,
            )

    def _waits_behind_locks(self) -> float:
        """The waiting for connections whose borrowers waited for a lock of an idle transaction."""
        server, blamed = self.server, self._by_place(seen.STATEMENT)
        waiting_s = sum(share * server.active_s.get(name, 0.0) for name, share in server.lock_waits.items())
        if not waiting_s:
            return 0.0
        behind_ns = sum(
            server.lock_waits.get(statement_key(key.text), 0.0) * self._waits_of(blamed, key, row)
            for key, row in self.observed.statements.items()
        )
        return behind_ns * min(1.0, server.waits_for_idle_s / waiting_s)

    def _worked_ns(self) -> Mapping[str, int]:
        """What the loans of each endpoint spent with something other than the database."""
        worked_ns: dict[str, int] = defaultdict(int)
        for sample, spent in self.observed.samples.items():
            if sample.doing in {seen.WORK, seen.SLEEP}:
                worked_ns[sample.endpoint] += spent.own_ns
        return worked_ns

    def repeated(self) -> Iterator[Finding]:
        """The same statement again and again in one loan."""
        worked_ns = self._worked_ns()
        for key, row in self.observed.statements.items():
            if not row.repeated_groups:
                continue
            # What the application does between the statements would take its time after the cure, too.
            statements_ns = row.duration_ns * row.repeated / max(1, row.count)
            loops_ns = max(statements_ns, row.repeated_ns - worked_ns[key.endpoint])
            waits_ns = self._waits_during(key.endpoint, loops_ns)
            share = self.share(self.in_requests(key.endpoint, loops_ns) + waits_ns)
            if share < _LEAST_SHARE:
                continue
            self.explained_ns += waits_ns
            mean = row.repeated / row.repeated_groups
            yield Finding(
                "n-plus-one",
                key.place or None,
                key.endpoint or None,
                f"One loan executed the same statement {mean:.0f} times from here, for {row.rows / max(1, row.count):.1f} rows"
                f" each time, {in_ms(loops_ns / row.repeated_groups)} in all: {quoted(key.text)}",
                "Fetch all with one statement: a join, WHERE … IN (…), GROUP BY for counts, selectinload() or joinedload().",
                share,
            )

    def committed_apart(self) -> Iterator[Finding]:
        """A commit after each row: the same statement again and again in one request, each time in another transaction.

        All that its transactions execute belongs to it, such as the reading of the row that is changed. Waiting is not charged to
        it: a pool that is too small is a finding of its own, and an unfair one is the worse fault.
        """
        worked_ns, apart_ns = self._worked_ns(), defaultdict[str, int](int)
        worst: dict[str, tuple[StatementKey, StatementSum]] = {}
        for key, row in self.observed.statements.items():
            apart_ns[key.endpoint] += row.apart_ns
            if row.apart_changes and (key.endpoint not in worst or row.apart_ns > worst[key.endpoint][1].apart_ns):
                worst[key.endpoint] = key, row
        for endpoint, (key, row) in worst.items():
            own_ns = apart_ns[endpoint] - worked_ns[endpoint]
            about = self.observed.requests.get(endpoint, RequestSum())
            waited_ns = sum(each.wait_ns + each.connect_ns for (_, name, _), each in self._loans() if name == endpoint)
            # A transaction for each item is right where something else is done for each: then most of the time goes there.
            is_most = own_ns / row.apart_requests > 0.5 * (about.duration_ns - waited_ns) / max(1, about.count)
            share = self.share(own_ns)
            if share < LEAST_WAIT or not is_most:
                continue
            yield Finding(
                "n-plus-one",
                key.place or None,
                key.endpoint or None,
                f"One request executed the same statement {row.apart / row.apart_requests:.0f} times from here, each time"
                f" in a transaction of its own, {in_ms(row.apart_ns / row.apart_requests)} in all: {quoted(key.text)}",
                "Commit once, after the last row; and write many rows with one statement: execute(insert(…), rows), add_all().",
                share,
            )

    def _waits_during(self, endpoint: str, spent_ns: float) -> float:
        """The waiting of others while loans of an endpoint spent `spent_ns` with their statements."""
        held_ns = sum(row.held_ns for (_, name, _), row in self._loans() if name == endpoint)
        waits = sum(
            row.blamed_ns
            for key, row in self.observed.samples.items()
            if key.endpoint == endpoint and key.doing in {seen.STATEMENT, seen.LIBRARY, seen.CPU}
        )
        return waits * self.blame * min(1.0, spent_ns / held_ns) if held_ns else 0.0

    def slow(self) -> Iterator[Finding]:
        """Statements that take long by themselves."""
        blamed = self._by_place(seen.STATEMENT)
        for key, row in self.observed.statements.items():
            alone_ns = row.duration_ns / max(1, row.count) / self.crowding
            is_slow = row.slow >= 0.75 * row.count and min(row.fastest_ns, alone_ns) >= seen.SLOW_NS / 2
            is_wasteful = self._is_wasteful(key, row)
            if self._is_locked_out(key, row):
                yield from self._lock_queue(key, row, self._waits_of(blamed, key, row))
                continue
            if not row.count or not (is_slow or is_wasteful) or not self._is_slow_in_the_database(key, row):
                continue
            own = self._waits_of(blamed, key, row)
            own_ns = row.duration_ns if is_wasteful else row.slow_ns
            share = self.share(self.in_requests(key.endpoint, own_ns) + own)
            if share < _LEAST_SHARE:
                continue
            self.explained_ns += own
            yield Finding(
                "slow-statement",
                key.place or None,
                key.endpoint or None,
                f"{row.count} times this took {in_ms(row.duration_ns / row.count)} on average, for"
                f" {row.rows / row.count:.1f} rows{self._counted(key)}: {quoted(key.text)}",
                "EXPLAIN (ANALYZE, BUFFERS) it: an index on what WHERE compares, fewer rows looked at, or the result computed"
                " beforehand.",
                share,
            )

    def _is_locked_out(self, key: StatementKey, row: StatementSum) -> bool:
        """Whether a statement mostly waits for locks, and nobody was found who keeps them while doing something else."""
        share = self.server.lock_waits.get(statement_key(key.text), 0.0)
        return share > 0.5 and row.count >= _LEAST_LOANS and not self.has_idle_locks

    def _lock_queue(self, key: StatementKey, row: StatementSum, waits_ns: float) -> Iterator[Finding]:
        """A queue for locks of transactions that are at work, if it is long: a short one is the price of being correct."""
        share = self.share(self.in_requests(key.endpoint, row.duration_ns) + waits_ns)
        if share < _LONG_QUEUE or row.duration_ns < seen.SLOW_NS * row.count:
            return
        self.explained_ns += waits_ns
        self.has_lock_queue = True
        yield Finding(
            "slow-statement",
            key.place or None,
            key.endpoint or None,
            f"{row.count} times this took {in_ms(row.duration_ns / row.count)} on average, most of it waiting for"
            f" a lock that another transaction held: {quoted(key.text)}",
            "Take the lock late in the transaction and commit soon after, since it is held until the commit; or spread over many"
            " rows what all requests change.",
            share,
        )

    def _is_wasteful(self, key: StatementKey, row: StatementSum) -> bool:
        """Whether the database looks at many pages for each of a few rows, which takes it long: the sign of a missing index."""
        counted = (self.server.statements or {}).get(statement_key(key.text))
        return (
            counted is not None
            and counted.calls >= _LEAST_LOANS
            and counted.total_ms >= _WASTEFUL_MS * counted.calls * self.crowding
            and counted.pages >= _WASTEFUL_PAGES * counted.calls
            and counted.pages * row.count >= _WASTEFUL_PAGES_A_ROW * counted.calls * row.rows
        )

    def _is_slow_in_the_database(self, key: StatementKey, row: StatementSum) -> bool:
        """Whether the time is the database's own: not that of a lock, nor of a worker that is late to read the answer."""
        name = statement_key(key.text)
        if row.duration_ns / row.count < 5e6 * self.server.trivial_ms:
            return False
        if self.server.lock_waits.get(name, 0.0) > 0.5:
            return False
        counted = (self.server.statements or {}).get(name)
        if counted is not None:
            return counted.total_ms / counted.calls > 0.3e-6 * row.duration_ns / row.count
        active_s = self.server.active_s.get(name)
        return active_s is None or row.duration_ns < 1e9 or active_s * 1e9 > 0.3 * row.duration_ns

    def _counted(self, key: StatementKey) -> str:
        """What the database itself counted of a statement, in words; "" where it counts nothing."""
        counted = (self.server.statements or {}).get(statement_key(key.text))
        if counted is None:
            return ""
        pages = f", and looked at {counted.pages / counted.calls:.0f} pages of 8 kB" if counted.pages else ""
        return f" (by pg_stat_statements the database took {in_ms(1e6 * counted.total_ms / counted.calls)}{pages})"

    def _share_in_database(self) -> float:
        """The share of the time that connections were lent in which the database executed their statements; 0: unknown."""
        counted = self.server.statements or {}
        known = {statement_key(key.text) for key in self.observed.statements}
        return 1e6 * sum(each.total_ms for key, each in counted.items() if key in known) / self.held_ns

    def _waits_of(
        self, blamed: Mapping[tuple[str, str, str], SampleSum], key: StatementKey, row: StatementSum
    ) -> float:
        """The waiting that a statement is to blame for: of all at its place, by its part of the time."""
        there = sum(
            each.duration_ns
            for other, each in self.observed.statements.items()
            if (other.endpoint, other.place) == (key.endpoint, key.place)
        )
        waits = sum(
            each.blamed_ns
            for (_, endpoint, place), each in blamed.items()
            if (endpoint, place) == (key.endpoint, key.place)
        )
        return waits * self.blame * row.duration_ns / max(1, there)

    # The pool itself

    def pools(self) -> Iterator[Finding]:
        """Pools that are unfair, too small or too large."""
        asks: dict[str, dict[int, list[Ask]]] = defaultdict(lambda: defaultdict(list))
        for ask in self.observed.asks:
            asks[ask.engine][ask.process].append(ask)
        for engine, about in self.observed.engines.items():
            yield from self._too_large(engine, about)
            if about.made_in_requests >= 3:
                continue
            limit = self._limit(engine)
            if limit and asks[engine]:
                yield from self._unfair_or_small(engine, about, limit, list(asks[engine].values()))

    def _unfair_or_small(
        self, engine: str, about: EngineSum, limit: int, processes: Sequence[Sequence[Ask]]
    ) -> Iterator[Finding]:
        rows = [row for (name, _, _), row in self._loans() if name == engine]
        wait_ns, timeouts = sum(row.wait_ns for row in rows), sum(row.timeouts for row in rows)
        if self.share(wait_ns) < LEAST_WAIT / 2:
            return
        # Where workers have no CPU left, holds have waited for it, too: they say nothing about the connections.
        demand = 0.0 if self._is_out_of_cpu else demanded(processes, limit)
        # Where more is asked for than the connections can do, no order of service helps.
        if demand < _OVERLOAD and about.pool not in {"FairPool", "Fair"}:
            yield from self._unfair(engine, limit, processes, wait_ns, timeouts)
        yield from self._too_small(engine, limit, processes, wait_ns, timeouts, demand)

    @property
    def _is_out_of_cpu(self) -> bool:
        return (self.server.worker_cpu or 0.0) >= SATURATED

    def _unfair(
        self, engine: str, limit: int, processes: Sequence[Sequence[Ask]], wait_ns: int, timeouts: int
    ) -> Iterator[Finding]:
        late = [each for asks in processes for each in overtaken(asks, limit)]
        excess_ns = sum(each.excess_ns for each in late)
        if len(late) < _LEAST_LOANS or excess_ns <= 0.25 * wait_ns:
            return
        # Those who have a connection may wait for their turn to run, too: it takes more to blame the pool.
        if self._is_out_of_cpu and (excess_ns <= 0.5 * wait_ns or self.share(excess_ns) <= _MUCH):
            return
        self.explained_ns += excess_ns
        self.is_unfair = True
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
            self.share(excess_ns),
        )

    def _too_small(
        self, engine: str, limit: int, processes: Sequence[Sequence[Ask]], wait_ns: int, timeouts: int, demand: float
    ) -> Iterator[Finding]:
        turns_ns = self.blame * sum(
            row.blamed_ns
            for key, row in self.observed.samples.items()
            if key.doing == seen.CPU and key.engine == engine
        )
        share = self.share(wait_ns - turns_ns - self.explained_ns)
        database = self.server.database_cpu
        # Connections that are busy in the database most of the time do not wait for their borrowers' CPU.
        is_workers = self._is_out_of_cpu and self._share_in_database() < 0.5
        if share < LEAST_WAIT or is_workers or (database or 0.0) >= SATURATED:
            return
        busy = "" if database is None else f" The database used {100 * database:.0f} % of the machine's CPU meanwhile."
        if demand >= _OVERLOAD:
            busy = f" Requests asked for {demand:.1f} times what these can do.{busy}"
        yield Finding(
            "pool-too-small",
            made_at(engine),
            None,
            f"Requests waited {in_ms(wait_ns / max(1, sum(map(len, processes))))} on average for one of {limit} connections"
            f"{f', {timeouts} times in vain' if timeouts else ''}; the connections were busy with ordinary statements.{busy}",
            "Allow more connections (pool_size, max_overflow), as many as the database can work on; loadgen sweep finds the"
            " number by measuring.",
            share,
        )

    def _too_large(self, engine: str, about: EngineSum) -> Iterator[Finding]:
        refused = sum(row.refused for (name, _, _), row in self._loans() if name == engine)
        limit, server = self._limit(engine), self.server
        together = (limit or 0) * max(1, about.processes)
        if refused:
            allowed = f", which allows {server.max_connections}," if server.max_connections else ""
            yield Finding(
                "pool-too-large",
                made_at(engine),
                None,
                f"The database{allowed} refused {refused} connections: too many clients. {may_open(about.processes, together)}.",
                "Make pool_size + max_overflow, times the number of processes, less than max_connections; PgBouncer if that is"
                " not enough.",
                max(min(1.0, refused / max(1, refused + self.loans)), _LEAST_SHARE),
                is_mistake=True,
            )
        elif server.cores and self.crowding > 1:
            most = _MOST_PER_CORE * server.cores / 2
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
        elif server.max_connections and together > server.max_connections:
            yield Finding(
                "pool-too-large",
                made_at(engine),
                None,
                f"{may_open(about.processes, together)}; the database allows {server.max_connections}.",
                "Make pool_size + max_overflow, times the number of processes, less than max_connections.",
                _LEAST_SHARE,
            )

    # Sums

    def _loans(self) -> Iterator[tuple[tuple[str, str, str], LoanSum]]:
        yield from ((tuple(key), row) for key, row in self.observed.loans.items())  # type: ignore[misc]

    def _loans_of(self, engine: str, endpoint: str) -> int:
        return sum(row.count for (name, where, _), row in self._loans() if (name, where) == (engine, endpoint))

    def _by_place(self, *doing: str) -> dict[tuple[str, str, str], SampleSum]:
        found: dict[tuple[str, str, str], SampleSum] = {}
        for key, row in self.observed.samples.items():
            if key.doing in doing:
                known = found.setdefault((key.engine, key.endpoint, key.place), SampleSum())
                known.own_ns += row.own_ns
                known.blamed_ns += row.blamed_ns
                known.looks += row.looks
        return found

    def _limit(self, engine: str) -> int | None:
        about = self.observed.engines.get(engine)
        return about.size + about.overflow if about is not None and about.size > 0 and about.overflow >= 0 else None

    def _span_ns(self) -> int:
        """From the first request for a connection to the end of the last loan."""
        asks = self.observed.asks
        if not asks:
            return 0
        return max(ask.asked_ns + ask.wait_ns + ask.held_ns for ask in asks) - min(ask.asked_ns for ask in asks)
