"""The service's own page, its icon, and the pools of all workers together."""

import re
import time

import pytest

from tests.support.server_process import serving, wait_until

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
WORKERS = 2


@pytest.fixture(scope="module")
def service(postgres, tmp_path_factory):
    log = tmp_path_factory.mktemp("service") / "stderr"
    with serving(log, DATABASE_URL=postgres.url, WEB_CONCURRENCY=WORKERS, DB_POOL_SIZE=3) as server:
        wait_until(lambda: {pools["workers"] for pools in seen_by_all(server)} == {WORKERS}, "all know of each other")
        yield server


@pytest.fixture(scope="module")
def without_database(tmp_path_factory):
    """A service whose database never answers."""
    log = tmp_path_factory.mktemp("down") / "stderr"
    with serving(log, DATABASE_URL="postgresql://127.0.0.1:1/none", DB_POOL="null") as server:
        yield server


def seen_by_all(server):
    """The sums that the workers have; each keeps its own for half a second."""
    return [answer.json["all_workers"] for answer in server.get_many("/pool", 20)]


def all_workers(server):
    return server.get("/pool").json["all_workers"]


@pytest.mark.parametrize("accept", [BROWSER, "text/html", "application/json;q=0.5, text/html", "text/*"])
def test_a_browser_gets_a_page(service, accept):
    answer = service.get("/", Accept=accept)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    text = answer.body.decode()
    assert 'href="/metrics"' in text and 'href="/openapi.json"' in text
    assert f">{WORKERS} workers<" in text and 'data-figure="size">6<' in text


@pytest.mark.parametrize(
    "accept", [None, "*/*", "application/json", "image/png", ";;q=", "", "text/html;q=0", "text/html;q=0.1, */*"]
)
def test_others_get_the_addresses(service, accept):
    answer = service.get("/", **({} if accept is None else {"Accept": accept}))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    paths = [address["path"] for address in answer.json["addresses"]]
    assert paths == list(service.get("/openapi.json").json["paths"])


@pytest.mark.parametrize("accept", [BROWSER, "application/json"])
def test_the_answer_is_of_one_reader_and_one_moment(service, accept):
    answer = service.get("/", Accept=accept)
    assert (answer.headers["vary"], answer.headers["cache-control"]) == ("Accept", "no-store")
    head = service.request("HEAD", "/", headers={"Accept": accept})
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"] == answer.headers["content-type"]


def test_other_methods_are_refused(service):
    assert service.request("POST", "/", {}).problem == "method-not-allowed"
    assert service.request("DELETE", "/favicon.ico").problem == "method-not-allowed"


def test_the_page_may_run_its_own_script_and_nothing_else(service):
    policies = service.get("/", Accept="text/html").headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policies.split(";"))
    assert rules["default-src"] == "'none'" and rules["frame-ancestors"] == "'none'"
    assert re.fullmatch(r"'sha256-[\w+/=]{44}'", rules["script-src"])
    assert re.fullmatch(r"'sha256-[\w+/=]{44}'", rules["style-src"])


def test_what_a_client_says_of_itself_is_shown_as_text(service):
    answer = service.get("/", Accept="text/html", Host='a"><script>alert(1)</script>')
    assert b"<script>alert" not in answer.body


def test_the_icon_is_an_icon_and_may_be_kept(service):
    answer = service.get("/favicon.ico")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/x-icon")
    assert answer.body.startswith(b"\0\0\1\0") and answer.headers["cache-control"] == "public, max-age=86400"
    head = service.request("HEAD", "/favicon.ico")
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("path", ["/", "/favicon.ico", "/pool", "/metrics", "/openapi.json"])
def test_nothing_of_this_needs_the_database(without_database, path):
    answer = without_database.get(path, Accept=BROWSER)
    assert answer.status == 200 and "server-timing" not in answer.headers
    assert without_database.failures() == []


def test_a_strategy_that_keeps_nothing_has_no_size_and_no_waits(without_database):
    assert all_workers(without_database)["size"] == 0
    assert all_workers(without_database)["wait_ms"] == {"p50": None, "p90": None, "p99": None}
    text = without_database.get("/", Accept="text/html").body.decode()
    assert 'data-figure="p99">–<' in text and 'data-figure="size"' not in text


def test_the_pools_of_all_workers_are_added_up(service):
    """Twenty requests at once on new connections reach both workers; what each keeps idle afterwards is in the sum."""
    waited = all_workers(service)["waits"]["+Inf"]

    def both_keep_connections():
        service.get_many("/health", 20)
        pools = [answer.json for answer in service.get_many("/pool", 20)]
        return len({pool["pid"] for pool in pools if pool["idle"]}) == WORKERS

    wait_until(both_keep_connections, "both workers keep connections")

    def added_up():
        # Long enough for each worker to publish its state and to add up anew.
        time.sleep(0.2)
        found = [answer.json for answer in service.get_many("/pool", 20)]
        idle = {pool["pid"]: pool["idle"] for pool in found}
        return len(idle) == WORKERS and {pool["all_workers"]["idle"] for pool in found} == {sum(idle.values())}

    wait_until(added_up, "the sum is that of the workers' own pools")
    pools = all_workers(service)
    assert (pools["workers"], pools["size"], pools["waiting"]) == (WORKERS, 6, 0)
    # A worker folds clicks now and then.
    assert pools["in_use"] + pools["idle"] <= 6
    counts = list(pools["waits"].values())
    assert counts == sorted(counts) and counts[-1] >= waited + 20
    assert 0 <= pools["wait_ms"]["p50"] <= pools["wait_ms"]["p90"] <= pools["wait_ms"]["p99"]


def test_a_watched_pool_names_who_holds_its_connections(postgres, tmp_path):
    with serving(tmp_path / "stderr", DATABASE_URL=postgres.url, DB_POOL_SIZE=2, DB_POOL_WATCH="on") as server:
        pool = server.get("/pool").json
        assert pool["holders"] == [] and pool["findings"] == []


def test_an_unwatched_pool_says_nothing_of_holders(service):
    assert not {"holders", "findings"} & service.get("/pool").json.keys()
