"""How many requests there were and how many went wrong: the same numbers wherever they are shown."""

import pytest

from reports.answers import failures, requests
from reports.compare.diff import compare
from reports.compare.figures import ERRORS, figures_of
from reports.compare.history import Entry, history
from reports.formats.read import load, read
from reports.model import Period, Rate, Report
from reports.page import measures
from reports.page.page import report_page
from reports.page.sections import headline
from reports.writers.text import to_text


def headline_of(report):
    return {item.label: (item.value, item.note, item.tone) for item in headline(report).items}


WRK = "Running 1s test @ http://h/\n100 requests in 1.00s, 1MB read\n{}Requests/sec: 100.00\nTransfer/sec: 1MB\n"


@pytest.mark.parametrize(
    ("counters", "total", "failed", "without_good_answer"),
    [
        ({"http.codes.200": 90, "errors.ECONNREFUSED": 10}, 100, 10, 10),
        ({"http.requests": 100, "http.codes.200": 70, "http.codes.404": 30}, 100, 0, 30),
        ({"http.requests": 100, "http.codes.200": 90, "http.codes.500": 10, "errors.500": 10}, 100, 10, 10),
        ({"http.codes.200": 90, "http.codes.500": 10, "errors.500": 10}, 100, 10, 10),
        ({"http.requests": 100, "http.codes.200": 90, "http.codes.404": 10, "errors.404": 10}, 100, 10, 10),
        ({"http.requests": 100, "http.codes.200": 100, "errors.200": 10}, 100, 10, 0),
        ({"http.requests": 100, "errors.http_req_failed": 5}, 100, 5, 5),
        ({"http.requests": 0, "errors.connect": 7}, 7, 7, 7),
        ({"http.requests": 100}, 100, 0, None),
        ({"vusers.created": 5}, None, 0, None),
    ],
)
def test_requests_and_failures_are_counted_once(counters, total, failed, without_good_answer):
    report = Report(Period(0, counters))
    assert requests(counters) == measures.requests(report) == total
    assert sum(counters[name] for name in failures(counters)) == failed
    assert measures.without_good_answer(report) == without_good_answer
    if total:
        assert figures_of([report])[0]["share", ERRORS] == failed / total


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        (WRK.format(""), ("0 %", "0 by the count of wrk", "good")),
        (WRK.format("Non-2xx or 3xx responses: 3\n"), ("3.0 %", "3 by the count of wrk", "bad")),
        ("http_reqs......: 200   5/s\nhttp_req_failed......: 1.00% 2 out of 200\n", ("1.0 %", "2 by the count of k6", "bad")),
        ("http_reqs......: 200   5/s\n", None),
    ],
)  # fmt: skip
def test_a_tool_that_counts_no_statuses_is_taken_at_its_own_word(text, failed):
    shown = headline_of(read(text, "x")[0])
    assert shown.get("Failed") == failed and "No good answer" not in shown


def test_a_sample_of_jmeters_that_failed_by_its_status_is_one_failure(golden):
    report = load(golden / "others" / "jmeter.jtl")
    assert figures_of([report])[0]["share", ERRORS] == 0.5  # a 500, and one without an answer, of four
    text = to_text(report_page([("a", report)], title="a"))
    assert text.count("HTTP 500") == 1 and "\n500 " not in text


def test_an_answer_of_200_that_a_tool_counts_as_failed_is_shown():
    head = "timeStamp,elapsed,label,responseCode,responseMessage,success\n"
    (report,) = read(f"{head}1700000000000,100,home,200,OK,false\n1700000000100,100,home,302,OK,false\n", "a.jtl")
    assert measures.bad_answers(report.aggregate.counters) == {"failed with HTTP 200": 1, "failed with HTTP 302": 1}


@pytest.mark.parametrize(
    "name", ["wrk/plain.txt", "others/k6.txt", "locust/stats.csv", "others/vegeta.txt", "others/oha.txt"]
)
def test_a_page_shows_the_rate_that_a_tool_printed(golden, name):
    report = load(golden / name)
    rate = report.aggregate.rates["http.request_rate"].per_second
    assert measures.throughput(report) == rate
    assert headline_of(report)["Throughput"][1] == "requests per second"


def test_a_run_that_nothing_answered_has_no_throughput():
    counters = {"http.requests": 100, "errors.ECONNREFUSED": 100}
    period = Period(0, counters, {"http.request_rate": Rate(10)}, first_counter_ms=0, last_counter_ms=10_000)
    assert measures.throughput(Report(period)) is None


def test_a_history_finds_failures_of_reports_that_count_only_answers():
    """Their number of requests says how much a share varies by chance."""
    shares = [(1000, 3), (1000, 4), (1000, 3), (1000, 2)] * 3 + [(900, 101), (900, 99), (900, 104), (900, 98)] * 2
    reports = [Report(Period(0, {"http.codes.200": good, "http.codes.500": bad})) for good, bad in shares]
    found = history([Entry(str(i), report, i) for i, report in enumerate(reports)], [ERRORS])
    assert [shift.first_new for shift in found.shifts] == [12]


def test_the_two_meanings_of_failed_have_two_names():
    old = Report(Period(0, {"http.requests": 100, "http.codes.200": 100}))
    new = Report(Period(0, {"http.requests": 100, "http.codes.200": 70, "http.codes.404": 30}))
    text = to_text(report_page([("old", old), ("new", new)], title="t"))
    assert "without a 2xx or 3xx answer  0 %  30 %" in text and "failed" not in text
    share = next(row for row in compare(old, new).rows if row.name == ERRORS)
    assert (share.old, share.new) == (0.0, 0.0)
