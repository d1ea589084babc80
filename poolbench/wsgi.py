"""A WSGI wrapper whose answers say what their connections, and their worker's CPU, cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter_ns
from typing import Any

from poolbench.costs import costs, server_timing_header
from poolbench.cpu import AnswerCpu, watch_greenlets

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_TIMED = "poolbench.timed"
_answers = AnswerCpu()


def server_timing(application: Application) -> Application:
    """Wrap a WSGI application so that each answer has a Server-Timing header, in ms.

    One line in a deployment:

        app.wsgi_app = poolbench.server_timing(app.wsgi_app)

    `pool`: waiting for connections; `connect`: opening them; `db`: holding them until the answer begins; `total`: the whole
    request until then; `cpu`: CPU time of the worker's process since its answer before, so that the mean is what a request
    costs; `loan-cpu`: CPU time of this request while it held connections, so `db` less `loan-cpu` is waiting for the database.

    Frameworks that give connections back after the answer has begun (Flask-SQLAlchemy's sessions) do so within microseconds,
    unless the answer is a stream. The connections are those of engines with this plugin. A request is counted once, however
    often the application is wrapped.
    """

    def timed(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if _TIMED in environ:
            return application(environ, start_response)
        environ[_TIMED] = True
        watch_greenlets()
        _answers.begin()
        account = costs.reset()
        began_ns = perf_counter_ns()

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            cost, total_ns = account.sum(), perf_counter_ns() - began_ns
            value = f"{server_timing_header(cost, total_ns)}, cpu;dur=%.3f, loan-cpu;dur=%.3f"
            value %= _answers.take_ns() / 1e6, cost.cpu_ns / 1e6
            return start_response(status, [*headers, ("Server-Timing", value)], *rest)

        return application(environ, start)

    return timed
