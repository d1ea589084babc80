"""The report as a page: what it says, and that nothing of a report can do anything in it."""

import hashlib
import re
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from loadgen.lab.findings import lab_page
from reports import names
from reports.blocks import Axis, Chart, Series, amount, clock, number, percent, percentage
from reports.compare.diff import compare
from reports.formats.published import published
from reports.merge import merge
from reports.model import Period, Report, ReportError, Summary
from reports.page.chart_table import chart_table, describe
from reports.page.charts import distribution, over_time
from reports.page.measures import breakdown, endpoints, requests, slices, throughput, timeline, without_good_answer
from reports.page.page import render, to_html
from reports.page.scales import axis_scale, ticks
from reports.page.sections import flattened, notices
from reports.page.svg import stacked, svg
from tests.support.report_strategies import reports as any_report
from tests.support.sample_lab import lab_evidence
from tests.support.sample_reports import EVIL, SCRIPT, START_MS, period, report

VOID = {"meta", "link", "input", "br", "img"}
WITHOUT_END = {"tr", "th", "td"}
"""Elements whose end tag HTML lets one leave out: the next of them, or the end of what they stand in, ends them."""


class Page(HTMLParser):
    """Elements, text outside of scripts and styles, ids and anchors of a page; fails where tags do not pair."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.ids, self.anchors, self.words, self.raw = [], [], [], [], {}
        self._open = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        assert len(values) == len(attrs), attrs
        self.elements.append((tag, values))
        assert not any(name.startswith("on") for name in values)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.anchors.append(values["href"])
        ended = {"tr": ("tr", "th", "td"), "th": ("th", "td"), "td": ("th", "td")}.get(tag, ())
        while self._open and self._open[-1] in ended:
            self._open.pop()
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        while self._open[-1] in WITHOUT_END and self._open[-1] != tag:
            self._open.pop()
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] in ("script", "style"):
            self.raw.setdefault(self._open[-1], []).append(data)
        else:
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    def of(self, tag):
        return [values for name, values in self.elements if name == tag]


def page_of(*found, **options):
    return Page(to_html(list(found), title="A title", **options))


def test_a_report_is_told_in_full():
    page = page_of(("run.json", report(1)))
    headings = {"Summary", "Over time", "Response times", "Where the time goes", "Endpoints and scenarios", "Answers and errors",
                "Every metric", "Generator and environment", "Script"}  # fmt: skip
    assert all(heading in page.text for heading in headings)
    assert SCRIPT.split()[0] in page.text
    assert len(page.of("figure")) == 7
    assert "follow" in page.text
    assert "/{{ code }}" in page.text


def test_headline_figures_are_those_of_the_report():
    found = report(1)
    assert requests(found) == 3003
    assert without_good_answer(found) == 63  # 60 answers 503, 3 timeouts
    assert throughput(found) == pytest.approx(3000 / 59.98)
    text = page_of(("run.json", found)).text
    assert "3,003" in text
    assert "63 without a 2xx or 3xx answer" in text
    assert "2.1 %" in text


def test_what_a_report_does_not_carry_is_absent():
    page = page_of(("published", published("A.analytics")))
    assert not page.of("figure")
    assert "Where the time goes" not in page.text
    assert "Generator" not in page.text
    assert "391.6" in page.text
    assert "No good answer" in page.text


def test_an_ab_report_is_told_in_its_own_figures():
    text = page_of(("B.3.c100", published("B.3.c100"))).text
    assert "Connection times" in text
    assert "processing" in text


def test_percentiles_without_samples_are_dashes():
    """Nothing was answered, and a tool that told the mean and the largest time alone."""
    counters = {names.REQUESTS: 5, f"{names.ERRORS}ECONNREFUSED": 5}
    for summaries in (
        {},
        {names.RESPONSE_TIME: Summary(mean=2.0, max=9.0)},
        {names.RESPONSE_TIME: Summary(count=0, p50=0)},
    ):
        found = Report(Period(0, counters, {}, summaries, {}, 0, 9000, 0, 9000), ())
        text = page_of(("run.json", found)).text.replace(" ", "")
        assert all(f"{key}–responsetime" in text for key in ("p50", "p95", "p99"))


def test_a_table_has_a_row_for_percentiles_without_a_mean():
    found = Report(Period(0, {}, {}, {names.RESPONSE_TIME: Summary(p50=1.25, p99=4.5)}, {}, 0, 9000, 0, 9000), ())
    text = page_of(("wrk2.txt", found)).text
    assert "firstbyte–––1.25–––4.50––" in text.replace(" ", "")


def test_time_outside_the_service_is_said_when_it_is_most_of_the_time():
    found = report(1)
    sketches = found.aggregate.sketches
    most = {**sketches, names.RESPONSE_TIME: type(sketches["server.db"]).of([40.0] * 100)}
    slow = replace(found, aggregate=replace(found.aggregate, sketches=most))
    text = page_of(("slow.json", slow)).text
    assert "Most of an answer's time, 90 % of it, was spent outside the service" in text
    assert "slow.json: Most of an answer's time, 90 %" in page_of(("fast.json", found), ("slow.json", slow)).text
    assert "spent outside the service:" not in page_of(("fast.json", found)).text
    assert "outside the service: waiting for a worker, network" in page_of(("fast.json", found)).text


def test_what_several_reports_are_warned_of_is_told_once_with_the_range_of_its_numbers():
    late = [report(1, warnings=[f"arrivals started late (p99 {ms} ms)"]) for ms in ("9.5", "1,240", "12.0")]
    busy = report(2, warnings=["arrivals started late (p99 9.5 ms)", "the generator was busy"])
    found = [("a", late[0]), ("b", late[1]), ("c", busy), ("b", late[2])]
    assert [text.text for text in notices(found)] == [
        "a, b, c: Arrivals started late (p99 9.5 to 1,240 ms).",
        "c: The generator was busy.",
    ]


def test_what_merged_runs_say_of_themselves_is_told_once_where_it_is_alike():
    def run(target):
        one = report(1)
        environment = {**one.extras.environment, "target": target}
        return replace(one, extras=replace(one.extras, environment=environment))

    both = merge([run("http://a"), run("http://b")])
    page = page_of(("both", both), ("c", run("http://c")))
    assert page.text.count(SCRIPT.split()[2]) == 1
    assert page.text.count("packages.gevent") == 1
    assert "Environment: both targethttp://a, http://b Environment: c targethttp://c" in page.text


def test_a_partial_run_and_its_warnings_are_told_first():
    found = report(1, warnings=["the generator was busy"])
    html = to_html([("x", found)], title="t")
    assert html.index("The generator was busy.") < html.index("Throughput")


def test_the_script_is_not_among_the_environment():
    page = page_of(("x", report(1)))
    assert page.text.count(SCRIPT.split()[2]) == 1


def test_what_each_of_several_runs_or_processes_says_has_a_row_of_its_own():
    found = flattened({"cpu_s": 1.5, "runs": [{"cpu_s": 1.0}, {"cpu_s": 0.5}], "tags": ["a", "b"], "none": []})
    assert list(found) == [
        ("cpu_s", "1.5"),
        ("runs.1.cpu_s", "1.0"),
        ("runs.2.cpu_s", "0.5"),
        ("tags", "a, b"),
        ("none", "–"),
    ]


def test_periods_are_rates_over_the_time_they_were_observed():
    found = slices(report(1, periods=2))
    assert [(s.start_s, s.end_s) for s in found] == [(0.0, 9.99), (9.99, 19.98)]
    assert found[0].per_second(500) == pytest.approx(50.05, abs=0.01)


def test_parts_of_the_time_add_up_to_the_mean_response_time():
    total = report(1).aggregate
    shares = breakdown(total)
    assert [s.name for s in shares] == ["pool", "connect", "db", "rest", "outside"]
    assert sum(s.ms for s in shares) == pytest.approx(total.sketches[names.RESPONSE_TIME].mean)
    assert next(s.ms for s in shares if s.name == "rest") == pytest.approx(0.5)


def test_a_held_connection_is_split_where_the_workers_cpu_is_known():
    total = report(1).aggregate
    held = total.sketches["server.db"]
    cpu = type(held).of([held.mean / 4] * held.count)
    found = type(total)(0, total.counters, total.rates, total.summaries, {**total.sketches, "server.loan-cpu": cpu})
    shares = {s.name: s.ms for s in breakdown(found)}
    assert "db" not in shares and shares["held-rest"] == pytest.approx(3 * shares["held-cpu"], rel=0.03)
    assert sum(shares.values()) == pytest.approx(total.sketches[names.RESPONSE_TIME].mean)


def test_endpoints_are_told_from_other_metrics_by_their_counters():
    """A prefix that the script has set itself, an endpoint whose name holds a mark, and a metric that is no endpoint."""
    times = ("plugins.metrics-by-endpoint.response_time./a", "mine.response_time./b", "http.response_time.2xx")
    kinds = (
        "plugins.metrics-by-endpoint./a.codes.x.errors.ETIMEDOUT",
        "mine./b.codes.200",
        "http.codes.200",
        "mine.c.codes.1",
    )
    found = Period(0, dict.fromkeys(kinds, 7), {}, dict.fromkeys((*times, "shop.response_time.sale"), Summary(p50=1.0)))
    assert list(endpoints(found)) == [
        ("/a", times[0], {}),
        ("/a.codes.x", "plugins.metrics-by-endpoint.response_time./a.codes.x", {"ETIMEDOUT": 7}),
        ("/b", times[1], {"200": 7}),
    ]


def test_a_part_that_few_answers_name_is_spread_over_all():
    one = period(np.random.default_rng(1), 0)
    few = {**one.sketches, "server.connect": type(one.sketches["server.db"]).of([100.0])}
    shares = {s.name: s.ms for s in breakdown(type(one)(0, one.counters, one.rates, one.summaries, few))}
    assert shares["connect"] == pytest.approx(100 / 500)


def test_several_reports_are_laid_over_each_other_with_verdicts():
    old, new = report(1), report(2, slower=2.0)
    page = page_of(("old.json", old), ("new.json", new), diff=compare(old, new))
    assert (
        page.text.index("What changed") < page.text.index("Worse, beyond chance") < page.text.index("Headline figures")
    )
    curves = next(v["aria-label"] for v in page.of("svg") if v.get("aria-label", "").startswith("Percentile curve"))
    assert "old.json" in curves
    assert "new.json" in curves


def test_files_are_called_by_their_names_where_those_differ():
    one = report(1, periods=1)
    assert {"x.json", "y.json"} <= set(page_of(("a/x.json", one), ("b/y.json", one)).words)
    assert {"a/x.json", "b/x.json"} <= set(page_of(("a/x.json", one), ("b/x.json", one)).words)


def test_long_names_lose_their_middle_where_they_still_differ():
    one, long = report(1, periods=1), "x" * 60
    assert {f"{'x' * 14}…{'x' * 19}1.json", f"{'x' * 14}…{'x' * 19}2.json"} <= set(
        page_of((f"{long}1.json", one), (f"{long}2.json", one)).words
    )
    apart = f"{long}a{long}", f"{long}b{long}"
    assert set(apart) <= set(page_of(*((name, one) for name in apart)).words)


def test_no_report_is_refused():
    with pytest.raises(ReportError, match="no report"):
        to_html([], title="t")


# Safety


def hostile():
    found = report(1, environment={EVIL: EVIL, "script": EVIL}, warnings=[EVIL])
    first = found.periods[0]
    renamed = {
        f"{names.ENDPOINT}.response_time.{EVIL}": first.sketches[names.RESPONSE_TIME],
        EVIL: first.sketches["server.db"],
    }
    counters = {
        **first.counters,
        f"{names.CODES}{EVIL}": 3,
        f"{names.ERRORS}{EVIL}": 4,
        f"{names.VUSERS_CREATED_BY_NAME}{EVIL}": 2,
    }
    evil = type(first)(first.start_ms, counters, first.rates, {}, {**first.sketches, **renamed}, first.first_counter_ms,
                       first.last_counter_ms)  # fmt: skip
    return Report.of([evil, *found.periods[1:]], found.extras)


def test_hostile_text_stays_text():
    found = hostile()
    html = to_html([(EVIL, found), ("b", found)], compare(found, found), title=EVIL)
    page = Page(html)
    assert not {tag for tag, _ in page.elements} & {"img", "iframe", "object", "embed", "base", "form"}
    assert all(anchor.startswith("#") for anchor in page.anchors)
    assert len(page.of("script")) == 1
    assert "onerror=hacked=1" in page.text
    assert len(set(page.ids)) == len(page.ids)


def test_the_policy_admits_the_pages_own_script_and_no_other():
    page = Page(to_html([("x", report(1))], title="t"))
    policy = next(m["content"] for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    digests = [b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in page.raw["script"]]
    assert re.search(r"script-src ([^;]*)", policy)[1].split() == [f"'sha256-{digest}'" for digest in digests]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy


@pytest.mark.slow
@given(any_report)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_report_gives_a_sound_page(found):
    if found.extras is not None:
        found = replace(found, extras=replace(found.extras, ab=None))
    page = page_of(("a", found))
    assert len(set(page.ids)) == len(page.ids)
    page_of(("a", found), ("b", found), diff=compare(found, found))


def test_the_page_needs_nothing_from_elsewhere():
    page = Page(to_html([("x", report(1))], title="t"))
    assert not [v for _, v in page.elements if "src" in v or v.get("href", "#")[0] != "#"]


def test_a_page_with_a_hundred_periods_is_under_400_kb():
    page = to_html([("x", report(1, periods=100))], title="t")
    assert "16:39" in page
    assert len(page.encode()) < 400_000


def test_every_chart_has_its_words_and_its_figures():
    page = page_of(("x", report(1)))
    labels = [v["aria-label"] for v in page.of("svg") if v.get("role") == "img"]
    assert len(labels) == len(page.of("figure")) == len(page.of("details"))
    assert all(": " in label and "nothing to draw" not in label for label in labels)
    headers = page.of("th")
    assert all(h.get("scope") in ("row", "col") for h in headers)
    assert len(page.of("caption")) == len(page.of("table"))


# Charts


def chart(mark="line", *series, x=None, y=None):
    return Chart("c", "A chart", mark, x or Axis("x"), y or Axis("y", "ms"), series)


def test_a_chart_says_its_ranges_in_words():
    assert (
        describe(chart("line", Series("a", (0, 1), (2, 4.5)), Series("b", (0,), (3,))))
        == "A chart: a 2 to 4.50 ms; b 3 ms."
    )
    assert describe(chart("line")) == "A chart: nothing to draw."


def test_bars_stand_on_each_other():
    parts = stacked((Series("a", (0.0, 1.0), (1.0, None)), Series("b", (0.0, 1.0), (2.0, 5.0))))
    assert list(parts) == [(0, 0, 0, 1), (1, 0, 1, 3), (1, 1, 0, 5)]


def test_a_gap_breaks_a_line():
    drawing = svg(chart("line", Series("a", (0, 1, 2, 3, 4), (1, 2, None, 3, 4))))
    assert re.search(r'class="line solid s0" data-series="0" d="([^"]*)"', drawing)[1].count("M") == 2


def test_points_are_a_table_of_all_series():
    headings, rows = chart_table(
        chart("line", Series("a", (0, 60), (1, 2)), Series("b", (60,), (3,)), x=Axis("time", "s", "elapsed"))
    )
    assert headings == ["time", "a", "b"]
    assert rows == [["0:00", "1", "–"], ["1:00", "2", "3"]]


def test_dots_are_a_table_by_name():
    rows = Axis("", "", "category", ("first", "second"))
    dots = chart("dot", Series("published", (5.0, 7.0), (0.0, 1.0)), Series("measured", (6.0,), (1.0,)), y=rows)
    assert chart_table(dots) == (["", "published", "measured"], [["first", "5.00", "–"], ["second", "7.00", "6.00"]])


@pytest.mark.parametrize(
    ("scale", "low", "high", "labels"),
    [
        ("elapsed", -15.0, 75.0, ["0:00", "0:15", "0:30", "0:45", "1:00", "1:15"]),
        ("linear", 0, 100, ["0", "20", "40", "60", "80", "100"]),
        ("linear", 0, 0.3, ["0", "0.1", "0.2", "0.3"]),
        ("log", 1, 120, ["1", "2", "5", "10", "20", "50", "100"]),
        ("log", 0.1, 10_000, ["0.1", "1", "10", "100", "1,000", "10,000"]),
        ("linear", 0, 4e12, ["0", "1.0 x 10^12", "2.0 x 10^12", "3.0 x 10^12", "4.0 x 10^12"]),
        ("elapsed", 0, 61, ["0:00", "0:10", "0:20", "0:30", "0:40", "0:50", "1:00"]),
        ("tail", 1, 1000, ["0", "50", "75", "90", "95", "99", "99.9"]),
        ("tail", 1, 50, ["0", "50", "75", "90", "95"]),
    ],
)
def test_ticks_are_round_figures(scale, low, high, labels):
    assert [text for _, text in ticks(Axis("x", "", scale), low, high)] == labels


def test_the_percentile_curve_goes_as_far_as_the_samples():
    curve, histogram = distribution([("x", report(1, periods=1))])
    assert max(curve.series[0].x) == pytest.approx(500)  # of 500 samples: p99.8
    assert sum(y for y in histogram.series[0].y if y is not None) == pytest.approx(100, rel=1e-3)


def test_a_report_with_seconds_has_a_point_for_each():
    found = report(1, periods=6)
    throughput, latency, *_ = over_time([("x", found)])
    assert throughput.mark == latency.mark == "line"
    assert latency.series[0].x == tuple(range(60))
    assert throughput.note == "For each second."
    second = found.periods[2].seconds[3]
    at = round((second.start_ms - found.periods[0].seconds[0].start_ms) / 1000)
    assert latency.series[1].y[at] == pytest.approx(second.response_time.quantile(0.95), rel=1e-4)
    assert throughput.series[1].y[at] == second.answers


def test_a_report_without_seconds_has_a_level_for_each_period():
    found = Report.of([replace(p, seconds=()) for p in report(1, periods=4).periods])
    throughput, *_ = over_time([("x", found)])
    assert throughput.mark == "step"
    assert throughput.series[0].x == (0.0, 9.99, 19.99, 29.99, 39.98)
    assert throughput.note == "For each reporting period of 10 s."


def test_a_short_run_is_drawn_by_seconds_and_a_shorter_one_not_at_all():
    ten, two = report(1, periods=1), report(1, periods=1)
    throughput, latency = over_time([("x", ten)])
    assert (throughput.mark, len(latency.series[0].x)) == ("step", 11)
    first = replace(
        two.periods[0], seconds=two.periods[0].seconds[:2], last_counter_ms=START_MS + 1990, last_histogram_ms=None
    )
    assert over_time([("x", Report.of([first]))]) == ()


def test_seconds_without_an_event_are_a_rate_of_zero_and_a_gap_in_times():
    one = report(1, periods=1).periods[0]
    moments = timeline(Report.of([replace(one, seconds=one.seconds[:3] + one.seconds[6:])]), ["p50"])
    assert len(moments) == 10
    assert [m.answers for m in moments[2:7]] == [50, 0, 0, 0, 50]
    assert [m.times_ms["p50"] is None for m in moments[2:7]] == [False, True, True, True, False]


def test_sketches_that_cannot_be_merged_are_not():
    one = report(1, periods=1).periods[0]
    other = replace(one.seconds[0], response_time=type(one.seconds[0].response_time).of([9.0], 0.05))
    (moment, *_) = timeline(Report.of([replace(one, seconds=(one.seconds[0], other))]), ["max"])
    assert moment.times_ms == {"max": one.seconds[0].response_time.max}


def test_a_rate_is_of_the_time_that_was_observed():
    one = report(1, periods=1).periods[0]
    cut = replace(one, first_counter_ms=START_MS + 400, first_histogram_ms=None, last_counter_ms=START_MS + 9_300)
    moments = timeline(Report.of([replace(cut, last_histogram_ms=None)]), ["p50"])
    assert moments[0].answers == pytest.approx(50 / 0.6)
    assert moments[-1].answers is None  # of the last second, 0.3 s were observed


def test_a_long_run_has_no_more_points_than_can_be_seen():
    found = report(1, periods=150)
    moments = timeline(found, ["p50"])
    assert len(moments) == 750
    assert (moments[1].start_s, moments[1].end_s) == (2, 4)
    assert sum(m.answers for m in moments) * 2 == pytest.approx(150 * 500, rel=0.01)


def test_values_above_zero_are_drawn_on_both_scales_and_others_on_one():
    assert 'data-log="1"' in svg(chart("line", Series("a", (0, 1), (1, 1000))))
    assert 'data-log="1"' not in svg(chart("line", Series("a", (0, 1), (0, 1000))))


def test_names_at_the_ends_of_curves_do_not_overlap():
    drawing = svg(chart("line", *(Series(name, (0, 1), (1, 10 + i / 100), i) for i, name in enumerate("abcd"))))
    linear = drawing.partition('class="other"')[0]
    heights = [float(y) for y in re.findall(r'class="end[^>]* y="([\d.]+)"', linear)]
    assert len(heights) == 4
    assert all(b - a >= 15 for a, b in pairwise(sorted(heights)))


def test_a_long_name_of_a_row_is_broken_into_lines():
    name = "the nested object, 4 servers with 10 connections each, database in 512 MB"
    rows = Axis("", "", "category", ("short", name))
    drawing = svg(chart("dot", Series("a", (1.0, 2.0), (0.0, 1.0)), y=rows))
    lines = re.findall(r'class="name"[^>]*>([^<]*)<', drawing)
    assert lines[0] == "short"
    assert " ".join(lines[1:]) == name


@pytest.mark.parametrize("scale", ["linear", "log"])
@example(values=[1.0, 2.00001])
@given(values=st.lists(st.floats(1e-9, 1e12), min_size=1, max_size=20))
def test_every_value_finds_its_place_on_an_axis(scale, values):
    found = axis_scale(Axis("x", "", scale), values)
    assert found.low <= min(values)
    assert max(values) <= found.high * (1 + 1e-9)
    places = [found.place(v) for v in sorted(values)]
    assert places == sorted(places)
    assert 1 < len(found.ticks) <= 16
    assert all(0 <= found.place(at) <= 1 for at, _ in found.ticks)


def test_figures_are_written_to_be_compared():
    assert [amount(v) for v in (0, 3, 0.01234, 1.239, 12.39, 1239.4, None)] == [
        "0",
        "3",
        "0.0123",
        "1.24",
        "12.4",
        "1,239",
        "–",
    ]
    assert [amount(v) for v in (0.5, 0.00004, -0.0123)] == ["0.500", "0.0000400", "-0.0123"]
    assert [percent(v) for v in (0, 0.0005, 0.012, 0.34, None)] == ["0 %", "0.05 %", "1.2 %", "34 %", "–"]
    assert [percent(v) for v in (0.00001, 0.994, 0.9962, 0.99999, 1)] == [
        "< 0.01 %",
        "99 %",
        "99.6 %",
        "> 99.99 %",
        "100 %",
    ]
    assert [percentage(v) for v in (0, 0.00001, 0.1234, 1)] == ["0.00%", "<0.01%", "12.34%", "100.00%"]
    assert [number(v, 1) for v in (1234.56, float("inf"), None)] == ["1,234.6", "–", "–"]
    assert [clock(v) for v in (7, 75, 3600)] == ["0:07", "1:15", "1:00:00"]


# The lab


def test_the_labs_page_has_every_experiment_and_its_anchors_lead_somewhere():
    evidence = lab_evidence()
    page = Page(render(lab_page(evidence)))
    for text in (
        *evidence.outcomes,
        "too many clients, SQLSTATE 53300: 10",
        "DB_POOL_MIN",
        "+584.09%",
        "200 connections need",
        "3,229",
        "a CPU",
    ):
        assert text in page.text
    assert {anchor.removeprefix("#") for anchor in page.anchors} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
