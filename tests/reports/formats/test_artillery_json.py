"""Report <-> JSON: exact both ways, and Artillery's own documents to the character."""

import json
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.formats.artillery_json import from_json, to_json
from reports.model import Period, Report, ReportError, Second, Summary
from reports.names import beyond_artillery
from reports.sketch import Sketch
from tests.support.report_strategies import json_values, reports
from tests.support.sample_reports import sample_report


@given(reports)
def test_a_report_survives_json(report):
    assert from_json(to_json(report)) == report


@settings(max_examples=30)
@given(reports)
def test_the_text_is_what_javascript_would_indent(report):
    """But for our own key, whose sketches stand on lines of their own."""
    text = to_json(report)
    document = json.loads(text)
    document.pop("poolbench", None)

    plain = json.dumps(document, indent=2, ensure_ascii=False)
    assert text.startswith(plain.removesuffix("\n}")) or "e" in plain  # exponents are spelt in more than one way


@settings(max_examples=30)
@given(reports)
def test_artillerys_part_holds_no_metric_that_artillery_does_not_know(report):
    document = json.loads(to_json(report))

    for part in (document["aggregate"], *document["intermediate"]):
        assert not [n for key in ("counters", "rates", "summaries") for n in part[key] if beyond_artillery(n)]
        assert part["histograms"] == part["summaries"]


def test_the_document_is_as_the_golden_file_shows(assert_golden):
    assert_golden("report.json", to_json(sample_report()))


def test_a_document_of_artillerys_own_comes_back_to_the_character(golden):
    """But for its null per rate, a bug that is not copied."""
    text = (golden / "artillery" / "run.json").read_text()
    document = json.loads(text)
    for period in document["intermediate"]:
        assert period.pop("http.request_rate", "absent") is None

    assert to_json(from_json(text)) == json.dumps(document, indent=2)


def test_the_period_is_text_in_intermediates_and_a_number_in_the_aggregate():
    document = json.loads(to_json(sample_report()))

    assert document["aggregate"]["period"] == 1_700_000_000_000
    assert document["intermediate"][0]["period"] == "1700000000000"


def test_instants_without_events_are_absent():
    document = json.loads(to_json(Report(Period(start_ms=0, first_counter_ms=5, last_counter_ms=6))))

    assert "firstHistogramAt" not in document["aggregate"] and document["aggregate"]["lastMetricAt"] == 6


def test_a_report_with_nothing_of_ours_has_no_key_of_ours():
    assert json.loads(to_json(Report(Period(start_ms=0, counters={"a": 1})))).keys() == {"aggregate", "intermediate"}


def test_half_a_surrogate_pair_in_a_name_does_not_lose_the_report():
    report = Report(Period(start_ms=0, counters={"errors.\ud83d": 1}, sketches={"t": Sketch.of([1.0])}))

    assert from_json(to_json(report)) == report


def test_wide_sketches_are_read_quickly():
    """Long lines of small numbers in an indented document: orjson alone runs out of the memory it reserves."""
    sketch = Sketch.of([0.001, 1e6])
    text = to_json(Report(Period(start_ms=0, sketches={f"t{i}": sketch for i in range(50)})))

    with patch("json.loads", side_effect=AssertionError("the slow way")):
        assert from_json(text).aggregate.sketches["t49"] == sketch


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        ({"summaries": {"t": {"median": 3, "p95": 4.5}}}, {"t": Summary(p50=3.0, p95=4.5)}),
        ({"histograms": {"t": {"min": 1, "p50": 2}}}, {"t": Summary(min=1.0, p50=2.0)}),
        ({"counters": {"a": 1}, "summaries": {"http.tls": {"min": None, "p50": None}}}, {}),
    ],
)
def test_older_and_shorter_documents_are_read_for_what_they_hold(aggregate, expected):
    assert from_json(json.dumps({"aggregate": aggregate})).aggregate.summaries == expected


def test_a_rate_of_null_is_absent():
    document = {"aggregate": {"counters": {}, "rates": {"r": None}}}

    assert from_json(json.dumps(document)).aggregate.rates == {}


@pytest.mark.parametrize("value", [[], [1], "x", 1, {}, {"positive": []}])
def test_an_invalid_sketch_is_refused_with_its_place(value):
    document = json.loads(to_json(sample_report()))
    document["poolbench"]["aggregate"]["sketches"]["http.response_time"] = value
    with pytest.raises(ReportError, match="response_time"):
        from_json(json.dumps(document))


@pytest.mark.parametrize(
    "spoilt",
    [
        [],
        {},
        {"start_ms": "x"},
        {"start_ms": 0, "answers": -1},
        {"start_ms": 0, "response_time": {"counts": [1]}},
        {"start_ms": 0, "response_time": {**Sketch.of([1.0]).to_json(), "counts": [1, -(10**12)]}},
        {"start_ms": 0, "response_time": {**Sketch.of([1.0]).to_json(), "counts": [1, 0.5]}},
    ],
)
def test_a_spoilt_second_is_refused_with_its_place(spoilt):
    document = json.loads(to_json(sample_report()))
    document["poolbench"]["periods"][0]["seconds"][1] = spoilt
    [period] = from_json(json.dumps(document)).periods

    assert period.seconds[0] == Second(1_700_000_001_000, requests=4)
    with pytest.raises(ReportError, match=r"seconds\[1\]"):
        tuple(period.seconds)


def test_a_second_takes_few_bytes():
    """Most bins of a hundred answers are empty: they are counted, not listed."""
    times = Sketch.of([1.0, 1.01, 250.0])
    period = Period(start_ms=0, counters={"a": 1}, seconds=(Second(0, 3, 3, 0, times),))
    document = json.loads(to_json(Report(Period(0), (period,))))

    [second] = document["poolbench"]["periods"][0]["seconds"]
    assert len(second["response_time"]["counts"]) < 6
    assert from_json(json.dumps(document)).periods[0].seconds == period.seconds


@given(st.data())
def test_a_document_with_a_spoilt_value_is_read_or_refused(data):
    """Never anything but a report or a ReportError, whatever stands in any place."""
    document = json.loads(to_json(sample_report()))
    place = document
    while True:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)

    try:
        assert isinstance(from_json(json.dumps(document)), Report)
    except ReportError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ('{"aggregate": {', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"aggregate": {"counters": {"a": NaN}}}', "not JSON: NaN"),
        ("[]", "not a JSON object"),
        ('{"a": 1}', "no object called aggregate"),
        ('{"aggregate": {}}', "neither counters, rates nor summaries"),
        ('{"aggregate": {"scenariosCreated": 5}}', "neither counters, rates nor summaries"),
        ('{"aggregate": {"counters": {"a": "x"}}}', "aggregate.counters.a is not a whole number"),
        ('{"aggregate": {"counters": {"a": 1.5}}}', "aggregate.counters.a is not a whole number"),
        ('{"aggregate": {"counters": []}}', "aggregate.counters is not an object"),
        ('{"aggregate": {"counters": {}, "period": 253402300795000}}', "no instant between"),
        ('{"aggregate": {"counters": {}, "lastCounterAt": 253402300799999}}', "no instant between"),
        (
            '{"aggregate": {"counters": {}}, "poolbench": {"tool_version": "9", "partial": "no"}}',
            "neither true nor false",
        ),
        (f'{{"aggregate": {{"counters": {{"a": 1.0, "b": {10**20}}}}}}}', "aggregate.counters.b is too large a number"),
        ('{"aggregate": {"summaries": {"t": {"p95": "x"}}}}', "aggregate.summaries.t.p95 is not a number"),
        ('{"aggregate": {"counters": {}}, "intermediate": {}}', "intermediate is not a list"),
        ('{"aggregate": {"counters": {}}, "intermediate": [{}]}', r"intermediate\[0\] has no period"),
        ('{"aggregate": {"counters": {}}, "poolbench": {"periods": [{}]}}', "poolbench.periods has 1 entries"),
        ('{"aggregate": {"counters": {}}, "poolbench": {"aggregate": {"sketches": {"t": {}}}}}', "sketch"),
        ('{"aggregate": {"counters": {}}, "poolbench": {"tool_version": "9", "format_version": 9}}', "newer Poolbench"),
    ],
)
def test_what_is_no_such_document_is_refused_in_one_line(text, message):
    with pytest.raises(ReportError, match=message) as caught:
        from_json(text)
    assert "\n" not in str(caught.value)
