"""The rules of the queue: who is given which slot, and when. Pure Python: no gevent, no SQLAlchemy, no input or output.

A *slot* is the right to have one connection. The object that stands for a taken slot is a *resource*: idle if its
connection is open and can be lent, vacant if the connection has to be opened first. `Waiter` is the small protocol that
greenlets, threads, and whatever else can wait have in common.

Rules
-----
1.  Idle resources rest only while nobody waits: whoever puts one back looks at the queue afterwards, and whoever joins
    the queue looks for idle resources afterwards. So no order of events leaves both a waiter and something to give to it.
    A free slot may rest beside a waiter, since opening a connection takes time and a return may come first. `on_room` is
    called when the two may have met: it has connections opened for the queue, not for one waiter (openers.py).
2.  The queue is the decision. A waiter is served, or told of a failure, by whoever takes it off the queue, and gives up
    (timeout, kill) by taking itself off. The deque allows exactly one of these.
3.  A served waiter finds its resource in `granted`. If it died in the meantime, whoever pops the resource from there
    passes it on.
4.  Every step that changes the books is one operation on a built-in list, deque or set, and the books are right after
    each. There is no lock and no "busy" flag. Hence all of this is safe when a garbage collection in the middle of these
    lines rolls back a forgotten connection and thereby *switches greenlets*, and when connections come back in other
    threads.

What rule 4 asks of the interpreter is what CPython documents about its global interpreter lock: a method of a built-in
type that runs no Python code is atomic, and all threads see such operations in one order. (`deque.remove` compares by
identity and by `object.__eq__`, which is C code.) Without that lock nothing here is promised, so `FairQueue` refuses to
start there. Counters (`+= 1`) are exact among greenlets and approximate among threads.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Resource = TypeVar("Resource")

NEVER_NS = 1 << 63
"""A deadline, in ns of the monotonic clock, that never comes."""


class Waiter(ABC):
    """Somebody in the queue: a greenlet, a thread, or whatever can sleep until it is notified.

    granted: where it finds its resource (rule 3). deadline_ns: when its wait ends, in ns of the monotonic clock.
    expired: it was taken off the queue and granted nothing: the deadline has passed, or there is a `failure` for it to
    raise. gone: it left the queue with an exception. owner: the greenlet or thread, comparable with `waiters.current()`.
    """

    __slots__ = ("deadline_ns", "expired", "failure", "gone", "granted", "owner", "since_ns")

    def __init__(self, owner: Any, timeout_ns: int | None) -> None:
        self.owner = owner
        self.granted: list[Any] = []
        self.expired = self.gone = False
        self.failure: BaseException | None = None
        self.since_ns = time.monotonic_ns()
        self.deadline_ns = NEVER_NS if timeout_ns is None else self.since_ns + timeout_ns

    @abstractmethod
    def notify(self) -> None:
        """Wake the waiter up soon; may be called in any thread. Called once, by whoever took it off the queue."""

    @abstractmethod
    def sleep(self, queue: FairQueue[Any]) -> None:
        """Sleep until notified, or until the deadline has passed: then leave `queue` and set `expired`, in this order.

        May return early for no reason. Whatever the sleeper's surroundings throw at it comes out of here.
        """

    @abstractmethod
    def start(self, work: Callable[[], Any], delay_s: float = 0) -> None:
        """Have `work` run in `delay_s`, in a greenlet or thread of its own beside the waiter; may be called in any thread.

        Raises RuntimeError if no thread can be started.
        """

    def leave(self) -> None:  # noqa: B027 - only greenlets have something to undo
        """The wait is over, however it ended: undo what `sleep` set up."""


def removed(queue: deque[Any] | list[Any], item: Any) -> bool:
    """Take the item out of the queue. False: somebody else has done so (rules 2 and 4)."""
    try:
        queue.remove(item)
    except ValueError:
        return False
    return True


def _taken_from(tokens: list[None]) -> bool:
    try:
        tokens.pop()
    except IndexError:
        return False
    return True


class FairQueue(Generic[Resource]):
    """Slots, resources, and the strict queue in front of them.

    limit: number of slots, or None for no limit. use_lifo: whether the resource idle for the shortest time is given
    first. new: makes the resource of a slot that has just been taken. put_back: called with a resource that was taken
    for a waiter who is no longer there; it must end in `add_idle`, `add_vacant` or `drop`. on_room: called when there may
    be both waiters and room, that is, slots whose connection could be opened.

    To join the queue is to append oneself to `waiters`, to call `match`, and then `on_room` if there `is_room` (rule 1). The
    other collections may be read
    from outside; idle and vacant hold the longest unused at the left. surplus: as many entries as slots are taken beyond a limit
    that was lowered; the next slots that are given up are not free.
    """

    def __init__(
        self,
        limit: int | None,
        use_lifo: bool,
        new: Callable[[], Resource],
        put_back: Callable[[Resource], None],
        on_room: Callable[[], None],
    ) -> None:
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            raise RuntimeError("FairPool needs CPython's global interpreter lock; this interpreter runs without it")
        self.limit = limit
        self.idle: deque[Resource] = deque()
        self.vacant: deque[Resource] = deque()
        self.waiters: deque[Waiter] = deque()
        self.free: list[None] = [None] * (limit or 0)
        self.surplus: list[None] = []
        self.taken: set[Resource] = set()
        self.handed_over = 0
        self.take_idle: Callable[[], Resource] = self.idle.pop if use_lifo else self.idle.popleft
        self._new = new
        self._put_back = put_back
        self._on_room = on_room

    def is_room(self) -> bool:
        """Whether a connection could be opened within the limit."""
        return bool(self.free or self.vacant or self.limit is None)

    def room(self) -> int:
        """Number of connections that could be opened now; a very large number without a limit."""
        return sys.maxsize if self.limit is None else len(self.free) + len(self.vacant)

    def resting(self) -> int:
        """Number of resources that nobody has borrowed."""
        return len(self.idle) + len(self.vacant)

    def take_vacant(self) -> Resource | None:
        """A resource whose connection must be opened first: a vacant one, else that of a free slot; None without either."""
        # An empty collection is not popped, since an exception costs more. Another thread may still empty it first.
        if self.vacant:
            try:
                return self.vacant.pop()
            except IndexError:
                pass
        if self.limit is not None and not (self.free and _taken_from(self.free)):
            return None
        resource = self._new()
        self.taken.add(resource)
        return resource

    def add_idle(self, resource: Resource) -> None:
        """Take back a resource whose connection can be lent."""
        self.idle.append(resource)
        if self.waiters:
            self.match()

    def add_vacant(self, resource: Resource, *, is_open: bool) -> None:
        """Take back a resource that must reconnect. Those still open are used first, so that they are closed."""
        if is_open:
            self.vacant.append(resource)
        else:
            self.vacant.appendleft(resource)
        if self.waiters:
            self._on_room()

    def drop(self, resource: Resource) -> None:
        """Give up the resource: its slot is free."""
        self.taken.discard(resource)
        if self.limit is not None and not (self.surplus and _taken_from(self.surplus)):
            self.free.append(None)
        if self.waiters:
            self._on_room()

    def change_limit(self, change: int) -> None:
        """Add `change` slots, or take away as many: free ones at once, then those given up next. There must be a limit."""
        if self.limit is None:
            raise ValueError("a queue without a limit has none to change")
        self.limit += change
        for _ in range(change):
            if not _taken_from(self.surplus):
                self.free.append(None)
        self.surplus.extend([None] * -change)
        while self.surplus and _taken_from(self.free):
            if not _taken_from(self.surplus):
                self.free.append(None)
        if self.waiters:
            self._on_room()

    def take_longest_unused(self) -> Resource | None:
        """The resource, idle or else vacant, that was not used for the longest time; None if none rests."""
        for shelf in (self.idle, self.vacant):
            if shelf:
                try:
                    return shelf.popleft()
                except IndexError:
                    pass
        return None

    def fail(self, waiter: Waiter, failure: BaseException) -> bool:
        """Have the waiter raise `failure`. False: it was served, or had left, already."""
        if not removed(self.waiters, waiter):
            return False
        waiter.failure = failure
        waiter.expired = True
        waiter.notify()
        return True

    def abandon(self, waiter: Waiter) -> bool:
        """The waiter leaves with an exception; what it was granted goes to the next. False: it had neither."""
        waiter.gone = True
        return removed(self.waiters, waiter) or self._reclaim(waiter)

    def match(self) -> None:
        """Give idle resources to waiters, oldest first, until either runs out.

        May be entered again at any point, by another greenlet or thread: a resource is taken before its waiter, so
        that the waiter is the oldest at that moment, and what came in between is seen in the next round.
        """
        waiters, idle = self.waiters, self.idle
        while waiters and idle:
            try:
                resource = self.take_idle()
            except IndexError:
                continue
            try:
                waiter = waiters.popleft()
            except IndexError:
                self._put_back(resource)
                continue
            waiter.granted.append(resource)
            if waiter.gone:
                self._reclaim(waiter)
            else:
                self.handed_over += 1
                waiter.notify()

    def _reclaim(self, waiter: Waiter) -> bool:
        try:
            resource = waiter.granted.pop()
        except IndexError:
            return False
        self._put_back(resource)
        return True
