"""A script's own functions in Python (`config.processor: flow.py`), in place of Artillery's JavaScript.

A processor is a plain module. Functions in it are called by the names that the script gives:

- `beforeRequest: sign` calls `sign(request: Request, user: User)`, which may change the request before it is sent;
- `afterResponse: check` calls `check(request: Request, response: Response, user: User)`;
- `beforeScenario`, `afterScenario` and `function: login` steps call `login(user: User)`;
- `whileTrue: more` and `ifTrue: more` call `more(user: User) -> bool`;
- `onError: note` calls `note(error: str, user: User)`;
- `capture: {function: total, as: sum}` calls `total(response: Response, user: User)`, which returns the value.

An exception in a function fails its virtual user and nothing else; `Fail` sets the error's name in the metrics.
"""

from __future__ import annotations

import inspect
import posixpath
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from loadgen.language.values import json_value


class Fail(Exception):
    """Raise this in a function to fail its virtual user; it is counted as `errors.<name>`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(slots=True)
class Request:
    """A request. In `beforeRequest` it is as the script has it; `{{ }}` templates in it are filled in afterwards.

    At most one of `json`, `form` and `body` is sent, the first that is not None.
    """

    method: str
    url: Any
    headers: dict[str, Any] = field(default_factory=dict)
    json: Any = None
    form: dict[str, Any] | None = None
    body: str | bytes | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A final response with its body decompressed. Names in `headers` are lower-case; `set-cookie` is a list of texts."""

    status: int
    headers: Mapping[str, Any]
    text: str

    @property
    def json(self) -> Any:
        """The body parsed as JSON. Raises ValueError if it is not JSON."""
        return json_value(self.text)


@dataclass(frozen=True, slots=True)
class User:
    """The virtual user that a function is called for."""

    variables: dict[str, Any]
    """The user's variables, which templates use and functions may change."""
    count: Callable[[str, int], None]
    """`count(name, n)` adds n to a counter of the report."""
    sample: Callable[[str, float], None]
    """`sample(name, value)` adds a value (in ms if it is a time) to a summary of the report."""


class ProcessorError(Exception):
    """Raised for a processor that cannot be used; the message says where and why."""


@dataclass(frozen=True)
class Processor:
    """A processor's functions by name."""

    path: str
    source: bytes
    functions: Mapping[str, Callable[..., Any]] = field(compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by path: another process loads the file again."""
        return load, (self.path, self.source)

    def place_of(self, error: BaseException) -> str:
        """Return the innermost line of this file that an error passed through, as `flow.py:12`."""
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == self.path]
        return f"{self.path}:{lines[-1]}" if lines else self.path


def load(path: str, source: bytes) -> Processor:
    """Load a processor by running its file, which may import modules beside it. Raises ProcessorError."""
    folder = posixpath.dirname(path)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = ModuleType(posixpath.basename(path).removesuffix(".py"))
    module.__file__ = path
    # Dataclasses of the module look up the names in their annotations here.
    sys.modules.setdefault(module.__name__, module)
    try:
        exec(compile(source, path, "exec"), module.__dict__)  # noqa: S102 - the user's own program, run on request
    except SyntaxError as error:
        raise ProcessorError(f"{error.filename}:{error.lineno}: {error.msg}") from None
    except Exception as error:  # noqa: BLE001 - whatever the user's module does
        place = Processor(path, source, {}).place_of(error)
        raise ProcessorError(f"{place}: {type(error).__name__}: {error}") from None
    found = {name: value for name, value in vars(module).items() if inspect.isroutine(value)}
    return Processor(path, source, found)


ARGUMENTS = {
    "beforeRequest": ("request", "user"),
    "afterResponse": ("request", "response", "user"),
    "beforeScenario": ("user",),
    "afterScenario": ("user",),
    "onError": ("error", "user"),
    "function": ("user",),
    "whileTrue": ("user",),
    "ifTrue": ("user",),
    "capture": ("response", "user"),
}
"""The arguments that a function is called with, by the key of the script that names it."""


def unfit(function: Callable[..., Any], role: str) -> str | None:
    """Return why a function cannot be called for this key of a script, or None if it can."""
    if inspect.iscoroutinefunction(function):
        return "is async: functions are called and must return"
    given = ARGUMENTS[role]
    try:
        inspect.signature(function).bind(*given)
    except TypeError:
        return f"does not take what {role} gives: ({', '.join(given)})"
    # A builtin without a signature.
    except ValueError:
        pass
    return None
