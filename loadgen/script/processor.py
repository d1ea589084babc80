"""A script's own functions in Python (`config.processor: flow.py`), in place of Artillery's JavaScript.

A processor is a plain module. Functions in it are called by the names that the script gives:

- `beforeRequest: sign` calls `sign(request: Request, user: User)`, which may change the request before it is sent;
- `afterResponse: check` calls `check(request: Request, response: Response, user: User)`;
- `beforeScenario`, `afterScenario` and `function: login` steps call `login(user: User)`;
- `whileTrue: more` and `ifTrue: more` call `more(user: User) -> bool`;
- `onError: note` calls `note(error: str, user: User)`;
- `capture: {function: total, as: sum}` calls `total(response: Response, user: User)`, which returns the value;
- `{{ $total(1, 2) }}` calls `total(1, 2)`, if the function is marked with `@template_function`.

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
from typing import Any, TypeVar

from loadgen.language.values import json_value


class Fail(Exception):
    """Raise this in a function to fail its virtual user; it is counted as `errors.<name>`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = str(name)


@dataclass(slots=True)
class Request:
    """A request. In `beforeRequest` it is as the script has it; `{{ }}` templates in it are filled in afterwards.

    At most one of `json`, `form`, `body` and `form_data` is sent, the first that is not None. In `afterResponse` it is what
    was sent: only `method`, `url`, `headers`, `body` (as bytes), `name` and `id` are set.
    """

    method: str
    url: Any
    headers: dict[str, Any] = field(default_factory=dict)
    json: Any = None
    form: dict[str, Any] | None = None
    body: str | bytes | None = None
    name: Any = None
    """The name of the request in metrics, or None."""
    id: str = field(default="", compare=False)
    """An id of this one request, the same before and after it."""
    form_data: dict[str, Any] | None = None
    """The parts of a multipart body: a value, or a file as a tuple `(file name, bytes, media type)`."""
    qs: dict[str, Any] | None = None
    """The query, which replaces that of the URL."""
    cookie: dict[str, Any] = field(default_factory=dict)
    """Cookies to set before the request is sent."""
    auth: tuple[Any, Any] | None = None
    """User name and password."""
    follow_redirect: bool = True
    timeout_s: float | None = None
    """Longest time from the request written to the head of the response, in seconds; None for that of the script."""


@dataclass(frozen=True, slots=True)
class Timings:
    """How long the parts of a request took, in ms. Those of the connection are 0 where it was open already."""

    dns: float
    tcp: float
    tls: float
    first_byte: float
    """From the request written to the first byte of the response, as in `http.response_time`."""
    download: float
    """From the first byte of the response to its last."""
    total: float
    """From the start, before any connecting, to the last byte."""


@dataclass(frozen=True, slots=True)
class Response:
    """A final response with its body decompressed. Names in `headers` are lower-case; `set-cookie` is a list of texts."""

    status: int
    headers: Mapping[str, Any]
    text: str
    body: bytes = b""
    timings: Timings | None = None

    @property
    def json(self) -> Any:
        """The body parsed as JSON. Raises ValueError if it is not JSON."""
        return json_value(self.text)


def _nothing(_: Any) -> None:
    pass


@dataclass(frozen=True, slots=True)
class User:
    """The virtual user that a function is called for."""

    variables: dict[str, Any]
    """The user's variables, which templates use and functions may change."""
    count: Callable[[str, int], None]
    """`count(name, n)` adds n, a whole number from 0 on, to a counter of the report."""
    sample: Callable[[str, float], None]
    """`sample(name, value)` adds a value (in ms if it is a time) to a summary of the report."""
    rate: Callable[[str], None] = _nothing
    """`rate(name)` counts an event of a rate per second."""
    scenario: str | None = None
    """The name of the scenario that the user runs; None where it has none, and in `before` and `after`."""
    exit_code: Callable[[int], None] = _nothing
    """`exit_code(n)` makes `loadgen run` exit with n (1 to 255), if nothing else makes it fail; the highest wins."""


_Called = TypeVar("_Called", bound=Callable[..., Any])
_MARK = "_is_template_function"


def template_function(function: _Called) -> _Called:
    """Mark a function, so that templates may call it: `{{ $name() }}`, with numbers as arguments. Its result becomes text."""
    setattr(function, _MARK, True)
    return function


class ProcessorError(Exception):
    """Raised for a processor that cannot be used; the message says where and why."""


@dataclass(frozen=True)
class Processor:
    """A processor's functions by name."""

    path: str
    source: bytes
    functions: Mapping[str, Callable[..., Any]] = field(compare=False)

    @property
    def template_functions(self) -> dict[str, Callable[..., Any]]:
        """The functions that templates may call, by name with `$`."""
        return {f"${name}": called for name, called in self.functions.items() if getattr(called, _MARK, False)}

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
    # One that exits must not end the program, either.
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's module does
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
