"""How fair and how fast is a connection pool under gevent? Measures FairPool and QueuePool in alternation.

    python -m benchmarks.pool [--url embedded] [--rounds 5] [--seconds 2] [--write]
    python -m benchmarks.pool fairness poolbench:FairPool --clients 100 --size 10 --hold-ms 5 --seconds 2 [--url ...]

The first prints the acceptance table and takes about a minute a round. The second prints one pool's figures, in some ten
seconds. The three workloads are:

tight  each client asks again as soon as it has returned its connection
web    between two loans a client yields and burns 0.1 ms of CPU
open   clients arrive at random (Poisson) at 90 % of the capacity, which is size / mean hold of the tight run (the
       better pool's, in the first command); each borrows once. The first command runs four of these in each round, the
       pools in alternation and on the same arrivals, and compares them pair by pair

A wait is the time of `pool.connect()`, on the monotonic clock; waits that are not over when time is up count with what
they have lasted. The hold is a sleep of the scripted driver or, with --url, `select pg_sleep()` on a real server. The
ideal wait of FIFO is clients / size x *measured* mean hold. Jain's index is over the numbers of loans of the clients.
The machine's own pauses are not the pool's doing: a watcher looks for gaps in which the process was not running, a run
with one over 10 ms is measured again (at most three times), and the table ends with how many there were.

CPU figures are process time, all of it. For loans that waited: ten clients on one connection, who yield once while
they hold it and once after, so that QueuePool's waiters are not overtaken and wait just once, as FairPool's do.
"""

# ruff: noqa: E402 - patching comes before all other imports

from gevent import monkey

# Before SQLAlchemy is imported: its pool waits on the standard library's locks.
monkey.patch_all()

import argparse
import gc
import random
import sys
import time
import timeit
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from statistics import median
from types import SimpleNamespace
from typing import Any

import gevent
from sqlalchemy.pool import Pool, QueuePool

from benchmarks.awake import cores_awake
from benchmarks.league import conditions
from benchmarks.pages import put
from db.embedded import temporary_postgres
from poolbench import FairPool
from poolbench.telemetry import BOUNDS_NS, SMOOTHING, PoolStatistics

WARM_UP_LOANS = 200
PAUSE_LIMIT_S = 0.01
ATTEMPTS = 4


class StubConnection:
    """A connection that costs nothing, so that only the pool is measured."""

    def rollback(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Backend:
    """The source of connections, and how long each is held."""

    creator: Callable[[], Any]
    hold: Callable[[Any], None]


def scripted(hold_s: float) -> Backend:
    """A backend without a server: the hold is a sleep."""
    return Backend(StubConnection, lambda _connection: gevent.sleep(hold_s))


def postgres(url: str, hold_s: float) -> Backend:
    """A backend with a real server through psycopg2 and psycogreen; in autocommit mode a return costs no round trip."""
    import psycopg2  # noqa: PLC0415
    from psycogreen.gevent import patch_psycopg  # noqa: PLC0415

    patch_psycopg()

    def connect() -> Any:
        connection = psycopg2.connect(url)
        connection.autocommit = True
        return connection

    def hold(connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("select pg_sleep(%s)", (hold_s,))

    return Backend(connect, hold)


@dataclass
class PoolRun:
    """One workload on one pool. Times in s; loans counts finished ones, for each client."""

    clients: int
    size: int
    seconds: float
    waits: list[float] = field(default_factory=list)
    holds: list[float] = field(default_factory=list)
    loans: list[int] = field(default_factory=list)
    asking_since: dict[int, float] = field(default_factory=dict)
    is_over: bool = False
    longest_pause: float = 0.0

    def borrow(self, client: int, pool: Pool, hold: Callable[[Any], None]) -> None:
        """Make one loan for one client, and record its figures."""
        clock = time.monotonic
        asked = self.asking_since[client] = clock()
        connection = pool.connect()
        given = clock()
        if self.is_over:
            connection.close()
            return
        del self.asking_since[client]
        self.waits.append(given - asked)
        hold(connection)
        connection.close()
        if not self.is_over:
            self.holds.append(clock() - given)
            self.loans[client] += 1

    def watch(self) -> None:
        """Look every 2 ms for time in which this process neither ran nor slept of its own accord."""
        while not self.is_over:
            wall, cpu = time.monotonic(), time.process_time()
            gevent.sleep(0.002)
            pause = time.monotonic() - wall - 0.002 - (time.process_time() - cpu)
            self.longest_pause = max(self.longest_pause, pause)

    def finish(self) -> None:
        """Count the waits that are not over, and stop counting."""
        self.is_over = True
        now = time.monotonic()
        self.waits += [now - since for since in self.asking_since.values()]
        self.waits.sort()

    def quantile(self, q: float) -> float:
        """A quantile (0 to 1) of the waits, in s."""
        return self.waits[min(len(self.waits) - 1, int(q * len(self.waits)))]

    @property
    def spread(self) -> float:
        """The ratio p99 / p50 of the waits."""
        return self.quantile(0.99) / max(self.quantile(0.5), 1e-6)

    @property
    def mean_hold(self) -> float:
        """The mean hold in s, including the return."""
        return sum(self.holds) / len(self.holds)

    @property
    def max_over_ideal(self) -> float:
        """The longest wait, divided by the ideal wait of FIFO at this mean hold."""
        return self.waits[-1] / (self.clients / self.size * self.mean_hold)

    @property
    def jain(self) -> float:
        """Jain's index, (sum x)^2 / (n sum x^2): 1 if all clients were served equally often, 1/n if one had all."""
        return sum(self.loans) ** 2 / (len(self.loans) * sum(x * x for x in self.loans))

    @property
    def unserved(self) -> int:
        """The number of clients without a single loan."""
        return self.loans.count(0)

    @property
    def rate(self) -> float:
        """Loans per second."""
        return len(self.holds) / self.seconds


def make_pool(pool_class: type[Pool], backend: Backend, size: int) -> Pool:
    """Make a pool without overflow, all of whose connections are open already."""
    pool = pool_class(backend.creator, pool_size=size, max_overflow=0, timeout=60)  # type: ignore[call-arg]
    for connection in [pool.connect() for _ in range(size)]:
        connection.close()
    return pool


def closed_loop(run: PoolRun, pool: Pool, backend: Backend, between: Callable[[], None] | None) -> PoolRun:
    """Have `clients` greenlets borrow over and over for `seconds`."""
    run.loans = [0] * run.clients

    def client(number: int) -> None:
        while not run.is_over:
            run.borrow(number, pool, backend.hold)
            if between is not None:
                between()

    greenlets = [gevent.spawn(client, number) for number in range(run.clients)]
    gevent.sleep(run.seconds)
    run.finish()
    gevent.joinall(greenlets)
    return run


def yield_and_burn() -> None:
    """Do what a web request does besides its query."""
    gevent.sleep(0)
    until = time.perf_counter() + 0.0001
    while time.perf_counter() < until:
        pass


def open_loop(run: PoolRun, pool: Pool, backend: Backend, rate_per_s: float, seed: int) -> PoolRun:
    """Have clients arrive at `rate_per_s`, all planned beforehand; a generator that falls behind catches up and loses none."""
    rng = random.Random(seed)
    arrivals: list[float] = []
    at = rng.expovariate(rate_per_s)
    while at < run.seconds:
        arrivals.append(at)
        at += rng.expovariate(rate_per_s)
    run.loans = [0] * len(arrivals)
    greenlets = []
    began = time.monotonic()
    for number, at in enumerate(arrivals):
        delay = began + at - time.monotonic()
        if delay > 0:
            gevent.sleep(delay)
        greenlets.append(gevent.spawn(run.borrow, number, pool, backend.hold))
    gevent.joinall(greenlets, timeout=2)
    run.finish()
    gevent.killall(greenlets)
    return run


@dataclass(frozen=True)
class Trial:
    """One workload on pools of `size`; `hold_s`: the mean hold that the open workload counts on."""

    workload: str
    backend: Backend
    clients: int
    size: int
    seconds: float
    hold_s: float
    seed: int

    def once(self, pool_class: type[Pool]) -> PoolRun:
        """Measure on a fresh pool of this class."""
        run = PoolRun(self.clients, self.size, self.seconds)
        pool = make_pool(pool_class, self.backend, self.size)
        gc.collect()
        gevent.spawn(run.watch)
        try:
            if self.workload == "open":
                return open_loop(run, pool, self.backend, 0.9 * self.size / self.hold_s, self.seed)
            return closed_loop(run, pool, self.backend, yield_and_burn if self.workload == "web" else None)
        finally:
            pool.dispose()

    def undisturbed(self, pool_class: type[Pool]) -> PoolRun:
        """Measure until the machine lets the process run; after the last attempt take what there is."""
        for _ in range(ATTEMPTS):
            run = self.once(pool_class)
            if run.longest_pause < PAUSE_LIMIT_S:
                break
        return run


def uncontended_us(pool_class: type[Pool], loans: int = 20_000) -> float:
    """The cost of connect() + close() of a free connection, in us of CPU."""
    pool = make_pool(pool_class, scripted(0), 5)
    for _ in range(WARM_UP_LOANS):
        pool.connect().close()
    gc.collect()
    began = time.process_time()
    for _ in range(loans):
        pool.connect().close()
    return (time.process_time() - began) / loans * 1e6


def cpu_per_wait_us(pool_class: type[Pool], clients: int = 10, loans: int = 20_000) -> float:
    """The CPU time of a loan that had to wait, including the yields of client and holder, in us."""
    pool = make_pool(pool_class, scripted(0), 1)
    waited = 0

    def client() -> None:
        nonlocal waited
        while waited < loans:
            waits = pool.checkedin() == 0  # type: ignore[attr-defined]
            connection = pool.connect()
            gevent.sleep(0)
            connection.close()
            waited += waits
            gevent.sleep(0)

    gc.collect()
    began = time.process_time()
    gevent.joinall([gevent.spawn(client) for _ in range(clients)])
    return (time.process_time() - began) / waited * 1e6


def recording_us(loans: int = 100_000, rounds: int = 15) -> float:
    """The cost of FairPool's telemetry in a loan that did not wait, in us of CPU: the least of several rounds.

    The same operations on the same objects as in `_do_get` and `_do_return_conn`, less an empty loop of that length.
    """
    statistics, record = PoolStatistics(), SimpleNamespace(connect_ns=0, since_ns=0)
    clock_ns, bounds_ns = time.monotonic_ns, BOUNDS_NS

    def recorded() -> None:
        statistics.checkouts += 1
        record.connect_ns = 0
        record.since_ns = clock_ns()
        held_ns, hold = clock_ns() - record.since_ns, statistics.hold
        hold.counts[bisect_left(bounds_ns, held_ns)] += 1
        hold.total_ns += held_ns
        statistics.hold_mean_ns += (held_ns - statistics.hold_mean_ns) * SMOOTHING

    def least_s(task: Callable[[], None]) -> float:
        return min(timeit.repeat(task, number=loans, repeat=rounds, timer=time.process_time))

    return (least_s(recorded) - least_s(lambda: None)) / loans * 1e6


@dataclass(frozen=True)
class Row:
    """A line of the acceptance table: FairPool must keep the limit, and aims at the goal; `upper`: smaller is better."""

    name: str
    queue: float | None
    fair: float
    limit: float
    goal: float
    upper: bool = True

    def text(self) -> str:
        """The row as Markdown."""

        def met(bound: float) -> bool:
            return self.fair <= bound if self.upper else self.fair >= bound

        sign = "<=" if self.upper else ">="
        verdict = "goal" if met(self.goal) else "met" if met(self.limit) else "**missed**"
        queue = "" if self.queue is None else number(self.queue)
        return f"| {self.name} | {sign} {self.limit:g} | {sign} {self.goal:g} | {queue} | {number(self.fair)} | {verdict} |"


def number(value: float) -> str:
    """Format a number with four significant digits, never in powers of ten."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


POOLS: tuple[type[Pool], ...] = (QueuePool, FairPool)
COSTS = {"free": ("connect()+close(), nobody waits", 0.95, 0.6), "wait": ("CPU of a loan that waited", 0.9, 0.6)}
"""Name, limit and goal of each measured cost."""


class Findings:
    """The figures of both pools, round by round."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, type[Pool]], list[PoolRun]] = {}
        self.costs: dict[tuple[str, type[Pool]], list[float]] = {}

    def measure(self, backend: Backend, args: argparse.Namespace) -> None:
        """Run all rounds, the pools in alternation.

        The cores are kept awake while waits are measured, but not while CPU time is: another loop on the same physical core
        would slow it down."""
        hold_s = args.hold_ms / 1000
        for seed in range(args.rounds):
            with cores_awake():
                hold_s = self._measure_waits(backend, args, hold_s, seed)
            for _ in range(3):
                for pool_class in POOLS:
                    self.costs.setdefault(("free", pool_class), []).append(uncontended_us(pool_class))
                    self.costs.setdefault(("wait", pool_class), []).append(cpu_per_wait_us(pool_class))
            print(f"round {seed + 1} of {args.rounds} done", file=sys.stderr)

    def _measure_waits(self, backend: Backend, args: argparse.Namespace, hold_s: float, seed: int) -> float:
        """Run one round of the workloads. Returns the mean hold, in s."""
        for workload in ("tight", "web", "open"):
            # The tail of a wait at 90 % of the capacity depends on the arrivals, so there are several short turns.
            for turn in range(4 if workload == "open" else 1):
                trial = Trial(workload, backend, args.clients, args.size, args.seconds, hold_s, 4 * seed + turn)
                for pool_class in POOLS if (seed + turn) % 2 else POOLS[::-1]:
                    self.runs.setdefault((workload, pool_class), []).append(trial.undisturbed(pool_class))
            if workload == "tight":
                hold_s = min(self.runs["tight", pool_class][-1].mean_hold for pool_class in POOLS)
        return hold_s

    def middle(self, workload: str, pool_class: type[Pool], figure: Callable[[PoolRun], float]) -> float:
        """The median of a figure over the rounds."""
        return median(figure(run) for run in self.runs[workload, pool_class])

    def both(self, workload: str, figure: Callable[[PoolRun], float]) -> tuple[float, float]:
        """The medians of a figure of QueuePool and of FairPool."""
        return self.middle(workload, QueuePool, figure), self.middle(workload, FairPool, figure)

    def paired(self, workload: str, figure: Callable[[PoolRun], float]) -> float:
        """The median of the rounds' ratios, FairPool to QueuePool."""
        return ratio(*(map(figure, self.runs[workload, pool_class]) for pool_class in POOLS))

    def rows(self, real: bool) -> Iterable[Row]:
        """The rows of the acceptance table: the figures that have a limit."""
        for workload in ("tight", "web"):
            yield Row(
                f"{workload}: p99/p50 of wait", *self.both(workload, lambda r: r.spread), 1.5 if real else 1.25, 1.1
            )
            longest = self.both(workload, lambda r: r.max_over_ideal)
            yield Row(f"{workload}: max/ideal", *longest, 1.4 if real else 1.15, 1.05)
            yield Row(f"{workload}: Jain's index", *self.both(workload, lambda r: r.jain), 0.999, 0.9999, upper=False)
            yield Row(f"{workload}: never served", *self.both(workload, lambda r: r.unserved), 0, 0)
            rate = self.paired(workload, lambda r: r.rate)
            yield Row(f"{workload}: loans/s, x QueuePool", None, rate, 0.97, 1.03, upper=False)
        yield Row("open: p99 of wait, x QueuePool", None, self.paired("open", lambda r: r.quantile(0.99)), 0.8, 0.5)
        for kind, (name, *limits) in COSTS.items():
            yield Row(f"{name}, x QueuePool", None, ratio(*(self.costs[kind, each] for each in POOLS)), *limits)
        yield Row("recording, in us a loan", None, recording_us(), 0.5, 0.5)

    def figures(self) -> Iterable[str]:
        """Lines of the second table: the figures themselves."""
        for workload in ("tight", "web", "open"):
            shown = [f"{workload}: p50 / p99 / max wait, loans/s"]
            for pool_class in POOLS:
                waits = [self.middle(workload, pool_class, lambda r, q=q: r.quantile(q) * 1000) for q in (0.5, 0.99, 1)]
                rate = self.middle(workload, pool_class, lambda r: r.rate)
                shown.append(" / ".join(f"{wait:.1f}" for wait in waits) + f", {rate:.0f}")
            yield "| " + " | ".join(shown) + " |"
        for kind, (name, *_) in COSTS.items():
            shown = [f"{median(self.costs[kind, pool_class]):.2f} us" for pool_class in POOLS]
            yield f"| {name} | " + " | ".join(shown) + " |"


def ratio(queue: Iterable[float], fair: Iterable[float]) -> float:
    """The median of FairPool's figures over QueuePool's, pair by pair."""
    return median(f / q for q, f in zip(queue, fair, strict=True))


def acceptance(backend: Backend, real: bool, args: argparse.Namespace) -> str:
    """All figures, medians over the rounds; both tables as markdown."""
    found = Findings()
    found.measure(backend, args)
    lines = ["| figure | limit | goal | QueuePool | FairPool | verdict |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [row.text() for row in found.rows(real)]
    lines += ["", "| ms, us, loans/s | QueuePool | FairPool |", "| --- | --- | --- |", *found.figures()]
    runs = [run for column in found.runs.values() for run in column]
    disturbed = sum(run.longest_pause >= PAUSE_LIMIT_S for run in runs)
    lines += ["", f"Medians of {args.rounds} rounds of {args.seconds:g} s on {conditions()}: {args.clients} clients,"]
    lines += [f"{args.size} connections, holds of {args.hold_ms:g} ms. {disturbed} of {len(runs)} runs were disturbed."]
    return "\n".join(lines)


def fairness(pool_class: type[Pool], backend: Backend, args: argparse.Namespace) -> str:
    """One pool's figures in the three workloads, as markdown."""
    lines = ["| workload | p50 ms | p99 ms | max ms | p99/p50 | max/ideal | Jain | never served | loans/s |"]
    lines.append("| --- " * 9 + "|")
    hold_s = args.hold_ms / 1000
    for workload in ("tight", "web", "open"):
        trial = Trial(workload, backend, args.clients, args.size, args.seconds, hold_s, 0)
        run = trial.undisturbed(pool_class)
        if workload == "tight":
            hold_s = run.mean_hold
        waits = [f"{run.quantile(q) * 1000:.2f}" for q in (0.5, 0.99, 1)]
        fair = [number(run.spread), number(run.max_over_ideal), f"{run.jain:.4f}", str(run.unserved)]
        if workload == "open":
            fair = ["", "", "", str(run.unserved)]
        lines.append("| " + " | ".join([workload, *waits, *fair, f"{run.rate:.0f}"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what",
        nargs="?",
        choices=["acceptance", "fairness"],
        default="acceptance",
        help="both pools beside their limits, or the figures of one pool (default %(default)s)",
    )
    parser.add_argument("pool", nargs="?", metavar="MODULE:CLASS", help="the pool of `fairness`")
    counts = {
        "--clients": (100, "greenlets that borrow"),
        "--size": (10, "connections of the pool"),
        "--rounds": (5, "rounds of `acceptance`, of which medians are shown"),
    }
    for option, (default, meaning) in counts.items():
        parser.add_argument(option, type=int, default=default, metavar="N", help=f"{meaning} (default %(default)s)")
    parser.add_argument(
        "--hold-ms", type=float, default=5, metavar="MS", help="how long each loan lasts, in ms (default %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=2, metavar="S", help="duration of each run, in s (default %(default)s)"
    )
    parser.add_argument(
        "--url", help="libpq URL of a real server, or `embedded` for one of our own; without it the driver is a stub"
    )
    parser.add_argument("--write", action="store_true", help="put the acceptance table into docs/fair-pool.md")
    args = parser.parse_args()
    if min(args.clients, args.size, args.rounds) < 1:
        parser.error("--clients, --size and --rounds must be 1 or more")
    if not (0 < args.hold_ms <= 60_000 and 0 < args.seconds <= 3600):
        parser.error("--hold-ms must be above 0, at most a minute; --seconds above 0, at most an hour")
    if args.what == "fairness" and ":" not in (args.pool or ""):
        parser.error("fairness wants a pool class as MODULE:CLASS")
    if args.url != "embedded":
        measure(args)
        return
    with temporary_postgres(settings={"fsync": "off"}) as server:
        args.url = server.url
        measure(args)


def measure(args: argparse.Namespace) -> None:
    """Measure what the command line asks for; print it, and write it if that is wanted."""
    hold_s = args.hold_ms / 1000
    backend = postgres(args.url, hold_s) if args.url else scripted(hold_s)
    if args.what == "acceptance":
        found = acceptance(backend, args.url is not None, args)
        print(found)
        if args.write:
            put("fair-pool.md", "benchmarks/pool.py --url" if args.url else "benchmarks/pool.py", found)
        return
    module, _, name = args.pool.partition(":")
    with cores_awake():
        print(fairness(getattr(import_module(module), name), backend, args))


if __name__ == "__main__":
    main()
