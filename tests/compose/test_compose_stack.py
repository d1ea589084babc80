"""The compose stack for real: built from nothing, loaded, hurt, and taken down.

The tests share one stack and run in the order in which they stand here.
"""

import json
import time
from collections import Counter
from contextlib import closing
from types import SimpleNamespace
from urllib.error import URLError
from urllib.request import urlopen

import psycopg2
import pytest

from tests.support.fault_evidence import check_writes, recovery_s, seen
from tests.support.server_process import free_port, wait_until

pytestmark = pytest.mark.timeout(1200)

RATE_PER_S = 60
SCRIPTS_RATE_PER_S = 600
SCRIPTS_S = 3


def rows(url, statement):
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def python_in(stack, service, code):
    return stack.run_in(service, "python", "-c", code)


def test_four_servers_are_healthy_behind_the_balancer(stack, finding):
    stack.wait_until_whole()
    assert stack.request("GET", "/live").json == {"status": "ok"}
    link = stack.new_link()
    answer = stack.request("GET", f"/{link['code']}")
    assert (answer.status, answer.headers["location"]) == (301, "https://example.com/a")
    assert stack.request("POST", "/links", {"url": "https://example.com"}).status == 401
    sizes = ", ".join(f"{name} {size // 10**6} MB" for name, size in image_sizes(stack))
    finding(f"images on {len(stack.containers('app'))} servers' stack: {sizes}")


def image_sizes(stack):
    listed = json.loads(stack.compose("images", "--format", "json"))
    return sorted({(each["Repository"], each["Size"]) for each in listed})


def test_the_database_has_512_mb_and_knows_it(stack):
    limits = "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"
    found = stack.run_in("db", "sh", "-c", f"cat {' '.join(limits)} 2>/dev/null || true")
    assert found.split() == [str(512 * 2**20)]
    settings = dict(rows(stack.admin_url, "SELECT name, setting FROM pg_settings"))
    assert settings["shared_buffers"] == str(128 * 2**20 // 8192)
    assert int(settings["max_connections"]) >= 4 * 10 + 3


def test_nobody_runs_as_root_and_the_role_is_no_superuser(stack):
    for service in ("app", "db", "lb"):
        assert stack.run_in(service, "id", "-u").strip() != "0"
    assert rows(stack.admin_url, "SELECT rolsuper FROM pg_roles WHERE rolname = 'poolbench'") == [(False,)]


def test_a_servers_own_state_is_not_the_publics(stack):
    for path in ("/", "/?x=1", "/pool", "/metrics", "/%6detrics", "//metrics", "/pool?x=1"):
        assert stack.request("GET", path).status == 403


def test_forwarded_headers_come_from_the_balancer_alone(stack):
    forged = {"X_Forwarded_Host": "evil.example", "X_Forwarded_Proto": "https", "X_Forwarded_For": "198.51.100.7"}
    link = stack.new_link(**forged)
    assert link["short_url"] == f"http://127.0.0.1:{stack.port}/{link['code']}"
    body = '{"url": "https://example.com"}'
    short_url = python_in(
        stack,
        "app",
        "import json, urllib.request as u; r = u.Request('http://app:8000/links', b'" + body + "', {"
        f"'Content-Type': 'application/json', 'Authorization': 'Bearer {stack.token}', 'X-Forwarded-Host': 'evil.example'"
        "}); print(json.load(u.urlopen(r))['short_url'])",
    )
    assert short_url.startswith("http://app:8000/")


def run_the_labs_scripts(stack, rate_per_s):
    """Name, counters and response times of each."""
    brief = json.dumps({"config": {"phases": [{"duration": SCRIPTS_S, "arrivalRate": rate_per_s}]}})
    stack.compose("--profile", "loadgen", "run", "--rm", "loadgen", OVERRIDES=brief)
    for name in ("pool10", "analytics"):
        report = json.loads((stack.volume("reports") / f"{name}.json").read_text())["aggregate"]
        yield name, report["counters"], report["summaries"]["http.response_time"]


def test_the_labs_scripts_run_through_the_balancer(stack, finding):
    expected = {"pool10": "301", "analytics": "200"}
    for name, counters, times in run_the_labs_scripts(stack, RATE_PER_S):
        failed = {key: count for key, count in counters.items() if key.startswith("errors.")}
        assert counters["http.requests"] == counters["http.responses"] == SCRIPTS_S * RATE_PER_S and not failed
        assert {key for key in counters if key.startswith("http.codes.")} <= {"http.codes.200", "http.codes.301"}
        assert counters[f"http.codes.{expected[name]}"] > 0
        finding(f"{name}.yml at {RATE_PER_S}/s through the balancer: p50 {times['p50']} ms, p99 {times['p99']} ms")
    served = [requests_served(stack, index) for index in (1, 2, 3, 4)]
    assert min(served) > 0.1 * sum(served)
    finding(f"requests by server: {served}")


def requests_served(stack, index):
    text = stack.run_in(
        "app",
        *(
            "python",
            "-c",
            "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/metrics').read().decode())",
        ),
        index=index,
    )
    return sum(
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("poolbench_requests_total")
    )


def under_load(stack, load, code, service, limit_s):
    """Kill the first container of the service under load; the ledger, when it was killed, and how long recovery took.

    Recovered means: half a second's worth of requests that began after the last failure have succeeded.
    """
    rows(stack.admin_url, "TRUNCATE clicks")  # the ledger is of this load's
    running = load(port=stack.port, mix=("follow", "follow", "read"), code=code, rate_per_s=RATE_PER_S)
    wait_until(lambda: running.good_since(0.0) > RATE_PER_S, "the load runs")
    before = {each["Id"]: each["RestartCount"] for each in stack.containers(service)}
    killed_s = stack.kill(service)

    def restarted():
        return sum(each["RestartCount"] for each in stack.containers(service)) == sum(before.values()) + 1

    def recovered():
        outcomes = running.outcomes()
        last_failure_s = max((o.started_s for o in outcomes if not o.good), default=killed_s)
        return running.good_since(last_failure_s) > RATE_PER_S / 2

    wait_until(restarted, "the engine starts it again", limit_s)
    wait_until(recovered, "requests succeed again", limit_s)
    stack.wait_until_whole()
    return running.stop(), killed_s


def test_a_killed_server_costs_only_what_it_had_in_hand(stack, load, finding):
    outcomes, killed_s = under_load(stack, load, stack.new_link()["code"], "app", 60.0)
    failed = [o for o in outcomes if not o.good]
    assert {(o.status, o.problem) for o in failed} <= {(502, "server-lost")}, Counter(o[5:8] for o in failed)
    assert len(failed) <= 10
    writes = check_writes(outcomes, SimpleNamespace(admin_url=stack.admin_url))
    longest_s = max(o.took_s for o in outcomes)
    finding(
        f"server killed at {RATE_PER_S}/s: {seen(outcomes)}; longest answer {longest_s:.2f} s; last failure"
        f" {recovery_s(outcomes, killed_s):.2f} s after the kill; {writes}"
    )


def test_a_killed_database_loses_no_acknowledged_write(stack, load, finding):
    outcomes, killed_s = under_load(stack, load, stack.new_link()["code"], "db", 90.0)
    failed = [o for o in outcomes if not o.good]
    assert failed and {o.status for o in failed} <= {503, 504}, Counter(o[5:8] for o in failed)
    assert all(o.retry_after for o in failed if o.status == 503)
    known = {
        "database-down",
        "pool-timeout",
        "queue-full",
        "statement-timeout",
        "no-server",
    }  # the last is the balancer's
    assert known >= {o.problem for o in failed}
    writes = check_writes(outcomes, SimpleNamespace(admin_url=stack.admin_url))
    longest_s = max(o.took_s for o in outcomes)
    finding(
        f"database killed at {RATE_PER_S}/s: {seen(outcomes)}; longest answer {longest_s:.2f} s; last failure"
        f" {recovery_s(outcomes, killed_s):.2f} s after the kill; {writes}"
    )


def test_the_log_names_the_client_and_not_the_balancer(stack):
    told = [
        json.loads(line[line.index("{") :]) for line in stack.compose("logs", "app").splitlines() if '"trace"' in line
    ]
    asked = {
        line["remote_addr"] for line in told if not line["url"].endswith("/health")
    }  # which the balancer asks, too
    assert asked == {"172.29.57.1"}  # this machine, on the stack's network


def test_at_the_scripts_own_rate_every_request_is_accounted_for(stack, finding):
    """Ten times as many: whether this machine can serve them is told, not asked."""
    for name, counters, times in run_the_labs_scripts(stack, SCRIPTS_RATE_PER_S):
        errors = {key[7:]: count for key, count in counters.items() if key.startswith("errors.")}
        codes = {key[11:]: count for key, count in counters.items() if key.startswith("http.codes.")}
        assert counters["http.requests"] == counters["vusers.created"] >= SCRIPTS_S * SCRIPTS_RATE_PER_S
        assert counters["http.responses"] == sum(codes.values()) == counters["http.requests"] - sum(errors.values())
        assert set(codes) <= {"200", "301", "503"}
        finding(
            f"{name}.yml at {SCRIPTS_RATE_PER_S}/s through the balancer: answers {codes}, errors {errors or 'none'};"
            f" p50 {times['p50']} ms, p99 {times['p99']} ms"
        )
    stack.wait_until_whole()


def test_the_servers_go_through_pgbouncer_where_asked(stack, load, finding):
    stack.compose("--env-file", "deploy/pgbouncer.env", "up", "--detach", "--wait")
    stack.wait_until_whole()
    running = load(port=stack.port, mix=("follow", "read"), code=stack.new_link()["code"], rate_per_s=RATE_PER_S)
    wait_until(lambda: running.good_since(0.0) > 2 * RATE_PER_S, "two seconds of load", 30.0)
    backends = rows(
        stack.admin_url,
        "SELECT count(*), count(DISTINCT client_addr) FROM pg_stat_activity WHERE usename = 'poolbench'",
    )
    outcomes = running.stop()
    assert all(o.good for o in outcomes), seen(outcomes)
    (connections, clients) = backends[0]
    assert 0 < connections <= 40 and clients == 1  # all of them PgBouncer's
    pool = json.loads(
        python_in(
            stack, "app", "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/pool').read().decode())"
        )
    )
    assert pool["strategy"] == "null"
    limit = python_in(
        stack,
        "app",
        "import os, psycopg2\nc = psycopg2.connect(os.environ['DATABASE_URL']).cursor()\n"
        "c.execute('SHOW statement_timeout')\nprint(c.fetchone()[0])",
    )
    assert limit.strip() == "10s"
    finding(f"through PgBouncer at {RATE_PER_S}/s: {seen(outcomes)}; {connections} connections to PostgreSQL")


def test_prometheus_sees_every_server_and_the_balancer(stack):
    port = free_port()
    # Alone, or the servers would be made anew, without PgBouncer.
    stack.compose("--profile", "prometheus", "up", "--detach", "--no-deps", "prometheus", PROMETHEUS_PORT=str(port))

    def healthy():
        try:
            with urlopen(f"http://127.0.0.1:{port}/api/v1/targets", timeout=5) as answer:
                targets = json.load(answer)["data"]["activeTargets"]
        except (URLError, OSError):
            return None
        return Counter(each["labels"]["job"] for each in targets if each["health"] == "up")

    wait_until(lambda: healthy() == {"app": 4, "lb": 1}, "five healthy targets", 60.0)


def test_guessing_tokens_is_stopped_at_the_balancer(stack, finding):
    """Last of those that write: this machine's address stays refused for a minute."""
    body, link = {"url": "https://example.com"}, stack.new_link()
    statuses = [stack.request("POST", "/links", body, Authorization=f"Bearer {n}").status for n in range(30)]
    assert statuses == [401] * 21 + [429] * 9
    refused = stack.request("POST", "/links", body, Authorization=f"Bearer {stack.token}")
    assert refused.problem == "too-many-refusals" and refused.headers["retry-after"] == "60"
    assert stack.request("GET", f"/{link['code']}").status == 301  # everything that needs no token goes on
    elsewhere = python_in(
        stack,
        "app",
        "import urllib.request as u; r = u.Request('http://lb:8080/links', b'{\"url\": \"https://example.com\"}', {"
        f"'Content-Type': 'application/json', 'Authorization': 'Bearer {stack.token}'}}); print(u.urlopen(r).status)",
    )
    assert elsewhere.strip() == "201"
    finding("guessing tokens: 21 guesses answered by four servers, all further ones by the balancer")


def test_taking_it_down_leaves_nothing(stack, engine, finding):
    began_s = time.monotonic()
    stack.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "35")
    took_s = time.monotonic() - began_s
    assert engine.docker("ps", "--all", "--quiet") == engine.docker("volume", "ls", "--quiet") == ""
    assert "poolbench" not in engine.docker("network", "ls", "--format", "{{.Name}}")
    assert took_s < 35
    finding(f"taken down in {took_s:.1f} s")
