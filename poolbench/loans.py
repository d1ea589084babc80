"""What is watched: requests, engines, and loans of connections. See watching.py."""

from __future__ import annotations

import _thread
import re
import sys
import threading
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from poolbench.native import native
from poolbench.places import Place, place_at

if TYPE_CHECKING:
    from sqlalchemy import Engine

DRIVER = "driver"
"""Stands where the name of a pool would."""


_thread_number = native(_thread, "get_ident")


class Request:
    """A request being answered; `name` is its endpoint, found when it is first needed."""

    # Of the class, as most requests keep most of them: setting each anew would cost more than all the rest.
    ended_ns = 0
    is_flasks = is_counted = False
    weight: int | None = None
    """Under the command: the number of requests that it stands for, from its first loan on; 0 if it is not noted in full."""
    drawn_as: str | None = None
    """Its name when it was drawn, or not: Flask may find its route, from which it has its name, only later."""
    loans: tuple[Loan, ...] = ()
    """Its loans that are noted in full and have not ended; some that have, if another thread ended them."""
    rule: Any = None
    """Flask's rule of the route, as soon as it is known. Flask drops it from the environ at the end."""
    borrower: Any = None
    """The greenlet or thread that serves it. Another one may send the answer's end."""

    _name = ""

    def __init__(self, environ: dict[str, Any], name: str = "", borrower: Any = None) -> None:
        # endpoints.py writes this out: an object is made in half the time without a call of its __init__().
        self._environ: dict[str, Any] | None = environ
        self._name, self.borrower = name, borrower
        self.began_ns = perf_counter_ns()

    def look_for_rule(self) -> None:
        """Find the route's rule, if this is Flask's; while the request is being answered.

        Where each request comes by, it is asked before whether the rule is known: that costs less than this call.
        """
        if self.rule is None and self._environ is not None:
            self.rule = getattr(self._environ.get("werkzeug.request"), "url_rule", None)

    @property
    def name(self) -> str:
        """`METHOD /path`: the route's rule under Flask, else the path with its numbers and UUIDs left out."""
        environ, known = self._environ, self._name
        if environ is None:
            return known
        if self.rule is None:
            # As `look_for_rule`, without the call: most requests of a fast application come by here.
            self.rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
        rule = getattr(self.rule, "rule", None)
        if rule or not (known and self.ended_ns):
            path = rule or _NUMBERS.sub("…", str(environ.get("PATH_INFO") or "/"))
            self._name = known = f"{environ.get('REQUEST_METHOD', 'GET')} {path}"
        if rule or self.ended_ns:
            self._environ = None
        return known

    def end(self) -> None:
        """The answer is complete. Only its method and path are kept of the environ, which has all of the request in it."""
        self.ended_ns = perf_counter_ns()
        environ = self._environ
        if environ is not None:
            self.look_for_rule()
            is_known = self.rule is None and bool(self._name)
            self._environ = None if is_known else {name: environ[name] for name in _NAMING if name in environ}


_NUMBERS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b(?=[a-f]*\d)[0-9a-f]{16,}\b|\d+", re.IGNORECASE)
"""Numbers in a path: UUIDs, other long ones of hexadecimal digits, and decimal ones."""
_NAMING = ("REQUEST_METHOD", "PATH_INFO")
"""Keys of the environ from which a request has its name, where there is no rule."""


def engine_key(place: Place | None, database: str, number: int) -> str:
    """What tells engines apart in sums: see `observed.made_at`."""
    return f"{place or ''}\t{database}\t{number}"


@dataclass(slots=True)
class WatchedEngine:
    """An engine that is watched, by the place where it was made. `size` 0: no fixed size."""

    key: str
    place: Place | None
    pool: str
    size: int = 0
    overflow: int = 0
    endpoint: str = ""
    """The endpoint in whose request it was made; "": in none."""
    making_ns: int = 0
    made_ns: int = 0
    """When it was made, or first watched."""
    is_counted: bool = False

    @classmethod
    def of(
        cls, engine: Engine, place: Place | None, request: Request | None, making_ns: int, number: int
    ) -> WatchedEngine:
        """What is known of an engine. `number` tells those apart that one place makes at the start."""
        pool: Any = engine.pool
        url = engine.url
        database = f"postgresql://{url.host or ''}:{url.port or 5432}/{url.database or ''}"
        key = engine_key(place, database, number)
        size: Any = getattr(pool, "size", None)
        return cls(
            key,
            place,
            type(pool).__name__.strip("_"),
            int(size()) if callable(size) else 0,
            int(getattr(pool, "_max_overflow", 0)),
            request.name if request is not None else "",
            making_ns,
            perf_counter_ns(),
        )

    @classmethod
    def of_driver(cls, place: Place) -> WatchedEngine:
        """Stands for the connections that a place opens without an engine."""
        return cls(engine_key(place, "", 0), place, DRIVER)


class Loan:
    """A loan of which everything is noted, from being asked for.

    weight: it stands for this many loans. record: SQLAlchemy's record of its connection, None before one came. outer: the record
    of another connection of the same engine that the borrower held when it asked. groups: what it executed, by statement and
    place. inherited: it was lent before this process was forked. has_opened: its connection was opened for it.
    """

    __slots__ = (
        "adopted",
        "asked_ns",
        "borrower",
        "connect_ns",
        "connection",
        "ended_ns",
        "engine",
        "foreign",
        "groups",
        "has_opened",
        "inherited",
        "lent_ns",
        "outer",
        "place",
        "record",
        "refused",
        "request",
        "statement",
        "thread",
        "weight",
        "wrote",
    )

    def __init__(
        self, engine: WatchedEngine, borrower: Any, place: Place | None, request: Request | None, weight: int = 1
    ) -> None:
        self.engine, self.borrower, self.place, self.request = engine, borrower, place, request
        self.weight = weight
        self.groups: dict[Any, list[Any]] | None = None
        self.outer: Any = None
        self.record: Any = None
        self.connection: Any = None
        self.adopted = self.foreign = self.wrote = self.inherited = self.has_opened = False
        self.lent_ns = self.ended_ns = self.connect_ns = 0
        self.refused, self.statement = "", ""
        self.thread = _thread_number()
        self.asked_ns = perf_counter_ns()

    def count_from(self, at_ns: int) -> None:
        """Forget what was before this instant, of a loan that has not ended or the wait for one."""
        self.asked_ns = max(self.asked_ns, at_ns)
        if 0 < self.lent_ns < at_ns:
            self.lent_ns, self.connect_ns, self.has_opened, self.groups = at_ns, 0, False, None

    @property
    def endpoint(self) -> str:
        """The endpoint of the request; "" outside one."""
        return self.request.name if self.request is not None else ""

    @property
    def is_by_maker(self) -> bool:
        """Whether the request that borrowed had made the engine, rather than a request before it."""
        engine, request = self.engine, self.request
        return bool(engine.endpoint) and request is not None and request.began_ns <= engine.made_ns


class Opened(NamedTuple):
    """How a connection was opened: by which process, at which place, when (the end), and for how long."""

    process: int
    place: Place | None
    at_ns: int
    duration_ns: int
    is_new: bool = True
    """Whether no loan has had it so far, as far as loans are noted."""


def light_loan(record: Any, engine: WatchedEngine, values: tuple[Any, ...]) -> Loan:
    """A loan of which only these values were noted: borrower, code, instruction, request, instant."""
    borrower, code, instruction, request, lent_ns = values
    loan = Loan(engine, borrower, None if code is None else place_at(code, instruction), request)
    loan.asked_ns = loan.lent_ns = lent_ns
    loan.record, loan.connection = record, record.dbapi_connection
    loan.thread = _main_thread
    return loan


_gevent = sys.modules.get("gevent.hub")
_main_thread: int = threading.main_thread().ident if _gevent is None else _gevent.MAIN_THREAD_IDENT  # type: ignore[assignment]
"""Where greenlets run, as a rule. The number that `threading` has for it may be its main greenlet's."""
