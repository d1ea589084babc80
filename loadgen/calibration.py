"""Measures, before a run, what this generator can do on this machine: its highest rate, and the shortest time it can measure.

A forked process on loopback answers each request at once, with about 20 us of work. The CPU time that virtual users cost
while they load it gives the rates. The response times measured there are the delay of the machine and the generator
themselves, so a shorter response time of a service cannot be told apart from it. The measurement takes at most half a second,
and uses the parts that make the load later: script, engine, connections, recorder.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from math import ceil, floor, inf, log10
from random import Random
from typing import NoReturn

import gevent

from loadgen.clock import Alarm, WallOffset, now_ns
from loadgen.engine import Engine, Listener
from loadgen.health import BUSY_SHARE
from loadgen.recorder import Recorder
from loadgen.schedule import highest_rate
from loadgen.script.model import Loop, Parallel, RequestStep, Script, Step
from loadgen.script.parse import RunOptions, parse_script
from loadgen.vu.program import CompiledScript
from loadgen.vu.transports import Transports
from reports import names
from reports.model import QUANTILES, Report
from reports.sketch import Sketch

LONG_ENOUGH_S = 5.0
"""Before a run that is planned to take less than this, calibration takes place only if the user asks for it."""

_LONGEST_S = 0.055
"""Longest time of each of the eight trial loads; on an idle machine, all of them take 0.15 s together."""
_USERS = 120
_KEPT_USERS, _KEPT_REQUESTS = 8, 40
_TRIALS, _ALONE_REQUESTS = 3, 100
_LEAST_ANSWERS = 10
_ALARMS, _ALARM_NS = 50, 700_000
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one process of this generator can do on this machine."""

    user_cpu_us: float
    """CPU time of a user with a connection of its own and one request, in us."""
    request_cpu_us: float
    """CPU time of each further request on that connection, in us."""
    resolution_ms: float
    """p99 of the response times of a peer that answers at once, rounded up to one digit: shorter ones cannot be told apart."""
    timer_late_p99_ms: float
    """How late an idle generator's timer fires, at p99."""
    took_s: float
    """How long the calibration took."""

    @property
    def users_per_s(self) -> int:
        """Users per second, each with a connection and one request, that would use a whole core; the first two digits."""
        return _two_digits(1e6 / self.user_cpu_us)

    @property
    def requests_per_s(self) -> int:
        """Requests per second on kept connections that would use a whole core; the first two digits."""
        return _two_digits(1e6 / self.request_cpu_us)

    def cores(self, users_per_s: float, requests: float) -> float:
        """Cores that the generator needs for `users_per_s` users per second, each of whom makes `requests` requests."""
        return users_per_s * (self.user_cpu_us + max(0.0, requests - 1) * self.request_cpu_us) / 1e6

    @property
    def sentence(self) -> str:
        """The result in one line, for stderr."""
        # Most runs begin and end without these sentences, and start quicker without their module.
        from reports.blocks import decimal  # noqa: PLC0415

        return (
            f"calibrated in {self.took_s:.1f} s: a process here starts at most about {self.users_per_s:,} users/s with a"
            f" connection and a request each, or sends {self.requests_per_s:,} requests/s on kept connections;"
            f" response times below {decimal(self.resolution_ms)} ms cannot be told"
        )


def beyond(calibration: Calibration, script: Script, workers: int) -> str | None:
    """A warning if the highest rate of the script's phases needs more cores than `workers` processes have; None otherwise."""
    rate, requests = highest_rate(script.phases), _requests_of(script)
    cores = calibration.cores(rate, requests)
    machine = os.cpu_count() or 1
    have = min(workers, machine)
    if cores <= BUSY_SHARE * have:
        return None
    from reports.blocks import decimal  # noqa: PLC0415

    each = f"{decimal(requests, 2)} requests" if requests != 1 else "1 request"
    wanted = ceil(cores / BUSY_SHARE)
    advice = f"--workers {wanted} shares it" if wanted <= machine else f"this machine has {machine} (see --dask)"
    return (
        f"the plan has up to {decimal(rate, 4)} users/s of {each} each: that needs about {decimal(cores, 2)} cores of"
        f" generator, and it has {have}: users will start late; {advice}"
    )


def _requests_of(script: Script) -> float:
    """About how many requests a user of the script makes, on average over its scenarios."""
    weights = sum(scenario.weight for scenario in script.scenarios)
    requests = sum(scenario.weight * _requests_in(scenario.flow) for scenario in script.scenarios)
    return requests / weights if weights else 0.0


def _requests_in(steps: Sequence[Step]) -> float:
    """About how many requests these steps make; a loop whose length is not known counts once."""
    total = 0.0
    for step in steps:
        if isinstance(step, RequestStep):
            total += 1.0 if step.probability is None else step.probability / 100
        elif isinstance(step, Parallel):
            total += _requests_in(step.steps)
        elif isinstance(step, Loop):
            over = step.over if isinstance(step.over, tuple) else ()
            count = step.count if isinstance(step.count, (int, float)) and step.count > 0 else len(over) or 1
            total += count * _requests_in(step.steps)
    return total


def calibrated(report: Report, calibration: Calibration | None) -> Report:
    """The report with the calibration added, and with a warning if percentiles are below its resolution.

    Returned as it is if there is no calibration, or if the report is not Poolbench's own.
    """
    if calibration is None or report.extras is None:
        return report
    from reports.blocks import decimal  # noqa: PLC0415

    figures = asdict(calibration)
    extras = replace(report.extras, generator={**report.extras.generator, "calibration": figures})
    times = report.aggregate.sketches.get(names.RESPONSE_TIME)
    bound = f"< {decimal(calibration.resolution_ms)} ms"
    untold = [
        key
        for key, q in QUANTILES.items()
        if key != "median" and times and times.quantile(q) < calibration.resolution_ms
    ]
    if untold:
        said = f"{untold[0]} to {untold[-1]} are" if len(untold) > 1 else f"{untold[0]} is"
        warning = f"response times this short cannot be told from the generator's own: {said} {bound}"
        extras = replace(extras, warnings=(*extras.warnings, warning))
    return replace(report, extras=extras)


def calibrate() -> Calibration | None:
    """Measure what this generator can do. None if no process can be forked, or if too few requests were answered in time."""
    started_ns = now_ns()
    try:
        with _peer() as port:
            return _measured(f"http://127.0.0.1:{port}", started_ns)
    except OSError:
        return None


def _measured(target: str, started_ns: int) -> Calibration | None:
    """The calibration against the peer at `target`; None if too few requests were answered. `started_ns` is when it began."""
    # The first users pay for what is compiled and cached once.
    _load(target, 20, 2)
    alone = [_load(target, 1, _ALONE_REQUESTS) for _ in range(_TRIALS)]
    one_each = [_load(target, _USERS, 1) for _ in range(2)]
    kept = [_load(target, _KEPT_USERS, _KEPT_REQUESTS) for _ in range(2)]
    # What was cut off has paid for requests that nobody answered. The less disturbed trial counts.
    user_us = min((load.cpu_us / load.answers for load in one_each if load.answers > _USERS / 2), default=0.0)
    whole = [load for load in kept if load.answers > _KEPT_USERS * _KEPT_REQUESTS / 2]
    if not user_us or not whole or min(load.answers for load in alone) < _LEAST_ANSWERS:
        return None
    # The first request of each user opens its connection.
    request_us = max(min((load.cpu_us - _KEPT_USERS * user_us) / (load.answers - _KEPT_USERS) for load in whole), 1.0)
    return Calibration(
        user_cpu_us=round(user_us, 1),
        request_cpu_us=round(request_us, 1),
        # The middle one, for another program may have disturbed a trial.
        resolution_ms=_rounded_up(sorted(load.response_p99_ms for load in alone)[_TRIALS // 2]),
        timer_late_p99_ms=round(_timer_late_p99_ms(), 3),
        took_s=round((now_ns() - started_ns) / 1e9, 3),
    )


@dataclass(frozen=True, slots=True)
class _Load:
    """The result of one trial load: the number of answers, the CPU time of this process, and p99 of the response times."""

    answers: int
    cpu_us: float
    response_p99_ms: float


def _load(target: str, users: int, requests: int) -> _Load:
    """Load `target` with `users` that arrive at once and make `requests` requests each, for at most `_LONGEST_S`."""
    flow = [{"loop": [{"get": {"url": "/"}}], "count": requests}]
    phases = [{"duration": 1, "arrivalCount": users}]
    text = json.dumps({"config": {"target": target, "phases": phases}, "scenarios": [{"flow": flow}]})
    script = parse_script([("calibration.json", text)], RunOptions(), _no_file)
    wall = WallOffset()
    recorder = Recorder(wall)
    with closing(Transports(script, wall, _nothing)) as transports:
        program = CompiledScript(script, recorder, transports, Random(0), agent="poolbench", write_line=_nothing)
        at_once = tuple(replace(phase, duration_s=users * 1e-6) for phase in script.phases)
        engine = Engine(program, at_once, recorder, wall, Random(0))

        def cut_off() -> None:
            # The second call does not wait for users to finish.
            engine.stop()
            engine.stop()

        timer = gevent.spawn_later(_LONGEST_S, cut_off)
        before_ns = time.process_time_ns()
        engine.run(Listener())
        cpu_us = (time.process_time_ns() - before_ns) / 1000
        timer.kill()
    total = recorder.report().aggregate
    times = total.sketches.get(names.RESPONSE_TIME)
    return _Load(total.counters.get(names.RESPONSES, 0), cpu_us, times.quantile(0.99) if times else inf)


def _nothing(_: str) -> None:
    pass


def _no_file(path: str) -> bytes:
    raise FileNotFoundError(path)


def _timer_late_p99_ms() -> float:
    """How late the timer that starts users fires, at p99, in ms."""
    alarm = Alarm()
    late_ns = []
    try:
        for _ in range(_ALARMS):
            at_ns = now_ns() + _ALARM_NS
            alarm.sleep_until(at_ns)
            late_ns.append(now_ns() - at_ns)
    finally:
        alarm.close()
    return Sketch.of([late / 1e6 for late in late_ns]).quantile(0.99)


def _two_digits(value: float) -> int:
    """A number cut to its first two digits: 19,804 becomes 19,000."""
    step = 10 ** max(0, floor(log10(value)) - 1)
    return int(value // step * step)


def _rounded_up(ms: float) -> float:
    """A time rounded up to one digit: 0.13 becomes 0.2."""
    step = 10.0 ** floor(log10(ms))
    return round(ceil(ms / step - 1e-9) * step, 9)


@contextmanager
def _peer() -> Iterator[int]:
    """A forked process that answers at once on 127.0.0.1, for as long as the context lasts. Yields its port.

    Raises OSError if no port can be opened or no process can be forked.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        port = int(listener.getsockname()[1])
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            _answer_for_ever(listener, parent)
    try:
        yield port
    finally:
        os.kill(pid, signal.SIGKILL)
        # Another handler of SIGCHLD may have waited for it already.
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _answer_for_ever(listener: socket.socket, parent: int) -> NoReturn:
    """The forked process's main loop: answer whatever comes on any connection, until the process `parent` is gone."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            while os.getppid() == parent:
                for key, _ in selector.select(1.0):
                    # The listening socket has no connection with it.
                    _serve(selector, listener, key.data)
    finally:
        os._exit(0)


def _serve(selector: selectors.BaseSelector, listener: socket.socket, sock: socket.socket | None) -> None:
    """Answer what came on a connection, and close it where it ended; None: accept one. Raises OSError for a listener's fault."""
    if sock is None:
        accepted, _address = listener.accept()
        selector.register(accepted, selectors.EVENT_READ, accepted)
        return
    # A user who was cut off resets the connection.
    with suppress(OSError):
        if sock.recv(65536):
            sock.sendall(_ANSWER)
            return
    selector.unregister(sock)
    sock.close()
