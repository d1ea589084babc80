"""ApacheBench 2.3's report: its figures as it defines them, its text, and readers of both.

Checked against `ab` itself (Apache 2.4): with arrays of whole microseconds, sorted ascending, n of them,

- a mean is the sum divided by n, the fraction dropped; a standard deviation divides by n - 1, and is 0 for one request;
- the median of an even n, or of one, is element n/2, counted from 0; of an odd n it is the mean of elements (n-1)/2
  and (n+1)/2: half a place too high, but that is what ab prints, and what its reports can be compared by;
- percentile p is element n*p/100 (rounded down), 100 is the largest; both tables round to whole ms, halves up;
- connect is the start of the connection to its establishment (0 on a connection kept alive), total the start to the
  last byte, processing total - connect, waiting the request having been written to the first byte of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from math import floor, sqrt
from time import ctime
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from reports import names
from reports.formats.json_values import an_object, count, each, number
from reports.formats.plain_text import lines_of
from reports.model import Extras, Period, Report, ReportError

Microseconds = NDArray[np.int64]
_Value = TypeVar("_Value")

PERCENTILES: Final = (50, 66, 75, 80, 90, 95, 98, 99, 100)
DOING_WHAT: Final = {
    "connect": "the initial connection time",
    "processing": "the processing time",
    "waiting": "the waiting time",
    "total": "the total time",
}
"""The rows of the table, and the words that ab uses for each in a warning."""


@dataclass(frozen=True, slots=True)
class AbFailures:
    """Failed requests by kind. Length: an answer not as long as the first one; receive: the connection broke."""

    connect: int = 0
    receive: int = 0
    length: int = 0
    exceptions: int = 0

    @property
    def total(self) -> int:
        """Failures of all kinds."""
        return self.connect + self.receive + self.length + self.exceptions


@dataclass(frozen=True, slots=True, eq=False)
class AbSamples:
    """The measurements of a closed run. The arrays have one entry per completed request, failed or not, in any order."""

    host: str
    port: int
    path: str
    concurrency: int
    time_taken_s: float
    connect_us: Microseconds
    waiting_us: Microseconds
    total_us: Microseconds
    started_us: Microseconds | None = None
    """When each request started, in microseconds since the epoch."""
    server_software: str = ""
    tls_protocol: str | None = None
    """Version, cipher, bits of the server's key and of the cipher; None without TLS."""
    tls_server_name: str | None = None
    """The name that the server was asked by; None without one."""
    document_length: int | None = 0
    """Size of the first answer's body in bytes; None if sizes may vary (ab's -l)."""
    total_bytes: int = 0
    html_bytes: int = 0
    failures: AbFailures = field(default_factory=AbFailures)
    write_errors: int = 0
    non_2xx: int = 0
    keep_alive: int | None = None
    """Number of requests on kept-alive connections; None without -k."""
    body_sent_bytes: int | None = None
    """Bytes of requests with a body, headers included; None if requests have no body."""
    answered: int = 0
    """Number of requests whose answer came whole."""


@dataclass(frozen=True, slots=True)
class AbRow:
    """A row of the table of connection times, in whole ms; the standard deviation has one decimal."""

    min: int
    mean: int
    sd: float
    median: int
    max: int

    @classmethod
    def of(cls, times: Microseconds) -> AbRow:
        """Compute a row by ab's definitions from at least one time."""
        ordered = np.sort(times)
        count = len(ordered)
        mean = int(ordered.sum()) // count
        sd = sqrt(float(np.square(ordered - float(mean)).sum()) / (count - 1)) if count > 1 else 0.0
        middle = int(ordered[count // 2])
        if count > 1 and count % 2:
            middle = (middle + int(ordered[count // 2 + 1])) // 2
        return cls(_ms(int(ordered[0])), _ms(mean), sd / 1000, _ms(middle), _ms(int(ordered[-1])))

    @property
    def doubt(self) -> str | None:
        """Return ab's doubt if mean and median differ by more than one ("WARNING") or two ("ERROR") standard deviations."""
        apart = abs(self.mean - self.median)
        return "ERROR" if apart > 2 * self.sd else "WARNING" if apart > self.sd else None


@dataclass(frozen=True, slots=True)
class AbReport:
    """The figures of one report. A figure that the report does not have is None or absent."""

    server_software: str | None = None
    host: str | None = None
    port: int | None = None
    tls_protocol: str | None = None
    tls_temp_key: str | None = None
    """The key that the server made for the connection; only ab itself knows it."""
    tls_server_name: str | None = None
    path: str | None = None
    document_length: int | str | None = None
    """Size in bytes, or "Variable"."""
    concurrency: int | None = None
    time_taken_s: float | None = None
    complete: int | None = None
    failed: int | None = None
    failures: AbFailures | None = None
    write_errors: int | None = None
    non_2xx: int | None = None
    keep_alive: int | None = None
    total_bytes: int | None = None
    body_sent_bytes: int | None = None
    html_bytes: int | None = None
    requests_per_second: float | None = None
    time_per_request_ms: float | None = None
    """Concurrency x time taken / requests: the time that one user waits, in ms."""
    time_per_request_all_ms: float | None = None
    """Time taken / requests, in ms."""
    transfer_rate_kbytes_s: float | None = None
    sent_kbytes_s: float | None = None
    both_kbytes_s: float | None = None
    rows: Mapping[str, AbRow] = field(default_factory=dict)
    """The rows of connection times: "connect", "processing", "waiting" and "total"."""
    doubts: Mapping[str, str] = field(default_factory=dict)
    """"WARNING" or "ERROR" by row, where ab prints that mean and median do not fit together."""
    percentiles: Mapping[int, int] = field(default_factory=dict)
    """Total time in whole ms by percentage of requests; a report on one request has none."""

    @classmethod
    def of(cls, samples: AbSamples) -> AbReport:
        """Make the report on a run. Without completed requests it has no rates and no tables."""
        complete, seconds, sent = len(samples.total_us), samples.time_taken_s, samples.body_sent_bytes
        rows = _rows(samples) if complete else {}
        return cls(
            server_software=samples.server_software,
            host=samples.host,
            port=samples.port,
            tls_protocol=samples.tls_protocol,
            tls_server_name=samples.tls_server_name,
            path=samples.path,
            document_length="Variable" if samples.document_length is None else samples.document_length,
            concurrency=samples.concurrency,
            time_taken_s=seconds,
            complete=complete,
            failed=samples.failures.total,
            failures=samples.failures,
            write_errors=samples.write_errors,
            non_2xx=samples.non_2xx,
            keep_alive=samples.keep_alive,
            total_bytes=samples.total_bytes,
            body_sent_bytes=sent,
            html_bytes=samples.html_bytes,
            rows=rows,
            doubts={name: row.doubt for name, row in rows.items() if row.doubt is not None},
            percentiles=_percentiles(samples.total_us) if complete > 1 else {},
            **(_speeds(samples, complete) if complete and seconds > 0 else {}),
        )

    @classmethod
    def of_script(cls, report: Report, target: str) -> AbReport:
        """Make the report on the run of a script against this URL, with the figures that such a run has.

        Failed are the requests without an answer; the percentages are of the times to the first byte of the answer.
        """
        total = report.aggregate
        first_ms, last_ms = total.first_metric_ms, total.last_metric_ms
        seconds = 0.0 if first_ms is None or last_ms is None else (last_ms - first_ms) / 1000
        complete, answered = (total.counters.get(name, 0) for name in (names.REQUESTS, names.RESPONSES))
        codes = {
            name.removeprefix(names.CODES): n for name, n in total.counters.items() if name.startswith(names.CODES)
        }
        times = total.sketches.get(names.RESPONSE_TIME)
        try:
            where = urlsplit(target)
            host, port = where.hostname, where.port or {"http": 80, "https": 443}.get(where.scheme)
        except ValueError:
            host, port = None, None
        return cls(
            host=host,
            port=port,
            time_taken_s=seconds,
            complete=complete,
            failed=complete - answered,
            non_2xx=sum(n for code, n in codes.items() if not code.startswith("2")),
            html_bytes=total.counters.get(names.DOWNLOADED_BYTES, 0),
            requests_per_second=complete / seconds if seconds else None,
            time_per_request_all_ms=seconds * 1000 / complete if seconds and complete else None,
            percentiles={}
            if times is None or times.count < 2
            else {p: floor((times.max if p == 100 else times.quantile(p / 100)) + 0.5) for p in PERCENTILES},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, without absent figures. `from_json` is its inverse."""
        plain = ((f.name, getattr(self, f.name)) for f in fields(self) if f.name not in _NESTED)
        out = {name: value for name, value in plain if value is not None}
        if self.failures is not None:
            out["failures"] = _values(self.failures)
        out["rows"] = {name: _values(row) for name, row in self.rows.items()}
        out["doubts"] = dict(self.doubts)
        out["percentiles"] = {str(p): ms for p, ms in self.percentiles.items()}
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AbReport:
        """Inverse of `to_json`. Raises ReportError, which names the field, for anything else."""
        try:
            found = an_object(data, "ab")
            failures = found.get("failures")
            percentiles = each(found.get("percentiles"), "percentiles", count)
            return cls(
                **_checked(cls, {key: value for key, value in found.items() if key not in _NESTED}, "ab"),
                failures=None if failures is None else AbFailures(**_checked(AbFailures, failures, "failures")),
                rows=_by_row(found.get("rows"), "rows", _row),
                doubts=_by_row(found.get("doubts"), "doubts", _doubt),
                percentiles={_percentage(percentage): ms for percentage, ms in percentiles.items()},
            )
        except ReportError as error:
            raise ReportError(f"not the figures of an ApacheBench report: {error}") from None

    def as_report(self) -> Report:
        """Return a report that has only these figures and none of Artillery's metrics."""
        return Report(Period(start_ms=0), extras=Extras("ApacheBench 2.3", "closed", ab=self.to_json()))


_NESTED = ("failures", "rows", "doubts", "percentiles")


def _checked(kind: type[AbReport | AbFailures | AbRow], value: Any, place: str) -> dict[str, Any]:
    """The fields of one of these classes in an object of JSON, each of its type. Raises ReportError."""
    types = {f.name: str(f.type).removesuffix(" | None") for f in fields(kind) if f.name not in _NESTED}
    found = {name: item for name, item in an_object(value, place).items() if item is not None}
    if unknown := found.keys() - types.keys():
        raise ReportError(f"{place} has no {min(unknown)}")
    if kind is AbRow and (missing := types.keys() - found.keys()):
        raise ReportError(f"{place} has no {min(missing)}")
    return {name: _OF_TYPE[types[name]](item, f"{place}.{name}") for name, item in found.items()}


def _string(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise ReportError(f"{place} is not text")
    return value


def _length(value: Any, place: str) -> int | str:
    return value if value == "Variable" else count(value, place)


def _amount(value: Any, place: str) -> float:
    if not 0 <= number(value, place) < _MOST:
        raise ReportError(f"{place} is negative or too large")
    return float(value)


_MOST = 1e15
_OF_TYPE: Mapping[str, Callable[[Any, str], Any]] = {
    "int": count,
    "float": _amount,
    "str": _string,
    "int | str": _length,
}
"""How a value of JSON is checked, by the type that its field is declared with."""


def _by_row(value: Any, place: str, read: Callable[[Any, str], _Value]) -> dict[str, _Value]:
    found = each(value, place, read)
    if unknown := found.keys() - DOING_WHAT.keys():
        raise ReportError(f"{place}.{min(unknown)} is no row of ApacheBench's table")
    return found


def _row(value: Any, place: str) -> AbRow:
    return AbRow(**_checked(AbRow, value, place))


def _doubt(value: Any, place: str) -> str:
    if value not in tuple(_DOUBT):
        raise ReportError(f"{place} is neither {' nor '.join(_DOUBT)}")
    return str(value)


def _values(of: AbFailures | AbRow) -> dict[str, float]:
    return {f.name: getattr(of, f.name) for f in fields(of)}


def _ms(us: int) -> int:
    """Return a time as whole ms, halves rounded up."""
    return (us + 500) // 1000


def _rows(samples: AbSamples) -> dict[str, AbRow]:
    return {
        "connect": AbRow.of(samples.connect_us),
        "processing": AbRow.of(samples.total_us - samples.connect_us),
        "waiting": AbRow.of(samples.waiting_us),
        "total": AbRow.of(samples.total_us),
    }


def _percentage(text: str) -> int:
    percentage = count(text, "percentiles")
    if percentage > 100:
        raise ReportError("percentiles has one beyond 100 %")
    return percentage


def _percentiles(total_us: Microseconds) -> dict[int, int]:
    ordered = np.sort(total_us)
    count = len(ordered)
    return {p: _ms(int(ordered[min(count * p // 100, count - 1)])) for p in PERCENTILES}


def _speeds(samples: AbSamples, complete: int) -> dict[str, Any]:
    seconds, kbytes, sent = samples.time_taken_s, samples.total_bytes / 1024, samples.body_sent_bytes
    return {
        "requests_per_second": complete / seconds,
        "time_per_request_ms": samples.concurrency * seconds * 1000 / complete,
        "time_per_request_all_ms": seconds * 1000 / complete,
        "transfer_rate_kbytes_s": kbytes / seconds,
        "sent_kbytes_s": None if sent is None else sent / 1024 / seconds,
        "both_kbytes_s": None if sent is None else (kbytes + sent / 1024) / seconds,
    }


# The text


@dataclass(frozen=True, slots=True)
class _Line:
    """`label:` in 24 columns, the figure, and what ab writes after it. Writer and reader both go by these."""

    label: str
    attribute: str
    after: str = ""
    digits: int | None = 0
    """Decimals of the figure; None for text."""
    if_any: bool = False
    """Printed only where the figure is not zero."""

    def text(self, report: AbReport) -> str | None:
        """Return the printed line, or None if there is nothing to print."""
        value = getattr(report, self.attribute)
        if value is None or (self.if_any and not value):
            return None
        label = f"{self.label}:" if self.label else ""
        figure = value if isinstance(value, str) else f"{value:.{self.digits or 0}f}"
        return f"{label:<24}{figure}{'' if value == 'Variable' else self.after}"

    def read(self, line: str) -> Any:
        """Return the figure of a line whose spaces have been collapsed; None if it is another line."""
        label = f"{re.escape(self.label)}: ?" if self.label else ""
        if self.digits is None:
            found = re.fullmatch(f"{label}(.*)", line)
            return found and found[1]
        figure = r"\d+(?:\.\d+)?" if self.digits else r"\d+"
        found = re.fullmatch(f"{label}({figure}|Variable)(?:{re.escape(self.after)})?", line)
        if not found or found[1] == "Variable":
            return found and found[1]
        return float(found[1]) if self.digits else int(found[1])


_ABOUT = (
    (
        _Line("Server Software", "server_software", digits=None),
        _Line("Server Hostname", "host", digits=None),
        _Line("Server Port", "port"),
        _Line("SSL/TLS Protocol", "tls_protocol", digits=None),
        _Line("Server Temp Key", "tls_temp_key", digits=None),
        _Line("TLS Server Name", "tls_server_name", digits=None),
    ),
    (_Line("Document Path", "path", digits=None), _Line("Document Length", "document_length", " bytes")),
)
_COUNTS = (
    _Line("Concurrency Level", "concurrency"),
    _Line("Time taken for tests", "time_taken_s", " seconds", 3),
    _Line("Complete requests", "complete"),
    _Line("Failed requests", "failed"),
)
_MORE = (
    _Line("Write errors", "write_errors", if_any=True),
    _Line("Non-2xx responses", "non_2xx", if_any=True),
    _Line("Keep-Alive requests", "keep_alive"),
    _Line("Total transferred", "total_bytes", " bytes"),
    _Line("Total body sent", "body_sent_bytes"),
    _Line("HTML transferred", "html_bytes", " bytes"),
    _Line("Requests per second", "requests_per_second", " [#/sec] (mean)", 2),
    _Line("Time per request", "time_per_request_ms", " [ms] (mean)", 3),
    _Line("Time per request", "time_per_request_all_ms", " [ms] (mean, across all concurrent requests)", 3),
    _Line("Transfer rate", "transfer_rate_kbytes_s", " [Kbytes/sec] received", 2),
    _Line("", "sent_kbytes_s", " kb/s sent", 2),
    _Line("", "both_kbytes_s", " kb/s total", 2),
)
_ALL_LINES = (*_ABOUT[0], *_ABOUT[1], *_COUNTS, *_MORE)
_DOUBT = {
    "ERROR": (
        "ERROR: The median and mean for {} are more than twice the standard\n"
        "       deviation apart. These results are NOT reliable."
    ),
    "WARNING": (
        "WARNING: The median and mean for {} are not within a normal deviation\n"
        "        These results are probably not that reliable."
    ),
}


def opening_text(host: str, tool: str) -> str:
    """Return the text above a run: a heading that does not claim to be Apache's, and ab's line about the host.

    Where progress is told, ab ends that line; elsewhere it is completed by "..done" at the end of the run.
    """
    return f"This is {tool}, reporting as ApacheBench, Version 2.3\n\nBenchmarking {host} (be patient)"


def to_text(report: AbReport, *, deviations: bool = True) -> str:
    """Return the report from "Server Software:" on, exactly as ab prints it; lines without a figure are left out.

    Without `deviations` the table has neither standard deviations nor medians, and nothing is doubted (ab's -S).
    """
    kinds = report.failures
    blocks = [_block(lines, report) for lines in _ABOUT]
    blocks.append(_block(_COUNTS, report) + _failures(kinds) + _block(_MORE, report))
    blocks.append(list(_table(report) if deviations else _short_table(report)))
    blocks.append(list(_percentages(report)))
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _block(lines: tuple[_Line, ...], report: AbReport) -> list[str]:
    return [text for line in lines if (text := line.text(report)) is not None]


def _failures(kinds: AbFailures | None) -> list[str]:
    if kinds is None or not kinds.total:
        return []
    counts = f"Connect: {kinds.connect}, Receive: {kinds.receive}, Length: {kinds.length}"
    return [f"   ({counts}, Exceptions: {kinds.exceptions})"]


def _table(report: AbReport) -> Iterator[str]:
    if report.rows:
        yield "Connection Times (ms)"
        yield "              min  mean[+/-sd] median   max"
    for name in DOING_WHAT:
        if name in report.rows:
            row = report.rows[name]
            label = f"{name.capitalize()}:"
            yield f"{label:<12}{row.min:5d} {row.mean:4d} {row.sd:5.1f} {row.median:6d} {row.max:7d}"
    for name, what in DOING_WHAT.items():
        if name in report.doubts:
            yield _DOUBT[report.doubts[name]].format(what)


def _short_table(report: AbReport) -> Iterator[str]:
    if report.rows:
        yield "Connection Times (ms)"
        yield "              min   avg   max"
    for name in DOING_WHAT:
        if name in report.rows:
            row = report.rows[name]
            label = f"{name.capitalize()}:"
            yield f"{label:<12}{row.min:5d} {row.mean:5d}{row.max:5d}"


def percentiles_csv(samples: AbSamples) -> str:
    """Return the file that ab's -e writes: for each percentage of requests from 0 to 100, the time in ms they took at most."""
    ordered = np.sort(samples.total_us)
    count = len(ordered)
    lines = ["Percentage served,Time in ms"]
    for percentage in range(101 if count else 0):
        at = min(int(0.5 + percentage * count / 100), count - 1)
        lines.append(f"{percentage},{ordered[at] / 1000:.3f}")
    return "\n".join(lines) + "\n"


def gnuplot_table(samples: AbSamples) -> str:
    """Return the file that ab's -g writes: a line for each request in order of its whole time; times in ms, tabs between."""
    lines = ["starttime\tseconds\tctime\tdtime\tttime\twait"]
    started_us = samples.total_us * 0 if samples.started_us is None else samples.started_us
    for i in np.argsort(samples.total_us, kind="stable"):
        started_s = int(started_us[i]) // 1_000_000
        connect, total, wait = (int(t[i]) for t in (samples.connect_us, samples.total_us, samples.waiting_us))
        times = "\t".join(str(_ms(us)) for us in (connect, total - connect, total, wait))
        lines.append(f"{ctime(started_s)}\t{started_s}\t{times}")
    return "\n".join(lines) + "\n"


def _percentages(report: AbReport) -> Iterator[str]:
    if report.percentiles:
        yield "Percentage of the requests served within a certain time (ms)"
    for percentage, ms in sorted(report.percentiles.items()):
        yield f" {percentage:3d}%  {ms:5d}{' (longest request)' if percentage == 100 else ''}"


_TYPICAL = re.compile("Complete requests|Requests per second|Time taken for tests")
_FAILURES_LINE = re.compile(
    r"\(?Connect: ?(?P<connect>\d+), ?(?:Receive: ?(?P<receive>\d+), ?)?"
    r"Length: ?(?P<length>\d+), ?Exceptions: ?(?P<exceptions>\d+)\)?"
)
_ROW_LINE = re.compile(r"(Connect|Processing|Waiting|Total): ?(\d+) (\d+) (\d+(?:\.\d+)?) (\d+) (\d+)")
_PERCENTILE_LINE = re.compile(r"(100|\d{1,2}) ?% (\d+)(?: ?\(longest request\))?")
_DOUBT_LINE = re.compile(r"(WARNING|ERROR): The median and mean for (.+) are (?:not within|more than)")


def all_from_text(text: str) -> list[AbReport]:
    """Read every report in a text: ab's own, or as people paste it, with its alignment lost and prose around it.

    A figure that appears a second time begins another report. What the text does not show is None, but for what ab shows
    only when it is not zero: that is 0 where its neighbours are shown. Raises ReportError where there is no report.
    """
    if not _TYPICAL.search(text):
        raise ReportError("not an ApacheBench report: it has neither its request counts nor its rates")
    drafts: list[dict[str, Any]] = [_draft()]
    for raw in lines_of(text):
        line = " ".join(raw.strip(" \t>|`*#").split())
        if line and not _read_line(line, drafts[-1]):
            drafts.append(_draft())
            _read_line(line, drafts[-1])
    reports = [
        _finished(draft) for draft in drafts if {"complete", "requests_per_second", "time_taken_s"} & draft.keys()
    ]
    if not reports:
        raise ReportError("not an ApacheBench report: it has neither its request counts nor its rates")
    return reports


def _draft() -> dict[str, Any]:
    return {"rows": {}, "doubts": {}, "percentiles": {}}


def _finished(found: dict[str, Any]) -> AbReport:
    if {"failed", "total_bytes"} <= found.keys():
        found = {"write_errors": 0, "non_2xx": 0, **found}
        if not found["failed"]:
            found.setdefault("failures", AbFailures())
    return AbReport(**found)


def _read_line(line: str, found: dict[str, Any]) -> bool:
    """Read one line; False if its figure is known already, so that it belongs to another report."""
    if kinds := _FAILURES_LINE.fullmatch(line):
        found["failures"] = AbFailures(**{kind: int(count or 0) for kind, count in kinds.groupdict().items()})
    elif row := _ROW_LINE.fullmatch(line):
        low, mean, sd, median, high = row.groups()[1:]
        found["rows"].setdefault(row[1].lower(), AbRow(int(low), int(mean), float(sd), int(median), int(high)))
    elif percentile := _PERCENTILE_LINE.fullmatch(line):
        found["percentiles"].setdefault(int(percentile[1]), int(percentile[2]))
    elif doubt := _DOUBT_LINE.match(line):
        found["doubts"].update({name: doubt[1] for name, what in DOING_WHAT.items() if what == doubt[2]})
    else:
        for known in _ALL_LINES:
            if (value := known.read(line)) is not None:
                if known.attribute in found:
                    return False
                found[known.attribute] = value
                break
    return True
