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
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import sqlalchemy.pool.base
from sqlalchemy import event, exc

from tests.poolbench.simulation import stand_ins
from tests.poolbench.simulation.server import Disconnected, Refused, Server
from tests.poolbench.simulation.weaving import Package
from tests.poolbench.simulation.world import (
    MS,
    Stopped,
    Thread,
    World,
    after,
    after_a_call,
    countdown,
    interrupt,
    machine,
)

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
    """The pool's package, in a process without gevent and in one with it.

    at_fork: what it wants to be called in a forked child. Another copy of the package, loaded before or after, is not asked.
    """

    plain: Package
    with_gevent: Package
    at_fork: list[Any]

    @classmethod
    def load(cls, folder: Path) -> Packages:
        """Load both from the package's folder."""
        points = {"interrupt": interrupt, "after_a_call": after_a_call, "after": after}
        found = cls(
            Package(folder, "plain", stand_ins.without_gevent(), **points),
            Package(folder, "with_gevent", stand_ins.with_gevent(), **points),
            at_fork=[],
        )
        stand_ins.at_fork.clear()
        World(0)
        for package in (found.plain, found.with_gevent):
            # Sets of records are gone through in an order that depends on their hash.
            record = package.records.Record
            numbered = type("Numbered", (record,), {"__slots__": ("number",), "__init__": _numbered(record.__init__)})
            numbered.__hash__ = lambda self: self.number  # type: ignore[method-assign]
            package.fair_pool  # noqa: B018 - loads it
            for module in package.loaded():
                if vars(module).get("Record") is record and module is not package.records:
                    module.Record = numbered  # type: ignore[attr-defined]
        # It remembers what it found: the first schedule of a process must not differ from later ones.
        found.with_gevent.waiters.greenlets()
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
    logging.getLogger("sqlalchemy.pool").addHandler(logging.NullHandler())
    logging.getLogger("sqlalchemy.pool").propagate = False
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
        logging.getLogger("sqlalchemy.pool").propagate = True


class Schedule:
    """One run of the simulation. `run()` returns the description of what did not hold, or None."""

    def __init__(self, packages: Packages, seed: int, *, trace: bool = False) -> None:
        self.at_fork = packages.at_fork
        for package in (packages.plain, packages.with_gevent):
            package.housekeeping.POOLS.clear()
        # Only what this schedule leaves behind may be collected while it runs. What the one before left is young.
        World(0)
        gc.collect(1)
        world = self.world = World(seed)
        world.trace = [] if trace else None
        rng, pick = world.rng, world.pick
        self.flavour = pick(FLAVOURS)
        world.is_patched = self.flavour == "greenlets"
        world.gap = pick((0, 3, 10, 40)) if self.flavour == "greenlets" else pick((4, 10, 30, 100))
        package = packages.plain if self.flavour == "threads" else packages.with_gevent
        countdown.follow(package.names)
        self.hubs = [] if self.flavour == "threads" else [Thread(world, lambda: None, hub=True).hub]
        self.size = pick((1, 1, 2, 3))
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
        package.fair_pool.outside_test = self.server.outside_test
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
        self.most_attempts = min(self.limit, options.get("openers", self.limit))
        # As a `partial`: SQLAlchemy looks for the arguments of a method, which takes long.
        self.pool = package.fair_pool.FairPool(partial(self.server.connect), **options)
        self.queue_full = package.fair_pool.QueueFull
        self.counts = {"lent": 0, "timeouts": 0, "rejected": 0, "killed": 0}
        self.unfinished = self.disposals = self.kills_due = 0
        self.is_forked = self.is_dying = False
        if rng.random() < 0.25:
            self._add_listeners(pick((0.0, 0.3)))
        self.borrowers: list[Any] = []
        for number in range(pick(BORROWERS)):
            self._spawn(f"borrower {number}", self._loans_of(number))
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

    def _loans_of(self, number: int) -> Any:
        pick = self.world.pick
        plans = [
            (
                pick((0, 0, 10 * MS, 20 * MS)),
                pick((0, 0, 10 * MS, 20 * MS, 50 * MS)),
                pick(ENDS),
            )
            for _ in range(pick(LOANS))
        ]

        def run() -> None:
            for before_ns, hold_ns, end in plans:
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
                loan.close()
                return
        except (Disconnected, ListenerError):
            pass
        with contextlib.suppress(Disconnected, ListenerError):
            loan.close()

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
                self._plan_outage(at_s, pick((0.02, 0.3, 1.0)))
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
                self._wrong(f"{server.attempts_while_down} attempts in an outage of {lasts_s} s")
            server.is_down = False
            queue, long_ago_ns = self.pool._queue, world.now_ns - 600 * MS
            if not any(record.lent for record in queue.taken) and any(w.since_ns < long_ago_ns for w in queue.waiters):
                self._wrong("somebody waits for a server that is away, and is not told")

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
        for number in range(2):
            self._spawn(f"child {number}", self._loans_of(number))

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

    def _each_step(self) -> None:
        queue = self.pool._queue
        if len(queue.taken) + len(queue.free) > self.limit:
            self._wrong(f"there are {len(queue.taken)} taken and {len(queue.free)} free slots of {self.limit}")

    def _when_quiet(self) -> None:
        """Nobody can run at this instant, so that nothing is half done."""
        queue, attempts = self.pool._queue, self.pool._openers.attempts
        idle, waiters, taken, now_ns = queue.idle, queue.waiters, queue.taken, self.world.now_ns
        if len(taken) + len(queue.free) != self.limit:
            self._wrong(f"there are {len(taken)} taken and {len(queue.free)} free slots of {self.limit}")
        if attempts:
            if len(attempts) > self.most_attempts:
                self._wrong(f"{len(attempts)} connections are being opened for the queue at a time")
            if len(attempts) > len(taken) - len(idle) - len(queue.vacant):
                self._wrong("there are attempts without a slot")
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
                self._wrong("somebody waits beyond the timeout")

    def _look_at_the_waiting(self) -> None:
        queue, attempts = self.pool._queue, self.pool._openers.attempts
        if queue.idle:
            self._wrong(f"{len(queue.waiters)} wait beside {len(queue.idle)} idle connections")
        if (queue.vacant or queue.free) and not attempts and not self._is_appointed():
            self._wrong(
                f"{len(queue.waiters)} wait beside {len(queue.vacant)} vacant and {len(queue.free)} free slots, and nobody"
                " opens a connection"
            )
        if "max_waiting" in self.options:
            # Where threads interrupt each other, a slot may count as free and as an attempt while one is begun.
            most = self.options["max_waiting"] + (0 if self.flavour == "greenlets" else self.limit)
            if len(queue.waiters) - len(attempts) - queue.room() > most:
                self._wrong(f"{len(queue.waiters)} wait, at most {most} may wait for others")

    def _look_at_the_idle(self) -> None:
        idle = self.pool._queue.idle
        for record in idle:
            if record not in self.pool._queue.taken:
                self._wrong("an idle connection has no slot")
            connection = record.dbapi_connection
            if connection is None or connection.is_closed:
                self._wrong("an idle connection is closed")
            elif connection.borrower is not None:
                self._wrong("a connection is idle, and lent")
        if len(idle) > 1 and len(set(idle)) != len(idle):
            self._wrong("a connection is idle twice")

    def _is_appointed(self) -> bool:
        """Whether somebody will look at the queue again."""
        return any(due_ns >= self.world.now_ns for due_ns in self.pool._openers.appointments)

    def _wrong(self, what: str) -> None:
        with contextlib.suppress(Stopped):
            self.world.fail(what)

    def run(self) -> str | None:
        """Run the schedule to its end."""
        world = self.world
        try:
            self._phase(lambda: not self.unfinished, HORIZON_S)
            if world.failure is None and self.unfinished:
                self._wrong(f"{self.unfinished} borrowers never ended")
            self._last_loans()
            self._end_of_the_pool()
        except Exception as error:
            # Of the pool's own threads, where nobody would catch it.
            self._wrong(f"{type(error).__name__} in the pool's own thread: {error}")
        finally:
            world.end()
        return world.failure

    def _phase(self, is_done: Any, until_s: float) -> None:
        self.world.run(is_done, self._each_step, self._when_quiet, until_s)

    def _last_loans(self) -> None:
        """The pool must be able to lend all its connections at once."""
        world, server = self.world, self.server
        if world.failure is not None:
            return
        server.is_down = False
        server.refusing_share = server.reset_fails_share = server.closing_fails_share = 0.0
        self.is_dying = True
        world.gap = 0
        held: list[Any] = []

        def collect() -> None:
            while world.garbage:
                world.collect()
            queue = self.pool._queue
            if len(queue.taken) > len(queue.idle) + len(queue.vacant):
                # A connection may be in a circle of references, such as that of an exception and its frames.
                gc.collect(0)
            for _ in range(100):
                # Housekeeping may be opening or closing some at this moment.
                try:
                    while len(held) < self.limit:
                        held.append(self.pool.connect())
                    break
                except exc.TimeoutError as error:
                    self.counts["rejected" if isinstance(error, self.queue_full) else "timeouts"] += 1
                    world.pause(10 * MS)
            else:
                self._wrong(f"only {len(held)} of {self.limit} connections can be lent at the end")
            for loan in held:
                with contextlib.suppress(Disconnected, ListenerError):
                    loan.close()
            held.clear()

        self._spawn("the last borrower", collect)
        self._phase(lambda: not self.unfinished, HORIZON_S)
        if world.failure is None and self.unfinished:
            self._wrong(f"only {len(held)} of {self.limit} connections can be lent at the end")

    def _end_of_the_pool(self) -> None:
        world, pool = self.world, self.pool
        if world.failure is not None:
            return
        self._spawn("the owner", pool.dispose)
        self._phase(lambda: not self.unfinished, HORIZON_S)
        self._phase(lambda: False, 5.0)
        if world.failure is not None:
            return
        queue, snapshot = pool._queue, pool.snapshot()
        if self.server.open or self.server.opening:
            self._wrong(f"{len(self.server.open)} connections are open after dispose()")
        if queue.taken or len(queue.free) != self.limit or queue.waiters:
            self._wrong(
                f"after dispose(): {len(queue.taken)} slots taken, {len(queue.free)} free, {len(queue.waiters)} wait"
            )
        if snapshot.in_use or snapshot.idle or snapshot.waiting or snapshot.connecting:
            self._wrong(f"gauges after dispose(): {snapshot}")
        statistics = pool._statistics
        if sum(statistics.wait.counts) > statistics.checkouts + statistics.unserved:
            self._wrong("more waits are counted than loans and waits in vain")
        for name in ("timeouts", "rejected"):
            if getattr(snapshot, name) != self.counts[name]:
                self._wrong(f"{self.counts[name]} {name}, counted {getattr(snapshot, name)}")
        if snapshot.cancelled > self.counts["killed"]:
            self._wrong(f"{self.counts['killed']} killed while they waited, counted {snapshot.cancelled}")
        if pool.checkedout() or pool.checkedin():
            self._wrong(pool.status())
        if len(world.threads) > len(self.hubs):
            self._wrong(f"{len(world.threads) - len(self.hubs)} threads of the pool run on after dispose()")


BORROWERS = (2, 3, 4, 5)
LOANS = (1, 1, 2, 3)
NUMBERS_OF_MISHAPS = (1, 1, 2, 3)
"""Sizes of a schedule. With more small ones, borrowers (2, 2, 3, 3, 4, 5) and loans (1, 1, 1, 1, 2, 3), 24 mutants took 1.03 s
of CPU to be found one after another, on average of up to 40 times each; with these sizes 0.99 s.
"""


def _weighted(**shares: int) -> tuple[str, ...]:
    return tuple(name.replace("_", " ") for name, share in shares.items() for _ in range(share))


ENDS = _weighted(close=12, invalidate=1, soft=1, detach=1, forget=3)
MISHAPS = _weighted(kill=6, kill_the_served=3, restart=2, outage=2, dispose=2, fork=2)


@cache
def packages_in(folder: Path) -> Packages:
    """The packages in that folder, loaded once."""
    return Packages.load(folder)
