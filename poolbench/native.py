"""The interpreter's own functions, in a process in which gevent may have replaced them."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def native(module: ModuleType, name: str) -> Any:
    """A module's function of this name as it was before gevent replaced it, if it did."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return getattr(module, name) if monkey is None else monkey.get_original(module.__name__, name)
