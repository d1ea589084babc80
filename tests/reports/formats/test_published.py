"""The published figures, by id."""

import pytest

from reports.formats.apachebench import AbReport, AbRow
from reports.formats.published import experiments, facts, gains, published
from reports.model import ReportError, Summary


def test_every_experiment_of_both_sources_is_there():
    assert list(experiments()) == [
        "A.pool10",
        "A.analytics",
        *(f"B.{test}.c{users}" for test in (1, 2, 3) for users in (1, 100)),
    ]


def test_source_as_figures_are_a_report():
    total = published("A.pool10").aggregate

    assert total.counters["http.codes.301"] == 16198
    assert total.summaries["http.response_time"] == Summary(min=1.9, max=303.4, mean=12.3, p50=4.6, p95=51.9, p99=127.8)


def test_source_bs_figures_are_those_of_an_ab_report():
    ab = AbReport.from_json(published("B.3.c100").extras.ab)

    assert ab == experiments()["B.3.c100"].ab
    assert (ab.requests_per_second, ab.failed, ab.percentiles[99]) == (467.32, 0, 327)
    assert ab.rows["connect"] == AbRow(1, 104, 17.9, 99, 196)
    assert ab.write_errors is None  # not published


def test_the_sources_gains_stand_as_printed():
    found = {(g.group, g.figure): (g.old, g.new, g.printed) for g in gains()}

    assert found["single", "rps"] == (44, 257, "+584.09%")
    assert len(found) == 6


def test_facts_are_sentences_of_each_source():
    assert "4 servers, 10 connections each, 40 in total" in facts("A") and facts("B")


def test_an_unknown_id_names_the_known_ones():
    with pytest.raises(ReportError, match=r"nothing was published as 'B.9'; there are A.pool10, .*B.3.c100"):
        published("B.9")
