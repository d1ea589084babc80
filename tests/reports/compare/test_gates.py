"""Rules that fail a comparison."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.compare.diff import Change, Diff, compare
from reports.compare.gates import Gate
from reports.formats.published import published
from reports.model import Extras, Period, Report, ReportError, Summary


def diff(old=100.0, new=120.0, verdict="no clear change"):
    rows = [
        Change("errors", "share", 0.0, 0.002, "no clear change"),
        Change("http.requests", "counter", 500, 500),
        Change("http.request_rate", "rate", 50.0, 40.0, "no clear change"),
        Change("http.response_time.median", "summary", 0.0, 1.0, "no clear change"),
        Change("http.response_time.p99", "summary", old, new, verdict),
        Change("vusers.session_length.p95", "summary", 10.0, None),
    ]
    return Diff(tuple(rows))


@pytest.mark.parametrize(
    ("rule", "met"),
    [
        ("p99 > +10%", False),
        ("p99>+20%", True),  # exactly a fifth more is not more than a fifth
        ("p99 >= +20%", False),
        ("p99 > +19.9 %", False),
        ("p99 < +10%", True),
        ("p99 > +15ms", False),
        ("p99 > +25", True),
        ("http.response_time.p99 > 119.9", False),
        ("p99 > 120", True),
        ("p99 > 0.1s", False),
        ("errors > 0.1%", False),
        ("errors > 0.2%", True),
        ("errors > +10%", False),  # from nothing, any share is more
        ("rps < -10%", False),
        ("rps < -20%", True),
        ("http.request_rate < 30", True),
        ("p50 > +10%", False),
        ("http.response_time.p50 > 2", True),
        ("errors.ETIMEDOUT > 0", True),  # requests were counted, none of these
        ("worse", True),
        ("p99 worse", True),
    ],
)
def test_a_rule_fails_where_its_comparison_holds(rule, met):
    outcome = Gate.parse(rule).check(diff())

    assert outcome.met is met
    assert outcome.line.startswith(f"{'passed' if met else 'FAILED'}: {rule}")


@pytest.mark.parametrize(
    ("counters", "rule", "met"),
    [
        ({"http.requests": 9}, "http.codes.503 > 0", False),
        ({"http.requests": 9}, "http.responses < 5", False),
        ({"http.requests": 9}, "errors.ETIMEDOUT > 0", False),
        ({"http.requests": 9, "http.codes.200": 9}, "http.codes.503 > 0", True),
    ],
)
def test_what_another_tool_does_not_count_is_not_taken_for_none(counters, rule, met):
    run = Report(Period(0, counters), extras=Extras("k6", ""))
    outcome = Gate.parse(rule).check(compare(run, run))
    assert outcome.met is met
    assert met or outcome.line.startswith("NOT JUDGED")


def test_statuses_that_only_one_side_counts_are_none_of_the_others():
    ours, other = Report(Period(0, {"http.requests": 9, "http.codes.200": 9})), Period(0, {"http.requests": 9})
    found = compare(ours, Report(other, extras=Extras("k6", "")))
    assert Gate.parse("http.codes.503 > 0").check(found).line.startswith("NOT JUDGED")


def test_a_rule_may_go_by_the_verdict():
    found = diff(verdict="worse")

    assert [Gate.parse(rule).check(found).met for rule in ("worse", "p99 worse", "median worse")] == [
        False,
        False,
        True,
    ]
    assert "http.response_time.p99 100 -> 120, +20.0%, worse" in Gate.parse("worse").check(found).line


def test_ab_reports_have_the_same_short_names():
    found = compare(published("B.3.c1"), published("B.1.c1"))

    outcomes = [Gate.parse(rule).check(found) for rule in ("p99 > +10%", "errors > 0.1%", "rps < -10%", "mean > +10%")]
    assert [outcome.met for outcome in outcomes] == [False] * 4


@pytest.mark.parametrize(
    "rule", ["", "p99", "> 5", "p99 > ", "p99 > x", "p99 == 5", "p99 > 5 apples", "p99 > nan", "p99 > 1e5", "p99 > --5"]
)
def test_what_is_no_rule_is_refused_in_one_line(rule):
    with pytest.raises(ReportError, match="is no rule; rules are like") as caught:
        Gate.parse(rule)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("p98 > 5", "neither side has a figure called 'p98'"),
        ("http.response_tim.p99 > 5", "the nearest is http.response_time.p99"),
        ("p99 > 5%", "is no share; a change is written with its sign"),
        ("rps < 5ms", "http.request_rate is no time"),
        ("http.requests < +10s", "http.requests is no time"),
        ("P97 > 5", "the nearest is p9"),
    ],
)
def test_a_rule_on_what_is_not_there_is_an_error_and_never_a_pass(rule, message):
    with pytest.raises(ReportError, match=message):
        Gate.parse(rule).check(diff())


ANSWERED = Report(Period(0, summaries={"http.response_time": Summary(p99=3.0)}))


DEAD = Report(
    Period(
        0,
        {"http.requests": 500, "errors.ECONNREFUSED": 500, "vusers.created": 500},
        first_counter_ms=1000,
        last_counter_ms=11_000,
    )
)
UNASKED = Report(Period(0, {"vusers.created": 500, "vusers.completed": 500}))


@pytest.mark.parametrize("rule", ["worse", "errors worse", "rps < 5", "http.codes.503 > 20", "errors > +5%", "p99 > 5"])
@pytest.mark.parametrize("new", [DEAD, UNASKED, Report(Period(0))], ids=["nothing answered", "nothing asked", "empty"])
def test_no_rule_passes_on_a_new_side_without_answers(new, rule):
    outcome = Gate.parse(rule).check(compare(DEAD, new))
    assert outcome.unknown and not outcome.met
    assert outcome.line.startswith(f"NOT JUDGED: {rule} (")


def test_a_rule_that_a_dead_side_breaks_is_broken():
    assert Gate.parse("errors > 5%").check(compare(DEAD, DEAD)).line.startswith("FAILED: errors > 5% (")


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        (Report(Period(0)), ANSWERED, "p99 > +1%"),
        (Report(Period(0)), ANSWERED, "p99 worse"),
        (ANSWERED, Report(Period(0)), "p99 > 1"),
        (ANSWERED, Report(Period(0)), "worse"),
        (Report(Period(0)), Report(Period(0)), "p99 > 1"),
        (Report(Period(0)), Report(Period(0)), "errors > 1%"),
        (Report(Period(0)), Report(Period(0)), "worse"),
    ],
)
def test_a_rule_on_what_a_side_lacks_does_not_pass(old, new, rule):
    outcome = Gate.parse(rule).check(compare(old, new))
    assert not outcome.met
    assert outcome.line.startswith(f"NOT JUDGED: {rule} (")


def test_where_no_time_could_be_judged_nobody_knows_whether_any_figure_is_worse():
    old, new = (
        Report(
            Period(
                0, {"http.requests": 8}, summaries={"http.response_time": Summary(count=8, p95=5.0 * by, p99=9.0 * by)}
            )
        )
        for by in (1, 9)
    )
    found = compare(old, new)
    assert {row.verdict for row in found.rows} == {"no clear change", "cannot be judged"}
    assert Gate.parse("worse").check(found).line == "NOT JUDGED: worse (no time could be judged)"


def test_a_limit_is_on_the_new_side_alone():
    assert Gate.parse("p99 > 5").check(compare(Report(Period(0)), ANSWERED)).met
    assert Gate.parse("p99 > 2").check(compare(Report(Period(0)), ANSWERED)).line.startswith("FAILED")


@pytest.mark.parametrize("rule", ["http.requests worse", "max worse"])
def test_a_verdict_of_what_is_never_judged_does_not_pass(rule):
    old, new = (
        Report(Period(0, {"http.requests": n}, summaries={"http.response_time": Summary(max=n)})) for n in (5, 9)
    )
    assert Gate.parse(rule).check(compare(old, new)).line.startswith("NOT JUDGED")


@given(st.text(max_size=30))
def test_any_text_is_a_rule_or_refused(text):
    try:
        Gate.parse(text).check(diff())
    except ReportError as error:
        message = str(error)
        assert "\n" not in message


@pytest.mark.parametrize("text", ["errors > 5", "errors > 1", "errors >= +2"])
def test_a_share_above_one_is_a_percentage_without_its_sign(text):
    with pytest.raises(ReportError, match="errors is a share"):
        Gate.parse(text)
