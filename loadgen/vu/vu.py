"""A virtual user, and what all steps of a script are compiled with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import index
from random import Random
from typing import Any

from loadgen.http.cookies import Jar
from loadgen.http.exchange import Exchange, Failure
from loadgen.language.template import Function, compile_template
from loadgen.language.values import text
from loadgen.recorder import Recorder
from loadgen.rows import Rows
from loadgen.script import model
from loadgen.script.processor import Fail, Processor, User

_MOST = 2**53
"""The most that a function of the processor can add to a counter at once: the numbers up to it are exact in JavaScript, too."""


class VuFailedError(Exception):
    """Ends a virtual user. `name` is the error's name in the metrics."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Vu:
    """A running virtual user: its variables, cookies and connections."""

    __slots__ = ("cookies_on", "exchange", "intended_ns", "jar", "rounds", "scenario", "variables")

    def __init__(
        self,
        variables: dict[str, Any],
        exchange: Callable[..., Exchange | Failure],
        intended_ns: int,
        *,
        cookies_on: bool,
        scenario: str | None = None,
    ) -> None:
        self.variables = variables
        self.exchange = exchange
        self.intended_ns = intended_ns
        """When the plan wanted its first request, as a monotonic instant in ns; 0 once it has made one."""
        self.scenario = scenario
        """The name of the scenario that it runs, if that has one."""
        self.rounds = 0
        """Number of rounds that its loops have made since it last let others run for their sake."""
        self.jar: Jar | None = None
        self.cookies_on = cookies_on
        """Whether cookies are sent: from the start if the script has default cookies, else from the first Set-Cookie on."""


Action = Callable[[Vu], None]
"""A compiled step: a function of the virtual user. Raises VuFailedError."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all steps of a script are compiled with."""

    script: model.Script
    recorder: Recorder
    rng: Random
    calls: Mapping[str, Function]
    agent: str
    """The User-Agent to send if the script sets none."""
    write_line: Callable[[str], None]
    """Takes a line for stdout."""
    warn: Callable[[str], None]
    """Takes a warning for the report. The same warning may come many times."""
    expectation_failed: Callable[[], None]
    exit_code: Callable[[int], None] = lambda _: None
    """Takes an exit code that a function of the processor wants."""
    rows: Rows | None = None
    """Where a row for each request goes, if rows are wanted."""

    def hook(self, name: str) -> Callable[..., Any]:
        """As `function`, for a name that may be a template. If that names no function, nothing is called, with a warning."""
        if "{{" not in name:
            return self.function(name)
        template = compile_template(name, self.calls)

        def call(*arguments: Any) -> None:
            *_, vu = arguments
            chosen, processor = text(template.render(vu.variables)), self.script.processor
            if processor is not None and chosen in processor.functions:
                self.function(chosen)(*arguments)
            else:
                self.warn(f"no function `{chosen}` is called for `{name}`: the processor has none of this name")

        return call

    def function(self, name: str) -> Callable[..., Any]:
        """The processor's function of this name, to be called with (arguments..., vu). What it raises ends the virtual user."""
        processor = self.script.processor
        if processor is None:
            raise KeyError(name)
        called = guarded(processor, name, processor.functions[name], self.warn)
        recorder, exit_code = self.recorder, self.exit_code

        def count(name: str, n: int = 1) -> None:
            recorder.count(_metric(name), _amount(n))

        def sample(name: str, value: float) -> None:
            recorder.sample(_metric(name), value)

        def rate(name: str) -> None:
            recorder.rate(_metric(name))

        def call(*arguments: Any) -> Any:
            *given, vu = arguments
            return called(*given, User(vu.variables, count, sample, rate, vu.scenario, exit_code))

        return call


def _metric(name: Any) -> str:
    """The name of a metric that a function of the processor gives. Raises TypeError."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a metric is a text, not {name!r}")
    return name


def _amount(n: Any) -> int:
    """What a function of the processor adds to a counter. Raises TypeError, ValueError."""
    amount = index(n)
    if not 0 <= amount <= _MOST:
        raise ValueError(f"a counter can be given 0 to 2**53, not {n!r}")
    return amount


def guarded(
    processor: Processor, name: str, called: Callable[..., Any], warn: Callable[[str], None]
) -> Callable[..., Any]:
    """A function of the processor whose exceptions end the virtual user; those other than Fail go to `warn`, with their place."""

    def call(*arguments: Any) -> Any:
        try:
            return called(*arguments)
        except Fail as failed:
            raise VuFailedError(failed.name) from None
        # One that exits must not end the run, either.
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's function does
            said = f"{type(error).__name__}: {error}"
            warn(f"{processor.place_of(error)}: {name}: {said}")
            raise VuFailedError(said) from None

    return call
