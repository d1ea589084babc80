"""Follows the requests of a WSGI application: which endpoint a borrower serves, and when its answer has been sent.

The book of loans uses both: to say in which endpoint a connection was borrowed, and which loans outlive the answer. See
watching.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from itertools import islice
from time import perf_counter_ns
from typing import Any

from poolbench.loan_book import BOOK, harmless
from poolbench.loans import Request
from poolbench.looking import REQUEST_CODES

# Each request comes by here. Every call of a function counts: these guard themselves, which costs less than `harmless`, and have
# written out what they could call.


def _begin(environ: dict[str, Any]) -> Request | None:
    """Note that a request begins in the running greenlet or thread; `environ` is its WSGI environment. None where that fails."""
    try:
        request, borrower = _new(Request), BOOK.current()
        request._environ, request.borrower = environ, borrower  # noqa: SLF001
        request.began_ns = perf_counter_ns()
        # Complete now: another thread may look at it.
        BOOK.requests[borrower] = request
    except Exception as error:  # noqa: BLE001 - the application must not suffer; the diagnosis says it
        BOOK.fault = f"{type(error).__name__}: {error}"
        return None
    return request


_new: Callable[[type[Request]], Request] = object.__new__


def _answered(request: Request | None) -> None:
    """Note that a request has been answered; nothing if `request` is None or has ended already."""
    if request is None or request.ended_ns:
        return
    try:
        served, borrower, tally = BOOK.requests, request.borrower, BOOK.tally
        if served.get(borrower) is request:
            del served[borrower]
        request.borrower = None
        if request.weight or BOOK.shares is None:
            request.end()
            tally.answered(request)
            return
        request.ended_ns = ended_ns = perf_counter_ns()
        name = request.name
        if request.drawn_as is None or request.drawn_as == name:
            # Most requests of a fast application: only their number and their time are added up. Each is one step in CPython.
            row = tally.counted.get(name) or tally.row_of(name)
            row[0] += 1
            row[1] += ended_ns - request.began_ns
        else:
            tally.answered(request)
    except Exception as error:  # noqa: BLE001 - the application must not suffer; the diagnosis says it
        BOOK.fault = f"{type(error).__name__}: {error}"


def watched_requests(application: Any) -> Any:
    """Wrap a WSGI application so that its requests are followed. Errors of `application` are raised as they are."""

    def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = _begin(environ)

        # Flask forgets the rule before the parts of a streamed answer are made, where a connection may be borrowed first.
        def start(status: Any, headers: Any, *rest: Any) -> Any:
            if request is not None and request.rule is None:
                request.rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
            return start_response(status, headers, *rest)

        wrapper = environ.get("wsgi.file_wrapper")
        files: list[Any] | None = None
        if wrapper is not None and not isinstance(wrapper, type):
            files = []
            environ["wsgi.file_wrapper"] = _remembering(wrapper, files)
        try:
            answer = application(environ, start_response if request is None else start)
            if wrapper is not None and (
                isinstance(answer, wrapper) if files is None else any(answer is file for file in files)
            ):
                return _followed_file(answer, request)
            followed = (_SizedAnswer if hasattr(answer, "__len__") else _Answer)(answer, None)
            followed.answer, followed.request = answer, request
            return followed
        except BaseException:
            _answered(request)
            raise

    REQUEST_CODES.add(serve.__code__)
    _wrapped.append(serve)
    return serve


class _Answer(islice):  # type: ignore[type-arg]
    """A WSGI answer: the parts of `answer`, and a close() that notes that the request has been answered.

    Made as `_Answer(answer, None)`: an `islice` needs no calls of functions in Python to be made and to be iterated on.
    """

    __slots__ = ("answer", "request")
    answer: Iterable[bytes]
    request: Request | None

    def __next__(self) -> bytes:
        return _next_part(self)

    def close(self) -> None:
        """Close the answer; the server calls this when it has sent the last part, or has given up."""
        try:
            close = getattr(self.answer, "close", None)
            if close is not None:
                close()
        finally:
            _answered(self.request)


_next_part: Callable[[_Answer], bytes] = islice.__next__


REQUEST_CODES.add(_Answer.__next__.__code__)


class _SizedAnswer(_Answer):
    """An answer whose number of parts is known: a server takes the Content-Length from a single part."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self.answer)  # type: ignore[arg-type]


def _remembering(wrapper: Callable[..., Any], files: list[Any]) -> Callable[..., Any]:
    """A function that does what a server's `wsgi.file_wrapper` does, and appends to `files` what that returns."""

    def wrap(*given: Any, **named: Any) -> Any:
        file = wrapper(*given, **named)
        files.append(file)
        return file

    return wrap


def _followed_file(answer: Any, request: Request | None) -> Iterable[bytes]:
    """Return the answer itself, made by the server's `wsgi.file_wrapper`: the server knows it and sends it without Python.

    The request has been answered when the server closes the answer; at once, if its close() cannot be replaced.
    """
    close = getattr(answer, "close", None)

    def close_file() -> None:
        try:
            if close is not None:
                close()
        finally:
            _answered(request)

    try:
        answer.close = close_file
    except (AttributeError, TypeError):
        _answered(request)
    followed: Iterable[bytes] = answer
    return followed


_wrapped: list[Any] = []
"""Wrappers made by `watched_requests`. While there are any, Flask's signals are not needed: they cost more."""

_following: list[Any] = []
"""Receivers of Flask's signals, once they are connected. Kept here so that they stay alive."""


@harmless
def follow_flask() -> None:
    """Follow requests by Flask's signals, if the process has imported Flask and no WSGI wrapper follows them."""
    if _following or _wrapped or "flask" not in sys.modules:
        return
    import flask  # noqa: PLC0415 - the application has imported it

    @harmless
    def started(_application: Any, **_: Any) -> None:
        known = BOOK.requests.get(BOOK.current())
        if known is None or known.ended_ns:
            known = _begin(flask.request.environ)
            if known is None:
                return
            known.is_flasks = True
        known.rule = flask.request.url_rule

    @harmless
    def popped(_application: Any, **_: Any) -> None:
        known = BOOK.requests.get(BOOK.current())
        if known is not None and known.is_flasks:
            _answered(known)

    _following.extend((started, popped))
    flask.request_started.connect(started, weak=False)
    flask.appcontext_popped.connect(popped, weak=False)
