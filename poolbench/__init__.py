"""A fair connection pool for SQLAlchemy, and the engine plugin that puts it into any application by a URL.

Needs SQLAlchemy 2.0 or newer and nothing else; where a process uses gevent, greenlets wait in the same queue as threads.
"""

import sqlalchemy

if int(sqlalchemy.__version__.split(".", maxsplit=1)[0]) < 2:
    raise ImportError(f"poolbench needs SQLAlchemy 2.0 or newer; SQLAlchemy {sqlalchemy.__version__} is installed here")

from poolbench.costs import LoanCost, server_timing_header
from poolbench.errors import CannotWait, PoolClosed, PoolDeadlock, QueueFull
from poolbench.fair_pool import FairPool
from poolbench.plugin import PoolbenchPlugin
from poolbench.records import checkout_of
from poolbench.telemetry import Histogram, OldLoan, PoolSnapshot
from poolbench.watching import watch
from poolbench.wsgi import server_timing

__all__ = [
    "CannotWait",
    "FairPool",
    "Histogram",
    "LoanCost",
    "OldLoan",
    "PoolClosed",
    "PoolDeadlock",
    "PoolSnapshot",
    "PoolbenchPlugin",
    "QueueFull",
    "checkout_of",
    "server_timing",
    "server_timing_header",
    "watch",
]
