"""A virtual user, and what every step that it executes was compiled with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from loadgen.http.cookies import Jar
from loadgen.http.exchange import Exchange, Failure
from loadgen.language.template import Function
from loadgen.recorder import Recorder
from loadgen.script import model
from loadgen.script.processor import Fail, User


class VuFailedError(Exception):
    """Ends a virtual user; `name` is the error's name in the metrics."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Vu:
    """One virtual user on its way: its variables, cookies and connections."""

    __slots__ = ("cookies_on", "exchange", "intended_ns", "jar", "variables")

    def __init__(
        self,
        variables: dict[str, Any],
        exchange: Callable[..., Exchange | Failure],
        intended_ns: int,
        *,
        cookies_on: bool,
    ) -> None:
        self.variables = variables
        self.exchange = exchange
        self.intended_ns = intended_ns
        """When the plan wanted its next request; 0 once it has made one."""
        self.jar: Jar | None = None
        self.cookies_on = cookies_on
        """A default cookie, or the first Set-Cookie, switches the jar on."""


Action = Callable[[Vu], None]
"""A compiled step. Raises VuFailedError."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all steps of a run are compiled with."""

    script: model.Script
    recorder: Recorder
    rng: Random
    calls: Mapping[str, Function]
    agent: str
    """The User-Agent that is sent where the script names none."""
    write_line: Callable[[str], None]
    """Takes a line for stdout."""
    warn: Callable[[str], None]
    """Takes a warning for the report, once or often."""
    expectation_failed: Callable[[], None]

    def function(self, name: str) -> Callable[..., Any]:
        """The processor's function, made to be called with (arguments..., vu): what it raises fails the user."""
        processor = self.script.processor
        if processor is None:
            raise KeyError(name)
        called = processor.functions[name]
        count, sample = self.recorder.count, self.recorder.sample

        def call(*arguments: Any) -> Any:
            *given, vu = arguments
            try:
                return called(*given, User(vu.variables, count, sample))
            except Fail as failed:
                raise VuFailedError(failed.name) from None
            except Exception as error:  # noqa: BLE001 - whatever the user's function does
                said = f"{type(error).__name__}: {error}"
                self.warn(f"{processor.place_of(error)}: {name}: {said}")
                raise VuFailedError(said) from None

        return call
