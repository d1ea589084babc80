"""The keys that scripts may have, by the kind of object: what their values are, and a sentence on each.

The parser knows its keys from these tables, and `loadgen.script.schema` makes the JSON Schema of scripts out of them. A value
is described in JSON Schema; a number or a boolean may also be written as a template.
"""

from __future__ import annotations

from typing import Any, Final

Keys = dict[str, tuple[dict[str, Any], str]]
"""By key: the JSON Schema of its value, and its description."""

METHODS: Final = ("get", "post", "put", "patch", "delete", "head", "options")
PAYLOAD_ORDERS: Final = ("random", "sequence")
PHASE_MODES: Final = ("uniform", "poisson")
EXPECT_OUTPUTS: Final = ("pretty", "json", "prettyError", "silent")

TEMPLATE: Final = r"\{\{.*\}\}"
_DURATION = r"^\s*-?(\d+|\d*\.?\d+ *[A-Za-z]+)\s*$"
_NUMBER = r"^\s*-?\d*\.?\d+\s*$"


def _or_template(kind: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [kind, {"type": "string", "pattern": TEMPLATE}]}


def _one_or_list(kind: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [kind, {"type": "array", "items": kind}]}


def _shape(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


_ANY: dict[str, Any] = {}
_TEXT = {"type": "string"}
_VALUE = {"type": ["string", "number", "boolean", "null"]}
_OBJECT = {"type": "object"}
_MAP = {"type": "object", "additionalProperties": {}}
_YES_NO = _or_template({"type": "boolean"})
_AMOUNT = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"{_NUMBER}|{TEMPLATE}"}]}
_LENGTH = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"{_DURATION}|{TEMPLATE}"}]}
_TEXTS = {"type": "array", "items": _TEXT}
_FUNCTION = _one_or_list(_TEXT)
_STEPS = {"type": "array", "items": _shape("step")}

ROOT: Keys = {
    "config": (_shape("config"), "Target, load and settings of the whole run."),
    "scenarios": ({"type": "array", "minItems": 1, "items": _shape("scenario")}, "What virtual users do, chosen by weight."),
    "before": (_shape("section"), "Steps that run once before the load; variables that they set are every user's."),
    "after": (_shape("section"), "Steps that run once after the load."),
}  # fmt: skip

CONFIG: Keys = {
    "target": (_TEXT, "Base URL of the service, such as http://127.0.0.1:8000. Relative URLs of requests begin with it."),
    "phases": ({"type": "array", "items": _shape("phase")}, "The load, in stretches that follow each other. Default: one user."),
    "variables": (_MAP, "Variables of every user; a list gives each user one of its elements."),
    "environments": ({"type": "object", "additionalProperties": _OBJECT}, "Parts of `config` by name, chosen with -e NAME."),
    "payload": (_one_or_list(_shape("payload")), "CSV files whose rows become variables."),
    "http": (_shape("http"), "Settings of HTTP."),
    "timeout": (_AMOUNT, "Seconds to wait for an answer; the same as `http.timeout`."),
    "tls": (_shape("tls"), "Settings of TLS."),
    "defaults": (_shape("defaults"), "Defaults of requests; the same as `http.defaults`."),
    "plugins": (_shape("plugins"), "Plugins that are on, with their options."),
    "ensure": (_shape("ensure"), "Checks of the finished run (plugin `ensure`)."),
    "apdex": (_shape("apdex"), "Options of the plugin `apdex`."),
    "processor": (_TEXT, "Python file with functions that the script calls."),
    "engines": (_OBJECT, "Settings of engines; only HTTP scenarios are run."),
    "engine": ({"enum": ["http"]}, "Engine of scenarios that name none."),
    "mode": ({"enum": [*PHASE_MODES]}, "How users arrive in phases that name no mode."),
    "statsInterval": (_ANY, "Accepted; periods are 10 s long."),
    "fake-data": (_OBJECT, "Options of the plugin `fake-data`, by function."),
    "includeFiles": (_ANY, "Files that cloud runs take along; without effect here."),
    "bundling": (_ANY, "Settings of bundling JavaScript; without effect here."),
    "ws": (_ANY, "Settings of WebSocket; such scenarios are not run."),
    "socketio": (_ANY, "Settings of Socket.IO; such scenarios are not run."),
}  # fmt: skip

PHASE: Keys = {
    "name": (_VALUE, "Name of the phase on the console."),
    "duration": (_LENGTH, "Length: whole seconds, or a number with a unit, such as 500ms or 2min."),
    "arrivalRate": (_AMOUNT, "New virtual users per second."),
    "arrivalCount": (_AMOUNT, "New virtual users in the whole phase, evenly spread."),
    "rampTo": (_AMOUNT, "Rate of arrivals at the end of the phase; it begins at `arrivalRate`."),
    "pause": (_LENGTH, "A phase without arrivals, of this length."),
    "maxVusers": (_AMOUNT, "Most users at one time; arrivals beyond it are skipped and counted."),
    "concurrency": (_AMOUNT, "A closed phase: this number of users at all times, each replaced when it ends. Not in Artillery."),
    "mode": ({"enum": [*PHASE_MODES]}, "How users arrive: evenly, or at random with the same mean rate."),
    "index": (_ANY, "Accepted, and without effect."),
    "id": (_ANY, "Accepted, and without effect."),
}  # fmt: skip

PAYLOAD: Keys = {
    "path": (_TEXT, "CSV file, relative to the script."),
    "fields": ({"type": "array", "items": _VALUE}, "Names of the variables, in the order of the columns."),
    "order": ({"enum": [*PAYLOAD_ORDERS]}, "Whether users take rows at random or one after the other."),
    "skipHeader": (_YES_NO, "Whether the first line is left out."),
    "delimiter": (_TEXT, "Character between cells; default: a comma."),
    "skipEmptyLines": (_YES_NO, "Whether empty lines are left out; default: true."),
    "cast": (_YES_NO, "Whether numbers are read as numbers; default: true."),
    "loadAll": (_YES_NO, "Whether every user has all rows, in the variable `name`."),
    "name": (_TEXT, "Variable that holds all rows with `loadAll`."),
    "options": (_OBJECT, "Further options of the CSV reader."),
}
CSV_OPTIONS: Final = ("quote", "trim", "relax_column_count", "delimiter", "from_line", "skip_empty_lines", "cast")

HTTP: Keys = {
    "timeout": (_AMOUNT, "Seconds to wait for an answer; default: 10."),
    "pool": (_AMOUNT, "Number of connections that all users share; default: one for each user."),
    "maxSockets": (_AMOUNT, "Without effect; `pool` limits connections."),
    "extendedMetrics": (_YES_NO, "Whether DNS, TCP, TLS and total times are recorded."),
    "defaults": (_shape("defaults"), "Defaults of requests."),
    "distributedTracing": ({"type": ["boolean", "object"]}, "Whether requests start a trace (`traceparent`)."),
    "cookieJarOptions": (_shape("cookieJarOptions"), "Options of the cookie jar."),
}
COOKIE_JAR: Keys = {"looseMode": (_YES_NO, "Whether cookies without a name are kept.")}

DEFAULTS: Keys = {
    "headers": (_MAP, "Headers of every request."),
    "cookie": (_MAP, "Cookies of every request."),
    "strictCapture": (_YES_NO, "Whether a capture without a value fails the user; default: true."),
    "think": ({"type": "object", "properties": {"jitter": _VALUE}}, "`jitter` of think times: `20%`, or milliseconds."),
}

TLS_TEXTS: Final = {"ca": ("ca", "certificateAuthority"), "cert": ("cert", "certificate"), "key": ("key",)}
TLS: Keys = {
    "rejectUnauthorized": (_YES_NO, "Whether certificates are verified; default: true."),
    "ca": (_TEXT, "Certificates to trust: PEM, or the name of a file."),
    "certificateAuthority": (_TEXT, "The same as `ca`."),
    "cert": (_TEXT, "The client's certificate: PEM, or the name of a file."),
    "certificate": (_TEXT, "The same as `cert`."),
    "key": (_TEXT, "Key of the client's certificate: PEM, or the name of a file."),
    "passphrase": (_VALUE, "Passphrase of the key."),
    "servername": (_TEXT, "Server name to ask for and to verify, instead of the URL's host."),
    "pfx": (_ANY, "Not supported: convert it to PEM files."),
}

PLUGINS: Keys = {
    "expect": ({"type": ["object", "null", "boolean"], "properties": {
        "outputFormat": {"enum": [*EXPECT_OUTPUTS], "description": "What stdout shows of expectations."},
        "formatter": {"enum": [*EXPECT_OUTPUTS], "description": "The same as `outputFormat`."},
        "reportFailuresAsErrors": _YES_NO, "expectDefault200": _YES_NO, "useOnlyRequestNames": _YES_NO,
    }}, "Checks the `expect` of requests; exit code 21 if one fails."),
    "ensure": ({"anyOf": [_shape("ensure"), {"type": ["null", "boolean"]}]}, "Checks the finished run by `config.ensure`."),
    "metrics-by-endpoint": ({"type": ["object", "null", "boolean"]}, "Times and codes by endpoint."),
    "apdex": ({"anyOf": [_shape("apdex"), {"type": ["null", "boolean"]}]}, "Score of response times."),
    "fake-data": ({"type": ["object", "null", "boolean"]}, "Template functions that make names, addresses and the like."),
    "publish-metrics": ({"type": "array", "items": _shape("receiver")}, "Where the metrics of each period are sent."),
}  # fmt: skip

APDEX: Keys = {"threshold": (_AMOUNT, "Threshold in ms; default: 500.")}

ENSURE_LIMITS: Final = ("min", "max", "median", "p95", "p99")
ENSURE: Keys = {
    "thresholds": ({"type": ["array", "null"], "items": {"type": "object", "minProperties": 1, "maxProperties": 1,
        "additionalProperties": _AMOUNT}}, "Metrics with their limits, such as `http.response_time.p95: 200`."),
    "conditions": ({"type": ["array", "null"], "items": {"type": "object", "required": ["expression"], "properties": {
        "expression": _TEXT, "strict": {"type": "boolean"}}}}, "Expressions that must be true."),
    "maxErrorRate": (_AMOUNT, "Most users that may fail, in percent."),
    **{name: (_AMOUNT, f"Limit of the {name} of response times, in ms.") for name in ENSURE_LIMITS},
}  # fmt: skip

PROMETHEUS: Keys = {
    "type": ({"const": "prometheus"}, "A Prometheus push gateway."),
    "pushgateway": (_TEXT, "URL of the push gateway."),
    "tags": ({"type": ["array", "null"], "items": _TEXT}, "Labels of every metric, as `name:value`."),
    "prefix": (_TEXT, "What the names of metrics begin with; default: artillery."),
    "ca": (_TEXT, "File with certificates to trust."),
}
TELEMETRY: Keys = {
    "type": ({"const": "open-telemetry"}, "An OpenTelemetry collector."),
    "metrics": (_shape("telemetryMetrics"), "How metrics are sent."),
    "traces": (_OBJECT, "Without effect: traces are not sent."),
    "serviceName": (_TEXT, "Name of the service; default: Artillery-test."),
    "resourceAttributes": (_MAP, "Further attributes of the resource."),
}
TELEMETRY_METRICS: Keys = {
    "exporter": ({"enum": ["otlp-http"]}, "Protocol; only otlp-http (JSON) is sent."),
    "endpoint": (_TEXT, "Whole URL; default: http://localhost:4318/v1/metrics."),
    "headers": (_MAP, "Headers to send along, such as a key."),
    "attributes": (_MAP, "Attributes of every metric."),
    "includeOnly": (_TEXTS, "Names of the only metrics to send."),
    "exclude": (_TEXTS, "Names of metrics that are not sent."),
    "meterName": (_TEXT, "Name of the meter; default: Artillery.io_metrics."),
    "type": (_TEXT, "Accepted, and without effect."),
}

SCENARIO: Keys = {
    "name": (_TEXT, "Name of the scenario, in metrics and for --scenario-name."),
    "weight": (_AMOUNT, "How often it is chosen beside the others; default: 1."),
    "engine": ({"enum": ["http", None]}, "Only http is run."),
    "flow": (_STEPS, "The steps of a user, in order."),
    "onError": (_FUNCTION, "Functions that are called when a user has failed."),
    "beforeScenario": (_FUNCTION, "Functions that are called before the first step."),
    "afterScenario": (_FUNCTION, "Functions that are called after the last step."),
    "beforeRequest": (_FUNCTION, "Functions that are called before each request."),
    "afterResponse": (_FUNCTION, "Functions that are called after each answer."),
    "afterRequest": (_ANY, "Accepted, and without effect."),
    "id": (_ANY, "Accepted, and without effect."),
    "tags": (_ANY, "Accepted, and without effect."),
}

LOOP: Keys = {
    "loop": (_STEPS, "Steps to repeat."),
    "count": ({"type": ["integer", "string"]}, "Number of rounds, `2-4`, a template, or -1 for no end."),
    "over": (
        {"type": ["array", "string"]},
        "List, or the name of a variable that holds one: a round for each element.",
    ),
    "loopValue": (_TEXT, "Variable that holds the index; default: $loopCount."),
    "loopElement": (_TEXT, "Variable that holds the element; default: $loopElement."),
    "whileTrue": (_TEXT, "Function that says whether there is another round."),
}
STEP: Keys = {
    **{method: (_shape("request"), f"Send a {method.upper()} request.") for method in METHODS},
    "think": (_LENGTH, "Wait: seconds, or a number with a unit."),
    "jitter": (_VALUE, "Inside a loop, changes the think time at random: `20%`, or milliseconds."),
    "log": (_TEXT, "Print a line."),
    "parallel": (_STEPS, "Steps that run at the same time."),
    "function": (_FUNCTION, "Call functions of the processor."),
    **LOOP,
}

REQUEST: Keys = {
    "url": (_TEXT, "URL, or a path behind the target."),
    "uri": (_TEXT, "The same as `url`."),
    "name": (_VALUE, "Name of the request in metrics by endpoint."),
    "headers": (_MAP, "Headers of the request."),
    "json": (_ANY, "Body, sent as JSON."),
    "body": (_VALUE, "Body, sent as it is."),
    "form": (_MAP, "Fields, sent URL-encoded."),
    "formData": (_MAP, "Fields and files, sent as multipart/form-data."),
    "qs": (_MAP, "Parameters of the URL."),
    "cookie": (_MAP, "Cookies to send along."),
    "auth": ({"type": "object", "properties": {"user": _VALUE, "pass": _VALUE}}, "User and password for basic authentication."),
    "gzip": (_YES_NO, "Whether answers may be compressed; default: true."),
    "followRedirect": (_YES_NO, "Whether redirects are followed; default: true."),
    "capture": (_one_or_list(_shape("capture")), "Values to take from the answer."),
    "match": (_one_or_list(_shape("capture")), "Values of the answer to compare."),
    "expect": (_one_or_list(_shape("expectation")), "What the answer must be (plugin `expect`)."),
    "ifTrue": (_ANY, "Expression or function: the request is made only if it is true."),
    "probability": (_AMOUNT, "Chance that the request is made, in percent."),
    "beforeRequest": (_FUNCTION, "Functions that are called before the request."),
    "afterResponse": (_FUNCTION, "Functions that are called after the answer."),
}  # fmt: skip

CAPTURE: Keys = {
    "json": (_TEXT, "JSONPath."),
    "header": (_TEXT, "Name of a header."),
    "regexp": (_TEXT, "Regular expression."),
    "selector": (_TEXT, "CSS selector in HTML."),
    "xpath": (_TEXT, "Not available: it always fails."),
    "function": (_TEXT, "Function of the processor."),
    "as": (_TEXT, "Variable that holds the value."),
    "strict": (_YES_NO, "Whether a missing value fails the user."),
    "multiple": (_YES_NO, "Whether one of several values is taken; false: all of them."),
    "group": (_VALUE, "Group of the regular expression."),
    "flags": (_TEXT, "Flags of the regular expression."),
    "attr": (_TEXT, "Attribute of the selected element."),
    "index": (_VALUE, "Which of the selected elements: a number, `random` or `last`."),
    "value": (_ANY, "What the value must be, for `match`."),
}

EXPECTATION: Keys = {
    "statusCode": (_one_or_list({"type": ["integer", "string"]}), "Status, or a list of them."),
    "notStatusCode": (_one_or_list({"type": ["integer", "string"]}), "Status that must not be."),
    "contentType": (_TEXT, "Content type, or `json` for a JSON body."),
    "hasProperty": (_TEXT, "Path of a property that the JSON body has."),
    "notHasProperty": (_TEXT, "Path of a property that the JSON body does not have."),
    "equals": ({"type": "array"}, "Values that must all be equal."),
    "hasHeader": (_TEXT, "Name of a header that the answer has."),
    "headerEquals": ({"type": ["array", "string"]}, "Name and value of a header."),
    "matchesRegexp": (_TEXT, "Regular expression that the body matches."),
    "cdnHit": (_YES_NO, "Whether a cache has answered."),
    "jmespath": (_TEXT, "JMESPath query whose result is true."),
    "jpath": (_TEXT, "The same as `jmespath`."),
}
