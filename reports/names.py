"""Every metric name, once. Times are milliseconds; each says from which instant to which.

The instants of one exchange: intended (the plan's), started (the generator began it), connected, written (last byte of
the request given to the kernel), first byte, last byte.
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
"""Start of the VU to the end of its scenario, think time included; completed VUs only."""
REQUESTS = "http.requests"
REQUEST_RATE = "http.request_rate"
RESPONSES = "http.responses"
CODES = "http.codes."
RESPONSE_TIME = "http.response_time"
"""Written to first byte."""
DOWNLOADED_BYTES = "http.downloaded_bytes"
ERRORS = "errors."
DNS_TIME = "http.dns"
TCP_TIME = "http.tcp"
TLS_TIME = "http.tls"
"""Times of setting up the connection that a request used (`extendedMetrics`): resolving, connecting, the TLS handshake."""
TOTAL_TIME = "http.total"
"""Start of the request to the last byte of its answer (`extendedMetrics`)."""
ENDPOINT = "plugins.metrics-by-endpoint"
"""What the metrics of the metrics-by-endpoint plugin begin with, unless the script names something else:
`<ENDPOINT><ENDPOINT_TIME><endpoint>` is a time, `<ENDPOINT>.<endpoint><ENDPOINT_CODES><status>` a counter.
"""
ENDPOINT_TIME = ".response_time."
ENDPOINT_CODES = ".codes."
SERVER_TIMING = ".server-timing."
"""Between ENDPOINT and an endpoint: the entry `total` of the answer's Server-Timing header."""
EXPECT_OK = "plugins.expect.ok"
EXPECT_FAILED = "plugins.expect.failed"
APDEX = ("apdex.satisfied", "apdex.tolerated", "apdex.frustrated")

# Beyond Artillery: written under the `poolbench` key of a JSON report, never among Artillery's metrics.
INTENDED = "http.response_time.intended"
"""Intended start to last byte: what a user waits who arrives by the plan. Free of coordinated omission."""
START_LAG = "loadgen.start_lag"
"""Intended start to actual start of a VU: the generator's own lateness."""
LATE = "loadgen.late"
"""Counter: VUs started more than 10 ms after their intended start."""
SERVER = "server."
"""`server.<name>`: duration of the entry <name> of the answer's Server-Timing header."""

_BEYOND = ("loadgen.", SERVER, INTENDED)


def beyond_artillery(name: str) -> bool:
    """Whether a metric is ours, not Artillery's: kept out of the Artillery part of a report and of its console text."""
    return name.startswith(_BEYOND)


def status_class(status: int) -> str:
    """`http.response_time.2xx` and so on."""
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
    """Which way a metric is better. None: neither, as it says what was asked for, or what it means is not known."""
    if name.startswith(_HIGHER):
        return "higher"
    return "lower" if name.startswith(_LOWER) or _ENDPOINT_FAILURE.fullmatch(name) else None


def share_of(name: str) -> tuple[str, ...]:
    """The counters whose sum a counter is a share of, so that runs of different lengths can be compared."""
    if name.startswith(("vusers.", LATE)):
        return (VUSERS_CREATED, VUSERS_SKIPPED)
    if name.startswith("plugins.expect."):
        return (EXPECT_OK, EXPECT_FAILED)
    if name.startswith("apdex."):
        return APDEX
    return (REQUESTS,)
