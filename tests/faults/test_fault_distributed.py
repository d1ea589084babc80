"""What a distributed run does when its parts lose each other: workers in network namespaces, one cut off; others killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.support.dask_processes import Dask
from tests.support.loadgen_process import report_of
from tests.support.server_process import lives, wait_until

pytest.importorskip("distributed", reason="distributed is not installed")

SERVER = """
import sys
from gevent.pywsgi import WSGIServer

log = open(sys.argv[2], "ab", buffering=0)

def answer(environ, start_response):
    log.write(b".")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

WSGIServer((sys.argv[1], int(sys.argv[3])), answer, log=None).serve_forever()
"""
START_AGAIN = """
import sys
from distributed import Client
from loadgen.crew.relay import relay

client = Client(sys.argv[1])
found = client.run_on_scheduler(lambda dask_scheduler: [k for k in map(str, dask_scheduler.tasks) if k.endswith("-0")])
client.submit(relay, b"", found[0].split("-")[1], 0, 2, (0, 2), pure=False).result(timeout=20)
"""
PORT = 18080


class Network:
    """Namespaces: one with the scheduler, the target and who starts the run; one for each worker, each with a link to it."""

    def __init__(self, folder, workers):
        self._names = [f"poolbench-{os.getpid()}-{i}" for i in range(workers + 1)]
        self.target_log = folder / "requests"
        self.target_log.write_bytes(b"")
        self._folder, self._processes = folder, []
        self.dask = None

    def open(self):
        workers = len(self._names) - 1
        for name in self._names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        for number in range(1, workers + 1):
            here, there = self._names[0], self._names[number]
            ip("-n", here, "link", "add", f"w{number}", "type", "veth", "peer", "name", "out", "netns", there)
            for name, device, end in ((here, f"w{number}", 1), (there, "out", 2)):
                ip("-n", name, "addr", "add", f"198.18.{number}.{end}/24", "dev", device)
                ip("-n", name, "link", "set", device, "up")
            ip("-n", there, "route", "add", "198.18.0.0/16", "via", f"198.18.{number}.1")
        ip("-n", self._names[0], "addr", "add", "198.18.0.1/32", "dev", "lo")
        within = self.within(0)
        self.dask = Dask(self._folder, "198.18.0.1", within)
        command = [*within, sys.executable, "-c", SERVER, "198.18.0.1", str(self.target_log), str(PORT)]
        self._processes.append(subprocess.Popen(command))
        self.dask.workers = [
            self.dask.worker(host=f"198.18.{number}.2", within=self.within(number)) for number in range(1, workers + 1)
        ]
        wait_until(lambda: all(worker.registered() for worker in self.dask.workers), limit_s=30)

    def within(self, number):
        return ["ip", "netns", "exec", self._names[number]]

    def link(self, number, state):
        ip("-n", self._names[0], "link", "set", f"w{number}", state)

    @property
    def requests(self):
        return self.target_log.stat().st_size

    def close(self):
        if self.dask is not None:
            self.dask.close()
        for process in self._processes:
            process.kill()
            process.wait()
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


def may_make_namespaces():
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    name = f"poolbench-{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode == 0
    if made:
        ip("netns", "del", name)
    return made


@pytest.fixture
def namespaces(tmp_path):
    """Two workers, each in a namespace of its own."""
    if not may_make_namespaces():
        pytest.skip("network namespaces need `ip` (iproute2), root, and the right to make them")
    made = Network(tmp_path, 2)
    try:
        made.open()
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(tmp_path):
    """Two workers of this machine."""
    made = Dask(tmp_path)
    made.have(2)
    yield made
    made.close()


@pytest.fixture
def start_run(start_process, tmp_path):
    """start_run(target, phases, address, within=()) -> the running command, its JSON going to `tmp_path / "out.json"`."""

    def run(target, phases, address, within=(), **http):
        config = {"target": target, "phases": phases, "http": http}
        plan = {"config": config, "scenarios": [{"flow": [{"get": {"url": "/"}}]}]}
        (tmp_path / "s.json").write_text(json.dumps(plan), "utf-8")
        command = [*within, sys.executable, "-m", "loadgen", "run", str(tmp_path / "s.json"), "--dask", address]
        return start_process([*command, "-o", str(tmp_path / "out.json")])

    return run


def test_a_worker_that_is_cut_off_counts_as_lost_and_its_generator_ends_by_itself(namespaces, start_run, tmp_path):
    process = start_run("http://198.18.0.1:18080", [{"duration": 16, "arrivalRate": 20}], namespaces.dask.address,
                        namespaces.within(0), timeout=2)  # fmt: skip
    wait_until(lambda: namespaces.requests > 30, limit_s=60)
    [lost_shard] = namespaces.dask.workers[1].shards
    namespaces.link(2, "down")
    cut_s = time.monotonic()
    warned, told = "", ""
    while "has sent nothing" not in warned:
        warned = process.stderr.readline()
    while "counts as lost" not in told:
        told = process.stderr.readline()
    assert 8 < time.monotonic() - cut_s < 25
    assert "198.18.2.2" in warned and "198.18.2.2" in told and process.poll() is None
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    report = report_of(tmp_path)
    assert report.extras.partial and told.rstrip() in report.extras.warnings
    sent, filed = namespaces.requests, report.aggregate.counters["http.codes.200"]
    assert sent - 15 <= filed <= sent  # what the lost one sent since its last word is missing, and nothing else
    wait_until(lambda: not lives(lost_shard), limit_s=30)


def test_a_link_that_is_down_for_a_moment_costs_nothing_of_what_was_measured(namespaces, start_run, tmp_path):
    process = start_run("http://198.18.0.1:18080", [{"duration": 12, "arrivalRate": 20}], namespaces.dask.address,
                        namespaces.within(0), timeout=20)  # fmt: skip
    wait_until(lambda: namespaces.requests > 30, limit_s=60)
    namespaces.link(2, "down")
    time.sleep(2)
    namespaces.link(2, "up")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    counters = report_of(tmp_path).aggregate.counters
    assert counters["vusers.created"] == counters["http.requests"] == 240
    assert counters["http.codes.200"] == namespaces.requests


def test_clocks_of_other_namespaces_are_the_same_machines(namespaces, start_run, tmp_path):
    process = start_run("http://198.18.0.1:18080", [{"duration": 1, "arrivalRate": 20}], namespaces.dask.address,
                        namespaces.within(0))  # fmt: skip
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "neither encrypted nor protected" in err
    places = report_of(tmp_path).extras.generator["cluster"]
    assert sorted(place["worker"].rpartition(":")[0] for place in places) == ["tcp://198.18.1.2", "tcp://198.18.2.2"]
    assert all(abs(place["clock_ahead_ms"]) <= place["clock_uncertainty_ms"] + 5 for place in places)
    assert namespaces.requests == report_of(tmp_path).aggregate.counters["http.requests"] == 20


@pytest.fixture
def counting_server(tmp_path):
    """(url, how many requests so far) of a server on loopback."""
    log = tmp_path / "requests"
    log.write_bytes(b"")
    process = subprocess.Popen([sys.executable, "-c", SERVER, "127.0.0.1", str(log), str(PORT)])
    yield f"http://127.0.0.1:{PORT}", lambda: log.stat().st_size
    process.kill()
    process.wait()


def test_generators_end_when_who_started_the_run_is_killed(cluster, start_run, counting_server):
    url, requests = counting_server
    process = start_run(url, [{"duration": 60, "arrivalRate": 20}], cluster.address)
    wait_until(lambda: requests() > 2, limit_s=60)
    shards = [pid for worker in cluster.workers for pid in worker.shards]
    assert len(shards) == 2
    process.kill()
    process.wait()
    wait_until(lambda: not any(lives(pid) for pid in shards), limit_s=30)


def test_generators_end_and_the_run_does_when_the_scheduler_is_killed(cluster, start_run, counting_server, tmp_path):
    url, requests = counting_server
    process = start_run(url, [{"duration": 60, "arrivalRate": 20}], cluster.address)
    wait_until(lambda: requests() > 30, limit_s=60)
    shards = [pid for worker in cluster.workers for pid in worker.shards]
    cluster.kill_scheduler()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert err.count("was lost with its scheduler") >= 2
    assert report_of(tmp_path).aggregate.counters["http.requests"] > 10
    wait_until(lambda: not any(lives(pid) for pid in shards), limit_s=30)


def test_a_second_start_of_a_share_voids_the_run(cluster, start_run, counting_server, tmp_path):
    url, requests = counting_server
    process = start_run(url, [{"duration": 60, "arrivalRate": 20}], cluster.address)
    wait_until(lambda: requests() > 2, limit_s=60)
    subprocess.run([sys.executable, "-c", START_AGAIN, cluster.address], check=True, timeout=40)
    _, err = process.communicate(timeout=40)
    assert process.returncode == 3
    assert "was started a second time" in err and "the run is void" in err
    assert report_of(tmp_path).extras.partial


def test_a_generator_whose_worker_stands_still_ends_by_its_alarm_clock(cluster, start_run, counting_server):
    url, requests = counting_server
    process = start_run(url, [{"duration": 120, "arrivalRate": 20}], cluster.address)
    wait_until(lambda: requests() > 2, limit_s=60)
    [shard] = cluster.workers[0].shards
    os.kill(cluster.workers[0].process.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: not lives(shard), limit_s=40)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=40)
    finally:
        os.kill(cluster.workers[0].process.pid, signal.SIGCONT)
    assert "counts as lost" in err
