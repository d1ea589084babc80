"""Conditions on the figures of one run: which figures they may name, and when there is enough to judge them by."""

import numpy as np
import pytest

from reports.compare.conditions import BEHIND_LEAST, FINISHED_LEAST, Condition
from reports.model import Period, ReportError, Summary
from reports.sketch import Sketch


def totals(ok=1000, failed=0, times_ms=(), **counters):
    """The totals of a run of ten seconds."""
    counted = {"http.requests": ok + failed, "http.responses": ok + failed, "http.codes.200": ok, **counters}
    sketch = Sketch.of(np.array(times_ms or [10.0], np.float64))
    return Period(
        0,
        counted | ({"http.codes.500": failed} if failed else {}),
        sketches={"http.response_time": sketch},
        summaries={"http.response_time": Summary.of(sketch)},
        first_counter_ms=1000,
        last_counter_ms=11_000,
    )


def judged(text, total):
    return Condition.parse(text, "--abort-on").judge(total)


@pytest.mark.parametrize(
    ("text", "total", "line"),
    [
        ("errors > 5%", totals(940, 60), "FAILED: errors > 5% (errors 6.00%)"),
        ("errors > 0.05", totals(940, 60), "FAILED: errors > 0.05 (errors 6.00%)"),
        ("errors > 5%", totals(950, 50), "passed: errors > 5% (errors 5.00%)"),
        ("errors >= 5%", totals(950, 50), "FAILED: errors >= 5% (errors 5.00%)"),
        ("p50 > 5", totals(times_ms=[10] * 50), "FAILED: p50 > 5 (http.response_time.median 10.1)"),
        ("http.response_time.p50 > 0.005s", totals(times_ms=[10] * 50), "FAILED: "),
        ("max > 9", totals(), "FAILED: max > 9 (http.response_time.max 10)"),
        ("rps < 101", totals(), "FAILED: rps < 101 (http.request_rate 100)"),
        ("rps < 99", totals(), "passed: rps < 99 (http.request_rate 100)"),
        ("http.codes.503 > 3", totals(), "passed: http.codes.503 > 3 (http.codes.503 0)"),
        ("errors.ETIMEDOUT > 3", totals(**{"errors.ETIMEDOUT": 4}), "FAILED: "),
        ("server.pool.p99 > 3", totals(), "NOT JUDGED: server.pool.p99 > 3 (the run has no server.pool.p99)"),
    ],
)
def test_a_condition_is_judged_by_the_totals(text, total, line):
    found = judged(text, total)

    assert found.line.startswith(line)
    assert found.met is line.startswith("passed")


def test_too_few_requests_decide_nothing():
    few = totals(0, FINISHED_LEAST - 1)
    assert judged("errors > 5%", few).line == (
        f"NOT JUDGED: errors > 5% (errors 100.00%, but only {FINISHED_LEAST - 1} requests had finished: "
        f"it is judged from {FINISHED_LEAST} on)"
    )
    assert not judged("errors > 5%", totals(0, FINISHED_LEAST)).met


def test_a_small_share_of_errors_needs_several_errors():
    assert judged("errors > 0.1%", totals(1000, BEHIND_LEAST - 1)).met
    assert not judged("errors > 0.1%", totals(1000, BEHIND_LEAST)).met


def test_a_percentile_needs_several_answers_beyond_the_limit():
    quick = [10.0] * 100
    assert judged("p99 > 2000", totals(times_ms=[*quick, *[3000.0] * (BEHIND_LEAST - 1)])).met
    assert not judged("p99 > 2000", totals(times_ms=[*quick, *[3000.0] * BEHIND_LEAST])).met
    # More than a hundredth is slow, but the tenth slowest is not.
    assert judged("p99 > 2000", totals(times_ms=[*[10.0] * 20, *[3000.0] * 5])).met


@pytest.mark.parametrize(("text", "times_ms"), [("p99 > 2000", [3000.0]), ("p50 > 2000", [3000.0] * 5)])
def test_fewer_answers_than_that_are_no_evidence_either_way(text, times_ms):
    found = judged(text, totals(times_ms=times_ms))
    assert found.unknown and not found.met
    assert f"only {len(times_ms)} answers have such a time" in found.line


UNANSWERED = Period(
    0, {"http.requests": 500, "errors.ECONNREFUSED": 500}, first_counter_ms=1000, last_counter_ms=11_000
)
UNASKED = Period(0, {"vusers.created": 500, "vusers.completed": 500})


@pytest.mark.parametrize(
    "text",
    [
        "p99 > 2000",
        "max > 1",
        "mean < 5",
        "rps < 5",
        "http.codes.503 > 20",
        "server.pool.p99 > 3",
        "vusers.skipped > 9",
    ],
)
@pytest.mark.parametrize("total", [UNANSWERED, Period(0)], ids=["nothing answered", "empty"])
def test_no_condition_passes_on_a_run_without_answers(text, total):
    found = judged(text, total)
    assert found.line.startswith(f"NOT JUDGED: {text} (")
    assert found.unknown and not found.met


def test_a_run_without_answers_still_breaks_what_it_breaks():
    found = judged("errors > 5%", UNANSWERED)
    assert found.line == "FAILED: errors > 5% (errors 100.00%)"
    assert not found.unknown


@pytest.mark.parametrize("text", ["errors > 5%", "http.codes.503 > 20", "rps < 5", "p99 > 2000"])
def test_a_run_that_sent_no_request_says_nothing_of_a_service(text):
    assert judged(text, UNASKED).unknown
    assert judged("vusers.failed > 3", UNASKED).met


@pytest.mark.parametrize("name", ["p98", "http.responsetime.p99", "foo", "http.codes.700", "server.pool", "vusers"])
def test_a_figure_that_no_run_has_is_a_mistake_unless_functions_may_make_it(name):
    with pytest.raises(ReportError, match=rf"--abort-on '{name} > 1': no run has a figure called '{name}'"):
        Condition.parse(f"{name} > 1", "--abort-on")

    found = Condition.parse(f"{name} > 1", "--abort-on", custom=True)
    assert found.judge(totals(**{name: 2})).met is False
