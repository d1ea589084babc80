"""Opening a connection with psycopg2 under gevent, within `connect_timeout`.

While a wait callback (psycogreen's) does the waiting, libpq neither enforces `connect_timeout` nor leaves a silent host for
the next one of a list. Here each host has the whole limit to itself, as libpq's manual promises. psycopg 3 keeps its limit
by itself, and so does psycopg2 without a wait callback.
"""

from __future__ import annotations

import math
import os
import random
import reprlib
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from poolbench.settings import LONGEST_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

T = TypeVar("T")


def connect_within_limit(
    dialect: Any, connect: Callable[..., Any], arguments: Sequence[Any], parameters: dict[str, Any]
) -> Any:
    """Open a connection by `connect`, the method of SQLAlchemy's `dialect`. Raises what the driver raises; its OperationalError
    past the limit.
    """
    if dialect.driver != "psycopg2" or not _waits_in_a_callback():
        return connect(*arguments, **parameters)
    failure = dialect.loaded_dbapi.OperationalError
    limit_s = connect_limit_s(parameters, failure)
    if not limit_s:
        return connect(*arguments, **parameters)
    return connect_each_host(lambda **each: connect(*arguments, **each), parameters, limit_s, failure)


def connect_each_host(
    connect: Callable[..., T], parameters: Mapping[str, Any], limit_s: float, failure: type[Exception]
) -> T:
    """Open a connection to the first host that lets us in, each within `limit_s`; `parameters` are libpq's.

    Raises `failure` (the driver's OperationalError) with the reasons of all hosts; a host that answers and refuses ends the
    search, unless it is only starting or stopping.
    """
    import gevent  # noqa: PLC0415 - imported by whoever set the wait callback

    reasons: list[str] = []
    for each in _one_host_each(parameters):
        limit = gevent.Timeout(limit_s)
        try:
            with limit:
                return connect(**each)
        except gevent.Timeout as expired:
            if expired is not limit:
                raise
            at = f" to {each['host']}" if each.get("host") else ""
            reasons.append(f"no connection{at} within {limit_s:g} s: timeout expired")
        except failure as error:
            reasons.append(str(error).strip())
            if "FATAL:" in reasons[-1] and "the database system is" not in reasons[-1]:
                raise
    raise failure("\n".join(reasons))


def _waits_in_a_callback() -> bool:
    extensions: Any = sys.modules.get("psycopg2.extensions")
    return sys.modules.get("gevent") is not None and extensions is not None and bool(extensions.get_wait_callback())


def connect_limit_s(parameters: Mapping[str, Any], failure: type[Exception]) -> float:
    """`connect_timeout` in s; 0, for no limit, where it is missing or negative. Raises `failure` if it is no duration: libpq does
    not look at it while a wait callback does the waiting.
    """
    given = parameters.get("connect_timeout") or os.environ.get("PGCONNECT_TIMEOUT") or 0
    try:
        limit_s = float(given)
    except ValueError:
        limit_s = math.nan
    if not limit_s <= LONGEST_S:
        raise failure(f"connect_timeout must be a number of seconds, at most {LONGEST_S}, not {reprlib.repr(given)}")
    return max(0.0, limit_s)


def _one_host_each(parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The parameters for each host that they or libpq's variables name, in the order in which libpq would try them."""

    def given(key: str) -> str:
        return str(parameters.get(key) or os.environ.get(f"PG{key.replace('_', '').upper()}") or "")

    lists = {key: given(key).split(",") for key in ("host", "hostaddr", "port") if given(key)}
    count = max((len(lists[key]) for key in ("host", "hostaddr") if key in lists), default=1)
    if count == 1:
        yield dict(parameters)
        return
    order = list(range(count))
    if given("load_balance_hosts") == "random":
        random.shuffle(order)
    wanted = given("target_session_attrs")
    for session in ("standby", "any") if wanted == "prefer-standby" else (wanted,):
        for place in order:
            own = {key: values[place] if len(values) == count else values[0] for key, values in lists.items()}
            own |= {"target_session_attrs": session} if session else {}
            yield {**parameters, **own}
