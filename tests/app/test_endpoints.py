"""Each endpoint's contract, on a real server process."""

import re

import pytest

from tests.support.server_process import serving, wait_until

TIMING = re.compile(r"pool;dur=[\d.]+, connect;dur=[\d.]+, db;dur=[\d.]+, total;dur=[\d.]+")


@pytest.fixture(scope="module")
def service(postgres, tmp_path_factory):
    log = tmp_path_factory.mktemp("service") / "stderr"
    with serving(log, DATABASE_URL=postgres.url, WEB_CONCURRENCY=2, DB_POOL_TIMEOUT=20) as server:
        yield server


def test_health_makes_a_round_trip_to_the_database(service):
    answer = service.get("/health")
    assert (answer.status, answer.json) == (200, {"status": "ok", "database": "up"})
    assert TIMING.fullmatch(answer.headers["server-timing"])


def test_live_touches_no_database(service):
    answer = service.get("/live")
    assert answer.status == 200 and "server-timing" not in answer.headers


def test_a_link_is_created_with_a_random_code(service):
    answer = service.request("POST", "/links", {"url": "https://example.com/a?b=c#d"})
    assert answer.status == 201
    code = answer.json["code"]
    assert answer.json == {
        "code": code,
        "url": "https://example.com/a?b=c#d",
        "short_url": f"http://127.0.0.1:{service.port}/{code}",
    }
    assert answer.headers["location"].endswith(f"/{code}") and TIMING.fullmatch(answer.headers["server-timing"])


def test_a_code_is_given_once(service):
    first = service.request("POST", "/links", {"url": "https://example.com/1", "code": "taken-once"})
    second = service.request("POST", "/links", {"url": "https://example.com/2", "code": "taken-once"})
    assert (first.status, second.status, second.problem) == (201, 409, "code-taken")
    assert service.get("/taken-once").headers["location"] == "https://example.com/1"


def test_a_redirect_may_not_be_cached(service):
    answer = service.get(f"/{service.new_link('https://example.com/x')}")
    assert (answer.status, answer.headers["location"]) == (301, "https://example.com/x")
    assert answer.headers["cache-control"] == "private, no-store"
    assert TIMING.fullmatch(answer.headers["server-timing"])


def test_parallel_redirects_are_exactly_as_many_clicks(service):
    code = service.new_link()
    answers = [answer for _ in range(5) for answer in service.get_many(f"/{code}", 40)]
    assert {answer.status for answer in answers} == {301}
    assert service.get(f"/links/{code}").json["clicks"] == 200
    assert service.get(f"/links/{code}/analytics").json["totals"]["clicks"] == 200


def test_a_head_request_is_no_click(service):
    code = service.new_link()
    answer = service.request("HEAD", f"/{code}")
    assert (answer.status, answer.headers["location"]) == (301, "https://example.com/some/where")
    assert service.get(f"/links/{code}").json["clicks"] == 0
    assert service.request("HEAD", "/nosuch").status == 404


def test_a_link_can_be_read(service):
    code = service.new_link("https://example.com/read")
    answer = service.get(f"/links/{code}")
    assert answer.status == 200 and sorted(answer.json) == ["clicks", "code", "created", "url"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", answer.json["created"])


CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:121.0) Gecko/20100101 Firefox/121.0"


def test_analytics_tell_what_the_clicks_were(service):
    code = service.new_link("https://example.com/told")
    for agent, referrer in [
        (CHROME, "https://news.example/item?id=1"),
        (CHROME, ""),
        (FIREFOX, "https://news.example/"),
    ]:
        service.get(f"/{code}", **{"User-Agent": agent, "Referer": referrer})
    told = service.get(f"/links/{code}/analytics").json
    assert told["link"]["url"] == "https://example.com/told" and told["totals"]["clicks"] == 3
    assert list(told["clicks_per_day"].values()) == [3]
    assert told["referrers"] == {"news.example": 2, "direct": 1}
    assert told["browsers"] == {"Chrome": {"Linux": 2}, "Firefox": {"Windows": 1}}
    assert told["platforms"] == {"Linux": {"Chrome": 2}, "Windows": {"Firefox": 1}}
    assert [click["browser"] for click in told["recent_clicks"]] == ["Firefox", "Chrome", "Chrome"]


def test_a_link_without_clicks_has_empty_analytics(service):
    told = service.get(f"/links/{service.new_link()}/analytics").json
    assert told["totals"]["clicks"] == 0 and told["recent_clicks"] == [] and told["browsers"] == {}


@pytest.mark.parametrize("path", ["/nosuch", "/links/nosuch", "/links/nosuch/analytics", "/%00", "/%ff%fe", "/a%00b",
                                  "/links/%00", "/favicon.png", "/" + "x" * 200, "/links/%ed%a0%80/analytics"])  # fmt: skip
def test_what_does_not_exist_is_404(service, path):
    assert service.get(path).problem == "no-such-link"
    assert service.get(path).status == 404


@pytest.mark.parametrize("header", ["User-Agent", "Referer"])
@pytest.mark.parametrize("value", ["x" * 5000, "\xff\xfe\x80", "http://[::1", "http://\xe9\xff/", "a\tb"])
def test_odd_headers_still_make_a_click(service, header, value):
    code = service.new_link()
    assert service.get(f"/{code}", **{header: value}).status == 301
    assert service.get(f"/links/{code}").json["clicks"] == 1


@pytest.mark.parametrize("url", [
    "ftp://example.com/", "javascript:alert(1)", "//example.com", "example.com", "", "http://", "http:///path",
    "https://user:secret@example.com/", "https://user@example.com/", "https://example.com/a\nb", "https://exa mple.com/",
    "https://example.com/\x00", "https://example.com:99999/", "http://[::1", "https://example.com/" + "x" * 2048,
    "http://127.0.0.1:PORT/abc", "http://localhost:PORT/abc", "http:\\\\example.com", "https://example.com/\x7f", 5, None,
])  # fmt: skip
def test_an_unacceptable_url_is_422(service, url):
    url = url.replace("PORT", str(service.port)) if isinstance(url, str) else url
    answer = service.request("POST", "/links", {"url": url})
    assert (answer.status, answer.problem) == (422, "invalid-url")


@pytest.mark.parametrize("word", ["health", "live", "links", "pool", "metrics", "static", "Health", "LINKS"])
def test_reserved_words_cannot_become_codes(service, word):
    answer = service.request("POST", "/links", {"url": "https://example.com/", "code": word})
    assert (answer.status, answer.problem) == (422, "reserved-code")


@pytest.mark.parametrize("code", ["", "a b", "a/b", "ä", "x" * 65, "a\x00", 7, "../x"])
def test_an_unacceptable_code_is_422(service, code):
    answer = service.request("POST", "/links", {"url": "https://example.com/", "code": code})
    assert (answer.status, answer.problem) == (422, "invalid-code")


@pytest.mark.parametrize(("body", "status"), [
    (b"{", 400), (b"", 400), (b"\xff\xfe", 400), (b"[" * 10_000, 400), (b'{"url": "\\ud800"}', 400), (b"[]", 422), (b"1", 422),
    (b'{"url": "https://example.com/' + b"x" * 20_000 + b'"}', 413),
])  # fmt: skip
def test_a_bad_body_gets_its_status(service, body, status):
    answer = service.request("POST", "/links", body, {"Content-Type": "application/json"})
    assert answer.status == status and answer.problem


def test_a_chunked_body_is_read_and_limited(service):
    headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    small = b'{"url": "https://example.com/chunked"}'
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(small), small)
    assert service.request("POST", "/links", body, headers).status == 201
    large = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    assert service.request("POST", "/links", large * 2 + b"0\r\n\r\n", headers).status == 413


def test_another_content_type_is_415(service):
    answer = service.request("POST", "/links", b'{"url": "https://example.com/"}', {"Content-Type": "text/plain"})
    assert (answer.status, answer.problem) == (415, "not-json")


def test_unknown_paths_and_methods_are_problems_too(service):
    assert service.get("/a/b/c").problem == "not-found"
    answer = service.request("DELETE", "/health")
    assert answer.problem == "method-not-allowed" and "GET" in answer.headers["allow"]
    head = service.request("HEAD", "/nosuch")
    assert (head.status, head.headers["content-type"], head.body) == (404, "application/problem+json", b"")


def test_the_pool_tells_its_state(service):
    service.get("/health")
    pool = service.get("/pool").json
    assert pool["strategy"] == "fair" and pool["size"] == 10
    assert {"in_use", "idle", "waiting", "overflow", "timeouts", "wait_ms", "hold_ms"} <= set(pool)
    assert sorted(pool["wait_ms"]) == ["max", "p50", "p90", "p99"]


def test_metrics_add_up_all_workers(service):
    """Of an endpoint that no other test asks here: each worker publishes its counts once a second only."""
    service.get_many("/openapi.json", 30)
    wait_until(lambda: _count(service, "openapi") == 30, "both workers' requests are counted")
    assert 'poolbench_pool_connections{state="idle"}' in service.get("/metrics").body.decode()


def _count(service, endpoint):
    text = service.get("/metrics").body.decode()
    found = re.search(rf'poolbench_requests_total{{endpoint="{endpoint}",status="200"}} ([\d.]+)', text)
    return float(found[1]) if found else 0


def test_nothing_of_this_was_a_failure(service):
    assert service.failures() == []


def test_short_urls_begin_with_the_public_url_whatever_the_client_says(start_service, postgres):
    server = start_service(DATABASE_URL=postgres.url, PUBLIC_URL="https://sho.rt/to")
    answer = server.request("POST", "/links", {"url": "https://example.com/"}, {"Host": "evil.example"})
    assert answer.json["short_url"] == f"https://sho.rt/to/{answer.json['code']}"
    assert answer.headers["location"] == f"/to/{answer.json['code']}"
    assert server.request("POST", "/links", {"url": "https://SHO.rt:443/x"}).problem == "invalid-url"


def test_with_a_token_creating_and_analytics_need_it(start_service, postgres):
    server = start_service(DATABASE_URL=postgres.url, API_TOKEN="s3cret-ü")
    assert server.request("POST", "/links", {"url": "https://example.com/"}).problem == "unauthorized"
    assert server.request("POST", "/links", {}, {"Authorization": "Bearer wrong"}).status == 401
    token = {"Authorization": "Bearer s3cret-ü".encode()}
    created = server.request("POST", "/links", {"url": "https://example.com/"}, token)
    assert created.status == 201
    code = created.json["code"]
    assert server.get(f"/{code}").status == 301 and server.get(f"/links/{code}").status == 200
    refused = server.get(f"/links/{code}/analytics")
    assert refused.status == 401 and refused.headers["www-authenticate"].startswith("Bearer")
    assert server.request("GET", f"/links/{code}/analytics", headers=token).status == 200
