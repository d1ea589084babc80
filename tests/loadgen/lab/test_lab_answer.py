"""The lab's answer: a sentence that follows from the evidence, whatever that is, and that stands first in every format."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.commands.application import finish
from loadgen.lab.answer import answer, strategy_figures
from loadgen.lab.claims import CLAIMS
from loadgen.lab.evidence import Distance, Evidence, MemoryUse
from loadgen.lab.experiments import more_experiments
from loadgen.lab.findings import lab_page, terminal_page
from reports.blocks import Page
from reports.model import Period, Report
from reports.page.svg import margins, svg
from reports.sketch import Sketch
from reports.writers.output import STYLES, written
from tests.support.paths import ROOT
from tests.support.sample_lab import ab_outcome, fairness_cell, lab_evidence, script_outcome


def evidence(*outcomes, **rest):
    return Evidence({outcome.experiment.id: outcome for outcome in outcomes}, **rest)


def pair(without, pooled, users="c1", *, bad=(0, 0), pool="B.3"):
    """A connection per request and one pool, with their requests per second and their failures of 1000 requests."""
    return ab_outcome(f"B.1.{users}", without, bad=bad[0]), ab_outcome(f"{pool}.{users}", pooled, bad=bad[1])


@pytest.mark.parametrize(
    ("outcomes", "said", "tone"),
    [
        ((*pair(100, 800), *pair(100, 1140, "c100")),
         "Keep one pool per server process: here it served 8.0 to 11.4 times as many requests per second as a connection per",
         "good"),
        ((*pair(100, 800), *pair(100, 1140, "c100", bad=(34, 0))), "as a connection per request, and no request failed.", "good"),
        ((*pair(100, 800), *pair(100, 800, "c100")), "here it served 8.0 times as many", "good"),
        ((*pair(100, 800, pool="B.4"), *pair(100, 250, "c100", pool="B.4")), "it served 2.5 to 8.0 times as many", "good"),
        (pair(100, 1140, "c100"),
         "as a connection per request, and no request failed (measured with 100 users only).",
         "good"),
        ((*pair(100, 800), *pair(100, 900, "c100", bad=(710, 5))), "and 5 of 2,000 failed (without the pool 71 %).", "good"),
        ((*pair(100, 800), *pair(100, 900, "c100", bad=(0, 5))), "and 5 of 2,000 failed (none without the pool).", "good"),
        ((*pair(100, 800), *pair(100, 900, "c100", bad=(0, 200))),
         "here more requests failed with one pool per server process (with 100 users 20 %, without the pool 0 %).", "warn"),
        ((*pair(100, 104), *pair(100, 95, "c100")),
         "No clear difference here: one pool per server process served 0.9 to 1.0 times", "warn"),
        ((*pair(100, 50), *pair(100, 60, "c100")),
         "was slower here: it served 0.5 to 0.6 times as many requests per second as a connection", "warn"),
        ((*pair(100, 104), *pair(100, 800, "c100")),
         "no clear difference (1.0 times) with 1 user; 8.0 times as many requests per second with 100 users, and no", "warn"),
        ((*pair(100, 50), *pair(100, 800, "c100")), "It depends on the load", "warn"),
        ((ab_outcome("B.3.c1", 800),), "No answer on pooling: this session did not run both", "warn"),
        ((script_outcome("A.pool10", 5),), "No answer on pooling", "warn"),
        ((), "No answer on pooling", "warn"),
    ],
)  # fmt: skip
def test_the_sentence_follows_from_the_evidence(outcomes, said, tone):
    (first, *_) = answer(evidence(*outcomes))
    assert said in first.text
    assert first.tone == tone


def test_the_sentence_tells_the_ratios_as_the_claims_do():
    found = evidence(*pair(113, 1170), *pair(190, 1628, "c100"))
    told = [claim.finding(found).brief for claim in CLAIMS if claim.id in {"B.gain.c1", "B.gain.c100"}]
    assert told == ["10.4 times", "8.6 times"]
    assert "here it served 8.6 to 10.4 times as many" in answer(found)[0].text


def test_a_busy_machine_gives_no_advice_but_tells_what_was_measured():
    busy = [replace(outcome, others_share=0.34) for outcome in (*pair(100, 800), *pair(100, 1140, "c100"))]
    (first,) = answer(evidence(*busy))
    assert first.tone == "warn"
    assert first.text.startswith("Not judged, because the machine was busy: other programs used up to 34 % of its CPU.")
    assert "keep one pool per server process: here it served 8.0 to 11.4 times as many" in first.text


def test_rounds_on_both_sides_of_one_are_no_clear_difference():
    rounds = [pair(100, 250), pair(100, 90), pair(100, 150)]
    by_id = {each.experiment.id: tuple(run[i] for run in rounds) for i, each in enumerate(rounds[0])}
    (first,) = answer(Evidence({key: runs[0] for key, runs in by_id.items()}, rounds=by_id))
    assert first.text.startswith("No clear difference here: one pool per server process served 0.9 to 2.5 times")


def test_an_interrupted_session_says_so_in_the_answer_and_uses_only_what_was_run_to_its_end():
    runs = (*pair(100, 800), *(replace(run, partial=True) for run in pair(100, 1140, "c100")))
    (first,) = answer(evidence(*runs, partial=True))
    assert "served 8.0 times" in first.text
    assert first.text.endswith("The session was interrupted: this is of what was measured until then.")
    assert first.tone == "warn"


def test_a_connection_per_request_that_serves_nothing_is_no_division_by_zero():
    nothing = ab_outcome("B.1.c1", 100)
    nothing = replace(nothing, ab=replace(nothing.ab, requests_per_second=0.0))
    (first,) = answer(evidence(nothing, ab_outcome("B.3.c1", 800)))
    assert first.text == "Keep one pool per server process: here a connection per request served nothing at all."


# The groups that run by name


def test_of_more_users_than_connections_it_says_who_got_no_answer():
    queue, fair = fairness_cell("queue", 400), fairness_cell("fair", 400)
    queue = replace(queue, served=(0,) * 652 + (5,) * 148, wait_ms=Sketch.of([2900.0]))
    fair = replace(fair, served=(0,) * 200 + (5,) * 600, wait_ms=Sketch.of([400.0]))
    (first,) = answer(Evidence(fairness=(fairness_cell("queue"), fairness_cell("fair"), queue, fair)))
    assert first.text == (
        "Lend connections in order (fair): with 400 users on 10 connections, 326 of 400 users got no answer with queue,"
        " 100 with fair; the longest wait for a connection was 2.90 s with queue, 400 ms with fair."
    )
    (first,) = answer(Evidence(fairness=(fairness_cell("queue"), fairness_cell("fair"))))
    assert first.text.startswith("No clear difference between lending in order (fair) and not (queue): with 20 users")
    assert "every user got answers with both" in first.text
    (first,) = answer(Evidence(fairness=(fairness_cell("queue"),)))
    assert first.text == "Only queue was run: with 20 users 0 of them got no answer."


def test_each_group_has_an_answer_of_its_own_after_that_on_the_pool():
    known = {e.id: e for e in more_experiments()}
    through = [
        replace(ab_outcome("B.1.c100", rate), experiment=known[key], wall_s=1000 / rate)
        for key, rate in (("P.null.c100", 100), ("P.fair.c100", 400), ("P.direct.c100", 500))
    ]
    limited = [
        replace(ab_outcome("B.1.c100", 100), experiment=known[f"M.pool{size}"],
                memory_use=MemoryUse(512, 300, 0, kills, 40, 230.0, answers_afterwards=True))
        for size, kills in ((10, 0), (40, 2))
    ]  # fmt: skip
    far = [
        Distance(name, 100, ms, Report(Period(0, {"http.requests": 10, "http.codes.200": 10})), rate, Sketch.of([1.0]))
        for ms in (0.0, 5.0)
        for name, rate in (("null", 100.0), ("fair", 1000.0 - 100 * ms))
    ]
    league = {("threads", "fairness", pool): {"jain": 1.0} for pool in ("queue", "fair")}
    told = [
        text.text for text in answer(evidence(*pair(100, 800), *through, *limited, distance=tuple(far), league=league))
    ]
    assert told[0].startswith("Keep one pool per server process")
    assert "1 of 1 figures keep the limits" in told[1]
    assert told[2].endswith("10 times at 0 ms, 5 times at 5 ms.")
    assert "20 % with a connection per request, 80 % with a fair pool" in told[3]
    assert told[4] == "The database held with pools of 10 in 512 MB; it did not with 40 in 512 MB."


# Where it stands


@pytest.mark.parametrize("style", STYLES)
def test_the_answer_stands_first_in_every_format(style):
    page = lab_page(evidence(*pair(100, 800), *pair(100, 1140, "c100")))
    said = "Keep one pool per server process: here it served 8.0 to 11.4 times"
    text = written(page, style)
    if style == "json":
        document = json.loads(text)
        assert next(iter(document)) == "answer"
        assert document["answer"]["sentence"].startswith(said)
        row = next(row for row in document["answer"]["strategies"] if row["experiment"] == "B.3.c100")
        assert (row["published_per_s"], row["here_per_s"], row["here_failed"]) == (467.32, 1140, 0)
    elif style == "html":
        assert f"<h1>{said}" in text
    else:
        assert text.removeprefix("# ").startswith(said)


def test_a_terminal_gets_some_twenty_lines_that_are_aligned():
    text = written(terminal_page(lab_evidence(), Path("runs/20261129T100000Z")), "text")
    lines = text.splitlines()
    assert len(lines) <= 20
    assert any(line.startswith("Claims") and "11 claims, " in line for line in lines)
    assert any(line.startswith("This machine") for line in lines)
    assert f"The page          {Path.cwd().as_uri()}/runs/20261129T100000Z/index.html" in lines
    assert "Your application  loadgen lab --app app:app --script load.yml" in lines
    assert "|" not in text
    start = lines.index("") + 1
    table = lines[start : lines.index("", start)]
    assert len(table) == 5
    assert len({len(line) for line in table}) == 1


def test_a_result_in_a_file_is_told_with_its_answer(capsys, tmp_path):
    page, file = Page("No clear difference here", "", ()), tmp_path / "page.html"
    finish(page, None, str(file), Path("runs/one"), " (2 findings)")
    said = capsys.readouterr()
    assert (said.out, said.err) == (
        "", f"\nNo clear difference here (2 findings)\nThe result is in {file}\nEverything is in runs/one\n",
    )  # fmt: skip
    assert "No clear difference here" in file.read_text()


def test_a_pipe_gets_markdown_and_a_terminal_the_brief_result():
    code = (
        "from pathlib import Path; from loadgen.commands.lab import _end; from tests.support.sample_lab import lab_evidence;"
        "from loadgen.lab.findings import lab_page, terminal_page; found, out = lab_evidence(), Path('runs/one');"
        "_end(lab_page(found), terminal_page(found, out), None, None, out, ended_by=None)"
    )
    command = [sys.executable, "-c", code]
    piped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert piped.stdout.startswith("# No clear difference here: one pool per server process")
    assert "| :-- |" in piped.stdout
    assert piped.stderr.endswith("Everything is in runs/one\n")
    ours, its = os.openpty()
    subprocess.run(command, cwd=ROOT, env=os.environ | {"COLUMNS": "100"}, stdout=its, check=True)
    shown = os.read(ours, 100_000).decode().replace("\r\n", "\n")
    os.close(ours)
    os.close(its)
    assert shown.count("\n") <= 20
    assert "file:///" in shown
    assert "| :-- |" not in shown


def test_the_picture_has_an_outline_and_a_bar_for_each_strategy_and_failures_in_red_words():
    (charts,) = (
        b for b in lab_page(evidence(*pair(100, 800, bad=(34, 0)))).sections[0].blocks if type(b).__name__ == "Charts"
    )
    drawn = str(svg(charts.items[0]))
    assert 'class="outline s7"' in drawn
    assert 'class="fill s0"' in drawn
    assert '<text class="bad"' in drawn
    assert "44, 63 % failed" in drawn
    assert "100, 3.4 % failed" in drawn
    assert margins(charts.items[0])[1] > 100
    assert "not run" in str(svg(charts.items[1]))


def test_figures_are_of_the_strategies_that_were_run():
    assert {row.strategy for row in strategy_figures(evidence(*pair(100, 800)))} == {
        "a connection per request",
        "one pool per server process: QueuePool",
    }
    assert strategy_figures(Evidence()) == []
