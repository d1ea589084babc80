"""What one loan of a connection cost."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns


@dataclass(slots=True)
class Checkout:
    """The cost of one loan, in ns of `time.perf_counter_ns`; filled in while it happens, so that a failed one counts too."""

    wait_ns: int = 0
    """From asking to having, less the time spent connecting."""
    connect_ns: int = 0
    """Opening a connection for this loan."""
    held_ns: int = 0
    """From having to giving back: the statements, and reading their rows."""


class _Asking(threading.local):
    """The loan that the running greenlet (or thread) is waiting for.

    Not a context variable: a greenlet inherits those, and one that opens connections in the background would charge
    them to the request in which it was born.
    """

    checkout: Checkout | None = None


asking = _Asking()


@contextmanager
def connecting() -> Iterator[None]:
    """Charge the enclosed time to the loan that the running greenlet waits for, if there is one, as connecting.

    Of nested blocks only the outermost counts.
    """
    checkout, asking.checkout = asking.checkout, None
    started = perf_counter_ns()
    try:
        yield
    finally:
        asking.checkout = checkout
        if checkout is not None:
            checkout.connect_ns += perf_counter_ns() - started
