"""`loadgen plan` where the report tells the worker's CPU: what is predicted, what is advised, and what is refused."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from loadgen.sizing.course import Arrangement
from loadgen.sizing.measured import workload
from loadgen.sizing.plan_findings import plan_page
from loadgen.sizing.predict import Question, affordable_requests, grows, predict, requests
from loadgen.sizing.simulate import CpuTimes, simulate
from reports.formats.artillery_json import from_json, to_json
from reports.model import Extras, Period, Report
from reports.sketch import Sketch
from reports.writers.output import written
from tests.support.plan_command import plan, planned


def computing(tmp_path, *, cpu_ms, loan_cpu_ms, statement_ms=5.0, rate=10, waits_ms=0.05, failed=0, lag_ms=1.0):
    """A calm run of 100 s at `rate` requests/s whose answers tell the worker's CPU."""
    rng = np.random.default_rng(2)
    number = 100 * rate
    holds = rng.exponential(statement_ms, number) + loan_cpu_ms
    waits = np.full(number, waits_ms)
    sketches = {
        "server.pool": Sketch.of(waits),
        "server.connect": Sketch.of(np.zeros(number)),
        "server.db": Sketch.of(holds),
        "server.total": Sketch.of(waits + holds + cpu_ms - loan_cpu_ms),
        "server.cpu": Sketch.of(np.full(number, cpu_ms)),
        "server.loan-cpu": Sketch.of(np.full(number, loan_cpu_ms)),
    }
    counters = {"http.requests": number, "http.codes.200": number - failed, "http.codes.500": failed}
    total = Period(0, counters, sketches=sketches, first_counter_ms=0, last_counter_ms=100_000)
    path = tmp_path / "computing.json"
    extras = Extras("1", "open", generator={"start_lag_p99_ms": lag_ms})
    path.write_text(to_json(Report(total, (), extras)))
    return path


@pytest.mark.slow
def test_a_worker_out_of_cpu_is_told_from_a_pool_that_is_too_small(tmp_path):
    path = computing(tmp_path, cpu_ms=10.0, loan_cpu_ms=8.0)
    found = planned(path, "--servers", 1, "--rate", 150, "--sizes", "5,40")
    assert found["remedy"] == "more workers"
    for row in found["sizes"]:
        # One CPU, 10 ms a request: a larger pool changes nothing.
        assert row["throughput_per_s"] < 105
        assert row["cpu_busy"] == pytest.approx(1.5, rel=0.05)
    # Where a thread waits for its turn instead of being refused, none is lost, and the queue grows without an end.
    for worker in ("gevent", "gthread"):
        said = plan(path, "--servers", 1, "--rate", 110, "--sizes", "5,40", "--worker", worker).stdout
        assert said.startswith("No size keeps up. With a pool of ")
    enough = planned(path, "--servers", 4, "--rate", 150, "--sizes", "5,40")
    assert enough["remedy"] != "more workers"
    assert enough["sizes"][0]["throughput_per_s"] == pytest.approx(150, rel=0.05)


LITTLE_CPU = {"cpu_ms": 1.0, "loan_cpu_ms": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "arguments", "remedy"),
    [
        ({"statement_ms": 20}, ["--rate", 150, "--sizes", "2,4,8"], "more connections"),
        ({"statement_ms": 5}, ["--rate", 50, "--sizes", "4,40"], "smaller pool"),
        ({"statement_ms": 20}, ["--rate", 95, "--sizes", "20", "--db-cores", 2], "cheaper statement"),
        ({"cpu_ms": 8.0, "loan_cpu_ms": 6.0}, ["--rate", 120, "--sizes", "2,4,8"], "more workers"),
        ({"statement_ms": 20}, ["--rate", 60, "--sizes", "1", "--worker", "sync"], "more workers"),
        # The CPU would be busy for 85 %, the connections for more than the whole time.
        ({"cpu_ms": 3.0, "loan_cpu_ms": 1.0, "statement_ms": 20}, ["--rate", 285, "--sizes", "4"], "more connections"),
        # The only size asked for refuses a third; threads and CPU have room.
        (
            {"cpu_ms": 3.0, "loan_cpu_ms": 1.0, "statement_ms": 40},
            ["--rate", 140, "--sizes", "4", "--worker", "gthread"],
            "more connections",
        ),
        ({"statement_ms": 20}, ["--rate", 300, "--sizes", "20", "--worker", "gthread", "--threads", 4], "more workers"),
        ({"cpu_ms": 5.0, "loan_cpu_ms": 2.0}, ["--rate", 180, "--sizes", "4,8"], "more workers"),
        # The CPU is busy for half of the time, and yet it is the statement that takes too long.
        (
            {"cpu_ms": 5.0, "loan_cpu_ms": 2.0, "statement_ms": 60},
            ["--rate", 100, "--sizes", "20", "--p99", 55],
            "cheaper statement",
        ),
        # The pool as it is keeps the target, and a smaller one would not.
        ({"statement_ms": 20}, ["--rate", 150, "--sizes", "3,8", "--p99", 150], "nothing"),
        ({"statement_ms": 20}, ["--rate", 150, "--sizes", "3,8,20", "--p99", 150], "smaller pool"),
        # A short simulation keeps the target, but the queue grows as long as the load lasts.
        ({"cpu_ms": 5.0}, ["--rate", 205, "--sizes", "40", "--p99", 9000, "--requests", 1000], "more workers"),
        (
            {"statement_ms": 60},
            ["--rate", 18, "--worker", "sync", "--sizes", "1,2", "--p99", 9000, "--requests", 1000],
            "more workers",
        ),
        # The CPU is busy for 85 % of the time, and the target is kept all the same.
        ({"cpu_ms": 5.0, "loan_cpu_ms": 2.0}, ["--rate", 170, "--sizes", "8", "--p99", 500], "nothing"),
        ({"cpu_ms": 5.0, "loan_cpu_ms": 2.0}, ["--rate", 170, "--sizes", "8", "--p99", 30], "more workers"),
        # Almost three times as many connections are needed: twice as many, or half as long statements, would not do.
        ({"cpu_ms": 5.0, "loan_cpu_ms": 2.0, "statement_ms": 60}, ["--rate", 180, "--sizes", "4"], "more connections"),
        # Three times what the servers can do: no single change is enough, so the scarcest part is named.
        ({"cpu_ms": 8.0, "loan_cpu_ms": 6.0}, ["--rate", 400, "--sizes", "8"], "more workers"),
    ],
)
def test_what_to_change_first(tmp_path, load, arguments, remedy):
    assert planned(computing(tmp_path, **LITTLE_CPU | load), "--servers", 1, *arguments)["remedy"] == remedy


def test_the_cpu_of_requests_that_overlapped_varies_as_that_in_their_loans(tmp_path):
    # An answer that comes just after another one seems to have cost nothing, and the next one twice as much.
    rng = np.random.default_rng(4)
    uneven, even = rng.exponential(6.0, 2000), np.full(2000, 6.0)

    def spread(cpu_ms, worker, statement_ms):
        path = computing(tmp_path, cpu_ms=6.0, loan_cpu_ms=2.0, statement_ms=statement_ms)
        run = from_json(path.read_text())
        sketches = {**run.aggregate.sketches, "server.cpu": Sketch.of(cpu_ms)}
        found = workload(replace(run, aggregate=replace(run.aggregate, sketches=sketches)))
        asked = Question(found, Arrangement(slots={"gevent": None, "sync": 1}[worker]), (4,), 20.0, 1.0, requests=2000)
        outside_s = requests(asked).cpu.outside_s
        assert outside_s.mean() == pytest.approx(0.004, rel=0.1)
        return outside_s.std() / outside_s.mean()

    assert spread(uneven, "gevent", 60) < 0.05
    assert spread(uneven, "sync", 60) > 0.9
    # Requests that hardly overlap, and those that vary less than their loans.
    assert spread(uneven, "gevent", 1) > 0.9
    assert spread(even, "gevent", 60) < 0.05


def asked_of(report_, **given_):
    return Question(workload(report_), Arrangement(**given_), (4,), 20.0, 1.0, requests=5000)


def with_sketches(path, **values):
    """The report of a file with other values of some entries of Server-Timing."""
    run = from_json(path.read_text())
    sketches = {**run.aggregate.sketches, **{f"server.{name}": Sketch.of(each) for name, each in values.items()}}
    return replace(run, aggregate=replace(run.aggregate, sketches=sketches))


def test_holds_are_taken_apart_into_the_statement_computing_and_waiting_for_the_cpu(tmp_path):
    # Statements of 10 ms, 4 to 12 ms of work in the loan: simulated at the same rate, they give holds like those measured.
    rng = np.random.default_rng(3)
    count = 5000
    cpu_s, arrived_s = rng.uniform(0.004, 0.012, count), np.cumsum(rng.exponential(0.02, count))
    truth = simulate(Arrangement(size=50), arrived_s, np.full(count, 0.010), 0.0, 0, CpuTimes(cpu_s, np.zeros(count)))
    path = computing(tmp_path, cpu_ms=8.0, loan_cpu_ms=8.0, rate=50)
    run = with_sketches(path, db=truth.held_s * 1000, cpu=cpu_s * 1000, **{"loan-cpu": cpu_s * 1000})
    found_s = requests(asked_of(run, size=50)).holds_s
    assert truth.held_s.std() > 0.003
    assert found_s.mean() == pytest.approx(0.010, rel=0.05)
    assert found_s.std() < 0.002


@pytest.mark.slow
def test_the_measured_run_may_have_had_other_servers(tmp_path):
    path = computing(tmp_path, cpu_ms=9.0, loan_cpu_ms=8.0, statement_ms=20, rate=90)
    refused = plan(path, "--servers", 1, "--sizes", "20", "--rate", 20)
    assert refused.exit_code == 2 and "busy for 81%" in refused.stderr
    # On three servers, each request waited for the CPU for a while, and on thirty it hardly did.
    holds_ms = [
        planned(path, "--servers", 1, "--sizes", "20", "--rate", 20, "--measured-servers", servers)["sizes"][0][
            "hold_mean_ms"
        ]
        for servers in (3, 30)
    ]
    assert holds_ms[0] < holds_ms[1] - 0.5


def test_the_cpu_of_answers_without_a_loan_counts(tmp_path):
    path = computing(tmp_path, cpu_ms=4.0, loan_cpu_ms=2.0)
    holds = np.where(np.arange(1000) % 2, 7.0, 0.0)
    found = workload(with_sketches(path, db=holds, **{"loan-cpu": np.where(holds > 0, 2.0, 0.0)}))
    # Half of the answers needed no connection, and 4 ms of CPU all the same.
    assert found.rate_per_s == pytest.approx(5, rel=0.01)
    assert found.cpu.mean_ms == pytest.approx(8.0, rel=0.02)
    assert found.cpu.outside_mean_ms == pytest.approx(6.0, rel=0.02)


@pytest.mark.parametrize("cpu_ms", [[5.0], [0.0, 10.0]], ids=["each the same", "half of them none"])
def test_the_server_programs_own_work_is_what_the_application_does_not_take(tmp_path, cpu_ms):
    path = computing(tmp_path, cpu_ms=5.0, loan_cpu_ms=2.0)
    # The application takes 1 ms beside its loan, and the process computes for 3.
    run = with_sketches(
        path, cpu=np.resize(cpu_ms, 1000), pool=np.zeros(1000), db=np.full(1000, 20.0), total=np.full(1000, 21.0)
    )
    assert requests(asked_of(run)).cpu.server_share == pytest.approx(2 / 3, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "arguments"),
    [
        ({"cpu_ms": 5.0}, ["--rate", 205, "--sizes", "40"]),
        ({"statement_ms": 60}, ["--rate", 18, "--worker", "sync", "--sizes", "1,2"]),
        ({"statement_ms": 20}, ["--rate", 120, "--sizes", "40", "--db-cores", 2]),
    ],
    ids=["CPU", "places", "database cores"],
)
def test_a_target_that_only_a_short_simulation_keeps_does_not_keep_up(tmp_path, load, arguments):
    path = computing(tmp_path, **LITTLE_CPU | load)
    said = plan(path, "--servers", 1, *arguments, "--p99", 9000, "--requests", 1000).stdout
    assert said.startswith("No size keeps up.")


@pytest.mark.slow
def test_of_several_workers_it_is_told_what_a_preferred_one_would_do(tmp_path):
    path = computing(tmp_path, cpu_ms=1.0, loan_cpu_ms=0.5, statement_ms=49)
    given_ = (path, "--sizes", "3", "--rate", 77, "--requests", 5000)
    done = plan(*given_, "--servers", 2)
    [line] = [line for line in done.stderr.splitlines() if "it may prefer one" in line]
    assert line.startswith("Warning: which worker gets a request is up to the kernel")
    assert f"Doubtful: {line.removeprefix('Warning: ')}." in done.stdout
    for others in (["--servers", 1], ["--servers", 2, "--worker", "sync"], ["--servers", 2, "--sizes", 20]):
        assert "it may prefer one" not in plan(*given_, *others).stderr


@pytest.mark.slow
def test_statements_of_a_loan_wait_for_the_cpu_each(tmp_path):
    path = computing(tmp_path, cpu_ms=8.0, loan_cpu_ms=6.0, statement_ms=10)
    one, five = (
        planned(path, "--servers", 1, "--rate", 90, "--sizes", "3", "--statements", number)["sizes"][0]
        for number in (1, 5)
    )
    assert five["hold_mean_ms"] > one["hold_mean_ms"] + 2


@pytest.mark.slow
def test_the_databases_cores_are_busy_for_what_was_given_whatever_the_worker_computes(tmp_path):
    path = computing(tmp_path, cpu_ms=9.0, loan_cpu_ms=8.0, statement_ms=10)
    given_ = (path, "--servers", 10, "--sizes", "20", "--rate", 200, "--db-cores", 2)
    (row,) = planned(*given_, "--db-cpu-ms", 5)["sizes"]
    assert row["db_busy"] == pytest.approx(0.5, rel=0.05)
    assert row["formulas"]["db_load"] == pytest.approx(0.5, rel=0.05)


@pytest.mark.slow
def test_many_servers_take_no_longer_than_few(tmp_path):
    path = computing(tmp_path, cpu_ms=2.0, loan_cpu_ms=1.0)
    began = time.process_time()
    (row,) = planned(path, "--servers", 10_000, "--sizes", "2", "--rate", 100)["sizes"]
    assert row["knee_per_s"] > 1e6
    assert time.process_time() - began < 20


@pytest.mark.slow
def test_more_servers_than_cores_are_told_to_need_more_cores(tmp_path):
    path = computing(tmp_path, cpu_ms=10.0, loan_cpu_ms=8.0)
    found = planned(path, "--servers", 4, "--rate", 300, "--sizes", "5", "--cores", 2)
    assert found["remedy"] == "more workers" and "2 cores are busy for 150%" in found["reason"]
    assert found["sizes"][0]["cpu_busy"] == pytest.approx(1.5, rel=0.05)
    assert found["sizes"][0]["throughput_per_s"] < 210
    assert found["sizes"][0]["knee_per_s"] == pytest.approx(200, rel=0.05)


@pytest.mark.slow
def test_the_knee_is_that_of_the_scarcest_part(tmp_path):
    path = computing(tmp_path, cpu_ms=1.0, loan_cpu_ms=0.5, statement_ms=20)
    (row,) = planned(path, "--servers", 2, "--rate", 100, "--sizes", "3")["sizes"]
    assert row["knee_per_s"] == pytest.approx(6 / 0.0205, rel=0.06)


@pytest.mark.slow
def test_a_sync_worker_answers_one_request_at_a_time_and_threads_as_many_as_they_are(tmp_path):
    path = computing(tmp_path, cpu_ms=1.0, loan_cpu_ms=0.5, statement_ms=20)
    sync, two, gevent = (
        planned(path, "--servers", 1, "--rate", 200, "--sizes", "10", *worker)["sizes"][0]["throughput_per_s"]
        for worker in (["--worker", "sync"], ["--worker", "gthread", "--threads", 2], [])
    )
    assert sync == pytest.approx(1000 / 21, rel=0.1)
    assert two == pytest.approx(2 * 1000 / 21, rel=0.1)
    assert gevent == pytest.approx(200, rel=0.05)


@pytest.mark.parametrize(
    ("run", "says"),
    [
        ({"waits_ms": 30.0}, "requests waited 30"),
        ({"failed": 100}, "100 of 1,000 requests failed"),
        ({"lag_ms": 40.0}, "started its arrivals late"),
        ({"cpu_ms": 90.0, "loan_cpu_ms": 50.0}, "its workers were busy for 90%"),
    ],
)
def test_a_run_that_was_late_queued_or_failed_predicts_nothing(tmp_path, run, says):
    path = computing(tmp_path, **{"cpu_ms": 1.0, "loan_cpu_ms": 0.5, **run})
    done = plan(path, "--servers", 1)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: {path}: no plan can be made from this run") and says in line


WORKERS = {"gevent": {}, "gthread": {"slots": 8, "turn_s": 0.005}, "sync": {"slots": 1}}


@pytest.mark.parametrize("rate_per_s", [3.0, 600.0], ids=["calm", "overloaded"])
@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("sizes", [(5,), (2, 5, 10, 20, 40), tuple(range(1, 41))], ids=len)
def test_a_plan_simulates_no_more_requests_than_it_has_time_for(heavy, sizes, worker, rate_per_s):
    asked = Question(heavy, Arrangement(servers=2, **WORKERS[worker]), sizes, rate_per_s, 1.0)
    requests_ = affordable_requests(asked)
    assert 1000 <= requests_ <= 100_000
    altogether = len(sizes) * (requests_ + min(requests_, 10_000)) + 6 * min(requests_, 10_000) + requests_ + 15_000
    assert altogether <= (100_000 if worker == "gthread" and len(sizes) < 40 else 300_000)


def test_a_plan_of_pools_alone_simulates_as_many_requests_as_ever(heavy):
    for number in (1, 5, 15):
        asked = Question(replace(heavy, cpu=None), Arrangement(), tuple(range(1, number + 1)), 20.0, 1.0)
        assert affordable_requests(asked) == 100_000


@pytest.fixture(scope="module")
def heavy(tmp_path_factory):
    """The workload of requests that compute for 250 ms each."""
    path = computing(tmp_path_factory.mktemp("heavy"), cpu_ms=250.0, loan_cpu_ms=200.0, rate=1)
    return workload(from_json(path.read_text()))


def test_an_overload_is_called_one_in_place_of_times_that_tell_only_how_long_it_was(heavy):
    asked = Question(heavy, Arrangement(servers=2, slots=1), (5, 40), 40.0, 1.0, requests=300)
    page = plan_page(asked, list(predict(asked)), "measured.json")
    for style in ("text", "markdown", "html"):
        text = written(page, style)
        assert "as good as any: the queue grows as long as the load lasts, none refused." in text
        assert re.search(r"5 to 40\b.*\boverloaded\b", text, re.DOTALL)
        assert "ms in the mean wait (95 %" in text
        assert not re.search(r"p99 \d{4,} ms|\b\d{6,} ms", text)
    assert [size["overloaded"] for size in json.loads(written(page, "json"))["sizes"]] == [True, True]
    # However soon all of them arrive, they are answered as quickly as the workers can.
    for rate_per_s in (40.0, 1e6):
        for found in predict(replace(asked, rate_per_s=rate_per_s)):
            assert found.throughput_per_s == pytest.approx(found.knee_per_s, rel=0.1)
    calm = replace(asked, rate_per_s=2.0)
    assert "overloaded" not in written(plan_page(calm, list(predict(calm)), "measured.json"), "text")


def test_a_queue_that_refused_requests_keep_short_does_not_grow(heavy):
    asked = Question(heavy, Arrangement(servers=1), (2,), 10.0, 1.0, requests=1000)
    (found,) = predict(asked)
    answered = {"throughput_per_s": 4.0, "timed_out": 0.0}
    assert not grows(asked, replace(found, shed=0.6, **answered))
    assert grows(asked, replace(found, shed=0.2, **answered))
    assert grows(asked, replace(found, shed=0.0, **answered))


def test_a_terminal_is_told_which_size_is_being_simulated(tmp_path):
    path = computing(tmp_path, cpu_ms=1.0, loan_cpu_ms=0.5)
    given_ = [str(path), "--sizes", "2,4", "--requests", "100"]
    assert plan(*given_).stderr == ""
    ours, its = os.openpty()
    command = [sys.executable, "-m", "loadgen", "plan", *given_, "--format", "json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=its, check=True)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    os.close(its)
    assert shown.split("\r\x1b[K") == [
        "",
        "simulating a pool of 2 (1 of 2)",
        "simulating a pool of 4 (2 of 2)",
        "simulating what to change first",
        "",
    ]
    assert json.loads(done.stdout)["sizes"]
