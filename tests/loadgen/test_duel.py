"""Duels against real servers on loopback: how arrivals are dealt, what is said of the sides, and how a duel ends."""

import json
import signal
import sys
import time

import pytest
from click.testing import CliRunner

from loadgen.cli import cli
from loadgen.duel import run_duel
from loadgen.runner import SectionFailed
from loadgen.schedule import DealtShare, arrivals
from loadgen.script.model import Phase
from loadgen.script.parse import RunOptions, parse_script
from reports import names
from reports.formats.artillery_json import from_json
from tests.support.server_process import wait_until

PHASES = [{"duration": 1, "arrivalRate": 60, "name": "brief"}]


def document(**parts):
    return {"config": {"target": "http://unused", "phases": parts.pop("phases", PHASES)},
            "scenarios": [{"flow": [{"get": {"url": "/a"}}]}], **parts}  # fmt: skip


def parsed(url, **parts):
    options = RunOptions(target=url)
    return parse_script([("script.json", json.dumps(document(**parts)))], options, lambda _: b"")


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.json"
    path.write_text(json.dumps(document()))
    return path


def duel(*arguments):
    return CliRunner().invoke(cli, ["duel", *(str(a) for a in arguments)])


def quietly(scripts, seed=1):
    return run_duel(scripts, lambda _: None, lambda _: None, seed)


def after(seconds, ok_answer):
    def answer(connection, _):
        time.sleep(seconds)
        connection.sendall(ok_answer())

    return answer


def test_each_side_has_one_of_any_two_arrivals_in_a_row():
    phase = Phase(index=0, name=None, duration_s=10, duration_text="", arrival_rate=100)
    plan = [at for at, _ in arrivals([phase], None)]
    a, b = ({at for at, _ in DealtShare(i, seed="x").arrivals(arrivals([phase], None))} for i in (0, 1))
    assert not a & b
    assert a | b == set(plan)
    firsts = sum(plan[i] in a for i in range(0, len(plan), 2))
    assert all((plan[i] in a) != (plan[i + 1] in a) for i in range(0, len(plan), 2))
    # Of 500 fair coins, fewer than 190 or more than 310 show heads once in ten million times.
    assert 190 <= firsts <= 310
    again = {at for at, _ in DealtShare(0, seed="x").arrivals(arrivals([phase], None))}
    other = {at for at, _ in DealtShare(0, seed="y").arrivals(arrivals([phase], None))}
    assert a == again != other


def test_a_limit_of_users_is_the_same_for_both_sides():
    assert [DealtShare(i).part(n) for n in (1, 4, 5) for i in (0, 1)] == [1, 1, 2, 2, 3, 3]


def test_both_targets_are_loaded_at_once_with_half_of_the_plan_each(serve, ok_answer):
    servers = serve(ok_answer()), serve(ok_answer())
    runs = quietly(tuple(parsed(server.url) for server in servers))
    assert [len(server.heads) for server in servers] == [30, 30]
    for run in (runs.a, runs.b):
        assert run.report.aggregate.counters[names.VUSERS_COMPLETED] == 30
        assert run.report.aggregate.summaries[names.START_LAG].count == 30
        assert not run.report.extras.partial
    begins, ends = (
        [
            pick(period.first_metric_ms, period.last_metric_ms)
            for run in (runs.a, runs.b)
            for period in run.report.periods
        ]
        for pick in (min, max)
    )
    assert max(begins) - min(begins) < 10_000
    assert min(ends) > max(begins) - 10_000


def test_before_and_after_run_for_each_target(serve, ok_answer):
    servers = serve(ok_answer()), serve(ok_answer())
    around = {"before": {"flow": [{"get": {"url": "/first"}}]}, "after": {"flow": [{"get": {"url": "/last"}}]}}
    quietly(tuple(parsed(server.url, **around) for server in servers))
    for server in servers:
        paths = [head.split()[1] for head in server.heads]
        assert (paths[0], paths[-1], paths.count(b"/a")) == (b"/first", b"/last", 30)


def test_a_target_that_cannot_be_prepared_ends_the_duel_before_it_begins(serve, ok_answer):
    server = serve(ok_answer())
    around = {"before": {"flow": [{"get": {"url": "/first"}}]}}
    with pytest.raises(SectionFailed, match="before section failed: ECONNREFUSED"):
        quietly((parsed(server.url, **around), parsed("http://127.0.0.1:1", **around)))
    assert len(server.heads) == 1


@pytest.mark.slow
def test_the_slower_target_is_worse_in_json_like_that_of_diff(serve, ok_answer, script, tmp_path):
    urls = [serve(after(seconds, ok_answer)).url for seconds in (0.005, 0.06)]
    out = tmp_path / "out"
    done = duel(
        *urls,
        script,
        "--minutes",
        0.25,
        "--seed",
        5,
        "--format",
        "json",
        "-o",
        out,
        "--fail-on",
        "http.response_time.p95 worse",
    )
    assert done.exit_code == 1, done.output
    found = json.loads(done.stdout)
    rows = {row["name"]: row for row in found["metrics"]}
    assert rows["http.response_time.median"]["verdict"] == "worse"
    assert rows["http.response_time.median"]["old"] < rows["http.response_time.median"]["new"]
    assert rows["errors"]["verdict"] == "no clear change"
    assert found["checks"][0]["met"] is False
    assert "FAILED" in done.stderr
    about = found["duel"]
    assert (about["a"], about["b"], about["seed"], about["partial"]) == (*urls, 5, False)
    assert about["arrivals"] == {"a": 450, "b": 450}
    for name in ("a", "b"):
        report = from_json((out / f"{name}.json").read_text())
        assert report.aggregate.counters[names.VUSERS_CREATED] == 450


@pytest.mark.parametrize(
    ("style", "begins"),
    [("text", "no"), ("markdown", "no"), ("html", "<!"), ("json", "{")],
)
def test_every_format_of_a_duel_that_was_too_short_says_so(serve, ok_answer, script, style, begins):
    urls = [serve(after(0.002 * i, ok_answer)).url for i in (1, 4)]
    done = duel(*urls, script, "--format", style)
    assert done.exit_code == 0, done.output
    assert done.stdout.lstrip().lower().startswith(begins)
    assert "cannot be judged" in done.stdout
    assert urls[1] in done.stdout


def test_what_was_found_is_shown_although_a_report_cannot_be_written(serve, ok_answer, script, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.json").symlink_to("/dev/full")
    url = serve(ok_answer()).url
    done = duel(url, url, script, "--format", "json", "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["metrics"]
    assert [line for line in done.stderr.splitlines() if line.startswith("Error: cannot write")]


def test_a_target_that_never_answers_is_exit_code_3(serve, ok_answer, script):
    done = duel(serve(ok_answer()).url, "http://me:secret@127.0.0.1:1", script)
    assert done.exit_code == 3
    assert "Error: http://…@127.0.0.1:1 gave no answer at all" in done.stderr
    assert "secret" not in done.output
    assert done.stdout.startswith("Nothing can be")
    assert "response time, p99" in done.stdout


def test_an_interrupt_gives_what_there_is_marked_partial(serve, ok_answer, script, start_process, tmp_path):
    servers = [serve(ok_answer()) for _ in range(2)]
    urls = [server.url for server in servers]
    out = tmp_path / "out"
    command = [sys.executable, "-m", "loadgen", "duel", *urls, script, "--minutes", "5", "--format", "json", "-o", out]
    process = start_process(command)
    wait_until(lambda: all(len(server.heads) > 10 for server in servers), "both targets are under load")
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    found = json.loads(stdout)
    assert found["duel"]["partial"]
    assert any(note.startswith("Partial: old and new") for note in found["notes"])
    assert all(from_json((out / f"{name}.json").read_text()).extras.partial for name in "ab")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["http://h", "{script}"], "Missing argument"),
        (["h:80", "http://h", "{script}"], "invalid URL h:80"),
        (["http://h", "http://h:99999", "{script}"], "invalid URL http://h:99999"),
        (["http://h", "http://me:secret@h:99999", "{script}"], "invalid URL http://…@h:99999"),
        (["http://h", "http://h", "nowhere.yml"], "cannot read nowhere.yml: No such file or directory"),
        (["http://h", "http://h", "{broken}"], "broken.yml"),
        (["http://h", "http://h", "{still}", "--minutes", "1"], "--minutes: the script's phases take no time"),
        (["http://h", "http://h", "{script}", "--minutes", "0"], "--minutes"),
        (["http://h", "http://h", "{script}", "--fail-on", "p99 wrose"], "--fail-on 'p99 wrose' is no rule"),
        (["http://h", "http://h", "{script}", "--fail-on", "p98 > 9"], "no run has a figure called 'p98'"),
        (
            ["http://h", "http://h", "{script}", "--fail-on", "p75 worse"],
            "a duel judges errors, rps, median, p95 and p99",
        ),
        (["http://h", "http://h", "{script}", "--least-effect", "much"], "--least-effect 'much'"),
        (["http://h", "http://h", "{script}", "-v", "{{"], "--variables"),
        (["http://h", "http://h", "{script}", "-o", "{script}"], "cannot write"),
        (["http://h", "http://h", "{script}", "--format", "pdf"], "pdf"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(script, tmp_path, arguments, told):
    (tmp_path / "broken.yml").write_text("config: [")
    (tmp_path / "still.yml").write_text(json.dumps(document(phases=[])))
    paths = {"{script}": script, "{broken}": tmp_path / "broken.yml", "{still}": tmp_path / "still.yml"}
    done = duel(*[paths.get(a, a) for a in arguments])
    assert done.exit_code == 2, done.output
    assert told in done.stderr
    assert "Traceback" not in done.output and "secret" not in done.output
    assert done.stdout == ""
