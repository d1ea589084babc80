"""A fair connection pool for SQLAlchemy, and the engine plugin that puts it into any application by a URL."""

from poolbench.fair_pool import CannotWait, FairPool, PoolDeadlock, QueueFull, checkout_of

__all__ = ["CannotWait", "FairPool", "PoolDeadlock", "QueueFull", "checkout_of"]
