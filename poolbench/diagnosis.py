"""Why a pool's limit was reached: from what was seen of an application to findings with a place, a share and an advice. Pure.

The share of a finding is the part of all requests' time that it costs: its own time, and the time that others waited for a
connection while it had one. Waiting is charged to what the lent connections were doing meanwhile.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from poolbench import observed as seen
from poolbench.advice import for_repeated, for_slow
from poolbench.diagnosis_case import LEAST_LOANS, LEAST_LOOKS, LEAST_NS, LEAST_SHARE, Case
from poolbench.diagnosis_notes import LEAST_WAIT, notes
from poolbench.diagnosis_pools import pools
from poolbench.diagnosis_unseen import repeated_unseen, slow_unseen
from poolbench.findings import (
    KINDS,
    OF_WAITING,
    Diagnosis,
    Finding,
    in_ms,
    in_rows,
    in_seconds,
    in_times,
    merged,
    quoted,
)
from poolbench.observed import (
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
from poolbench.surroundings import Server

_LONG_NS = 20_000_000
"""To compute for less than this per loan while it is held is ordinary unless others wait."""
_OTHER_WORK = {seen.WORK, seen.SLEEP, seen.COMPUTING, seen.STREAMING}
_LONG_QUEUE = 0.3
"""Waiting for locks of transactions at work that costs less than this share is no finding."""
_SAID_NS = 50_000_000
"""What others waited is mentioned if it would not be shown as 0.0 s."""
_NEAR_LINES = 5
"""Lines that compute, this near to one another, are taken for one loop."""
_LOCKED_OUT = 0.2
"""Work with changed or locked rows is an open transaction's fault if statements wait for its locks for this part of its time."""
_TIMES_OPENED, _OFTEN_OPENED = 2, 0.1
"""A pool that has opened this many times as many connections as it may have, and for this part of loans, does not keep them."""
_QUICK, _QUICK_WHEN_BUSY = 0.25, 0.1
"""The part of a slow statement's executions that may be quick; where there is no CPU left."""
_WASTEFUL_MS, _WASTEFUL_PAGES, _WASTEFUL_PAGES_A_ROW = 20, 1000, 50
"""A statement of a few rows that takes the database this long, and this many pages of 8 kB, lacks an index."""
_STEADY_MS, _STEADY_FASTEST_NS, _STEADY_PAGES = 10, 5_000_000, 250
"""So does one that takes this long and this many pages, and was never faster than that: the machine being busy is not why."""
_FREQUENT_MS, _FREQUENT_SHARE = 2, 0.2
"""So does one that compares something, takes this long and as many pages, and costs this share of all requests' time."""

_Place = tuple[str, str, str]
"""An engine, an endpoint, and a line of the application."""


def diagnose(observed: Observed, server: Server | None = None) -> Diagnosis:
    """What holds the application back, from what was seen of it."""
    case = _Case(observed, server or Server(worker_cpu=observed.worker_cpu))
    findings = sorted(merged(case.findings()), key=lambda finding: (-finding.weight, -finding.share))
    kinds = {finding.kind for finding in findings}
    return Diagnosis(
        tuple(findings),
        tuple(kind for kind in KINDS if kind not in kinds and not (case.server.is_crowded_out and kind in OF_WAITING)),
        tuple(notes(observed, case.server, case.share, has_lock_queue=case.has_lock_queue, told_apart=case.told_apart)),
        case.server.is_crowded_out,
    )


class _Case(Case):
    """A case with the findings that follow from its figures."""

    def findings(self) -> Iterator[Finding]:
        """All findings, in no order."""
        yield from self.leaks()
        yield from self.nested()
        yield from self.forks()
        yield from self.engines()
        yield from self.connections()
        for finding in self._costly(self.holding()):
            self.has_idle_locks |= finding.kind == "idle-in-transaction" and self.server.waits_for_idle_s > 0
            yield finding
        yield from self._costly(self.repeated())
        yield from self._costly(self.slow())
        yield from self._costly(slow_unseen(self))
        yield from self._costly(repeated_unseen(self))
        yield from self.apart(changing=True)
        yield from pools(self)
        if not self.is_unfair:
            yield from self.apart(changing=False)

    # What is wrong in itself

    def leaks(self) -> Iterator[Finding]:
        """Loans that outlive their request or their borrower."""
        # Where nobody says when requests begin and end, what a thread keeps may belong to an answer that is being sent.
        kinds = (seen.LEFT_OPEN,) if self.observed.requests else ()
        left_open = self.by_place(*kinds)
        for (engine, endpoint, place), row in self.by_place(seen.LEAKED, *kinds).items():
            if not place or row.looks <= 1 or row.own_ns < 500_000_000:
                continue
            span_ns = self.observed.span_ns
            mean = row.own_ns / span_ns if span_ns else 0.0
            cost_ns = row.blamed_ns * self.blame
            self.explained_ns += cost_ns
            share = max(self.share(cost_ns), min(1.0, mean / self.may_have(engine)))
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
                endpoint or None,
                f"Connections borrowed here are not given back: they were held for {in_seconds(row.own_ns)} in all after"
                f" {'their requests' if endpoint else 'the code that borrowed them'} had ended.",
                "Give the connection back on every path, also when something fails: `with engine.connect() as connection:`,"
                " or close() in a finally block.",
                max(share, LEAST_SHARE),
            )

    def nested(self) -> Iterator[Finding]:
        """A second connection asked for while the first is held."""
        blamed = self.by_place(seen.NESTED)
        for (engine, endpoint, place), row in self.each_loan():
            if not row.nested or (not endpoint and self.observed.requests):
                # Once, while a process starts, nobody competes for the connections.
                continue
            waits = blamed.get((engine, endpoint, place), SampleSum())
            cost_ns = blamed_ns = waits.blamed_ns * self.blame
            cost_ns += row.nested_ns
            self.explained_ns += blamed_ns + row.wait_ns
            share = self.share(cost_ns)
            # The place may have timeouts of other borrowers, too.
            timeouts = min(row.timeouts, row.nested)
            failed = f" ({timeouts} of these requests for it timed out)" if timeouts else ""
            yield Finding(
                "nested-checkout",
                place or None,
                endpoint or None,
                f"A second connection was asked for here {in_times(row.nested)} by a borrower that held one"
                f"{self.borrowed_at(engine, endpoint, place) or ' already'}{failed}. When"
                " all connections are held by such borrowers, each waits for another and none goes on.",
                "Use the connection (or session) at hand for both: pass it to the function called, or give the first one back"
                " before.",
                max(share, LEAST_SHARE),
                fails_requests=timeouts > 0,
            )

    def forks(self) -> Iterator[Finding]:
        """Connections opened by one process and used by another."""
        places: dict[tuple[str, str], list[Any]] = {}
        for (engine, endpoint, place), row in self.each_loan():
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
                max(min(1.0, count / max(1, self.loans)), LEAST_SHARE),
            )

    def engines(self) -> Iterator[Finding]:
        """Engines made in requests again and again."""
        for key, row in self.observed.engines.items():
            if not self.is_made_again(key):
                continue
            connect_ns = self.of_engines.get(key, LoanSum()).connect_ns
            share = self.share(connect_ns + row.making_ns)
            yield Finding(
                "pool-per-request",
                made_at(key),
                row.endpoint or None,
                f"{row.made_in_requests} engines were made while requests were answered. Each has a pool of its own, which opens"
                f" its own connections: {in_ms(connect_ns / row.made_in_requests)} of connecting for each.{self._refused(key)}",
                "Make the engine once for the process, at import or in the application's factory, and use it in all requests.",
                max(share, self.refused_share(key), LEAST_SHARE),
                fails_requests=key in self.refusals,
            )

    def _refused(self, engine: str) -> str:
        """How many connections the database refused because of an engine, in words; "" if it refused none."""
        refused = self.refusals.get(engine, 0)
        return f" The database refused {refused} connections: too many clients." if refused else ""

    def connections(self) -> Iterator[Finding]:
        """Connections opened for each loan."""
        endpoints: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for (engine, endpoint, _), row in self.each_loan():
            endpoints[engine][endpoint] += row.opened
        for engine, row in self.of_engines.items():
            about = self.observed.engines.get(engine, EngineSum())
            has_no_pool = self.keeps_nothing(engine)
            if self.is_made_again(engine) or (row.count < LEAST_LOANS and not has_no_pool):
                continue
            # A process that replaces another one opens its own.
            kept = (self.limit(engine) or about.size or 1) * max(1, about.processes, len(about.lives))
            is_churning = row.opened > max(_TIMES_OPENED * kept, _OFTEN_OPENED * row.count)
            is_churning = is_churning and self.share(row.connect_ns) >= LEAST_SHARE
            if not (self.opens_for_each(engine) if has_no_pool else is_churning):
                continue
            worst = max(endpoints[engine], key=lambda name: endpoints[engine][name])
            closed_at, closed = self._closed(engine)
            is_closed = not has_no_pool and closed >= 0.5 * row.opened
            if has_no_pool:
                advice = "Keep connections in a pool: leave out poolclass=NullPool, or use QueuePool or FairPool."
            elif is_closed:
                advice = (
                    "Leave this out: a connection that is given back costs the database little, and the next request can use"
                    " it. The pool replaces one that is broken by itself, with pool_pre_ping also before it is used."
                )
            else:
                advice = (
                    f"The pool keeps {about.size} connections and closes what it lends beyond them: raise pool_size to what is"
                    " needed at a time, with a small max_overflow; or raise pool_recycle."
                )
            by = (
                f" Connections were closed here {in_times(closed)}, by dispose(), invalidate() or detach()."
                if is_closed
                else ""
            )
            yield Finding(
                "connection-per-request",
                closed_at if is_closed else made_at(engine),
                worst or None,
                f"{row.opened} of {row.count} loans opened a connection of their own,"
                f" {in_ms(row.connect_ns / max(1, row.opened))} each:"
                f" {100 * row.connect_ns / max(1, row.connect_ns + self.held_ns):.0f} % of the time that they were in use."
                f"{self._refused(engine) if has_no_pool else by}",
                advice,
                max(self.share(row.connect_ns), self.refused_share(engine) if has_no_pool else 0.0, LEAST_SHARE),
                has_no_pool or is_closed,
                has_no_pool and engine in self.refusals,
            )

    def _closed(self, engine: str) -> tuple[str, int]:
        """Where the application had most connections of an engine closed, and how often; 0 if nowhere."""
        places = self.by_place(seen.CLOSED).items()
        found = [(row.looks, place) for (of, _, place), row in places if of == engine]
        looks, place = max(found, default=(0, ""))
        return place, looks

    # What costs time

    def holding(self) -> Iterator[tuple[Finding, float]]:
        """Work and sleep while a connection is held; with the waiting that they explain."""
        rows: dict[_Place, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for key, row in self.observed.samples.items():
            if key.doing in _OTHER_WORK and key.place:
                known = rows[key.engine, key.endpoint, key.place]
                known["own"] += row.own_ns
                known[key.doing] += row.own_ns
                known["blamed"] += row.blamed_ns * self.blame
                known["looks"] += row.looks
                if key.wrote:
                    known["wrote"] += row.own_ns
                if key.doing == seen.SLEEP and key.wrote:
                    known["slept"] += row.own_ns
        self._gather(rows)
        looks = Counter[str]()
        for (_, _, place), known in rows.items():
            looks[place] += int(known["looks"])
        lock_ns = self.server.waits_for_idle_s * 1e9
        most_wrote = max((known["wrote"] for known in rows.values()), default=0.0)
        locked_out_ns = self._waits_behind_locks()
        for (engine, endpoint, place), known in rows.items():
            loans = max(1, self.loans_of(engine, endpoint))
            # Whatever the application does meanwhile, others that wait for its locks make it an open transaction's fault.
            is_locking = known["wrote"] == most_wrote > 0.5 * known["own"] and lock_ns > _LOCKED_OUT * known["own"]
            is_idle = known["slept"] > 0.5 * known["own"] or is_locking
            # To compute takes its time wherever it is done: if little, or for a stream, it costs what others wait for it.
            is_long = known[seen.COMPUTING] >= _LONG_NS * loans
            cheap_ns = known[seen.STREAMING] + (0 if is_long else known[seen.COMPUTING])
            cost_ns = self.in_requests(endpoint, known["own"] - cheap_ns) + known["blamed"]
            if is_idle and known["wrote"] == most_wrote:
                known["blamed"] += locked_out_ns
                cost_ns += lock_ns + locked_out_ns
            share = self.share(cost_ns)
            if known["own"] / loans < LEAST_NS or looks[place] < LEAST_LOOKS:
                continue
            each, blamed = in_ms(known["own"] / loans), known["blamed"]
            waited = f" Others waited {in_seconds(blamed)} for a connection meanwhile." if blamed >= _SAID_NS else ""
            if is_idle:
                locked = (
                    f" Statements of others waited {lock_ns / 1e9:.1f} s for its locks." if lock_ns >= _SAID_NS else ""
                )
                finding = Finding(
                    "idle-in-transaction",
                    place,
                    endpoint or None,
                    f"For {each} in each loan of this endpoint the application does not use the database here, while the"
                    f" transaction on a connection{self.borrowed_at(engine, endpoint, place)} has changed or locked rows and is"
                    f" open.{locked}{waited}",
                    "Commit before waiting, or wait before the transaction begins; idle_in_transaction_session_timeout bounds"
                    " what is overlooked.",
                    share,
                )
                yield finding, blamed
                continue
            finding = Finding(
                "work-while-holding",
                place,
                endpoint or None,
                f"Here the application does something other than use the database, {each} for each loan of this endpoint, while"
                f" it holds a connection{self.borrowed_at(engine, endpoint, place)}.{waited}",
                "Do this before borrowing the connection or after giving it back: read, close, work, then borrow again to write."
                " A session, such as Flask-SQLAlchemy's db.session, gives its connection back at commit() or close(). Take what"
                " the work needs out of its objects before: commit() makes them read anew, and close() detaches them.",
                share,
            )
            yield finding, blamed

    def _gather(self, rows: dict[_Place, dict[str, float]]) -> None:
        """Add to the line that takes most, of each file and endpoint, the work of those that take little each, and what is
        computed a few lines from it.

        A computation is spread over the lines of its loop: together they may take long.
        """
        worst: dict[_Place, _Place] = {}
        for key in rows:
            of_file = *key[:2], key[2].rpartition(":")[0]
            if of_file not in worst or rows[key]["own"] > rows[worst[of_file]]["own"]:
                worst[of_file] = key
        for key in list(rows):
            into = worst[*key[:2], key[2].rpartition(":")[0]]
            loans = max(1, self.loans_of(*key[:2]))
            cost_ns = self.in_requests(key[1], rows[key]["own"]) + rows[key]["blamed"]
            is_little = rows[key]["own"] < LEAST_NS * loans or self.share(cost_ns) < LEAST_SHARE
            if key != into and (is_little or _is_one_loop(key, into, rows)):
                for name, figure in rows.pop(key).items():
                    rows[into][name] += figure

    def _waits_behind_locks(self) -> float:
        """The waiting for connections whose borrowers waited for a lock of an idle transaction."""
        server = self.server
        waiting_s = sum(share * server.active_s.get(name, 0.0) for name, share in server.lock_waits.items())
        if not waiting_s:
            return 0.0
        behind_ns = sum(
            server.lock_waits.get(self.key_of(key.text), 0.0) * self._waits_of(key, row)
            for key, row in self.statements.items()
        )
        return behind_ns * min(1.0, server.waits_for_idle_s / waiting_s)

    def _worked_ns(self) -> Mapping[str, int]:
        """What the loans of each endpoint spent with something other than the database."""
        worked_ns: dict[str, int] = defaultdict(int)
        for sample, spent in self.observed.samples.items():
            if sample.doing in _OTHER_WORK:
                worked_ns[sample.endpoint] += spent.own_ns
        return worked_ns

    def _costly(self, found: Iterator[tuple[Finding, float]]) -> Iterator[Finding]:
        """The findings whose place costs enough, with all that was found of one kind there, in whatever endpoint.

        `found`: each with the waiting that it explains.
        """
        pairs, shares = list(found), defaultdict[Any, float](float)
        for number, (finding, _) in enumerate(pairs):
            shares[finding.kind, finding.where or number] += finding.share
        for number, (finding, waits_ns) in enumerate(pairs):
            if shares[finding.kind, finding.where or number] >= LEAST_SHARE:
                self.explained_ns += waits_ns
                yield finding

    def repeated(self) -> Iterator[tuple[Finding, float]]:
        """The same statement again and again in one loan; with the waiting that it explains."""
        worked_ns = self._worked_ns()
        for key, row in self.statements.items():
            if not row.repeated_groups:
                continue
            # What the application does between the statements would take its time after the cure, too.
            statements_ns = row.duration_ns * row.repeated / max(1, row.count)
            loops_ns = max(statements_ns, row.repeated_ns - worked_ns[key.endpoint])
            waits_ns = self._waits_during(key.endpoint, loops_ns)
            mean = row.repeated / row.repeated_groups
            finding = Finding(
                "n-plus-one",
                key.place or None,
                key.endpoint or None,
                f"One loan executed the same statement {mean:.0f} times{_from(key)}, for"
                f" {in_rows(row.rows / max(1, row.count))} each time, {in_ms(loops_ns / row.repeated_groups)} in all:"
                f" {quoted(key.text)}{_by_library(key)}",
                for_repeated(key.text),
                self.share(self.in_requests(key.endpoint, loops_ns) + waits_ns),
            )
            yield finding, waits_ns

    def apart(self, *, changing: bool) -> Iterator[Finding]:
        """The same statement again and again in one request, each time in another loan: a commit after each row, or a
        connection borrowed for each row that is read. `changing`: which of the two.

        All that these loans execute belongs to it, such as the reading of the row that is changed. So does what others wait
        for a connection meanwhile, where each row is committed. Where rows are only read, a pool that is too small is a finding
        of its own, and an unfair one is the worse fault.
        """
        worked_ns, apart_ns = self._worked_ns(), defaultdict[str, int](int)
        worst: dict[str, tuple[tuple[bool, int], StatementKey, StatementSum]] = {}
        for key, row in self.statements.items():
            apart_ns[key.endpoint] += row.apart_ns
            weight = row.apart_changes > 0, row.apart_ns
            if row.apart and (key.endpoint not in worst or weight > worst[key.endpoint][0]):
                worst[key.endpoint] = weight, key, row
        for endpoint, (_, key, row) in worst.items():
            if changing != (row.apart_changes > 0):
                continue
            own_ns = apart_ns[endpoint] - worked_ns[endpoint]
            about = self.observed.requests.get(endpoint, RequestSum())
            waited_ns = self.waited_in[endpoint]
            # A loan for each item is right where something else is done for each: then most of the time goes there.
            is_most = own_ns / row.apart_requests > 0.5 * (about.duration_ns - waited_ns) / max(1, about.count)
            share = self.share(own_ns)
            # More than one row for each says that these are parts of something: a note tells of them.
            if share < LEAST_WAIT or not is_most or (not row.apart_changes and row.rows > row.count):
                continue
            self.told_apart.add(endpoint)
            if row.apart_changes:
                waits_ns = self._waits_during(endpoint, apart_ns[endpoint])
                self.explained_ns += waits_ns
                share = self.share(own_ns + waits_ns)
            yield Finding(
                "n-plus-one",
                key.place or None,
                key.endpoint or None,
                f"One request executed the same statement {row.apart / row.apart_requests:.0f} times{_from(key)}, each time"
                f" {'in a transaction of its own' if row.apart_changes else 'on a connection borrowed anew'},"
                f" {in_ms(row.apart_ns / row.apart_requests)} in all: {quoted(key.text)}{_by_library(key)}",
                "Commit once, after the last row; and write many rows with one statement: execute(insert(…), rows), add_all()."
                if row.apart_changes
                else "Borrow one connection for all, and fetch all with one statement: a join, WHERE … IN (…), GROUP BY for"
                " counts.",
                share,
            )

    def _waits_during(self, endpoint: str, spent_ns: float) -> float:
        """The waiting of others while loans of an endpoint spent `spent_ns` with their statements."""
        held_ns = self.held_in[endpoint]
        return self.blamed_in[endpoint] * self.blame * min(1.0, spent_ns / held_ns) if held_ns else 0.0

    def slow(self) -> Iterator[tuple[Finding, float]]:
        """Statements that take long by themselves; with the waiting that they explain."""
        for key, row in self.statements.items():
            is_slow = self._is_slow(row)
            is_wasteful = self._is_wasteful(key, row)
            if self._is_locked_out(key, row):
                yield from self._lock_queue(key, row, self._waits_of(key, row))
                continue
            if not row.count or not (is_slow or is_wasteful) or not self._is_slow_in_the_database(key, row):
                continue
            own = self._waits_of(key, row)
            own_ns = row.duration_ns if is_wasteful else row.slow_ns
            finding = Finding(
                "slow-statement",
                key.place or None,
                key.endpoint or None,
                f"{row.count} times this took {in_ms(row.duration_ns / row.count)} on average{_for_rows(row)}"
                f"{self._counted(key)}: {quoted(key.text)}{_by_library(key)}",
                for_slow(key.text, self.server.indexes),
                self.share(self.in_requests(key.endpoint, own_ns) + own),
            )
            yield finding, own

    def _is_slow(self, row: StatementSum) -> bool:
        """Whether three of four executions take long, and few are quick: a busy machine slows down many, but not all alike."""
        server = self.server
        is_busy = server.is_full or server.is_machine_busy
        most_quick = (_QUICK_WHEN_BUSY if is_busy else _QUICK) * row.count
        alone_ns = row.duration_ns / max(1, row.count) / self.crowding
        return row.slow >= 0.75 * row.count and row.quick < most_quick and alone_ns >= seen.QUICK_NS

    def _is_locked_out(self, key: StatementKey, row: StatementSum) -> bool:
        """Whether a statement mostly waits for locks, and nobody was found who keeps them while doing something else."""
        share = self.server.lock_waits.get(self.key_of(key.text), 0.0)
        return share > 0.5 and row.count >= LEAST_LOANS and not self.has_idle_locks

    def _lock_queue(self, key: StatementKey, row: StatementSum, waits_ns: float) -> Iterator[tuple[Finding, float]]:
        """A queue for locks of transactions that are at work, if it is long: a short one is the price of being correct."""
        share = self.share(self.in_requests(key.endpoint, row.duration_ns) + waits_ns)
        if share < _LONG_QUEUE or row.duration_ns < seen.SLOW_NS * row.count:
            return
        self.has_lock_queue = True
        finding = Finding(
            "slow-statement",
            key.place or None,
            key.endpoint or None,
            f"{row.count} times this took {in_ms(row.duration_ns / row.count)} on average, most of it waiting for"
            f" a lock that another transaction held: {quoted(key.text)}{_by_library(key)}",
            "Take the lock late in the transaction and commit soon after, since it is held until the commit; or spread over many"
            " rows what all requests change.",
            share,
        )
        yield finding, waits_ns

    def _is_wasteful(self, key: StatementKey, row: StatementSum) -> bool:
        """Whether the database looks at many pages for each of a few rows, which takes it long: the sign of a missing index."""
        counted = (self.server.statements or {}).get(self.key_of(key.text))
        return (
            counted is not None
            and counted.calls >= LEAST_LOANS
            and any(
                counted.total_ms >= least_ms * counted.calls * self.crowding
                and counted.pages >= least_pages * counted.calls
                and row.fastest_ns >= fastest_ns
                for least_ms, least_pages, fastest_ns in (
                    (_WASTEFUL_MS, _WASTEFUL_PAGES, 0),
                    (_STEADY_MS, _STEADY_PAGES, _STEADY_FASTEST_NS),
                    *([(_FREQUENT_MS, _STEADY_PAGES, 0)] if self._is_frequent(key, row) else ()),
                )
            )
            and counted.pages * row.count >= _WASTEFUL_PAGES_A_ROW * counted.calls * row.rows
            and (not row.unknown or counted.pages >= _WASTEFUL_PAGES_A_ROW * counted.rows)
        )

    def _is_frequent(self, key: StatementKey, row: StatementSum) -> bool:
        """Whether a statement that compares something, for which an index may help, takes a large part of all requests' time."""
        cost_ns = self.in_requests(key.endpoint, row.duration_ns) + self._waits_of(key, row)
        return " where " in key.text.lower() and self.share(cost_ns) >= _FREQUENT_SHARE

    def _is_slow_in_the_database(self, key: StatementKey, row: StatementSum) -> bool:
        """Whether the time is the database's own: not that of a lock, nor of a worker that is late to read the answer."""
        name = self.key_of(key.text)
        if self.server.lock_waits.get(name, 0.0) > 0.5:
            return False
        counted = (self.server.statements or {}).get(name)
        # It counts only what did not fail.
        if counted is not None and counted.calls >= 0.5 * row.count:
            return counted.total_ms / counted.calls > 0.3e-6 * row.duration_ns / row.count
        # Where it counts nothing, a statement that takes little more than a trivial one may only have met a busy machine.
        if row.duration_ns / row.count < 5e6 * self.server.trivial_ms:
            return False
        active_s = self.server.active_s.get(name)
        return active_s is None or row.duration_ns < 1e9 or active_s * 1e9 > 0.3 * row.duration_ns

    def _counted(self, key: StatementKey) -> str:
        """What the database itself counted of a statement, in words; "" where it counts nothing."""
        counted = (self.server.statements or {}).get(self.key_of(key.text))
        if counted is None:
            return ""
        pages = f", and looked at {counted.pages / counted.calls:.0f} pages of 8 kB" if counted.pages else ""
        return f" (by pg_stat_statements the database took {in_ms(1e6 * counted.total_ms / counted.calls)}{pages})"

    def _waits_of(self, key: StatementKey, row: StatementSum) -> float:
        """The waiting that a statement is to blame for: of all at its place, by its part of the time."""
        at = key.endpoint, key.place
        return self.blamed_at[at] * self.blame * row.duration_ns / max(1, self.executed_at[at])


def _is_one_loop(one: _Place, other: _Place, rows: Mapping[_Place, Mapping[str, float]]) -> bool:
    """Whether two lines of one file mostly compute, a few lines from one another; `rows` has what was seen of both."""
    first, second = (int(place.rpartition(":")[2]) for *_, place in (one, other))
    return abs(first - second) <= _NEAR_LINES and all(
        rows[each].get(seen.COMPUTING, 0.0) > 0.5 * rows[each]["own"] for each in (one, other)
    )


def _from(key: StatementKey) -> str:
    """That a statement was executed at the line that is named; "" where none is."""
    return " from here" if key.place else ""


def _by_library(key: StatementKey) -> str:
    """A sentence that says why no line is named; "" where one is."""
    if key.place or key.text == seen.OTHERS:
        return ""
    return (
        " No line is named, because none of the application's code was running: a library executed this, such as one that turns"
        " objects into JSON after the view has returned."
    )


def _for_rows(row: StatementSum) -> str:
    """For how many rows each execution was, in words; "" where none said it."""
    return f", for {in_rows(row.rows / row.count)}" if row.rows or row.unknown < row.count else ""
