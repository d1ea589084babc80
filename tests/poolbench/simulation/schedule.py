"""One schedule: a pool, borrowers and mishaps drawn from a seed, and what must hold after every step of it."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import sqlalchemy.pool.base
from sqlalchemy import event, exc

from tests.poolbench.simulation import stand_ins
from tests.poolbench.simulation.server import Disconnected, Refused, Server
from tests.poolbench.simulation.weaving import Package
from tests.poolbench.simulation.world import MS, Stopped, Thread, World, machine

HORIZON_S = 120.0
FLAVOURS = ("threads", "greenlets", "both")


class Killed(BaseException):
    """A borrower is killed, as gevent.kill and gevent.Timeout do it."""


class ListenerError(Exception):
    """A listener of the application failed."""


class Served(deque[Any]):
    """The queue of those who wait; `on_served` is called with each of them that is taken off to be served."""

    on_served: Callable[[Any], None]

    def popleft(self) -> Any:
        """As in deque."""
        waiter = super().popleft()
        self.on_served(waiter)
        return waiter


@dataclass(frozen=True)
class Packages:
    """The pool's package: in a process without gevent, in one with it, and in one with it where nothing can come in between.

    at_fork: what it wants to be called in a forked child. Another copy of the package, loaded before or after, is not asked.
    """

    plain: Package
    with_gevent: Package
    undisturbed: Package
    at_fork: list[Any]

    @property
    def all(self) -> tuple[Package, ...]:
        """The copies of the package."""
        return self.plain, self.with_gevent, self.undisturbed

    @classmethod
    def load(cls, folder: Path) -> Packages:
        """Load them from the package's folder."""
        found = cls(
            Package(folder, "plain", stand_ins.without_gevent()),
            Package(folder, "with_gevent", stand_ins.with_gevent()),
            Package(folder, "undisturbed", stand_ins.with_gevent(), has_points=False),
            at_fork=[],
        )
        stand_ins.at_fork.clear()
        World(0)
        for package in found.all:
            # Sets of records are gone through in an order that depends on their hash.
            record = package.records.Record
            numbered = type("Numbered", (record,), {"__slots__": ("number",), "__init__": _numbered(record.__init__)})
            numbered.__hash__ = lambda self: self.number  # type: ignore[method-assign]
            package.fair_pool  # noqa: B018 - loads it
            for module in package.loaded():
                if vars(module).get("Record") is record and module is not package.records:
                    module.Record = numbered  # type: ignore[attr-defined]
            # All options are valid, and looking at that takes long.
            package.settings.check = lambda _arguments: None
        # It remembers what it found: the first schedule of a process must not differ from later ones.
        found.with_gevent.waiters.greenlets()
        found.undisturbed.waiters.greenlets()
        found.at_fork.extend(stand_ins.at_fork)
        return found


def _numbered(make: Any) -> Any:
    def numbered(self: Any, pool: Any) -> None:
        self.number = next(machine.world.idents)
        make(self, pool)

    return numbered


def _ignore(_: Any) -> None:
    """What a finalizer raises. Nobody may keep it: it refers to frames, and they to connections."""


@contextlib.contextmanager
def simulated_process() -> Iterator[None]:
    """While inside, SQLAlchemy has the simulated clock, and garbage is collected only where a schedule wants it."""
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL + 1)
    warnings.simplefilter("ignore", exc.SAWarning)
    clock = stand_ins._TIME
    gc.collect()
    gc.disable()
    gc.freeze()
    ignored = mock.patch.object(sys, "unraisablehook", _ignore)
    try:
        with mock.patch.object(sqlalchemy.pool.base, "time", clock), ignored:
            yield
    finally:
        gc.unfreeze()
        gc.enable()
        logging.getLogger("sqlalchemy.pool").setLevel(logging.NOTSET)


class Schedule:
    """One run of the simulation. `run()` returns the description of what did not hold, or None."""

    @classmethod
    def of(cls, packages: Packages, seed: int, *, trace: bool = False) -> Schedule:
        """The schedule of that seed. What an earlier one has left behind is collected now, and not while this one runs."""
        for package in packages.all:
            package.housekeeping.POOLS.clear()
            package.housekeeping.THE_PARENTS.clear()
            package.fair_pool.outside_test = None
        # All of it is young: nothing of a schedule may be there already when it is collected.
        gc.collect(1)
        return cls(packages, seed, trace=trace)

    def __init__(self, packages: Packages, seed: int, *, trace: bool) -> None:
        self.at_fork = packages.at_fork
        world = self.world = World(seed)
        world.trace = [] if trace else None
        rng, pick = world.rng, world.pick
        self.flavour = pick(FLAVOURS)
        world.is_patched = self.flavour == "greenlets"
        world.gap = pick((0, 3, 10, 40)) if self.flavour == "greenlets" else pick((4, 10, 30, 100))
        self.childrens_plans = [self._plans() for _ in range(2)]
        plans = [self._plans() for _ in range(pick(BORROWERS))]
        forgets = any(end == "forget" for each in (*self.childrens_plans, *plans) for _, _, end in each)
        self.hubs = [] if self.flavour == "threads" else [Thread(world, lambda: None, hub=True).hub]
        self.size = pick(SIZES)
        overflow = pick((0, 0, 1))
        self.limit = self.size + overflow
        self.timeout_s = pick((None, 0.02, 0.05, 0.5))
        self.server = Server(world, self.limit)
        if rng.random() < 0.3:
            self.server.refusing_share = 0.3
        if rng.random() < 0.2:
            self.server.reset_fails_share = self.server.closing_fails_share = 0.2
        self.server.switching_share = pick((0.0, 0.5, 1.0))
        self.server.connect_ns = pick(((0,), (0, 10 * MS), (20 * MS, 50 * MS)))
        self.server.idle_share = pick((0.0, 0.5))
        options: dict[str, Any] = {
            "pool_size": self.size,
            "max_overflow": overflow,
            "timeout": self.timeout_s,
            "use_lifo": rng.random() < 0.5,
        }
        for name, share, values in (
            ("max_waiting", 0.15, (0, 1, 2)),
            ("max_wait", 0.1, (0.01, 0.05)),
            ("min_size", 0.2, (1, self.size)),
            ("max_lifetime", 0.15, (0.02, 0.1)),
            ("idle_timeout", 0.2, (0.02, 0.05)),
            ("leak_threshold", 0.05, (0.01,)),
            ("recycle", 0.1, (0.02,)),
            ("maintenance_interval", 0.5, (0.01, 0.05)),
            ("openers", 0.3, (1, 1, 2)),
            ("warm_up", 0.3, (True,)),
        ):
            if rng.random() < share:
                options[name] = pick(values)
        self.options = options
        # A pool made before the event loop turns warms up in a thread.
        self.is_one_thread = self.flavour == "greenlets" and "warm_up" not in options
        if self.flavour == "threads":
            package = packages.plain
        elif self.is_one_thread and not (world.gap and forgets):
            # Nor is there garbage that could be collected within the pool's code.
            package = packages.undisturbed
        else:
            package = packages.with_gevent
        world.interrupts(package)
        package.fair_pool.outside_test = self.server.outside_test
        self.most_attempts = min(self.limit, options.get("openers", self.limit))
        server = self.server
        # SQLAlchemy looks for a creator's arguments, and wraps those that have none.
        self.pool = package.fair_pool.FairPool(lambda _record: server.connect(), **options)
        self.queue_full = package.fair_pool.QueueFull
        self._each_step = self._look_at_each_step()
        self.counts = {"lent": 0, "timeouts": 0, "rejected": 0, "killed": 0}
        self.unfinished = self.disposals = self.kills_due = 0
        self.is_forked = self.is_dying = False
        if rng.random() < 0.25:
            self._add_listeners(pick((0.0, 0.3)))
        self.borrowers: list[Any] = []
        for number, plan in enumerate(plans):
            self._spawn(f"borrower {number}", self._loans_of(number, plan))
        if rng.random() < 0.7:
            self._plan_mishaps()

    # -- what happens ----------------------------------------------------------------------------------------------

    def _spawn(self, name: str, run: Any) -> Any:
        hub = self.hubs[0] if self.hubs and (self.flavour == "greenlets" or self.world.rng.random() < 0.5) else None
        self.unfinished += 1

        def whole() -> None:
            try:
                run()
            except Stopped:
                return
            except Killed:
                self._say("killed", name)
            except Exception as error:
                import traceback

                where = traceback.extract_tb(error.__traceback__)[-1]
                with contextlib.suppress(Stopped):
                    self.world.fail(f"{name} failed with {error!r} at {where.filename}:{where.lineno}")
            self.unfinished -= 1

        made = self.world.spawn(whole, hub)
        self.borrowers.append((made, hub))
        return made

    def _plans(self) -> list[Any]:
        """Of each loan of a borrower: the pause before it, how long it lasts, both in ns, and how it ends."""
        pick = self.world.pick
        return [(pick(PAUSES_NS), pick(HOLDS_NS), pick(ENDS)) for _ in range(pick(LOANS))]

    def _loans_of(self, number: int, plan: list[Any]) -> Any:
        def run() -> None:
            for before_ns, hold_ns, end in plan:
                if before_ns:
                    self.world.pause(before_ns)
                self.borrow(number, hold_ns, end)

        return run

    def borrow(self, number: Any, hold_ns: int, end: str) -> None:
        """One loan of a borrower, checked as it goes."""
        world, pool, counts = self.world, self.pool, self.counts
        ahead, disposals = list(pool._queue.waiters), self.disposals
        began_ns = world.now_ns
        self._say("asks", number)
        try:
            loan = pool.connect()
        except self.queue_full:
            counts["rejected"] += 1
            self._say("is refused", number)
            return
        except exc.TimeoutError:
            counts["timeouts"] += 1
            self._say("timed out", number)
            self._timed_out(began_ns)
            return
        except Killed:
            counts["killed"] += 1
            raise
        except (Refused, ListenerError, Disconnected, exc.InvalidatePoolError) as error:
            self._say(f"failed with {error!r}", number)
            return
        counts["lent"] += 1
        self._say(f"has connection {loan.dbapi_connection.number} ({end})", number)
        overtaken = [waiter for waiter in ahead if waiter in pool._queue.waiters]
        if overtaken and not self.is_dying:
            world.fail(f"borrower {number} has overtaken {len(overtaken)} who began to wait before")
        connection = loan.dbapi_connection
        if connection.borrower is not None:
            world.fail(f"borrower {number} was lent the connection of borrower {connection.borrower}")
        if connection.is_closed or connection.is_the_parents:
            world.fail(f"borrower {number} was lent a connection that is closed or its parent's")
        if connection.is_disposed and disposals == self.disposals:
            world.fail(f"borrower {number} was lent a connection from before dispose()")
        connection.borrower = number
        try:
            if hold_ns:
                world.pause(hold_ns)
            if not connection.is_the_parents and connection.borrower != number:
                world.fail(f"the connection of borrower {number} was taken away from it")
            if connection.is_broken and end != "forget":
                error = Disconnected()
                with contextlib.suppress(Disconnected, ListenerError):
                    pool._invalidate(loan, error)
        except BaseException:
            with contextlib.suppress(Disconnected, ListenerError):
                loan.close()
            raise
        if end == "forget":
            world.abandon(loan)
            return
        try:
            if end == "invalidate":
                loan.invalidate()
            elif end == "soft":
                loan.invalidate(soft=True)
            elif end == "detach" and loan.is_valid:
                self.server.open.discard(connection)
                loan.detach()
        except (Disconnected, ListenerError):
            pass
        # `contextlib.suppress` takes longer, and all loans come by here.
        try:  # noqa: SIM105
            loan.close()
        except (Disconnected, ListenerError):
            pass

    def _timed_out(self, began_ns: int) -> None:
        waited_ns = self.world.now_ns - began_ns
        if self.timeout_s is None:
            self.world.fail("a wait without limit timed out")
        elif waited_ns < self.timeout_s * 1e9:
            self.world.fail(f"a wait of {self.timeout_s} s timed out after {waited_ns / 1e9:.3f} s")

    def _plan_mishaps(self) -> None:
        world, pick = self.world, self.world.pick
        for _ in range(pick(NUMBERS_OF_MISHAPS)):
            at_s = pick((0.0, 0.01, 0.01, 0.02, 0.03, 0.05))
            what = pick(MISHAPS)
            if what == "kill" and self.hubs:
                made, hub = pick(self.borrowers)
                if hub is not None:
                    world.at(at_s, lambda made=made, hub=hub: world.throw(made, hub, Killed()))
            elif what == "kill the served" and self.hubs:
                self._plan_to_kill_the_served(at_s)
            elif what == "restart":
                world.at(at_s, self.server.restart)
            elif what == "outage":
                self._plan_outage(at_s, pick(OUTAGES_S))
            elif what in ("dispose", "fork"):
                self._spawn(what, lambda what=what, at_s=at_s: (world.pause(round(at_s * 1e9)), getattr(self, what)()))

    def _plan_to_kill_the_served(self, at_s: float) -> None:
        """The next greenlet that is served is killed before it is given its connection, or before it wakes up."""
        world, queue = self.world, self.pool._queue

        def is_due() -> None:
            self.kills_due += 1

        def on_served(waiter: Any) -> None:
            hub = getattr(waiter, "hub", None)
            if self.kills_due and hub in self.hubs and not self.is_dying:
                self.kills_due -= 1
                world.throw(waiter.owner, hub, Killed())
                world.interrupt_next()

        world.at(at_s, is_due)
        if not isinstance(queue.waiters, Served):
            queue.waiters = self.pool._waiters = Served()
            queue.waiters.on_served = on_served

    def _plan_outage(self, at_s: float, lasts_s: float) -> None:
        """The server refuses for a while, and somebody asks again and again."""
        world, server = self.world, self.server

        def goes() -> None:
            server.is_down, server.attempts_while_down = not self.is_dying, 0

        def comes_back() -> None:
            pause_s = 0.05 if self.timeout_s is None else min(0.05, self.timeout_s / 2)
            # Those under way when it went, each connection found broken by its borrower, and one for each pause.
            most = 3 * self.limit + 2 + lasts_s / (0.75 * pause_s)
            if server.is_down and not self.is_forked and server.attempts_while_down > most:
                self.world.wrong(f"{server.attempts_while_down} attempts in an outage of {lasts_s} s")
            server.is_down = False
            queue, openers, long_ago_ns = self.pool._queue, self.pool._openers, world.now_ns - 600 * MS
            # A slot may have come back just now, from the garbage. The last is 0 where no attempt has failed.
            if max((*(each.began_ns for each in openers.attempts), openers.growth._away_since_ns)) > long_ago_ns:
                return
            if not any(record.lent for record in queue.taken) and any(w.since_ns < long_ago_ns for w in queue.waiters):
                self.world.wrong("somebody waits for a server that is away, and is not told")

        def ask_again() -> None:
            world.pause(round(at_s * 1e9))
            for _ in range(round(lasts_s / 0.02)):
                if server.is_down:
                    self.borrow("stubborn", 0, "close")
                world.pause(20 * MS)

        world.at(at_s, goes)
        world.at(at_s + lasts_s, comes_back)
        # A thread that is alone opens its connections itself, and so without a pause.
        if self.hubs:
            self._spawn("stubborn", ask_again)

    def dispose(self) -> None:
        """Dispose of the pool while it is in use."""
        self._say("disposes", "somebody")
        with contextlib.suppress(Disconnected, ListenerError):
            open_before = list(self.server.open)
            self.pool.dispose()
            for connection in open_before:
                connection.is_disposed = True
            self.disposals += 1

    def fork(self) -> None:
        """Go on in the forked child."""
        self._say("forks", "somebody")
        world = self.world
        world.fork()
        self.server.fork()
        self.hubs = [] if world.thread.hub is None else [world.thread.hub]
        self.is_forked, self.unfinished = True, 1
        self.counts = dict.fromkeys(self.counts, 0)
        # Garbage that is collected within the pool's own few lines after the fork is still taken for the child's.
        garbage, world.garbage = world.garbage, []
        for callback in self.at_fork:
            callback()
        world.garbage = garbage
        for number, plan in enumerate(self.childrens_plans):
            self._spawn(f"child {number}", self._loans_of(number, plan))

    def _add_listeners(self, failing_share: float) -> None:
        world = self.world

        def switching(*_: Any) -> None:
            if world.rng.random() < 0.3:
                with contextlib.suppress(RuntimeError):
                    world.pause(0)
            failing()

        def failing(*_: Any) -> None:
            if world.rng.random() < failing_share and not self.is_dying:
                raise ListenerError

        # SQLAlchemy calls the first "connect" listener under a lock of its own, which is not a simulated one.
        listeners = {"connect": failing, "checkout": switching, "checkin": switching}
        for name, listener in listeners.items():
            if world.rng.random() < 0.5:
                event.listen(self.pool, name, listener)

    def _say(self, what: str, who: Any) -> None:
        if self.world.trace is not None:
            now_ms = (self.world.now_ns - 10**12) / MS
            queue = self.pool._queue
            self.world.trace.append(
                f"{now_ms:8.1f} ms  {who} {what}  [idle {len(queue.idle)}, taken {len(queue.taken)},"
                f" waiting {len(queue.waiters)}]"
            )

    # -- what must hold ----------------------------------------------------------------------------------------------

    def _look_at_each_step(self) -> Callable[[], None]:
        """A function that looks whether there are too many slots; as a method it would take longer."""
        pool, limit, wrong = self.pool, self.limit, self.world.wrong

        def each_step() -> None:
            queue = pool._queue
            if len(queue.taken) + len(queue.free) > limit:
                wrong(f"there are {len(queue.taken)} taken and {len(queue.free)} free slots of {limit}")

        return each_step

    def _when_quiet(self) -> None:
        """Nobody can run at this instant, so that nothing is half done."""
        queue, attempts = self.pool._queue, self.pool._openers.attempts
        idle, waiters, taken, now_ns = queue.idle, queue.waiters, queue.taken, self.world.now_ns
        if len(taken) + len(queue.free) != self.limit:
            self.world.wrong(f"there are {len(taken)} taken and {len(queue.free)} free slots of {self.limit}")
        if attempts:
            if len(attempts) > self.most_attempts:
                self.world.wrong(f"{len(attempts)} connections are being opened for the queue at a time")
            if len(attempts) > len(taken) - len(idle) - len(queue.vacant):
                self.world.wrong("there are attempts without a slot")
        if waiters:
            self._look_at_the_waiting()
        if idle:
            self._look_at_the_idle()
        if self.world.garbage and (self.world.rng.random() < 0.7 or not self.world.goes_on()):
            # Whoever allocates something next collects it.
            self._spawn("the collector", self.world.collect)
            return
        for waiter in waiters:
            if waiter.deadline_ns < now_ns:
                self.world.wrong("somebody waits beyond the timeout")

    def _look_at_the_waiting(self) -> None:
        queue, attempts = self.pool._queue, self.pool._openers.attempts
        if queue.idle:
            self.world.wrong(f"{len(queue.waiters)} wait beside {len(queue.idle)} idle connections")
        if (queue.vacant or queue.free) and not attempts and not self._is_appointed():
            self.world.wrong(
                f"{len(queue.waiters)} wait beside {len(queue.vacant)} vacant and {len(queue.free)} free slots, and nobody"
                " opens a connection"
            )
        if "max_waiting" in self.options:
            # Where threads interrupt each other, a slot may count as free and as an attempt while one is begun.
            most = self.options["max_waiting"] + (0 if self.is_one_thread else self.limit)
            if len(queue.waiters) - len(attempts) - queue.room() > most:
                self.world.wrong(f"{len(queue.waiters)} wait, at most {most} may wait for others")

    def _look_at_the_idle(self) -> None:
        idle = self.pool._queue.idle
        for record in idle:
            if record not in self.pool._queue.taken:
                self.world.wrong("an idle connection has no slot")
            connection = record.dbapi_connection
            if connection is None or connection.is_closed:
                self.world.wrong("an idle connection is closed")
            elif connection.borrower is not None:
                self.world.wrong("a connection is idle, and lent")
        if len(idle) > 1 and len(set(idle)) != len(idle):
            self.world.wrong("a connection is idle twice")

    def _is_appointed(self) -> bool:
        """Whether somebody will look at the queue again."""
        return any(due_ns >= self.world.now_ns for due_ns in self.pool._openers.appointments)

    def run(self) -> str | None:
        """Run the schedule to its end."""
        world = self.world
        try:
            self._phase(lambda: not self.unfinished, HORIZON_S)
            if world.failure is None and self.unfinished:
                self.world.wrong(f"{self.unfinished} borrowers never ended")
            self._end()
        except Exception as error:
            # Of the pool's own threads, where nobody would catch it.
            self.world.wrong(f"{type(error).__name__} in the pool's own thread: {error}")
        finally:
            world.end()
            # Otherwise the pool would be left to the next collection, with all that it refers to.
            vars(self.pool).clear()
        return world.failure

    def _phase(self, is_done: Any, until_s: float) -> None:
        self.world.run(is_done, self._each_step, self._when_quiet, until_s)

    def _end(self) -> None:
        """Dispose of the pool, which must then have nothing; before that, now and then, it must lend all it can at once."""
        world, server, pool = self.world, self.server, self.pool
        if world.failure is not None:
            return
        server.is_down = False
        server.refusing_share = server.reset_fails_share = server.closing_fails_share = 0.0
        self.is_dying = True
        world.gap = 0
        held: list[Any] = []
        lends = world.rng.random() < LAST_LOANS

        def last() -> None:
            nonlocal lends
            while world.garbage:
                world.collect()
            queue = pool._queue
            if len(queue.taken) > len(queue.idle) + len(queue.vacant):
                # A connection may be in a circle of references, such as that of an exception and its frames.
                gc.collect(0)
            if lends:
                self._lend_all(held)
                lends = False
            pool.dispose()

        self._spawn("the owner", last)
        self._phase(lambda: not self.unfinished, HORIZON_S)
        if world.failure is None and self.unfinished:
            few = f"only {len(held)} of {self.limit} connections can be lent at the end"
            self.world.wrong(few if lends else "dispose() never ended")
        self._phase(lambda: False, 5.0)
        if world.failure is None:
            self._look_at_what_is_left()

    def _lend_all(self, held: list[Any]) -> None:
        for _ in range(100):
            # Housekeeping may be opening or closing some at this moment.
            try:
                while len(held) < self.limit:
                    held.append(self.pool.connect())
                break
            except exc.TimeoutError as error:
                self.counts["rejected" if isinstance(error, self.queue_full) else "timeouts"] += 1
                self.world.pause(10 * MS)
        else:
            self.world.wrong(f"only {len(held)} of {self.limit} connections can be lent at the end")
        while held:
            with contextlib.suppress(Disconnected, ListenerError):
                held.pop().close()

    def _look_at_what_is_left(self) -> None:
        world, pool = self.world, self.pool
        queue, statistics = pool._queue, pool._statistics
        if self.server.open or self.server.opening:
            self.world.wrong(f"{len(self.server.open)} connections are open after dispose()")
        if queue.taken or len(queue.free) != self.limit or queue.waiters:
            self.world.wrong(
                f"after dispose(): {len(queue.taken)} slots taken, {len(queue.free)} free, {len(queue.waiters)} wait"
            )
        if pool._connecting_now or pool._openers.attempts:
            self.world.wrong(f"{len(pool._connecting_now)} connections are counted as being opened after dispose()")
        if world.rng.random() < SNAPSHOTS:
            snapshot = pool.snapshot()
            if snapshot.in_use or snapshot.idle or snapshot.waiting or snapshot.connecting:
                self.world.wrong(f"gauges after dispose(): {snapshot}")
        if sum(statistics.wait.counts) > statistics.checkouts + statistics.unserved:
            self.world.wrong("more waits are counted than loans and waits in vain")
        counted = statistics.rare
        for name in ("timeouts", "rejected"):
            if counted[name] != self.counts[name]:
                self.world.wrong(f"{self.counts[name]} {name}, counted {counted[name]}")
        if counted["cancelled"] > self.counts["killed"]:
            self.world.wrong(f"{self.counts['killed']} killed while they waited, counted {counted['cancelled']}")
        if pool.checkedout() or pool.checkedin():
            self.world.wrong(pool.status())
        if len(world.threads) > len(self.hubs):
            self.world.wrong(f"{len(world.threads) - len(self.hubs)} threads of the pool run on after dispose()")


LAST_LOANS = 0.15
"""Share of the schedules at whose end all connections are lent at once; a slot that is lost is seen in the others, too."""
SNAPSHOTS = 0.1
"""Share of the schedules that take a snapshot at the end, which takes longer than the looks at what it shows."""

PAUSES_NS = (0, 0, 10 * MS, 20 * MS)
HOLDS_NS = (0, 0, 10 * MS, 20 * MS, 50 * MS)
OUTAGES_S = (0.02, 0.3, 0.3, 1.0)
SIZES = (1, 1, 1, 1, 2, 3)
BORROWERS = (2, 2, 3, 4, 5)
LOANS = (1, 1, 1, 1, 1, 2)
NUMBERS_OF_MISHAPS = (1, 1, 2, 3)
"""Sizes of a schedule: more of them find the faults than fewer large ones. With sizes (1, 1, 2, 3), borrowers (2, 3, 4, 5) and
loans (1, 1, 2, 3), each took 30 % longer, and the CPU to find one of the 13 mutants that hide best (the geometric mean, in 1,000
schedules each) was 41 ms; with these it was 36 ms. Fewer borrowers find less: to meet takes several.
"""


def _weighted(**shares: int) -> tuple[str, ...]:
    return tuple(name.replace("_", " ") for name, share in shares.items() for _ in range(share))


ENDS = _weighted(close=12, invalidate=1, soft=1, detach=1, forget=3)
MISHAPS = _weighted(kill=6, kill_the_served=3, restart=2, outage=2, dispose=2, fork=2)


@cache
def packages_in(folder: Path) -> Packages:
    """The packages in that folder, loaded once."""
    return Packages.load(folder)
