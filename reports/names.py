"""The names of all metrics, and the two instants between which each time is measured. Times are in ms.

The instants of an exchange are: intended (when the plan wanted it), started (when the generator began it), connected,
written (when the last byte of the request was given to the kernel), first byte, last byte.
"""

from __future__ import annotations

import re
from typing import Literal

# Artillery's own names (Artillery 2.0, HTTP engine).
VUSERS_CREATED = "vusers.created"
VUSERS_CREATED_BY_NAME = "vusers.created_by_name."
VUSERS_SKIPPED = "vusers.skipped"
VUSERS_COMPLETED = "vusers.completed"
VUSERS_FAILED = "vusers.failed"
SESSION_LENGTH = "vusers.session_length"
"""From the start of a virtual user (VU) to the end of its scenario, with think time; only for VUs that completed."""
REQUESTS = "http.requests"
REQUEST_RATE = "http.request_rate"
RESPONSES = "http.responses"
CODES = "http.codes."
RESPONSE_TIME = "http.response_time"
"""From written to first byte."""
DOWNLOADED_BYTES = "http.downloaded_bytes"
ERRORS = "errors."
DNS_TIME = "http.dns"
TCP_TIME = "http.tcp"
TLS_TIME = "http.tls"
"""How long the connection of a request took to set up (`extendedMetrics`): resolving, connecting, the TLS handshake."""
TOTAL_TIME = "http.total"
"""From started to last byte (`extendedMetrics`)."""
ENDPOINT = "plugins.metrics-by-endpoint"
"""The beginning of the metric names of the metrics-by-endpoint plugin, unless the script sets another.

`<ENDPOINT><ENDPOINT_TIME><endpoint>` is a time, `<ENDPOINT>.<endpoint><ENDPOINT_CODES><status>` a counter.
"""
ENDPOINT_TIME = ".response_time."
ENDPOINT_CODES = ".codes."
SERVER_TIMING = ".server-timing."
"""`<ENDPOINT><SERVER_TIMING><endpoint>` is the entry `total` of the answer's Server-Timing header."""
EXPECT_OK = "plugins.expect.ok"
EXPECT_FAILED = "plugins.expect.failed"
APDEX = ("apdex.satisfied", "apdex.tolerated", "apdex.frustrated")

# Beyond Artillery: written under the `poolbench` key of a JSON report, never among Artillery's metrics.
INTENDED = "http.response_time.intended"
"""From intended to last byte: how long a user who arrives as planned has to wait. Free of coordinated omission."""
START_LAG = "loadgen.start_lag"
"""From the intended to the actual start of a VU: the generator's own lateness."""
LATE = "loadgen.late"
"""Counter of VUs that started more than 10 ms after their intended start."""
DROPPED = "loadgen.dropped"
"""Counter of figures that were not recorded, because their names were too many: names may come from a server."""
DROPPED_COOKIES = "loadgen.dropped_cookies"
"""Counter of cookies that a user's jar did not keep, because they were too large or too many."""
SERVER = "server."
"""`server.<name>` is the duration of the entry <name> of the answer's Server-Timing header."""

_BEYOND = ("loadgen.", SERVER, INTENDED)


def beyond_artillery(name: str) -> bool:
    """Whether a metric is unknown to Artillery, and so is kept out of the Artillery part of a report."""
    return name.startswith(_BEYOND)


def status_class(status: int) -> str:
    """The name of the response times of a status's class, such as `http.response_time.2xx`."""
    return f"{RESPONSE_TIME}.{status // 100}xx"


Direction = Literal["lower", "higher"]

_LOWER = (
    RESPONSE_TIME,
    SESSION_LENGTH,
    START_LAG,
    LATE,
    SERVER,
    ERRORS,
    f"{CODES}4",
    f"{CODES}5",
    VUSERS_FAILED,
    VUSERS_SKIPPED,
    DNS_TIME,
    TCP_TIME,
    TLS_TIME,
    TOTAL_TIME,
    # k6 names its times so.
    "http_req_",
    f"{ENDPOINT}{ENDPOINT_TIME}",
    f"{ENDPOINT}{SERVER_TIMING}",
    EXPECT_FAILED,
    APDEX[2],
)
_HIGHER = (REQUEST_RATE, APDEX[0])
_ENDPOINT_FAILURE = re.compile(rf"{re.escape(ENDPOINT)}\..*\.(?:errors\..*|codes\.[45]\d\d)")


def better(name: str) -> Direction | None:
    """The direction in which a metric is better; None if it only counts what was asked for, or if its meaning is unknown."""
    if name.startswith(_HIGHER):
        return "higher"
    return "lower" if name.startswith(_LOWER) or _ENDPOINT_FAILURE.fullmatch(name) else None


def share_of(name: str) -> tuple[str, ...]:
    """The counters whose sum a counter is divided by, so that runs of different lengths can be compared."""
    if name.startswith(("vusers.", LATE)):
        return (VUSERS_CREATED, VUSERS_SKIPPED)
    if name.startswith("plugins.expect."):
        return (EXPECT_OK, EXPECT_FAILED)
    if name.startswith("apdex."):
        return APDEX
    return (REQUESTS,)
