"""Faults to be found: one line of the pool each, as it is and as it would be wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A line of a file of the package, which must be there exactly once, and what takes its place."""

    file: str
    line: str
    instead: str
    breaks: str


MUTANTS = tuple(
    Mutant(*row)
    for row in (
        ("fair_queue.py", "waiter = waiters.popleft()", "waiter = waiters.pop()",
         "whoever came last is served first"),
        ("fair_queue.py", "self.vacant.appendleft(resource)", "pass", "a slot whose connection is closed is lost"),
        ("fair_queue.py", "return removed(self.waiters, waiter) or self._reclaim(waiter)",
         "return removed(self.waiters, waiter)", "what a killed waiter was granted is lost"),
        ("fair_queue.py", "self.taken.discard(resource)", "pass", "a slot that was given up stays taken"),
        ("fair_queue.py", "if self.limit is not None and not (self.surplus and _taken_from(self.surplus)):", "if False:",
         "a slot that was given up is lost"),
        ("fair_queue.py", "tokens.pop()", "tokens[-1]", "a free slot is used without being taken"),
        ("fair_queue.py", "self.taken.add(resource)", "pass", "a slot in use is in no book"),
        ("fair_queue.py", "waiter.granted.append(resource)", "waiter.granted.append(resource); waiters.append(waiter)",
         "a served waiter stays in the queue"),
        ("fair_queue.py", "queue.remove(item)", "item in queue and queue.remove(item)",
         "whoever left the queue too late believes to have left it"),
        ("waiters.py", "self._bell.release()", "pass", "a served thread is not woken up"),
        ("waiters.py", "self.expired = True", "pass", "threads never time out"),
        ("waiters.py", "left_s = (self.deadline_ns - time.monotonic_ns()) / 1e9",
         "left_s = (self.deadline_ns - time.monotonic_ns()) / 2e9; self.deadline_ns = 0",
         "a thread times out too early"),
        ("greenlets.py", "if waiter.deadline_ns > now_ns:", "if waiter.deadline_ns < now_ns:",
         "a greenlet times out with the first one of the queue"),
        ("greenlets.py", "if self._parked:", "if True:", "a greenlet that sleeps elsewhere is woken up"),
        ("fair_pool.py", "if queue.abandon(waiter):", "if removed(queue.waiters, waiter):",
         "what a killed borrower was granted is lost"),
        ("admission.py", 'pool._statistics.rare["timeouts"] += 1', "pass", "timeouts are not counted"),
        ("fair_pool.py", "if self._waiters:", "if False:", "a returned connection rests while somebody waits"),
        ("fair_pool.py", "opening.pop()", "pass", "connecting is counted, and never ends"),
        ("fair_pool.py", "self._openers.look(waiter.since_ns)", "pass", "nobody opens a connection for a waiter"),
        ("fair_queue.py", "waiter.expired = True", "pass", "a waiter that is told of a failure sleeps on"),
        ("openers.py", "if self.attempts.index(attempt) < most:", "if True:",
         "more connections are opened at a time than `openers` allows"),
        ("openers.py", "pool._return_failed(record)", "pass", "the slot of a failed attempt is lost"),
        ("openers.py", "self._tell(pool, failure, began_ns)", "pass", "nobody is told that the server is away"),
        ("openers.py", "removed(self.appointments, due_ns)", "pass", "nobody looks again after a pause"),
        ("growth.py", "return 1 if now_ns >= self._next_try_ns else 0", "return 1",
         "attempts follow each other without a pause"),
        ("records.py", "self.expires_ns = 0", "pass", "dispose() leaves lent connections open"),
        ("fair_pool.py", "if record not in self._queue.taken:", "if False:",
         "a loan of the parent comes back to the child's pool"),
        ("housekeeping.py", "THE_PARENTS.extend(record.forget() for record in list(pool._queue.taken))", "pass",
         "a forked child uses its parent's connections"),
        ("housekeeping.py", "if (too_old or too_idle) and removed(queue.idle, record):", "if too_old or too_idle:",
         "housekeeping closes a connection that was lent meanwhile"),
        ("fair_queue.py", "if waiter.gone:", "if False:", "what is granted to a greenlet that was just killed is lost"),
        ("admission.py", "if max_waiting is not None and waiting > max_waiting and removed(waiters, waiter):",
         "if max_waiting is not None and waiting > max_waiting + 5 and removed(waiters, waiter):",
         "more may wait than `max_waiting` allows"),
        ("waiters.py", "if time.monotonic_ns() >= self.deadline_ns and removed(queue.waiters, self):",
         "if time.monotonic_ns() >= self.deadline_ns:", "a thread times out without leaving the queue"),
    )
)  # fmt: skip


def mutated(source: str, mutant: Mutant) -> str:
    """The file's text with the fault in it. Raises ValueError if the line is not there exactly once."""
    found = [number for number, line in enumerate(source.splitlines()) if line.strip() == mutant.line]
    if len(found) != 1:
        raise ValueError(
            f"{mutant.file} has the line {mutant.line!r} {len(found)} times; the table of mutants wants it once"
        )
    lines = source.splitlines(keepends=True)
    lines[found[0]] = lines[found[0]].replace(mutant.line, mutant.instead)
    return "".join(lines)
