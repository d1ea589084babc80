"""A script compiled once into functions that each virtual user calls, and the run of one user through one scenario.

Each step is compiled into a function of the virtual user, and a scenario into a tuple of such functions. A user ends at the
end of its scenario, or at the first step that raises VuFailedError: then it counts as failed, with exactly one `errors.`
counter.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from itertools import accumulate
from math import isfinite, isnan
from random import Random
from traceback import print_exception
from typing import Any

import gevent

from loadgen.clock import now_ns
from loadgen.http.exchange import Exchange, Failure
from loadgen.language.inspected import inspected
from loadgen.language.template import compile_template, functions
from loadgen.language.values import UNDEFINED, get_path, json_text, text, to_number, truthy
from loadgen.recorder import Recorder
from loadgen.rows import Rows
from loadgen.script import model
from loadgen.script.durations import think_seconds
from loadgen.script.payload import variables_of
from loadgen.vu.request import compile_request
from loadgen.vu.transports import Transport
from loadgen.vu.vu import Action, Setting, Vu, VuFailedError, guarded
from reports import names

_RANGE = re.compile(r"\d-\d")
_FOR_EVER = -1
_BREATHE_ROUNDS = 1000
"""A user whose loops never wait lets others run after this number of rounds, those of loops inside loops included."""


class CompiledScript:
    """A compiled script.

    `expectation_failed` becomes true at the first expectation that does not hold. `exit_code` is the highest that functions
    of the processor have asked for, else 0.
    """

    def __init__(
        self,
        script: model.Script,
        recorder: Recorder,
        connections: Callable[[], Transport],
        rng: Random,
        *,
        agent: str,
        write_line: Callable[[str], None],
        warn: Callable[[str], None] = lambda _: None,
        rows: Rows | None = None,
    ) -> None:
        """`connections` makes the connections of one virtual user. `write_line` takes lines for stdout (of `log` steps and
        expectations), `warn` takes messages about what functions of the processor raised, `rows` takes each request.
        """
        self.expectation_failed = False
        self.exit_code = 0
        self._script = script
        self._recorder = recorder
        self._connections = connections
        self._rng = rng
        self._payloads = [variables_of(payload, rng) for payload in script.payloads]
        self._known: dict[str, Any] = dict(script.built_ins)
        self._choices = {name: value for name, value in script.variables.items() if isinstance(value, list)}
        self._constants = {name: value for name, value in script.variables.items() if not isinstance(value, list)}
        # A UUID takes time to make, so users have one only if it can be seen; the expect plugin shows all variables.
        shown = script.processor is not None or script.expect is not None
        self._has_uuid = shown or "$uuid" in repr(replace(script, payloads=()))
        self._cookies_on = bool(script.http.cookies)
        calls = functions(rng)
        if script.fake_data is not None:
            from loadgen.language.fakes import fake_functions  # noqa: PLC0415 - few scripts need it

            calls |= fake_functions(script.fake_data, rng)
        if script.processor is not None:
            for name, function in script.processor.template_functions.items():
                calls[name] = guarded(script.processor, name, function, warn)
        setting = Setting(
            script,
            recorder,
            rng,
            calls,
            agent,
            write_line,
            warn,
            self._note_failed_expectation,
            self._note_exit_code,
            rows,
        )
        self._scenarios = [_compile(scenario.flow, setting) for scenario in script.scenarios]
        self._on_error = [[setting.function(name) for name in scenario.on_error] for scenario in script.scenarios]
        self._names = [scenario.name for scenario in script.scenarios]
        self._created = [recorder.scenario(scenario.label) for scenario in script.scenarios]
        self._weights = list(accumulate(scenario.weight for scenario in script.scenarios))
        # Requests of these sections are not in the metrics, and the expect plugin does not see them.
        unreported = replace(setting, recorder=recorder.apart(), script=replace(script, expect=None), rows=None)
        self._before = _compile(script.before, unreported)
        self._after = _compile(script.after, unreported)

    def start_vu(self, intended_ns: int) -> None:
        """Run a new virtual user through one scenario, picked by weight. Failures are recorded, not raised."""
        recorder = self._recorder
        chosen = bisect(self._weights, self._rng.random() * self._weights[-1]) if len(self._weights) > 1 else 0
        started_ns = now_ns()
        self._created[chosen](started_ns)
        connections = self._connections()
        vu = Vu(
            self._variables(self._payloads),
            connections.exchange,
            intended_ns,
            cookies_on=self._cookies_on,
            scenario=self._names[chosen],
        )
        try:
            for act in self._scenarios[chosen]:
                act(vu)
        except VuFailedError as failed:
            self._call_on_error(self._on_error[chosen], failed.name, vu)
            recorder.count(names.ERRORS + failed.name)
            recorder.count(names.VUSERS_FAILED)
        else:
            recorder.completed(started_ns)
        finally:
            connections.close()

    def _call_on_error(self, functions: Sequence[Callable[..., Any]], error: str, vu: Vu) -> None:
        """Call the `onError` functions of a user that has failed. What they raise becomes a warning and changes nothing."""
        for call in functions:
            with suppress(VuFailedError):
                call(error, vu)

    def take_share(self, index: int, of: int, seed: str) -> None:
        """Become one of `of` generators: use every `of`-th payload row from number `index` on, and random numbers of its own."""
        self._rng.seed(seed)
        self._payloads = [variables_of(payload, self._rng, index, of) for payload in self._script.payloads]

    @property
    def known(self) -> Mapping[str, Any]:
        """The variables of every user before its payload rows and script variables: built-ins, and those that `before` set."""
        return self._known

    def run_before(self) -> str | None:
        """Run the `before` section, whose variables every user will have. Returns the error's name if it failed, else None."""
        return self._run_section(self._before)

    def run_after(self) -> str | None:
        """Run the `after` section. Returns the error's name if it failed, else None."""
        return self._run_section(self._after)

    def _run_section(self, actions: Sequence[Action]) -> str | None:
        if not actions:
            return None
        connections = self._connections()
        vu = Vu(self._variables(()), connections.exchange, 0, cookies_on=self._cookies_on)
        try:
            for act in actions:
                act(vu)
        except VuFailedError as failed:
            return failed.name
        except Exception as error:  # noqa: BLE001 - a defect ends the section, not the program
            print_exception(error)
            return type(error).__name__
        finally:
            connections.close()
        self._known |= vu.variables
        return None

    def _variables(self, payloads: Sequence[Callable[[], Mapping[str, Any]]]) -> dict[str, Any]:
        """The variables of a new user: built-ins, those of `before`, payload rows, script variables; later ones win."""
        out = dict(self._known)
        for row in payloads:
            out.update(row())
        out.update(self._constants)
        rng = self._rng
        for name, values in self._choices.items():
            out[name] = rng.choice(values) if values else UNDEFINED
        if self._has_uuid:
            out["$uuid"] = _uuid4(rng.getrandbits(128))
        return out

    def _note_failed_expectation(self) -> None:
        self.expectation_failed = True

    def _note_exit_code(self, code: int) -> None:
        self.exit_code = max(self.exit_code, min(max(int(code), 0), 255))


def _uuid4(bits: int) -> str:
    """A version 4 UUID (RFC 9562) of 128 random bits. The module `uuid` takes several times as long."""
    digits = f"{bits:032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{'89ab'[bits >> 60 & 3]}{digits[17:20]}-{digits[20:]}"


def _compile(steps: Sequence[model.Step], setting: Setting) -> tuple[Action, ...]:
    return tuple(_compile_step(step, setting) for step in steps)


def _compile_step(step: model.Step, setting: Setting) -> Action:
    match step:
        case model.RequestStep():
            return compile_request(step, setting)
        case model.Think():
            return _think(step, setting)
        case model.Log():
            return _log(step, setting)
        case model.Loop():
            return _loop(step, setting)
        case model.Parallel():
            return _parallel(step, setting)
        case model.Call(name):
            return setting.function(name)
        case model.Broken(error):
            return _broken(error)


def _broken(error: str) -> Action:
    def act(_: Vu) -> None:
        raise VuFailedError(error)

    return act


def _log(step: model.Log, setting: Setting) -> Action:
    line = compile_template(step.text, setting.calls)
    return lambda vu: setting.write_line(inspected(line.render(vu.variables)))


def _think(step: model.Think, setting: Setting) -> Action:
    template = compile_template(step.duration, setting.calls)
    jitter = setting.script.http.think_jitter if step.jitter is None else step.jitter
    rng, recorder = setting.rng, setting.recorder

    def act(vu: Vu) -> None:
        value = template.render(vu.variables)
        length_s = think_seconds(value)
        if length_s is None:
            # Node's package `ms`, which reads it there, refuses what is neither text nor number in words of its own.
            if not isinstance(value, str) or not value:
                shown = json_text(value)
                raise VuFailedError(f"val is not a non-empty string or a valid number. val={shown}")
            raise VuFailedError(f"Invalid think time: {value}")
        recorder.thinking += 1
        try:
            gevent.sleep(max(0.0, length_s if jitter is None else jittered(length_s, jitter, rng)))
        finally:
            recorder.thinking -= 1

    return act


def jittered(length_s: float, jitter: Any, rng: Random) -> float:
    """A think time in seconds, changed at random by up to `jitter`: `"20%"` of it, or a number of ms. Other values do nothing."""
    match = re.match(r"\s*(\d+)", text(jitter))
    if not match:
        return length_s
    amount = float(match[1])
    spread_s = length_s * amount / 100 if "%" in text(jitter) else amount / 1000
    return max(0.0, length_s + rng.uniform(-spread_s, spread_s))


def _loop(step: model.Loop, setting: Setting) -> Action:
    actions = _compile(step.steps, setting)
    if step.while_true is not None:
        return _loop_while(step, actions, setting.function(step.while_true))
    if step.over is not None:
        return _loop_over(step, actions)
    count = compile_template(step.count, setting.calls)
    if count.constant and isinstance(count.value, int) and count.value > 0:
        return _loop_counted(step, actions, count.value)

    def act(vu: Vu) -> None:
        first, end = rounds(count.render(vu.variables))
        variables = vu.variables
        variables[step.index_name] = variables[step.element_name] = first
        done = 0
        while end == _FOR_EVER or first + done < end:
            for each in actions:
                each(vu)
            done += 1
            _count_on(variables, step.index_name)
            _breathe(vu)

    return act


def _breathe(vu: Vu) -> None:
    """Let other users run, if this one has made enough rounds of its loops since it did so last."""
    vu.rounds += 1
    if vu.rounds >= _BREATHE_ROUNDS:
        vu.rounds = 0
        gevent.sleep(0)


def _count_on(variables: dict[str, Any], name: str) -> None:
    """Set a loop's index to one more than its variable holds, which a loop inside may have changed."""
    index = variables.get(name)
    variables[name] = (index if type(index) is int else to_number(index)) + 1


def _loop_while(step: model.Loop, actions: tuple[Action, ...], more: Callable[[Vu], Any]) -> Action:
    """A loop of at least one round, which goes on while the processor's function returns something truthy."""

    def act(vu: Vu) -> None:
        variables = vu.variables
        variables[step.index_name] = variables[step.element_name] = 0
        while True:
            for each in actions:
                each(vu)
            _count_on(variables, step.index_name)
            _breathe(vu)
            if not truthy(more(vu)):
                return

    return act


def _loop_counted(step: model.Loop, actions: tuple[Action, ...], count: int) -> Action:
    """A loop of a fixed number of rounds. Most loops are, so it does as little as it can."""
    index_name, element_name = step.index_name, step.element_name

    def act(vu: Vu) -> None:
        variables = vu.variables
        variables[element_name] = variables[index_name] = 0
        for _ in range(count):
            for each in actions:
                each(vu)
            index = variables.get(index_name)
            if type(index) is int:
                variables[index_name] = index + 1
            else:
                _count_on(variables, index_name)
            _breathe(vu)

    return act


def _loop_over(step: model.Loop, actions: tuple[Action, ...]) -> Action:
    def act(vu: Vu) -> None:
        variables = vu.variables
        over = get_path(variables, step.over) if isinstance(step.over, str) else step.over
        variables[step.index_name] = 0
        if not isinstance(over, list | tuple):
            # As in Artillery, which begins such a loop before it looks at what to go over.
            variables[step.element_name] = 0
            return
        for element in over:
            variables[step.element_name] = element
            for each in actions:
                each(vu)
            _count_on(variables, step.index_name)
            _breathe(vu)

    return act


def rounds(count: Any) -> tuple[int, float]:
    """The first index of a loop and the index before which it ends, from its count: `3`, `"3"`, `"2-4"`.

    -1 means that it never ends. A count that is no number, or is infinite, means no rounds.
    """
    first, end = _rounds(count)
    return (int(first), end) if isfinite(first) and isfinite(end) else (0, 0)


def _rounds(count: Any) -> tuple[float, float]:
    if isinstance(count, str):
        bare = to_number(count)
        if isnan(bare) and _RANGE.search(count):
            first, end = (to_number(part) for part in count.split("-")[:2])
            return first, end
        return 0, bare
    return (0, count) if isinstance(count, int | float) and not isinstance(count, bool) else (0, 0)


def _parallel(step: model.Parallel, setting: Setting) -> Action:
    """Steps that run at the same time. A user has one connection to each origin, so it makes their requests one by one."""
    # Few scripts have requests in parallel, and the others start quicker without locks.
    from gevent.lock import BoundedSemaphore  # noqa: PLC0415

    branches = [_compile_step(inner, setting) for inner in step.steps]
    shares_pool = setting.script.http.pool is not None

    def act(vu: Vu) -> None:
        exchange = vu.exchange
        if not shares_pool:
            vu.exchange = _one_at_a_time(exchange, BoundedSemaphore(1))
        greenlets = [gevent.spawn(_outcome, branch, vu) for branch in branches]
        try:
            # The user fails with the first error; the other branches are not cut off, and what they do is counted.
            errors = [error for greenlet in gevent.iwait(greenlets) if (error := greenlet.get()) is not None]
        finally:
            gevent.killall(greenlets)
            vu.exchange = exchange
        if errors:
            raise errors[0]

    return act


def _outcome(branch: Action, vu: Vu) -> Exception | None:
    """Run a branch and return what it raises, which gevent would print, or None."""
    try:
        branch(vu)
    except Exception as error:  # noqa: BLE001 - the user raises it again
        return error
    return None


def _one_at_a_time(
    exchange: Callable[..., Exchange | Failure], gate: AbstractContextManager[Any]
) -> Callable[..., Exchange | Failure]:
    def gated(*arguments: Any, **options: Any) -> Exchange | Failure:
        with gate:
            return exchange(*arguments, **options)

    return gated
