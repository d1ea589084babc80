"""ApacheBench's report, against texts of `ab` 2.3 itself: layout to the character, figures from its own samples."""

import json
import re
import shutil
import subprocess
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.formats.apachebench import AbFailures, AbReport, AbRow, AbSamples, all_from_text, opening_text, to_text
from reports.model import ReportError
from tests.support.paths import GOLDEN

AB = sorted((GOLDEN / "reports" / "ab").glob("*.txt"))
by_name = pytest.mark.parametrize("path", AB, ids=lambda p: p.stem)


def samples(total_ms, *, connect_ms=0, **more):
    """A run whose requests took these times, each waiting for 9/10 of it."""
    total = np.asarray([round(ms * 1000) for ms in total_ms], np.int64)
    connect = np.full(len(total), round(connect_ms * 1000), np.int64)
    known = {"host": "127.0.0.1", "port": 80, "path": "/", "concurrency": 1, "time_taken_s": 1.0}
    return AbSamples(**{**known, **more}, connect_us=connect, waiting_us=(total - connect) * 9 // 10, total_us=total)


def from_text(text):
    """The first report in a text."""
    return all_from_text(text)[0]


def total_us(csv):
    """Every total time out of ab's -e file: its line p is sample round(n * p / 100) of n, in ms with three decimals."""
    lines = [line.split(",") for line in csv.read_text().splitlines()[1:]]
    return {int(percentage): round(float(ms) * 1000) for percentage, ms in lines}


@by_name
def test_a_report_of_abs_own_is_rendered_to_the_character(path):
    assert to_text(from_text(path.read_text())) == path.read_text()


@by_name
def test_a_report_that_lost_its_alignment_reads_the_same(path):
    text = path.read_text()
    pasted = "Here it is:\n\n" + "\n".join(f"> {' '.join(line.split())}" for line in text.splitlines()) + "\n> thanks"

    assert from_text(pasted) == from_text(text)


@by_name
def test_figures_survive_json(path):
    report = from_text(path.read_text())

    assert AbReport.from_json(json.loads(json.dumps(report.to_json()))) == report


@pytest.mark.parametrize("path", sorted(AB[0].parent.glob("*.csv")), ids=lambda p: p.stem)
def test_the_table_of_total_times_is_what_ab_makes_of_the_same_samples(path):
    theirs = from_text(path.with_suffix(".txt").read_text())
    at, count = total_us(path), theirs.complete
    places = {0: 0, **{p: int(0.5 + count * p / 100) for p in range(1, 100)}, 100: count - 1}
    times = {place: at[p] for p, place in places.items() if place < count}
    assert len(times) == count

    ours = AbReport.of(samples([us / 1000 for us in times.values()]))

    theirs_total = theirs.rows["total"]
    total = ours.rows["total"]
    assert (total.min, total.mean, total.median, total.max) == (
        theirs_total.min,
        theirs_total.mean,
        theirs_total.median,
        theirs_total.max,
    )
    assert f"{total.sd:.1f}" == f"{theirs_total.sd:.1f}"
    assert ours.percentiles == theirs.percentiles
    assert ours.doubts.get("total") == theirs.doubts.get("total")


@pytest.mark.parametrize(
    ("total_ms", "median"),
    [([1], 1), ([1, 2], 2), ([1, 2, 4], 3), ([1, 2, 4, 8], 4), ([1, 2, 4, 8, 16], 6)],
)
def test_the_median_is_abs_which_is_half_a_place_too_high(total_ms, median):
    assert AbReport.of(samples(total_ms)).rows["total"].median == median


def test_milliseconds_are_rounded_half_up_and_means_lose_their_fraction():
    row = AbRow.of(np.asarray([499, 500, 1499, 1500], np.int64))

    assert (row.min, row.mean, row.median, row.max) == (0, 1, 1, 2)  # mean 999.5 -> 999 us -> 1 ms


@pytest.mark.parametrize(
    ("row", "doubt"),
    [
        (AbRow(0, 5, 1.0, 4, 9), None),
        (AbRow(0, 5, 0.9, 4, 9), "WARNING"),
        (AbRow(0, 5, 0.5, 4, 9), "WARNING"),
        (AbRow(0, 5, 0.4, 4, 9), "ERROR"),
        (AbRow(0, 4, 0.4, 5, 9), "ERROR"),
        (AbRow(0, 0, 0.0, 0, 0), None),
    ],
)
def test_ab_doubts_a_mean_that_is_more_than_a_deviation_from_the_median(row, doubt):
    assert row.doubt == doubt


def test_doubts_stand_below_the_table_in_abs_words():
    report = AbReport.of(samples([0.5] * 12 + [30]))  # median 0.5 or 1, mean 2.8, deviation 8.2
    doubted = replace(report, doubts={"connect": "ERROR", "total": "WARNING"})

    assert report.doubts == {}
    assert to_text(doubted).split("\n\n")[3].splitlines()[6:] == [
        "ERROR: The median and mean for the initial connection time are more than twice the standard",
        "       deviation apart. These results are NOT reliable.",
        "WARNING: The median and mean for the total time are not within a normal deviation",
        "        These results are probably not that reliable.",
    ]


def test_speeds_follow_from_counts_and_time():
    report = AbReport.of(samples([1] * 40, concurrency=4, time_taken_s=2.0, total_bytes=4096, body_sent_bytes=1024))

    assert report.requests_per_second == 20
    assert report.time_per_request_ms == 200
    assert report.time_per_request_all_ms == 50
    assert (report.transfer_rate_kbytes_s, report.sent_kbytes_s, report.both_kbytes_s) == (2, 0.5, 2.5)


def test_lines_that_ab_shows_only_when_there_is_something_are_left_out():
    text = to_text(AbReport.of(samples([1, 2])))

    for label in ("Write errors", "Non-2xx", "Keep-Alive", "body sent", "(Connect:", "kb/s"):
        assert label not in text


def test_the_same_lines_stand_where_ab_puts_them():
    failures = AbFailures(connect=1, receive=2, length=3, exceptions=4)
    text = to_text(
        AbReport.of(samples([1, 2], failures=failures, write_errors=5, non_2xx=6, keep_alive=7, body_sent_bytes=8))
    )

    labels = [line.split(":")[0].strip() for line in text.split("\n\n")[2].splitlines()]
    assert labels[3:11] == [
        "Failed requests",
        "(Connect",
        "Write errors",
        "Non-2xx responses",
        "Keep-Alive requests",
        "Total transferred",
        "Total body sent",
        "HTML transferred",
    ]
    assert "Failed requests:        10\n   (Connect: 1, Receive: 2, Length: 3, Exceptions: 4)\n" in text


def test_nothing_completed_has_neither_speeds_nor_tables():
    assert to_text(AbReport.of(samples([]))).endswith("HTML transferred:       0 bytes\n")


def test_the_opening_names_the_tool_and_claims_no_copyright_of_others():
    opening = opening_text("127.0.0.1", "Poolbench 0.1.0")

    assert opening.startswith("This is Poolbench 0.1.0") and "Copyright" not in opening
    assert opening.endswith("Benchmarking 127.0.0.1 (be patient)")


@given(st.lists(st.floats(0, 100_000), min_size=1, max_size=50), st.integers(1, 100), st.floats(0.001, 1e4))
def test_any_report_reads_back_as_it_was_printed(total_ms, concurrency, seconds):
    text = to_text(AbReport.of(samples(total_ms, concurrency=concurrency, time_taken_s=seconds, server_software="x/1")))

    assert to_text(from_text(text)) == text


def test_two_reports_in_one_text_are_not_mixed():
    first, second = AB[0].read_text(), AB[1].read_text()

    assert all_from_text(first + "\n" + second)[0] == all_from_text(first)[0]


def test_what_the_text_does_not_show_is_absent():
    report = from_text("Requests per second: 44.26 [#/sec] (mean)")

    assert report == AbReport(requests_per_second=44.26)


@pytest.mark.parametrize("text", ["", "Server Software: x", "50% 3", "hello"])
def test_a_text_without_abs_figures_is_refused(text):
    with pytest.raises(ReportError, match="not an ApacheBench report"):
        from_text(text)


@pytest.mark.parametrize("data", [
    {"colour": "red"}, {"percentiles": {"101": 5}}, {"percentiles": {"9" * 400: 5}}, {"percentiles": {"50": "x"}},
    {"requests_per_second": "fast"}, {"requests_per_second": 10**400}, {"complete": "many"}, {"complete": True}, {"failed": -1},
    {"host": 5}, {"document_length": []}, {"failures": {"connect": 1.5}}, {"failures": []}, {"doubts": {"total": "MAYBE"}},
    {"doubts": {"other": "ERROR"}}, {"rows": {"total": {"min": 1}}}, {"rows": {"other": {}}}, {"rows": {"total": 5}}, [],
    {"rows": {"total": {"min": "x", "mean": 1, "sd": 1, "median": 1, "max": 1}}},
])  # fmt: skip
def test_json_of_something_else_is_refused(data):
    with pytest.raises(ReportError, match="not the figures of an ApacheBench report"):
        AbReport.from_json(data)


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"fine")

    def log_message(self, *args):
        pass


@pytest.mark.skipif(shutil.which("ab") is None, reason="ab (apache2-utils) is not installed")
def test_the_layout_is_that_of_the_installed_ab():
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        done = subprocess.run(["ab", "-n", "9", "-c", "3", url], capture_output=True, text=True, timeout=60, check=True)
        server.shutdown()
    theirs = done.stdout[done.stdout.index("Server Software:") :]
    ours = to_text(AbReport.of(samples([1] * 9, server_software=from_text(theirs).server_software)))

    assert _layout(ours) == _layout(theirs)


def _layout(text):
    """Labels, order and empty lines; any figure is a 0, doubts come and go."""
    certain = re.sub(r"(WARNING|ERROR): .*\n .*\n", "", text)
    return re.sub(r" *\b[\d.]+", " 0", certain)
