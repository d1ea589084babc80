"""What FairPool raises of its own."""

from sqlalchemy import exc


class QueueFull(exc.TimeoutError):
    """A loan was refused at once: the queue already holds `max_waiting`, or the wait would be longer than `max_wait`.

    A web service answers 503.
    """


class PoolDeadlock(exc.TimeoutError):
    """Every connection is held by a greenlet or thread that itself waits for one: no wait could ever end."""


class PoolClosed(exc.InvalidRequestError):
    """The pool was closed, by `FairPool.close`, before this request had a connection."""


class CannotWait(exc.InvalidRequestError):
    """No connection is free, and here nobody can wait for one: this is a callback of gevent's event loop itself."""
