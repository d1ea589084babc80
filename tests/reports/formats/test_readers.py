"""Reports of other tools, and as people paste them."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.compare.diff import compare
from reports.compare.diff_blocks import comparison
from reports.formats import artillery_console, csv_text
from reports.formats.artillery_text import period_text, summary_text
from reports.formats.read import READERS, load, read
from reports.model import Rate, ReportError, Summary
from reports.writers.output import written


@pytest.fixture
def lost():
    """A text as a web page leaves it: no indentation, single spaces, quoted, carriage returns."""

    def lose(text):
        return "\r\n".join("> " + " ".join(line.split()) for line in text.splitlines())

    return lose


def test_artillery_1_is_told_by_artillery_2s_names(golden):
    found = load(golden / "artillery1" / "report.json")

    total = found.aggregate
    assert total.counters["vusers.created"] == 300 and total.counters["http.requests"] == 600
    assert total.counters["errors.ETIMEDOUT"] == 3 and total.counters["http.codes.503"] == 6
    assert total.counters["vusers.created_by_name.browse"] == 200 and total.counters["sold"] == 12
    assert total.rates == {"http.request_rate": Rate(29.85)}
    assert total.summaries["http.response_time"] == Summary(min=2.1, max=1202.4, p50=12.4, p95=80.2, p99=311.7)
    assert [p.start_ms for p in found.periods] == [1618758670021, 1618758680022]
    assert "vusers.session_length" not in found.periods[0].summaries  # nulls


@pytest.mark.parametrize("name", ["summary-export.json", "handle-summary.json"])
def test_both_shapes_of_k6s_summary_say_the_same(golden, name):
    found = load(golden / "k6" / name).aggregate

    assert found.counters["http.requests"] == found.counters["vusers.completed"] == 1200
    assert found.counters["errors.http_req_failed"] == 20  # that is, "passes" of "has it failed?"
    assert found.rates == {"http.request_rate": Rate(39.97)}
    time = found.summaries["http.response_time"]
    assert (time.mean, time.p50, time.p95, time.p99, time.count) == (12.41, 9.87, 31.02, 77.3, 1200)
    assert (time.p75, time.p999) == (None, 160.2 if name == "handle-summary.json" else None)


def test_k6s_newer_summary_with_a_list_of_results_is_read():
    text = """{"results": {"metrics": [{"name": "http_reqs", "type": "counter", "values": {"count": 5, "rate": 1.5}},
        {"name": "http_req_duration", "values": {"avg": 2.5, "p95": 4}}]}}"""

    found = read(text, "x")[0].aggregate

    assert found.counters == {"http.requests": 5}
    assert found.summaries["http.response_time"] == Summary(mean=2.5, p95=4.0, count=5)


def test_locusts_row_for_all_and_its_endpoints_are_read(golden):
    found = load(golden / "locust" / "stats.csv").aggregate

    assert (found.counters["http.requests"], found.counters["errors.failed"]) == (450, 0)
    assert found.summaries["http.response_time"].p99 == 41
    endpoint = found.summaries["plugins.metrics-by-endpoint.response_time.GET /links, all"]
    assert (endpoint.count, endpoint.p50) == (117, 7)


def test_a_locust_run_without_requests_has_no_times():
    columns = "Type,Name,Request Count,Failure Count,Average Response Time,Requests/s,50%"

    found = read(f"{columns}\n,Aggregated,0,0,0,0,N/A\n", "x")[0].aggregate

    assert (found.summaries, found.counters["http.requests"]) == ({}, 0)


@pytest.mark.parametrize("spoil", [False, True])
def test_hey_is_read_also_with_its_layout_lost(golden, lost, spoil):
    text = (golden / "hey" / "some-503.txt").read_text()

    found = read(lost(text) if spoil else text, "x")[0].aggregate

    assert found.counters == {"http.requests": 600, "http.responses": 600, "http.codes.200": 593, "http.codes.503": 7}
    expected = Summary(min=0.9, max=31.6, count=600, mean=5.2, p50=4.6, p75=6.5, p90=8.5, p95=10.3, p99=17.2)
    assert found.summaries["http.response_time"] == expected


def test_what_hey_could_not_measure_is_absent(golden):
    found = load(golden / "hey" / "refused.txt").aggregate

    assert found.summaries == {} and found.counters["http.requests"] == 8
    assert sum(n for name, n in found.counters.items() if name.startswith("errors.")) == 8


@pytest.mark.parametrize("spoil", [False, True])
def test_wrk_is_read_also_with_its_layout_lost(golden, lost, spoil):
    text = (golden / "wrk" / "latency.txt").read_text()

    found = read(lost(text) if spoil else text, "x")[0].aggregate

    assert found.counters == {"http.requests": 4659, "errors.Non-2xx or 3xx responses": 92}
    expected = Summary(count=4659, mean=5.4, max=35.92, p50=4.61, p75=6.7, p90=9.49, p99=17.22)
    assert found.summaries == {"http.response_time": expected}
    assert found.rates == {"http.request_rate": Rate(1551.18)}


def test_wrk_without_its_distribution_has_mean_and_maximum_only(golden):
    found = load(golden / "wrk" / "plain.txt").aggregate.summaries["http.response_time"]

    assert found == Summary(count=1542, mean=5.39, max=25.99)


def test_wrk2_times_from_when_a_request_was_due(golden):
    found = load(golden / "wrk" / "wrk2.txt")

    times = found.aggregate.summaries
    assert (times["http.response_time.intended"].p99, times["http.response_time.intended"].p999) == (6.2, 14.43)
    assert times["http.response_time.intended"].count == 39745  # not those of its calibration
    assert (times["http.response_time"].p99, times["http.response_time"].count) == (4.11, None)
    assert found.aggregate.counters["errors.read"] == 3 and found.extras.model == "open"


def test_a_pasted_console_is_read_and_each_of_its_reports_has_a_number(golden):
    path, notes = golden / "pasted" / "artillery.md", []

    first, second = load(path, notes.append), load(f"{path}#2", notes.append)

    assert notes == [f"{path} holds 2 reports; the first is used ({path}#2 is the next)"]
    assert first.aggregate.summaries["http.response_time"] == Summary(min=1.9, max=303.4, p50=4.6, p95=51.9, p99=127.8)
    assert first.aggregate.counters["vusers.created"] == 6000  # was called vusers.created.total
    assert first.aggregate.counters["vusers.created_by_name.create and follow"] == 6000
    assert first.aggregate.rates == {"http.request_rate": Rate(612)}
    assert second.aggregate.counters["errors.Failed capture or match"] == 2
    assert [p.counters["http.codes.500"] for p in second.periods] == [12, 30]
    assert second.periods[1].start_ms - second.periods[0].start_ms == 10_000
    with pytest.raises(ReportError, match="the file holds 2 reports, counted from 1"):
        load(f"{path}#3")


def test_a_file_whose_name_ends_like_a_number_is_itself(tmp_path, golden):
    (tmp_path / "run#2").write_text((golden / "wrk" / "plain.txt").read_text())

    assert load(tmp_path / "run#2").aggregate.counters["http.requests"] == 1542


@pytest.mark.parametrize("kind", ["wrk/plain.txt", "hey/some-503.txt", "ab/keep-alive.txt", "artillery/run.txt"])
def test_every_text_may_hold_several_reports(tmp_path, golden, kind):
    text = (golden / kind).read_text()
    (tmp_path / "two").write_text(f"Before:\n\n{text}\n\nAfter:\n\n{text}")

    one = read(text, "x")[0]

    assert load(tmp_path / "two#2").aggregate == one.aggregate == load(tmp_path / "two").aggregate


def test_pasted_ab_reports_are_told_apart_by_what_comes_again(golden):
    first, second = (load(f"{golden / 'pasted' / 'ab.md'}#{i}").extras.ab for i in (1, 2))

    assert (first["requests_per_second"], first["failed"], first["percentiles"]["99"]) == (44.26, 6300, 60)
    assert (second["requests_per_second"], second["failed"], second["percentiles"]["99"]) == (256.76, 0, 8)
    assert "failures" in first and "total_bytes" not in second


def test_metric_lines_without_any_heading_are_a_report_and_begin_another_when_they_come_again():
    text = "http.requests: 5\nhttp.response_time:\nmin: 1\np95: 7\n\nhttp.requests: 6\nerrors.E: ... 1\n"

    one, two = artillery_console.from_text(text)

    assert (one.aggregate.counters, one.aggregate.summaries["http.response_time"].p95) == ({"http.requests": 5}, 7)
    assert two.aggregate.counters == {"http.requests": 6, "errors.E": 1}


def test_a_distribution_stays_open_over_lines_that_are_no_rows_of_it(tmp_path):
    text = """Summary report @ 16:02:12(-0400)
http.response_time:
http.downloaded_bytes: ... 959413
  min: ....... 1.9
  max: ....... 303.4
http.requests: ... 18000
  p99: ....... 127.8
http.session_length:
  p99: ....... 7
"""
    (tmp_path / "pasted.txt").write_text(text)

    found = load(tmp_path / "pasted.txt").aggregate

    assert found.summaries["http.response_time"] == Summary(min=1.9, max=303.4, p99=127.8)
    assert found.summaries["http.session_length"] == Summary(p99=7)
    assert found.counters == {"http.downloaded_bytes": 959413, "http.requests": 18000}


def test_what_artillery_prints_is_what_is_read_back(golden):
    report = load(golden / "artillery" / "run.json")
    printed = "".join(period_text(p, hidden=()) for p in report.periods) + summary_text(report, hidden=())

    again = artillery_console.from_text(printed)[0]

    for before, after in zip((report.aggregate, *report.periods), (again.aggregate, *again.periods), strict=True):
        assert after.counters.keys() == before.counters.keys() and after.summaries.keys() == before.summaries.keys()
        assert list(after.counters.values()) == [before.counters[name] for name in after.counters]
        for name, summary in after.summaries.items():
            assert (summary.min, summary.p99) == (before.summaries[name].min, before.summaries[name].p99)


def test_a_label_too_long_for_its_line_is_read_as_it_was_cut():
    name = "errors." + "x" * 90

    found = artillery_console.from_text(f"{name[:76]}...  57\nhttp.requests: ... 60\n")[0]

    assert found.aggregate.counters == {f"{name[:76]}...": 57, "http.requests": 60}


def test_prose_is_not_taken_for_metrics():
    with pytest.raises(ReportError):
        artillery_console.from_text("Step 1: 5\nNote: 3\nTime: 12:30\nmedian: 5\nversion: 2.0\n")


@settings(max_examples=60)
@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("utf-8", "replace")))
def test_any_text_is_a_report_or_is_refused_in_one_line(text):
    try:
        assert read(text, "x")
    except ReportError as error:
        message, tried = str(error), error.reasons
        assert message.startswith("x: no report that can be read: ")
        assert "\n" not in message and tried.keys() == READERS.keys()


@settings(max_examples=40)
@given(data=st.data())
def test_a_report_with_its_figures_spoilt_never_gives_a_traceback(data, golden):
    path = data.draw(
        st.sampled_from([p for p in sorted(golden.rglob("*.*")) if p.suffix in {".txt", ".json", ".csv", ".md"}])
    )
    text = path.read_text("utf-8")
    numbers = list(re.finditer(r"\d+(\.\d+)?", text))
    if numbers:
        found = data.draw(st.sampled_from(numbers))
        odd = st.sampled_from(["NaN", "Infinity", "-1", "9" * 400, "1e999", "1.2.3", "null", '"x"', "", "\u0663"])
        text = text[: found.start()] + data.draw(odd) + text[found.end() :]
    try:
        for report in read(text, "x"):
            written(comparison(compare(report, report)), "json")
            csv_text.to_csv(report, periods=True)
    except ReportError as error:
        message = str(error)
        assert "\n" not in message
