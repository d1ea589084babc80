"""A Dask cluster carries out one plan: nothing is sent twice or left out, nothing outlives who started it, every loss is told."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.clock import KERNEL_STAMPS
from loadgen.crew.baggage import pack
from loadgen.crew.crew import CrewError, Job
from loadgen.crew.framing import JOB, START, message, parted
from loadgen.runner import read_script
from loadgen.script.parse import RunOptions
from reports.formats.artillery_json import from_json
from reports.merge import merge_periods
from tests.support.dask_processes import Dask, stopped
from tests.support.loadgen_process import apart_from_a_busy_machine, report_of, script
from tests.support.paths import ROOT
from tests.support.server_process import descendants, lives, wait_until

dask = pytest.importorskip("distributed", reason="distributed is not installed")

from loadgen.crew.cluster import Clock, address_problem, connected  # noqa: E402 - Dask is an extra


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory):
    cluster = Dask(tmp_path_factory.mktemp("dask"))
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(own_cluster):
    """With two workers, whatever a test before did to them."""
    own_cluster.have(2)
    return own_cluster


PROCESSOR = """
from beside import greeting

def greet(user):
    user.variables["greeting"] = greeting(user.variables["who"])
"""


@pytest.mark.slow
def test_a_cluster_sends_what_worker_processes_would(cluster, start, serve, ok_answer, tmp_path):
    """Rows of the payload, what `before` left and the processor's own modules travel with the job."""
    (tmp_path / "flow.py").write_text(PROCESSOR, "utf-8")
    (tmp_path / "beside.py").write_text("def greeting(who): return f'hello-{who}'", "utf-8")
    (tmp_path / "rows.csv").write_text("".join(f"row{i}\n" for i in range(40)), "utf-8")
    flow = [{"function": "greet"}, {"get": {"url": "/{{ row }}/{{ greeting }}"}}, {"log": "a line"}]
    asked, counters = [], []
    for options in (("--workers", "2"), ("--dask", cluster.address)):
        server = serve(ok_answer(b'{"name": "ada"}'))
        plan = script(
            server,
            [{"duration": 1, "arrivalRate": 40, "name": "only"}],
            flow,
            processor="flow.py",
            payload={"path": "rows.csv", "fields": ["row"], "order": "sequence"},
        )
        plan["before"] = {"flow": [{"get": {"url": "/before", "capture": {"json": "$.name", "as": "who"}}}]}
        process = start(plan, "--seed", "1", *options)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert (out.count("Phase started: only"), out.count("Phase completed: only"), out.count("a line\n")) == (
            1,
            1,
            40,
        )
        asked.append(sorted(head.split()[1] for head in server.heads))
        total = report_of(tmp_path).aggregate
        counters.append({name: n for name, n in total.counters.items() if name != "loadgen.late"})
        assert total.sketches["http.response_time"].count == total.sketches["loadgen.start_lag"].count == 40
    assert asked[0] == asked[1] == sorted([b"/before", *(b"/row%d/hello-ada" % i for i in range(40))])
    assert counters[0] == counters[1]
    places = report_of(tmp_path).extras.generator["cluster"]
    assert {place["worker"].rpartition(":")[0] for place in places} == {"tcp://127.0.0.1"}
    processes = report_of(tmp_path).extras.generator["processes"]
    halves = [range(first, last + 1) for first, last in (each["from_ports"] for each in processes)]
    assert [sum(port in half for port in server.peer_ports[1:]) for half in halves] == [
        20,
        20,
    ]  # `before` is not theirs
    assert len(places) == 2 and all(place["ended"] for place in places)
    assert all(abs(place["clock_ahead_ms"]) <= place["clock_uncertainty_ms"] + 5 for place in places)  # one machine


@pytest.mark.slow
def test_a_worker_that_is_killed_is_told_at_once_and_its_share_is_not_done_again(
    cluster,
    start,
    serve,
    ok_answer,
    tmp_path,
):
    server = serve(ok_answer())
    process = start(script(server, [{"duration": 5, "arrivalRate": 20}]), "--dask", cluster.address)
    wait_until(lambda: len(server.heads) > 50)  # past two seconds, so that more than half of it has arrived
    victim = cluster.workers[1]
    shards = victim.shards
    assert len(shards) == 1
    victim.end()
    told = process.stderr.readline()
    assert process.poll() is None, "it is told at once, not at the end"
    sent_by_then = len(server.heads)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert sent_by_then < 90
    assert re.fullmatch(
        r"worker [12] of 2 \(tcp://127\.0\.0\.1:\d+ on .+\) was lost: its Dask worker is gone after \d\.\d s: "
        r"its part is missing from there on\n",
        told,
    )
    report = report_of(tmp_path)
    assert report.extras.partial and told.rstrip() in report.extras.warnings
    assert sorted(place["ended"] for place in report.extras.generator["cluster"]) == [False, True]
    assert not lives(shards[0])
    sent, filed = len(server.heads), report.aggregate.counters["http.requests"]
    assert 50 < filed <= sent < 100
    assert sent - filed <= 20  # two seconds' worth of one worker: one since its last report, and one on a busy machine


@pytest.mark.slow
def test_a_worker_that_stands_still_for_a_second_loses_nothing(cluster, start, serve, ok_answer, tmp_path):
    server = serve(ok_answer())
    process = start(script(server, [{"duration": 3, "arrivalRate": 20}]), "--dask", cluster.address)
    wait_until(lambda: len(server.heads) > 10)
    [shard] = cluster.workers[0].shards
    with stopped(cluster.workers[0].process.pid), stopped(shard):
        time.sleep(1)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    report = report_of(tmp_path)
    assert len(server.heads) == report.aggregate.counters["http.requests"] == 60
    assert report.aggregate.counters["loadgen.late"] > 5  # those that were due meanwhile
    assert not report.extras.partial


@pytest.mark.slow
def test_an_interrupt_reaches_every_worker_and_users_finish(cluster, start, serve, ok_answer, tmp_path):
    server = serve(ok_answer())
    flow = [{"get": {"url": "/"}}, {"think": "1s"}, {"get": {"url": "/"}}]
    process = start(script(server, [{"duration": 60, "arrivalRate": 20}], flow), "--dask", cluster.address)
    wait_until(lambda: len(server.heads) > 10)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    report = report_of(tmp_path)
    assert report.extras.partial
    assert report.aggregate.counters["vusers.completed"] == report.aggregate.counters["vusers.created"] > 0
    wait_until(lambda: not any(worker.shards for worker in cluster.workers))


def test_a_worker_with_another_version_is_refused_before_anything_is_sent(
    cluster,
    start,
    serve,
    ok_answer,
    tmp_path,
):
    other = tmp_path / "other" / "poolbench-9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: poolbench\nVersion: 9.9\n", "utf-8")
    foreign = cluster.worker(PYTHONPATH=str(other.parent))
    try:
        wait_until(foreign.registered)
        server = serve(ok_answer())
        process = start(script(server, [{"duration": 1, "arrivalRate": 20}]), "--dask", cluster.address)
        _, err = process.communicate(timeout=60)
    finally:
        foreign.end()
    assert process.returncode == 3
    assert re.fullmatch(
        r"Error: worker tcp://127\.0\.0\.1:\d+ has poolbench 9\.9, and this machine \S+: .+the same.+\n", err
    )
    assert not server.heads


@pytest.mark.slow
def test_a_change_of_any_of_the_programs_files_changes_the_hash_of_its_source(tmp_path):
    for room in ("loadgen", "reports", "db"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", "from loadgen.crew.relay import about; print(about()['code'])"]
    hashes = {subprocess.check_output(command, cwd=tmp_path)}
    for changed in ("loadgen/http/route.py", "reports/names.py", "db/child.py"):
        with (tmp_path / changed).open("a") as file:
            file.write("# changed")
        hashes.add(subprocess.check_output(command, cwd=tmp_path))
    assert len(hashes) == 4


@pytest.mark.slow
def test_workers_started_here_end_with_the_run(start, serve, ok_answer, tmp_path):
    server = serve(ok_answer())
    process = start(script(server, [{"duration": 1, "arrivalRate": 20}]), "--dask", "local:1")
    wait_until(lambda: server.heads)
    workers = [child.pid for child in descendants(process.pid, recursive=False)]
    _, err = process.communicate(timeout=60)
    assert (process.returncode, apart_from_a_busy_machine(err)) == (0, [])
    assert report_of(tmp_path).aggregate.counters["http.requests"] == 20
    assert len(workers) == 1 and not lives(workers[0])


def test_nothing_listening_is_told_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(CrewError) as error, connected(address, print):
        pass
    assert str(error.value) == f"no Dask scheduler answers at {address}: Connection refused"


def test_something_else_that_listens_there_is_told_in_one_line(serve, monkeypatch):
    monkeypatch.setattr("loadgen.crew.cluster._CONNECT_S", 1.0)
    server = serve(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(CrewError) as error, connected(f"tcp://127.0.0.1:{server.port}", print):
        pass
    assert re.fullmatch(r"no Dask scheduler answers at tcp://127\.0\.0\.1:\d+.+", str(error.value))


def test_without_the_extra_the_line_says_how_to_get_it(tmp_path):
    (tmp_path / "distributed.py").write_text("raise ModuleNotFoundError('', name='distributed')", "utf-8")
    plan = {"config": {"target": "http://127.0.0.1:1"}, "scenarios": [{"flow": [{"get": {"url": "/"}}]}]}
    (tmp_path / "s.json").write_text(json.dumps(plan), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "loadgen", "run", str(tmp_path / "s.json"), "--dask", "local:1"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "Error: --dask needs distributed, which is not installed: pip install '.[distributed]'\n"


def test_periods_are_in_the_time_of_who_started_the_run_and_arrivals_by_this_machines_kernel(
    serve, ok_answer, tmp_path
):
    server = serve(ok_answer())
    path = tmp_path / "s.json"
    path.write_text(json.dumps(script(server, [{"duration": 1, "arrivalCount": 5}])), "utf-8")
    job = Job(read_script([str(path)], RunOptions(directory=str(tmp_path)), seed=1), 1)
    hour_ns = 3600 * 10**9
    started_ns = time.monotonic_ns() + 100_000_000
    wall_ns = time.time_ns() - time.monotonic_ns() + hour_ns
    begin = {"started_ns": started_ns, "wall_ns": wall_ns, "ends_ns": started_ns + hour_ns}
    command = [sys.executable, "-m", "loadgen.shard", str(os.getpid()), *"0101"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shard:
        shard.stdin.write(message(JOB, pack(job)) + message(START, json.dumps(begin).encode()))
        shard.stdin.flush()
        said = list(parted(bytearray(shard.stdout.read())))
    assert shard.returncode == 0
    periods = merge_periods(p for kind, text in said if kind == b"P" for p in from_json(text.decode()).periods)
    first_ms = min(period.first_metric_ms for period in periods)
    assert 0 <= first_ms - (started_ns + wall_ns) // 10**6 < 30_000
    [figures] = [json.loads(text)["figures"] for kind, text in said if kind == b"E"]
    assert figures["responses"] == len(server.heads) == 5
    assert not KERNEL_STAMPS or figures["kernel_stamped"] == 5


_ENDLESS = f"local:{'9' * 5000}"


@pytest.mark.parametrize("address", ["tcp://h:1", "tls://h:1", "tcp://[::1]:8786", "tcp://h", "local:1", "local:256"])
def test_an_address_of_a_known_form_is_accepted(address):
    assert address_problem(address) is None


@pytest.mark.parametrize(
    "address",
    [
        "",
        "h:1",
        "http://h:1",
        "tcp://",
        "tcp://h:x",
        "tcp://h:1/path",
        "local:",
        "local:0",
        "local:257",
        _ENDLESS,
    ],
)
def test_an_address_of_no_known_form_is_refused_in_one_line(address):
    assert address_problem(address).startswith(f"--dask {address}: ")


@given(
    st.integers(-(10**15), 10**15),
    st.integers(-(10**12), 10**12),
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**8), st.integers(0, 10**8)), min_size=1, max_size=9),
)
def test_the_true_offset_of_a_clock_lies_within_its_uncertainty(ahead_ns, wall_ahead_ns, pings):
    wall_ns = 10**18
    readings = [
        (at, at + there + ahead_ns, at + there + wall_ns + wall_ahead_ns, at + there + back)
        for at, there, back in pings
    ]
    clock = Clock.of(readings, wall_ns)
    assert abs(clock.ahead_ns - ahead_ns) <= clock.uncertainty_ns
    assert abs(clock.wall_ahead_ns - wall_ahead_ns) <= clock.uncertainty_ns
    assert clock.uncertainty_ns == (min(there + back for _, there, back in pings) + 1) // 2


@given(st.lists(st.tuples(st.sampled_from([b"P", b"T", b"L"]), st.binary(max_size=40))), st.integers(1, 60))
def test_messages_are_the_same_however_the_stream_is_cut(sent, size):
    stream = b"".join(message(kind, content) for kind, content in sent)
    pending, got = bytearray(), []
    for at in range(0, len(stream), size):
        pending += stream[at : at + size]
        got += parted(pending)
    assert got == sent and not pending
