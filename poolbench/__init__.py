"""A fair connection pool for SQLAlchemy, and the engine plugin that puts it into any application by a URL."""

import sqlalchemy

if sqlalchemy.__version__.startswith(("0.", "1.")):
    raise ImportError(f"poolbench needs SQLAlchemy 2.0 or newer; here is {sqlalchemy.__version__}", name="sqlalchemy")

from poolbench.fair_pool import CannotWait, FairPool, PoolDeadlock, QueueFull, checkout_of

__all__ = ["CannotWait", "FairPool", "PoolDeadlock", "QueueFull", "checkout_of"]
