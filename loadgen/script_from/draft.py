"""What a new script will say, before it is text: scenarios of steps, and what was left out of it, with the reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


def counted(number: int, thing: str) -> str:
    """A number and what it counts, in the plural where it must be."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


class Unusable(Exception):
    """Raised for a document that no script can be made of. The message is one line that says why."""


@dataclass(frozen=True, slots=True)
class Capture:
    """A value that a step takes from its answer."""

    path: str
    """JSONPath of the value; or the CSS selector of its element, or the name of its header, as `source` says."""
    variable: str
    source: Literal["json", "selector", "header"] = "json"
    attribute: str = ""
    """The attribute of the selected element."""


@dataclass(frozen=True, slots=True)
class Step:
    """One request of a flow. Texts may hold `{{ }}` templates."""

    method: str
    """In lower case."""
    url: str
    """A path with its query, to be put behind the script's target."""
    expect: Sequence[int] = ()
    """The statuses that count as right; empty where none is known."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: tuple[str, Any] | None = None
    """The key of the body (`json`, `form` or `body`), and its value."""
    captures: Sequence[Capture] = ()
    needs: Sequence[str] = ()
    """Variables without which the request is not made."""
    follow_redirect: bool = True
    think_s: float = 0.0
    """The pause after the request, in seconds."""
    comment: str = ""
    """A line to stand above the step; empty for none."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A scenario: its name and its steps."""

    name: str
    steps: Sequence[Step]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A request that is not in the script, and why."""

    request: str
    """Method and path, such as `GET /pets/{petId}`."""
    why: str


@dataclass(frozen=True, slots=True)
class Secret:
    """A header of every request whose value comes from an environment variable."""

    header: str
    template: str
    """The header's value, such as `Bearer {{ $processEnvironment.TOKEN }}`."""
    variable: str
    """The environment variable."""
    is_set: bool
    """Whether that variable was set when the script was made; otherwise the header is only a comment."""


class SecretNeeded(Unusable):
    """Raised for a request that needs a secret which is not known. `name` is the field, parameter or header that it is in."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


class NothingToRequest(Unusable):
    """Raised for a document of which no operation can be requested. `left_out` has them all, with the reasons."""

    def __init__(self, message: str, left_out: Sequence[LeftOut]) -> None:
        super().__init__(message)
        self.left_out = left_out


@dataclass(frozen=True, slots=True)
class Draft:
    """A script to be written."""

    title: str
    """What the script was made of, in one line."""
    target: str
    flows: Sequence[Flow]
    left_out: Sequence[LeftOut] = ()
    secrets: Sequence[Secret] = ()
    slowest_ms: float = 0.0
    """The slowest answer that was seen while the script was made; 0 where none was."""
    notes: Sequence[str] = ()
    """Lines for the top of the script, and for whoever made it."""

    @property
    def requests(self) -> int:
        """The number of different requests in the script."""
        return len({(step.method, step.url) for flow in self.flows for step in flow.steps})
