"""Artillery's console text, against a run of Artillery 2.0.34 itself and against the rules of its layout."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.formats import artillery_text as text
from reports.formats.artillery_json import from_json
from reports.model import Period, Rate, Report, Summary
from reports.names import beyond_artillery
from reports.printable import printable
from tests.support.report_strategies import periods
from tests.support.sample_reports import sample_report


def epoch_ms(report, time_of_day):
    """That time of the day the run ended, UTC."""
    day = datetime.fromtimestamp(report.aggregate.last_metric_ms / 1000, UTC).date()
    return datetime.fromisoformat(f"{day}T{time_of_day}+00:00").timestamp() * 1000


def test_a_run_of_artillerys_own_is_rendered_to_the_character(golden):
    """The whole console of a run, from the run id to the log file, out of its JSON and the times of day it printed."""
    console = (golden / "artillery" / "run.txt").read_text()
    report = from_json((golden / "artillery" / "run.json").read_text())

    def at(time_of_day):
        return epoch_ms(report, time_of_day)

    ours = [
        text.run_id_line("t8kt3_rzdndp9gbca6cz44jktfhy7mdfh7p_5mfn"),
        text.phase_started("warm", 0, "4", at("22:25:38"), tz=UTC),
        text.phase_completed("warm", 0, "4", at("22:25:42"), tz=UTC),
        text.phase_started(None, 1, "1", at("22:25:42"), tz=UTC),
        text.phase_completed(None, 1, "1", at("22:25:43"), tz=UTC),
        text.phase_started(None, 2, "6s", at("22:25:43"), tz=UTC),
        text.period_text(report.periods[0], tz=UTC),
        text.phase_completed(None, 2, "6s", at("22:25:49"), tz=UTC),
        text.period_text(report.periods[1], tz=UTC),
        text.finished_text(12.4),
        text.summary_text(report, at("22:25:51"), tz=UTC),
        text.log_file_line("run.json"),
    ]
    assert "".join(ours) == console


def test_ours_is_as_the_golden_file_shows(assert_golden):
    report = sample_report()

    assert_golden("console.txt", text.period_text(report.periods[0], tz=UTC) + text.summary_text(report, tz=UTC))


@given(periods())
def test_every_value_starts_in_column_82(period):
    shown = text.metrics_text(period, hidden=()).split("\n")

    for name, count in period.counters.items():
        if not beyond_artillery(name) and len(name) < 79 and "\n" not in name and name not in period.summaries:
            said = printable(name)
            if len(said) < 79:
                assert (
                    any(line.startswith(f"{said}: ") and line[81:] == str(count) for line in shown)
                    or not name.isascii()
                )


@given(periods())
def test_metrics_beyond_artillerys_are_never_printed(period):
    ours_alone = Period(
        start_ms=0,
        counters={n: c for n, c in period.counters.items() if beyond_artillery(n)},
        summaries={n: s for n, s in period.summaries.items() if beyond_artillery(n)},
    )

    assert text.metrics_text(ours_alone) == "No measurements recorded during this period\n"


def test_names_are_sorted_by_utf16_code_unit():
    names = ["b", "a", "B", "http.codes.404", "http.codes.200", "\uffe5", "\U0001f600"]

    shown = text.metrics_text(Period(start_ms=0, counters=dict.fromkeys(names, 1)))

    assert [line.split(":")[0] for line in shown.splitlines()] == [
        "B",
        "a",
        "b",
        "http.codes.200",
        "http.codes.404",
        "\U0001f600",
        "\uffe5",
    ]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("n" * 77, "n" * 77 + ": . 5"),
        ("n" * 78, "n" * 78 + ":  5"),
        ("n" * 79, "n" * 76 + "...  5"),
        ("n" * 200, "n" * 76 + "...  5"),
        ("\U0001f600", "\U0001f600: " + "." * 76 + " 5"),  # two UTF-16 code units
    ],
)
def test_a_label_is_padded_to_79_and_cut_beyond(name, line):
    assert text.metrics_text(Period(start_ms=0, counters={name: 5})) == f"{line}\n"


def test_a_narrow_terminal_gets_fewer_dots():
    assert text.metrics_text(Period(start_ms=0, counters={"a": 5}), width=50) == "a: " + "." * 48 + " 5\n"


def test_a_rate_has_its_unit_directly_after_the_number():
    assert text.metrics_text(Period(start_ms=0, rates={"r": Rate(46)})).endswith(" 46/sec\n")


def test_a_row_that_the_document_lacks_is_not_printed():
    older = Period(start_ms=0, summaries={"t": Summary(min=1.0, max=2.5, p50=1.5, p95=2.4, p99=2.4)})
    rows = [line.split(":")[0].strip() for line in text.metrics_text(older).splitlines()]
    assert rows == ["t", "min", "max", "median", "p95", "p99"]


def test_a_percentile_without_samples_is_a_dash():
    few, none = Summary(min=1.0, max=2.5, p50=1.5), Summary(count=0, min=0, max=0, p50=0, p95=0, p99=0)
    lines = text.metrics_text(Period(start_ms=0, summaries={"few": few, "none": none})).splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["few:", "1", "2.5", "1.5", "–", "–", "none:", "–", "–", "–"]


def test_endpoint_metrics_are_hidden_unless_asked_for():
    period = Period(start_ms=0, counters={"plugins.metrics-by-endpoint./a.codes.200": 3, "http.requests": 3})

    assert text.metrics_text(period).count("\n") == 1
    assert text.metrics_text(period, hidden=()).count("\n") == 2


def test_a_zone_east_of_greenwich_shows_its_offset():
    india = timezone(timedelta(hours=5, minutes=30))

    assert text.time_of_day(1_700_000_000_000, india) == "03:43:20(+0530)"


def test_a_summary_without_any_instant_has_no_time_in_its_heading():
    assert text.summary_text(Report(Period(start_ms=0))).startswith("-" * 14 + "\nSummary report\n" + "-" * 14 + "\n\n")


def test_colour_paints_phase_names_green_and_dots_grey():
    assert "\x1b[32mwarm\x1b[39m" in text.phase_started("warm", 0, "4", 0, colour=True)
    assert "a: \x1b[90m..." in text.metrics_text(Period(start_ms=0, counters={"a": 5}), colour=True)


@pytest.mark.parametrize(("duration", "shown"), [("4", "4s"), ("500ms", "500ms"), ("2s", "2s"), ("0.5", "0.5")])
def test_a_duration_that_is_a_whole_number_gets_an_s(duration, shown):
    assert f"duration: {shown})" in text.phase_started(None, 0, duration, 0)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.9, "0 seconds"),
        (1, "1 second"),
        (61, "1 minute, 1 second"),
        (7205, "2 hours, 0 minutes, 5 seconds"),
        (90_000, "1 day, 1 hour, 0 minutes, 0 seconds"),
    ],
)
def test_the_total_time_names_all_units_below_the_first(seconds, shown):
    assert text.total_time_text(seconds) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2.0, "2"),
        (0.7, "0.7"),
        (303.4, "303.4"),
        (-2.5, "-2.5"),
        (-0.0, "0"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (10**21, "1e+21"),
        (123456789012345680000.0, "123456789012345680000"),
        (0.000001, "0.000001"),
        (1.5e-7, "1.5e-7"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
    ],
)
def test_numbers_are_written_as_javascript_writes_them(value, shown):
    assert text.js_number(value) == shown


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_number_reads_back_as_itself(value):
    assert float(text.js_number(value)) == value
