"""An Artillery script as a value: read, merged, checked, its configuration's templates filled in. Frozen; no I/O.

Texts that may hold `{{ }}` placeholders stay as written (`Any`: a script may put a number where a text is usual);
`loadgen.vu.program` compiles them. Mappings and lists inside are never changed after parsing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loadgen.http.message import FormPart
from loadgen.http.tls import TlsSettings
from loadgen.script.processor import Processor


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the user's files something stands. `line` and `column` count from 1; 0 where there are none (an option)."""

    file: str
    line: int
    column: int
    path: str
    """`scenarios[0].flow[2].get.url`; empty for a whole file."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.path}" if self.path else where


@dataclass(frozen=True, slots=True)
class ScriptProblem:
    """Something to tell the user about a script: one line, naming the place."""

    place: Place
    message: str
    nearest: str | None = None
    """The valid key that a refused one resembles."""

    def __str__(self) -> str:
        hint = f" (did you mean `{self.nearest}`?)" if self.nearest else ""
        return f"{self.place}: {self.message}{hint}"


class ScriptErrors(Exception):
    """A script that cannot be run: everything that stops it, and the warnings found on the way."""

    def __init__(self, problems: tuple[ScriptProblem, ...], warnings: tuple[ScriptProblem, ...] = ()) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems
        self.warnings = warnings


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the run with one arrival law (see `loadgen.schedule`).

    The law is the first of these that is given: `pause`; `arrival_count` over `duration_s`; `arrival_rate` to `ramp_to`;
    `arrival_rate`.
    """

    index: int
    name: str | None
    duration_s: float
    """Of the phase, or of the pause."""
    duration_text: str
    """As the console shows it: `4s`, `500ms`, `5min`."""
    pause: bool = False
    arrival_rate: float = 0.0
    """New VUs per second."""
    arrival_count: int | None = None
    ramp_to: float | None = None
    max_vusers: int | None = None
    poisson: bool = False


@dataclass(frozen=True, slots=True)
class Payload:
    """Rows of one CSV file, already cast. `fields` name the columns.

    `order`: "random" or "sequence" (a row per VU), or "all" (every row as the variable `name`).
    """

    rows: tuple[tuple[Any, ...], ...]
    fields: tuple[str, ...]
    order: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Capture:
    """A value taken out of a response into the variable `into` (a path), or compared with `expected` (a match)."""

    source: str
    """json, header, regexp, selector, function (of the processor); anything else always fails."""
    expression: Any
    strict: bool | None
    """None: as the configuration says."""
    multiple: bool = True
    """False: all JSONPath matches as a list, in place of a random one."""
    group: int | str | None = None
    flags: str = ""
    attribute: Any = None
    index: Any = 0
    into: str = ""
    expected: Any = None
    is_match: bool = False


@dataclass(frozen=True, slots=True)
class Expectation:
    """One check of the expect plugin: `kind` as the script names it, `expected` not yet templated."""

    kind: str
    expected: Any


@dataclass(frozen=True, slots=True)
class JsonBody:
    """Any JSON value, or a text that renders to one."""

    value: Any


@dataclass(frozen=True, slots=True)
class TextBody:
    """Sent as it is, without a content type."""

    text: Any


@dataclass(frozen=True, slots=True)
class FormBody:
    """Urlencoded fields."""

    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MultipartBody:
    """Parts in the script's order."""

    parts: tuple[FormPart, ...]


Body = JsonBody | TextBody | FormBody | MultipartBody


@dataclass(frozen=True, slots=True)
class RequestStep:
    """One HTTP request step."""

    method: str
    """In capitals."""
    url: Any
    """As written: the target is not yet put before it."""
    place: Place
    name: Any = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    bodies: tuple[Body, ...] = ()
    """More than one exclude each other: such a request fails its VU."""
    query: Mapping[str, Any] | None = None
    cookies: Mapping[str, Any] = field(default_factory=dict)
    auth: tuple[Any, Any] | None = None
    """User and password."""
    gzip: bool = True
    follow_redirect: bool = True
    captures: tuple[Capture, ...] = ()
    """Captures, then matches."""
    expectations: tuple[Expectation, ...] = ()
    if_true: str | None = None
    probability: float | None = None
    """Percent."""
    before: tuple[str, ...] = ()
    """Functions of the processor called before it is sent, the scenario's first."""
    after: tuple[str, ...] = ()
    """The same, after its final response."""


@dataclass(frozen=True, slots=True)
class Think:
    """A pause: seconds as a number or text with a unit; a template is worked out by each VU."""

    duration: Any
    jitter: Any = None


@dataclass(frozen=True, slots=True)
class Log:
    """A line on stdout."""

    text: Any


@dataclass(frozen=True, slots=True)
class Loop:
    """Steps repeated `count` times (a number, `"2-4"`, a template, -1 for ever), or once for each element of `over`."""

    steps: tuple[Step, ...]
    count: Any = None
    over: str | tuple[Any, ...] | None = None
    """A variable's name, or the elements."""
    while_true: str | None = None
    """A function of the processor, asked after each round; it takes the place of count and over."""
    index_name: str = "$loopCount"
    element_name: str = "$loopElement"


@dataclass(frozen=True, slots=True)
class Parallel:
    """Steps done at once on one VU's variables; over the VU's one connection, so their requests follow each other."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the processor."""

    function: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A step that fails its VU: what Artillery starts without complaint and then cannot do."""

    error: str


Step = RequestStep | Think | Log | Loop | Parallel | Call | Broken


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a virtual user does."""

    index: int
    """Its place in the script, from 0."""
    name: str | None
    weight: int
    flow: tuple[Step, ...]
    on_error: tuple[str, ...] = ()
    """Functions of the processor."""

    @property
    def label(self) -> str:
        """Its name in metrics."""
        return self.name or str(self.index)


@dataclass(frozen=True, slots=True)
class Tracing:
    """`config.http.distributedTracing`: a traceparent header on every request."""

    sampled: bool = True
    prefix: str = "a9"
    """First hexadecimal digits of every trace id."""


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """What holds for every request and connection. Values in `headers` and `cookies` may still hold VU templates."""

    timeout_s: float = 10.0
    """Request written to response headers."""
    socket_limit_s: float = 8.0
    """Longest silence of a socket."""
    pool: int | None = None
    """Most connections to a host for all VUs together; None: each VU has its own."""
    tls: TlsSettings = field(default_factory=TlsSettings)
    extended_metrics: bool = False
    headers: Mapping[str, Any] | None = None
    """None: the product's own User-Agent alone."""
    cookies: Mapping[str, Any] = field(default_factory=dict)
    strict_capture: bool = True
    think_jitter: Any = None
    tracing: Tracing | None = None


@dataclass(frozen=True, slots=True)
class EndpointMetrics:
    """Options of the metrics-by-endpoint plugin, which is always on."""

    namespace: str = "plugins.metrics-by-endpoint"
    only_request_names: bool = False
    strip_query: bool = True
    ignore_unnamed: bool = False
    group_dynamic_urls: bool = True


@dataclass(frozen=True, slots=True)
class ExpectPlugin:
    """Options of the expect plugin, when listed."""

    output: str = "pretty"
    """pretty, json, prettyError or silent."""
    failures_are_errors: bool = False
    default_200: bool = False
    only_request_names: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the ensure plugin. `expression` is in the language of `loadgen.language.expressions`."""

    text: str
    """As the report shows it."""
    expression: str
    strict: bool = True


@dataclass(frozen=True, slots=True)
class Script:
    """A whole run, ready to be started."""

    target: str
    phases: tuple[Phase, ...]
    scenarios: tuple[Scenario, ...]
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Of every VU; a list gives each VU one of its elements."""
    built_ins: Mapping[str, Any] = field(default_factory=dict)
    """target, $environment, $processEnvironment, $env, $testId, $dirname, $scenarioFile."""
    payloads: tuple[Payload, ...] = ()
    http: HttpSettings = HttpSettings()
    endpoint_metrics: EndpointMetrics = EndpointMetrics()
    expect: ExpectPlugin | None = None
    apdex_threshold_ms: float | None = None
    """None: the apdex plugin is not listed."""
    ensure: tuple[Check, ...] | None = None
    """None: the ensure plugin is not listed. In the order of definition."""
    fake_data: Mapping[str, Any] | None = None
    """Options of the fake-data plugin by function name; None: not listed."""
    hidden_metrics: tuple[str, ...] = ("plugins.metrics-by-endpoint",)
    """The console leaves out every metric whose name contains one of these."""
    processor: Processor | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)
    """HTTP_PROXY and HTTPS_PROXY, where set."""
    source: str = ""
    """Text of the script's files, for who reads the report."""
    debug: bool = False
    """DEBUG=http: show every request and response."""
    warnings: tuple[ScriptProblem, ...] = ()
