"""The report as a page: what it says, and that nothing of a report can do anything in it."""

import hashlib
import json
import re
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from reports import names
from reports.blocks import Axis, Chart, Section, Series, Text, amount, number, percent
from reports.compare.diff import compare
from reports.formats.published import published
from reports.model import Report, ReportError
from reports.page.lab import lab_page
from reports.page.measures import breakdown, failed, requests, slices, throughput
from reports.page.page import SHARED_JS, plotly_js, to_html
from reports.page.svg import clock, describe, points, stacked, svg, ticks
from tests.support.report_strategies import reports as any_report
from tests.support.sample_reports import EVIL, LAB, SCRIPT, period, report

VOID = {"meta", "link", "input", "br", "img"}


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
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
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
    return Page(to_html(list(found), title="A title", **{"js": "none", **options}))


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
    assert failed(found) == 63  # 60 answers 503, 3 timeouts
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
    assert "Failed" in page.text


def test_an_ab_report_is_told_in_its_own_figures():
    text = page_of(("B.3.c100", published("B.3.c100"))).text
    assert "Connection times" in text
    assert "processing" in text


def test_a_partial_run_and_its_warnings_are_told_first():
    found = report(1, warnings=["the generator was busy"])
    html = to_html([("x", found)], title="t", js="none")
    assert html.index("The generator was busy.") < html.index("Throughput")


def test_the_script_is_not_among_the_environment():
    page = page_of(("x", report(1)))
    assert page.text.count(SCRIPT.split()[2]) == 1


def test_periods_are_rates_over_the_time_they_were_observed():
    found = slices(report(1, periods=2))
    assert [(s.start_s, s.end_s) for s in found] == [(0.0, 9.99), (9.99, 19.98)]
    assert found[0].per_second(500) == pytest.approx(50.05, abs=0.01)


def test_parts_of_the_time_add_up_to_the_mean_response_time():
    total = report(1).aggregate
    shares = breakdown(total)
    assert [s.name for s in shares] == ["pool", "connect", "db", "rest", "network"]
    assert sum(s.ms for s in shares) == pytest.approx(total.sketches[names.RESPONSE_TIME].mean)
    assert next(s.ms for s in shares if s.name == "rest") == pytest.approx(0.5)


def test_a_part_that_few_answers_name_is_spread_over_all():
    one = period(np.random.default_rng(1), 0)
    few = {**one.sketches, "server.connect": type(one.sketches["server.db"]).of([100.0])}
    shares = {s.name: s.ms for s in breakdown(type(one)(0, one.counters, one.rates, one.summaries, few))}
    assert shares["connect"] == pytest.approx(100 / 500)


def test_several_reports_are_laid_over_each_other_with_verdicts():
    old, new = report(1), report(2, slower=2.0)
    page = page_of(("old.json", old), ("new.json", new), diff=compare(old, new))
    assert "What changed" in page.text
    assert "worse" in page.text
    curves = next(v["aria-label"] for v in page.of("div") if v.get("aria-label", "").startswith("Percentile curve"))
    assert "old.json" in curves
    assert "new.json" in curves


def test_files_are_called_by_their_names_where_those_differ():
    one = report(1, periods=1)
    assert {"x.json", "y.json"} <= set(page_of(("a/x.json", one), ("b/y.json", one)).words)
    assert {"a/x.json", "b/x.json"} <= set(page_of(("a/x.json", one), ("b/x.json", one)).words)


def test_sections_of_others_stand_behind_the_reports_own():
    extra = Section("more", "More of it", (Text("said <b>so</b>"),), menu="More")
    page = page_of(("x", report(1)), sections=[extra])
    assert "said <b>so</b>" in page.text
    assert "#more" in page.anchors


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


@pytest.mark.parametrize("js", ["none", "shared", "inline"])
def test_hostile_text_stays_text(js):
    found = hostile()
    html = to_html([(EVIL, found), ("b", found)], compare(found, found), title=EVIL, js=js)
    page = Page(html)
    assert not {tag for tag, _ in page.elements} & {"img", "iframe", "object", "embed", "base", "form"}
    assert all(anchor.startswith("#") for anchor in page.anchors)
    assert len(page.of("script")) == (0 if js == "none" else 3)
    assert "onerror=hacked=1" in page.text
    assert len(set(page.ids)) == len(page.ids)


def test_data_of_charts_cannot_leave_their_block():
    html = to_html([(EVIL, hostile())], title="t", js="shared")
    block = re.search(r'<script type="application/json" id="chart-data">(.*?)</script>', html, re.DOTALL)[1]
    assert not set("<>&\u2028\u2029") & set(block)
    charts = json.loads(block)
    assert f"HTTP {EVIL}" not in {s["name"] for chart in charts for s in chart["series"]}
    assert EVIL in {s["name"] for chart in charts for s in chart["series"]}


@pytest.mark.parametrize("js", ["none", "shared", "inline"])
def test_the_policy_admits_the_pages_own_scripts_and_no_others(js):
    page = Page(to_html([("x", report(1))], title="t", js=js))
    policy = next(m["content"] for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    allowed = re.search(r"script-src ([^;]*)", policy)[1].split()
    texts = [*page.raw.get("script", [])][1:]  # the first is data
    hashes = {f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts}
    assert set(allowed) == {"none": {"'none'"}, "shared": {*hashes, "'self'", "file:"}, "inline": hashes}[js]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy


@given(any_report)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_report_gives_a_sound_page(found):
    if found.extras is not None:
        found = replace(found, extras=replace(found.extras, ab=None))
    page = page_of(("a", found), js="shared")
    assert len(set(page.ids)) == len(page.ids)
    page_of(("a", found), ("b", found), diff=compare(found, found))


def test_the_page_needs_nothing_from_elsewhere():
    page = Page(to_html([("x", report(1))], title="t"))
    assert not [v for _, v in page.elements if "src" in v or v.get("href", "#")[0] != "#"]
    assert len(to_html([("x", report(1))], title="t").encode()) < 6_000_000
    shared = Page(to_html([("x", report(1))], title="t", js="shared"))
    assert [v["data-src"] for v in shared.of("script") if "data-src" in v] == [SHARED_JS]
    assert "plotly.js" in plotly_js()[:100]


def test_every_chart_has_its_words_and_its_figures():
    page = page_of(("x", report(1)))
    labels = [v["aria-label"] for v in page.of("div") if v.get("role") == "img"]
    assert len(labels) == len(page.of("figure")) == len(page.of("details"))
    assert all(": " in label and "nothing to draw" not in label for label in labels)
    headers = page.of("th")
    assert all(h.get("scope") in ("row", "col") for h in headers)
    assert len(page.of("caption")) == len(page.of("table"))


# Charts


def chart(mark="line", *series, x=None, y=None):
    return Chart("c", "A chart", mark, x or Axis("x"), y or Axis("y", "ms"), series, bar_width=1.0)


def test_a_chart_says_its_ranges_in_words():
    assert (
        describe(chart("line", Series("a", (0, 1), (2, 4.5)), Series("b", (0,), (3,))))
        == "A chart: a 2 to 4.50 ms; b 3 ms."
    )
    assert describe(chart("line")) == "A chart: nothing to draw."


def test_bars_stand_on_each_other():
    parts = stacked((Series("a", (0.0, 1.0), (1.0, None)), Series("b", (0.0, 1.0), (2.0, 5.0))))
    assert [(s.name, i, low, high) for s, i, low, high in parts] == [("a", 0, 0, 1), ("b", 0, 1, 3), ("b", 1, 0, 5)]


def test_a_gap_breaks_a_line():
    drawing = svg(chart("line", Series("a", (0, 1, 2, 3, 4), (1, 2, None, 3, 4))))
    assert re.search(r'class="line s0 solid" d="([^"]*)"', drawing)[1].count("M") == 2


def test_points_are_a_table_of_all_series():
    headings, rows = points(
        chart("line", Series("a", (0, 60), (1, 2)), Series("b", (60,), (3,)), x=Axis("time", "s", "elapsed"))
    )
    assert headings == ["time", "a", "b"]
    assert rows == [["0:00", "1", "–"], ["1:00", "2", "3"]]


def test_dots_are_a_table_by_name():
    rows = Axis("", "", "category", ("first", "second"))
    dots = chart("dot", Series("published", (5.0, 7.0), (0.0, 1.0)), Series("measured", (6.0,), (1.0,)), y=rows)
    assert points(dots) == (["", "published", "measured"], [["first", "5.00", "–"], ["second", "7.00", "6.00"]])


@pytest.mark.parametrize(
    ("scale", "low", "high", "labels"),
    [
        ("elapsed", -15.0, 75.0, ["0:00", "0:15", "0:30", "0:45", "1:00", "1:15"]),
        ("linear", 0, 100, ["0", "20", "40", "60", "80", "100"]),
        ("linear", 0, 0.3, ["0", "0.1", "0.2", "0.3"]),
        ("log", 1, 120, ["1", "2", "5", "10", "20", "50", "100"]),
        ("log", 0.1, 10_000, ["0.1", "1", "10", "100", "1,000", "10,000"]),
        ("elapsed", 0, 61, ["0:00", "0:10", "0:20", "0:30", "0:40", "0:50", "1:00"]),
        ("tail", 1, 1000, ["0", "50", "90", "95", "99", "99.9"]),
        ("tail", 1, 50, ["0", "50", "90", "95"]),
    ],
)
def test_ticks_are_round_figures(scale, low, high, labels):
    assert [text for _, text in ticks(Axis("x", "", scale), low, high)] == labels


def test_the_percentile_curve_goes_as_far_as_the_samples():
    html = to_html([("x", report(1, periods=1))], title="t", js="shared")
    charts = json.loads(re.search(r'id="chart-data">(.*?)</script>', html, re.DOTALL)[1])
    curve = next(c for c in charts if c["id"] == "percentiles")
    assert max(curve["series"][0]["x"]) == pytest.approx(500)  # of 500 samples: p99.8
    histogram = next(c for c in charts if c["id"] == "histogram")
    assert sum(histogram["series"][0]["y"]) == pytest.approx(100, rel=1e-3)


def test_figures_are_written_to_be_compared():
    assert [amount(v) for v in (0, 3, 0.01234, 1.239, 12.39, 1239.4, None)] == [
        "0",
        "3",
        "0.012",
        "1.24",
        "12.4",
        "1,239",
        "–",
    ]
    assert [percent(v) for v in (0, 0.0005, 0.012, 0.34, None)] == ["0 %", "0.05 %", "1.2 %", "34 %", "–"]
    assert [number(v, 1) for v in (1234.56, float("inf"), None)] == ["1,234.6", "–", "–"]
    assert [clock(v) for v in (7, 75, 3600)] == ["0:07", "1:15", "1:00:00"]


# The lab


def test_the_labs_page_has_every_claim_and_experiment_and_its_anchors_lead_somewhere():
    page = Page(lab_page(LAB, {"B.1.c1": report(1)}, {"cpu": "a CPU"}, js="none"))
    assert "4 claims: 1 reproduced, 1 partly, 1 not reproduced, 1 not measured" in page.text
    for text in ("claim 3", "B.1.c1: a connection per request",
                 "53300: 6", "DB_POOL_MIN", "+580.12%", "5.80", "200 connections need", "3,229", "a CPU"):  # fmt: skip
        assert text in page.text
    assert {anchor.removeprefix("#") for anchor in page.anchors} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)


def test_an_interrupted_session_without_anything_is_told():
    page = Page(lab_page({"partial": True, "claims": [], "experiments": {}}, {}, js="none"))
    assert "interrupted" in page.text
