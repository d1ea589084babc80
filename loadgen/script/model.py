"""An Artillery script as a frozen value: read, merged and checked, with the templates of `config` filled in.

Texts that may hold `{{ }}` placeholders stay as written (`Any`: a script may put a number where a text is usual);
`loadgen.vu.program` compiles them. Mappings and lists inside are never changed after parsing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loadgen.http.message import FormPart
from loadgen.http.response import MAX_BODY_BYTES
from loadgen.http.tls import TlsSettings
from loadgen.language.values import UNDEFINED
from loadgen.script.processor import Processor
from reports.names import ENDPOINT


@dataclass(frozen=True, slots=True)
class Place:
    """A position in the user's files. `line` and `column` count from 1; both are 0 for a command-line option."""

    file: str
    line: int
    column: int
    path: str
    """The path of the part, such as `scenarios[0].flow[2].get.url`; empty for a whole file."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.path}" if self.path else where


@dataclass(frozen=True, slots=True)
class ScriptProblem:
    """A problem or warning about a script, to be shown to the user as one line that names the place."""

    place: Place
    message: str
    nearest: str | None = None
    """The valid key that is most similar to a refused one."""

    def __str__(self) -> str:
        hint = f" (did you mean `{self.nearest}`?)" if self.nearest else ""
        return f"{self.place}: {self.message}{hint}"


class ScriptErrors(Exception):
    """Raised for a script that cannot be run; holds all its problems, and the warnings found on the way."""

    def __init__(self, problems: tuple[ScriptProblem, ...], warnings: tuple[ScriptProblem, ...] = ()) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems
        self.warnings = warnings


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the run with one arrival law (see `loadgen.schedule`).

    The law is given by the first of these that is set: `pause`; `concurrency`; `arrival_count` over `duration_s`;
    `arrival_rate` to `ramp_to`; `arrival_rate`.
    """

    index: int
    name: str | None
    duration_s: float
    """Length of the phase or pause, in seconds."""
    duration_text: str
    """The length as the console shows it: `4s`, `500ms`, `5min`."""
    pause: bool = False
    arrival_rate: float = 0.0
    """New virtual users per second."""
    arrival_count: int | None = None
    ramp_to: float | None = None
    max_vusers: int | None = None
    poisson: bool = False
    smooth: bool = False
    """A ramp climbs by the instant, not in Artillery's stairs of a second each."""
    concurrency: int | None = None
    """Number of virtual users that are active all the time: a closed phase, in which each is replaced when it ends."""


def workload_model(phases: Iterable[Phase]) -> str:
    """The workload model of a report: "open", "closed" (every phase with users has a `concurrency`), or "mixed"."""
    closed = {phase.concurrency is not None for phase in phases if not phase.pause}
    return "mixed" if len(closed) > 1 else "closed" if True in closed else "open"


@dataclass(frozen=True, slots=True)
class Payload:
    """The rows of one CSV file, with numbers already converted. `fields` names the columns.

    `order`: "random" or "sequence" (a row per VU), or "all" (every row as the variable `name`).
    """

    rows: tuple[tuple[Any, ...], ...]
    fields: tuple[str, ...]
    order: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Capture:
    """A value taken from a response: stored in the variable `into` (a path), or compared with `expected` (a match)."""

    source: str
    """One of json, header, regexp, selector, function (of the processor); any other always fails."""
    expression: Any
    strict: bool | None
    """Whether a missing value fails the virtual user; None means the default of `config`."""
    multiple: bool = True
    """False takes all matches of a JSONPath as a list; otherwise one of them, chosen at random."""
    group: int | str | None = None
    flags: str = ""
    attribute: Any = None
    index: Any = 0
    into: str = ""
    expected: Any = UNDEFINED
    """The value to compare with; UNDEFINED compares with nothing, so that a match fails only for a body that cannot be read."""
    is_match: bool = False


@dataclass(frozen=True, slots=True)
class Expectation:
    """One check of the expect plugin: its `kind` as the script names it; templates in `expected` are not filled in yet."""

    kind: str
    expected: Any


@dataclass(frozen=True, slots=True)
class JsonBody:
    """A JSON body: any JSON value, or a template that renders to one."""

    value: Any


@dataclass(frozen=True, slots=True)
class TextBody:
    """A body that is sent as it is, without a content type."""

    text: Any


@dataclass(frozen=True, slots=True)
class FormBody:
    """A body of URL-encoded fields."""

    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MultipartBody:
    """A multipart body; its parts are in the script's order."""

    parts: tuple[FormPart, ...]


Body = JsonBody | TextBody | FormBody | MultipartBody


@dataclass(frozen=True, slots=True)
class RequestStep:
    """One HTTP request step."""

    method: str
    """The method, in capitals."""
    url: Any
    """The URL as written; the target has not been put before it yet."""
    place: Place
    name: Any = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    bodies: tuple[Body, ...] = ()
    """The body, if any; a request with more than one contradicts itself and fails its virtual user."""
    query: Mapping[str, Any] | None = None
    cookies: Mapping[str, Any] = field(default_factory=dict)
    auth: tuple[Any, Any] | None = None
    """User name and password."""
    gzip: bool = True
    follow_redirect: bool = True
    captures: tuple[Capture, ...] = ()
    """Captures first, then matches."""
    expectations: tuple[Expectation, ...] = ()
    if_true: str | None = None
    probability: float | None = None
    """Chance that the request is made, in percent."""
    before: tuple[str, ...] = ()
    """Functions of the processor that are called before the request is sent; the scenario's come first."""
    after: tuple[str, ...] = ()
    """Functions of the processor that are called after the final response."""


@dataclass(frozen=True, slots=True)
class Think:
    """A pause: a number of seconds, or a text with a unit; each virtual user fills in a template by itself."""

    duration: Any
    jitter: Any = None


@dataclass(frozen=True, slots=True)
class Log:
    """A step that prints a line on stdout."""

    text: Any


@dataclass(frozen=True, slots=True)
class Loop:
    """Steps that are repeated `count` times (a number, `"2-4"`, a template, -1 for ever), or once for each element of `over`."""

    steps: tuple[Step, ...]
    count: Any = None
    over: str | tuple[Any, ...] | None = None
    """The name of a variable that holds a list, or the list itself."""
    while_true: str | None = None
    """A function of the processor that is called after each round; it replaces `count` and `over`."""
    index_name: str = "$loopCount"
    element_name: str = "$loopElement"


@dataclass(frozen=True, slots=True)
class Parallel:
    """Steps that run at the same time and share the user's variables and its one connection, so that requests take turns."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A step that calls a function of the processor."""

    function: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A step that fails its virtual user: Artillery starts such a script without complaint, and then cannot run the step."""

    error: str


Step = RequestStep | Think | Log | Loop | Parallel | Call | Broken


@dataclass(frozen=True, slots=True)
class Scenario:
    """The steps that a virtual user takes, and how often a user is given this scenario."""

    index: int
    """The scenario's position in the script, from 0."""
    name: str | None
    weight: int
    flow: tuple[Step, ...]
    on_error: tuple[str, ...] = ()
    """Functions of the processor that are called when a virtual user fails."""

    @property
    def label(self) -> str:
        """The scenario's name in metrics."""
        return self.name or str(self.index)


@dataclass(frozen=True, slots=True)
class Tracing:
    """`config.http.distributedTracing`: a traceparent header on every request."""

    sampled: bool = True
    prefix: str = "a9"
    """The hexadecimal digits that every trace id begins with."""


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Settings for every request and connection. Values of `headers` and `cookies` may be templates that users fill in."""

    timeout_s: float = 10.0
    """Longest time from the request being written to the head of the response, in seconds."""
    socket_limit_s: float = 8.0
    """Longest time without any traffic on a socket, in seconds."""
    pool: int | None = None
    """Most connections to a host for all virtual users together; None gives each user a connection of its own."""
    tls: TlsSettings = field(default_factory=TlsSettings)
    extended_metrics: bool = False
    headers: Mapping[str, Any] | None = None
    """Default header fields; None means only this program's own User-Agent."""
    cookies: Mapping[str, Any] = field(default_factory=dict)
    loose_cookies: bool = False
    """Whether cookies without a name are kept (`cookieJarOptions.looseMode`)."""
    strict_capture: bool = True
    think_jitter: Any = None
    max_body_bytes: int = MAX_BODY_BYTES
    """The most that is kept of a body for captures, expectations and functions, in bytes."""
    drain_s: float = 60.0
    """How long an answer may go on after the plan's last arrival, in seconds; 0 for without end."""
    tracing: Tracing | None = None


@dataclass(frozen=True, slots=True)
class EndpointMetrics:
    """Options of the metrics-by-endpoint plugin, which is always on."""

    namespace: str = ENDPOINT
    only_request_names: bool = False
    strip_query: bool = True
    ignore_unnamed: bool = False
    group_dynamic_urls: bool = True


@dataclass(frozen=True, slots=True)
class ExpectPlugin:
    """Options of the expect plugin, when listed."""

    output: str = "pretty"
    """The format of its output: pretty, json, prettyError or silent."""
    failures_are_errors: bool = False
    default_200: bool = False
    only_request_names: bool = False


@dataclass(frozen=True, slots=True)
class PushGateway:
    """A Prometheus push gateway that is sent the metrics of each period."""

    url: str
    tags: Mapping[str, str] = field(default_factory=dict)
    prefix: str = "artillery"
    ca: bytes | None = None
    """Certificates to trust besides those of the system, in PEM."""


@dataclass(frozen=True, slots=True)
class OpenTelemetry:
    """An OpenTelemetry collector that is sent the metrics of each period by OTLP over HTTP, as JSON."""

    endpoint: str | None = None
    """Its whole URL; None: as the environment says, else on this machine."""
    headers: Mapping[str, str] = field(default_factory=dict)
    meter: str = "Artillery.io_metrics"
    include_only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    service: str = "Artillery-test"
    resource: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the ensure plugin. `expression` is in the language of `loadgen.language.expressions`."""

    text: str
    """The check as the report shows it."""
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
    """Variables of every virtual user; a list gives each user one of its elements."""
    built_ins: Mapping[str, Any] = field(default_factory=dict)
    """The values of target, $environment, $processEnvironment, $env, $testId, $dirname and $scenarioFile."""
    payloads: tuple[Payload, ...] = ()
    http: HttpSettings = HttpSettings()
    endpoint_metrics: EndpointMetrics = EndpointMetrics()
    expect: ExpectPlugin | None = None
    apdex_threshold_ms: float | None = None
    """Threshold of the apdex plugin, in ms; None if the plugin is not listed."""
    ensure: tuple[Check, ...] | None = None
    """Checks of the ensure plugin in the order of definition; None if the plugin is not listed."""
    fake_data: Mapping[str, Any] | None = None
    """Options of the fake-data plugin by function name; None if the plugin is not listed."""
    gateways: tuple[PushGateway, ...] = ()
    collectors: tuple[OpenTelemetry, ...] = ()
    """Where the plugin publish-metrics sends the metrics of each period."""
    hidden_metrics: tuple[str, ...] = (ENDPOINT,)
    """Texts: the console leaves out every metric whose name contains one of them."""
    processor: Processor | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)
    """The values of HTTP_PROXY and HTTPS_PROXY, where they are set."""
    source: str = ""
    """The text of the script's files, which is kept in the report."""
    debug: bool = False
    """Whether DEBUG=http is set: show every request and response."""
    warnings: tuple[ScriptProblem, ...] = ()
