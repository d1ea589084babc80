"""Comparing two reports: what is on both sides, by how much it differs, and what is missing."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.compare.diff import compare, compare_runs
from reports.compare.diff_blocks import _WORDS, comparison, headline
from reports.formats.apachebench import AbFailures, AbReport
from reports.formats.published import published
from reports.model import Extras, Period, Rate, Report, Summary
from reports.writers.output import written
from tests.support.report_strategies import reports
from tests.support.sample_reports import report as sample
from tests.support.sample_reports import sample_report

SHOWN_FIRST = list(dict.fromkeys(_WORDS.values()))


def to_json(diff):
    return written(comparison(diff), "json")


def to_markdown(diff, **options):
    return written(comparison(diff, **options), "markdown")


def to_text(diff, *, colour=False, **options):
    return written(comparison(diff, **options), "text", colour=colour)


def totals(**parts) -> Report:
    return Report(Period(start_ms=0, **parts))


def row(diff, name):
    return next(r for r in diff.rows if r.name == name)


def plain(report):
    """Without made-up figures of ab, which compare would refuse."""
    return Report(report.aggregate, report.periods)


@settings(max_examples=20)
@given(reports)
def test_a_report_does_not_differ_from_itself(report):
    assert compare(plain(report), plain(report)).changes == ()


@settings(max_examples=15)
@given(reports, reports)
def test_a_diff_the_other_way_round_is_its_mirror(old, new):
    forth, back = compare(plain(old), plain(new)), compare(plain(new), plain(old))

    assert back == forth.mirrored()
    for there, here in zip(forth.rows, back.rows, strict=True):
        assert here.change is None if there.change is None else here.change == -there.change


@settings(max_examples=15)
@given(reports, reports)
def test_every_metric_of_either_side_is_compared(old, new):
    names = {r.name for r in compare(plain(old), plain(new)).rows}

    assert {*old.aggregate.counters, *new.aggregate.counters, *old.aggregate.rates, *new.aggregate.rates} <= names


@settings(max_examples=15)
@given(reports, reports)
def test_every_format_writes_any_diff(old, new):
    diff = compare(plain(old), plain(new))

    assert len(json.loads(to_json(diff))["metrics"]) == len(diff.rows)
    assert to_markdown(diff, everything=True).count("\n") >= len(diff.rows)
    assert to_text(diff).startswith(headline(diff))


def test_a_change_is_absolute_and_relative():
    changed = row(compare(totals(counters={"a": 40}), totals(counters={"a": 30})), "a")

    assert (changed.change, changed.relative) == (-10, -0.25)


def test_a_metric_on_one_side_is_missing_on_the_other_and_not_zero():
    missing = row(compare(totals(counters={"a": 40}), totals()), "a")

    assert (missing.new, missing.change, missing.relative) == (None, None, None)
    assert (missing.verdict, missing.reason) == ("not comparable", "on one side only")


def test_a_failure_that_one_side_never_counted_is_zero_there_if_it_counts_requests():
    old, new = totals(counters={"http.requests": 9}), totals(counters={"http.requests": 9, "http.codes.500": 1})

    assert row(compare(old, new), "http.codes.500").old == 0
    assert row(compare(totals(), new), "http.codes.500").old is None


def test_other_tools_may_not_know_a_failure_so_it_is_missing_there():
    old = Report(Period(0, {"http.requests": 9}), extras=Extras("wrk", "closed"))

    assert row(compare(old, totals(counters={"http.requests": 9, "http.codes.500": 1})), "http.codes.500").old is None


def test_from_zero_there_is_no_relative_change():
    grown = row(compare(totals(rates={"r": Rate(0)}), totals(rates={"r": Rate(3)})), "r")

    assert (grown.change, grown.relative) == (3, None)
    assert row(compare(totals(rates={"r": Rate(0)}), totals(rates={"r": Rate(0)})), "r").relative == 0


def test_a_distribution_is_compared_row_by_row():
    old = totals(summaries={"t": Summary(count=3, p50=1.0, p99=4.0)})
    new = totals(summaries={"t": Summary(count=3, p50=2.0)})

    assert [(r.name, r.old, r.new) for r in compare(old, new).rows] == [
        ("t.count", 3, 3),
        ("t.median", 1.0, 2.0),
        ("t.p99", 4.0, None),
    ]


def test_figures_of_ab_are_compared_where_both_sides_have_them():
    old = AbReport(complete=10, failures=AbFailures(length=2), port=1, percentiles={50: 3}).as_report()
    new = AbReport(complete=20, port=2, percentiles={50: 4}).as_report()

    assert [(r.name, r.old, r.new) for r in compare(old, new).rows if r.old or r.new] == [
        ("ab.complete", 10, 20),
        ("ab.failures.length", 2, None),
        ("ab.percentile.50", 3, 4),
    ]


def test_figures_of_ab_are_told_in_others_terms_where_the_other_side_is_not_abs():
    other = totals(counters={"http.requests": 1000}, rates={"http.request_rate": Rate(2000)})

    rows = {r.name: (r.old, r.new) for r in compare(published("B.3.c1"), other).rows}

    assert rows["http.request_rate"] == (256.76, 2000) and rows["errors"] == (0, 0)
    assert rows["http.response_time.p99"] == (8, None) and not any(name.startswith("ab.") for name in rows)


def test_the_json_has_a_row_per_figure_with_null_for_what_is_missing():
    diff = compare(totals(counters={"a": 40, "b": 1}), totals(counters={"a": 30}))

    found = json.loads(to_json(diff))

    assert set(found) == {"metrics", "checks", "headline", "warnings", "notes"}
    assert [[r[key] for key in ("name", "old", "new", "change", "relative", "verdict")] for r in found["metrics"]] == [
        ["a", 40, 30, -10, -0.25, "not comparable"],
        ["b", 1, None, None, None, "not comparable"],
    ]


@pytest.mark.parametrize(("suffix", "write"), [("txt", to_text), ("md", to_markdown), ("json", to_json)])
def test_published_experiments_compare_as_the_golden_files_show(suffix, write, assert_golden):
    assert_golden(f"diff-ab.{suffix}", write(compare(published("B.1.c1"), published("B.3.c1"))))
    assert_golden(f"diff-artillery.{suffix}", write(compare(published("A.pool10"), sample_report())))


def test_what_is_shown_at_first_is_the_headline_and_the_figures_that_matter_in_words():
    plain, slow = sample(1, periods=12), sample(2, periods=12, slower=2.5, warnings=("arrivals\nstarted late",))

    shown = to_text(compare(plain, slow)).splitlines()

    assert shown[0].startswith("Worse, beyond chance: median, p95, p99, p99 from the planned start, ")
    assert shown[0].endswith(" other figures. Nothing better.")
    assert shown[2] == "Warning of the new report: arrivals started late"
    assert [line.partition("  ")[0] for line in shown[6:15]] == SHOWN_FIRST
    assert sum("./links.p95" in line for line in shown) == 1
    assert not any("./links.p75" in line for line in shown)
    assert any(line.startswith("104 figures in all: ") for line in shown)
    everything = to_text(compare(plain, slow), everything=True)
    assert "./links.p75" in everything
    assert everything.startswith(shown[0])


def test_the_headline_says_when_nothing_changed_and_when_nothing_can_be_judged():
    assert headline(compare(sample(1), sample(1))).startswith("No clear change")
    assert headline(compare(totals(counters={"a": 1}), totals(counters={"a": 2}))) == "Nothing can be compared."


def test_a_name_cannot_break_out_of_a_markdown_table():
    text = to_markdown(compare(totals(counters={"a|b\n| <img>": 1}), totals()))

    assert "| a\\|b \\| &lt;img> | 1 | - | - | - |" in text


def test_colour_tells_worse_from_better_and_from_neither_and_only_on_demand():
    old = totals(summaries={"vusers.session_length": Summary(mean=10.0), "http.response_time": Summary(mean=10.0)})
    new = totals(summaries={"vusers.session_length": Summary(mean=90.0), "http.response_time": Summary(mean=1.0)})
    diff = compare(old, new)

    assert "\x1b" not in to_text(diff)
    painted = [
        line[:5] for line in to_text(diff, colour=True).splitlines() if re.match(r"(\x1b\S*)?(vusers|http)\.", line)
    ]
    assert painted == ["\x1b[32m", "\x1b[31m"]


def test_markdown_shows_what_changed_and_folds_the_rest():
    old = totals(summaries={"http.response_time": Summary(mean=10.0)}, counters={"a": 1})
    text = to_markdown(compare(old, totals(summaries={"http.response_time": Summary(mean=90.0)}, counters={"a": 2})))

    assert text.index("http.response_time.mean") < text.index("<details>") < text.index("| a |")


@settings(max_examples=15)
@given(st.lists(reports.map(plain), min_size=1, max_size=3), st.lists(reports.map(plain), min_size=1, max_size=3))
def test_any_runs_can_be_compared_and_written(old, new):
    diff = compare_runs(old, new)

    known = ("better", "worse", "no clear change", "cannot be judged", "not comparable")
    assert all(r.verdict in known for r in diff.rows)
    json.loads(to_json(diff))
    to_text(diff)
    to_markdown(diff)


def test_a_figure_that_a_run_lacks_is_not_judged():
    some = totals(rates={"http.request_rate": Rate(3)})

    judged = row(compare_runs([some, totals()], [some, some]), "http.request_rate")

    assert (judged.verdict, judged.reason) == ("not comparable", "not in every run")
