"""The service under attack: what links, headers and tokens may not do, whose word is taken, and what must stay secret."""

import hmac
import itertools
import json
import re
import socket
import subprocess
import time
from contextlib import closing
from urllib.parse import urlsplit

import psutil
import psycopg2
import pytest

import app
from db import links
from tests.support.paths import BIN, ROOT
from tests.support.server_process import free_port, serving

PASSWORD = "correct-horse-battery"
TOKEN = "staple-of-the-tests"


@pytest.fixture(scope="module")
def service(postgres, tmp_path_factory):
    log = tmp_path_factory.mktemp("service") / "stderr"
    with serving(
        log,
        DATABASE_URL=postgres.url,
        API_TOKEN=TOKEN,
        DB_POOL_TIMEOUT=1,
        STATEMENT_TIMEOUT=2,  # so that who waits gives up before those ahead are ended
        TRUSTED_PROXIES="10.9.8.7,127.0.0.0/8",
    ) as server:
        yield server


def create(server, url, code=None, **headers):
    body = {"url": url, "code": code}
    return server.request("POST", "/links", body, {"Authorization": f"Bearer {TOKEN}", **headers})


# Where links may lead


@pytest.mark.parametrize("url", [
    "javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\nscript:alert(1)", " javascript:alert(1)", "data:text/html,<script>",
    "vbscript:x", "file:///etc/passwd", "//evil.example", "///evil.example", "/\\evil.example", "http:evil.example",
    "http:/evil.example", "https:///evil.example", "http://a@evil.example", "http://a%40b@evil.example", "http://\\evil.example",
    "http://good.example\\@evil.example", "http://good.example\r\nSet-Cookie: a=b", "http://good.example\t/", "http://a\u2028b/",
    "http://%65vil.example/", "http://a*b/", "http://a..b/", "http://" + "a" * 64 + ".example/", "http://" + "\u00e4" * 64,
    "http://[::1%25eth0]/", "http://[v1.a]/", "http://a:b/", "http://a:99999/", "http://" + "x" * 2048, "feed:http://a/",
    "http://\u2100.example/", "http://a\u0000b/", "http://\u202eelpmaxe/",
])  # fmt: skip
def test_a_link_leads_to_a_web_address_and_nowhere_else(service, url):
    answer = create(service, url)
    assert (answer.status, answer.problem) == (422, "invalid-url")


@pytest.mark.parametrize("host", [
    "localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.1", "127.9.9.9", "0x7f000001", "2130706433", "0177.0.0.1",
    "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "\uff4cocalhost",
])  # fmt: skip
def test_no_name_of_this_service_is_taken_for_another_host(service, host):
    assert create(service, f"http://{host}:{service.port}/x").problem == "invalid-url"


@pytest.mark.parametrize(("url", "location"), [
    ("https://example.com/%0d%0aSet-Cookie:%20a=b", None),
    ("https://example.com/?next=//evil.example&u=javascript:1", None),
    ("https://example.com/\u00e4?\u00f6#\u00fc", "https://example.com/%C3%A4?%C3%B6#%C3%BC"),
    ("https://b\u00fccher.example/", "https://xn--bcher-kva.example/"),
    ('https://example.com/"<script>', "https://example.com/%22%3Cscript%3E"),
    ("https://example.com/'; DROP TABLE links; --".replace(" ", "%20"), None),
])  # fmt: skip
def test_what_a_link_holds_stays_within_its_location(service, url, location):
    answer = service.get("/" + create(service, url).json["code"])
    assert (answer.status, answer.headers["location"]) == (301, location or url)
    assert "set-cookie" not in answer.headers


# What is asked for

_SQL = [
    "' OR '1'='1",
    "'; DROP TABLE links; --",
    "a' UNION SELECT url, 1 FROM links --",
    "%s",
    "%(x)s",
    "\\",
    "$1",
    "x'||pg_sleep(5)||'",
]


@pytest.mark.parametrize("text", _SQL)
def test_sql_is_text(service, text):
    started = time.monotonic()
    quoted = "".join(f"%{byte:02x}" for byte in text.encode())
    token = {"Authorization": f"Bearer {TOKEN}"}
    for path in (f"/{quoted}", f"/links/{quoted}", f"/links/{quoted}/analytics"):
        assert service.request("GET", path, headers=token).problem == "no-such-link"
    assert create(service, "https://example.com/", text).problem == "invalid-code"
    code = create(service, "https://example.com/").json["code"]
    assert service.get(f"/{code}", **{"User-Agent": text, "Referer": f"http://{text}/"}).status == 301
    told = service.request("GET", f"/links/{code}/analytics", headers=token).json
    assert told["totals"]["clicks"] == 1
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("path", [
    "/../etc/passwd", "/..%2fetc%2fpasswd", "/%2e%2e/%2e%2e/etc/passwd", "/static/../app.py", "/.env", "/.git/config",
    "//evil.example", "//evil.example/..", "/%5c%5cevil.example", "/links/../links", "/links/%2e%2e/analytics",
    "/links//analytics", "/a;b=c", "/;/links", "/links/x/analytics/", "/%c0%ae%c0%ae/", "/%", "/%zz", "/%ff%fe", "/~%00",
    "/x?%ff=%fe", "/links/%ed%a0%80", "/openapi.json/", "/openapi", "/.well-known/x", "/%f0%9f%92%a9", "/" + "%41" * 100,
])  # fmt: skip
def test_odd_paths_find_nothing(service, path):
    answer = service.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("body", [
    b'{"url": "https://example.com/\xff"}', b'\xef\xbb\xbf{"url": "https://example.com/"}',
    '{"url": "https://example.com/"}'.encode("utf-16"), b'{"url": "https://example.com/\\ud800"}', b"[" * 16_000,
    b'{"a":' * 3000, b"9" * 16_000, b"NaN", b'"\\', b"\x00",
])  # fmt: skip
def test_bodies_that_are_no_json_are_400(service, body):
    token = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    assert service.request("POST", "/links", body, token).problem == "invalid-json"


def test_keys_given_twice_or_of_odd_types_make_no_link(service):
    token = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    for body in (
        b"[1e308]",
        b'{"url": ["https://example.com/"]}',
        b'{"url": {"$gt": ""}}',
        b'{"url": true}',
        b'{"__proto__": {"url": "x"}}',
    ):
        assert service.request("POST", "/links", body, token).status == 422
    twice = b'{"url": "https://example.com/1", "url": "javascript:alert(1)"}'
    assert service.request("POST", "/links", twice, token).problem == "invalid-url"


# The token


@pytest.mark.parametrize("given", [
    None, "", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x",
    f"Bearer {TOKEN.upper()}", f"Bearer  {TOKEN}", f"Bearer {TOKEN},Bearer x", "Bearer \xff", "Bearer " + "x" * 5000,
    f"Bearer {TOKEN}\xa0",
])  # fmt: skip
def test_no_other_token_is_taken(service, given):
    headers = {} if given is None else {"Authorization": given}
    answer = service.request("POST", "/links", {"url": "https://example.com/"}, headers)
    assert (answer.status, answer.problem) == (401, "unauthorized")
    assert service.request("GET", "/links/x/analytics", headers=headers).status == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_case_of_the_scheme_means_nothing(service, scheme):
    token = {"Authorization": f"{scheme} {TOKEN}"}
    assert service.request("POST", "/links", {"url": "https://example.com/"}, token).status == 201


def test_the_token_is_compared_in_constant_time(monkeypatch):
    compared = []
    whole = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or whole(a, b))
    client = app.create_app({"DATABASE_URL": "postgresql://127.0.0.1:1/x", "API_TOKEN": TOKEN}).test_client()
    assert client.get("/links/x/analytics", headers={"Authorization": "Bearer guess"}).status_code == 401
    assert compared == [(b"Bearer guess", f"Bearer {TOKEN}".encode())]


# Secrets, and what is written down


def test_secrets_are_told_to_nobody(service, postgres):
    """After failures of every kind that a client can cause: in the log, the metrics, the pool and the answers."""
    wrong = [
        service.request("GET", "/links/x/analytics", headers={"Authorization": f"Bearer {TOKEN}{i}"}).body
        for i in range(3)
    ]
    with closing(psycopg2.connect(postgres.url)) as lock:
        lock.cursor().execute("LOCK TABLE links IN ACCESS EXCLUSIVE MODE")
        failed = service.get_many("/links/x", 12)
    assert {answer.status for answer in failed} == {503, 504}
    told = [
        *wrong,
        *(a.body + str(a.headers).encode() for a in failed),
        service.get("/pool").body,
        service.get("/metrics").body,
    ]
    everything = b"".join(told) + service.log_file.read_bytes()
    assert urlsplit(postgres.url).password.encode() not in everything and TOKEN.encode() not in everything


def test_a_failure_is_written_down_without_what_a_client_could_forge(start_service):
    server = start_service(DATABASE_URL=f"postgresql://guarded:{PASSWORD}@127.0.0.1:1/x")
    forged = "/health?%0a{%22level%22:%22FORGED%22}%1b[2J"
    assert server.get(forged, **{"User-Agent": "a\tb", "X-Forwarded-For": "6.6.6.6"}).problem == "database-down"
    text = server.log_file.read_text()
    assert all(json.loads(line)["level"] in {"INFO", "WARNING", "ERROR"} for line in text.splitlines())
    assert server.failures()[-1]["remote_addr"] == "127.0.0.1", "nobody was said to be trusted"
    assert "\x1b" not in text and PASSWORD not in text


@pytest.mark.parametrize("url", [
    f"postgresql://guarded:{PASSWORD}@127.0.0.1:1/x", f"host=127.0.0.1 port=1 user=guarded password={PASSWORD} dbname=x",
    f"postgresql://127.0.0.1:1/x?user=guarded&password={PASSWORD}",
])  # fmt: skip
def test_a_database_that_cannot_be_reached_is_told_of_without_its_password(url, caplog):
    client = app.create_app({"DATABASE_URL": url}).test_client()
    told = [client.get(path).text for path in ("/health", "/links/x", "/pool", "/metrics")]
    assert "database-down" in told[0] and "SQLSTATE" in str(vars(caplog.records[-1]))
    assert PASSWORD not in "".join(told) + "".join(str(vars(record)) for record in caplog.records)


# What a client can make the service keep


def test_headers_that_are_never_the_same_twice_take_no_memory(start_service, postgres):
    server = start_service(DATABASE_URL=postgres.url)
    code = server.new_link()
    (worker,) = psutil.Process(server.process.pid).children()

    def ask(count):
        with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
            answers = connection.makefile("rb")
            for _ in range(count):
                long = f"{next(number)}".rjust(9000, "x")
                head = f"GET /{code} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {long}\r\nReferer: http://{long}/\r\n"
                connection.sendall(f"{head}{long}: x\r\n\r\n".encode())
                while answers.readline().strip():
                    pass
        return worker.memory_info().rss / 2**20

    number = itertools.count()
    before_mb = ask(100)
    # 800 requests with 27 kB of such headers each.
    assert ask(800) - before_mb < 8


# Headers of answers, and headers from proxies


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/", 200), ("GET", "/favicon.ico", 200),
    ("GET", "/live", 200), ("GET", "/metrics", 200), ("GET", "/openapi.json", 200), ("GET", "/nosuch", 404), ("GET", "/a/b", 404),
    ("DELETE", "/health", 405), ("POST", "/links", 401), ("HEAD", "/live", 200), ("OPTIONS", "/links", 200),
])  # fmt: skip
def test_every_answer_tells_browsers_to_keep_out(service, method, path, status):
    answer = service.request(method, path)
    assert answer.status == status
    assert answer.headers["content-security-policy"].startswith("default-src 'none';")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "strict-origin-when-cross-origin"
    assert "strict-transport-security" not in answer.headers and "server" not in answer.headers


FORWARDED = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "short.example",
    "X-Forwarded-For": "1.2.3.4, 203.0.113.9",
}


def test_a_trusted_proxy_speaks_for_the_client(service):
    answer = create(service, "https://example.com/", **FORWARDED)
    assert answer.json["short_url"] == f"https://short.example/{answer.json['code']}"
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    assert create(service, "https://short.example/again", **FORWARDED).problem == "invalid-url"
    spoofed = create(
        service, "https://example.com/", **{**FORWARDED, "X-Forwarded-Host": "evil.example, short.example"}
    )
    assert spoofed.json["short_url"].startswith("https://short.example/"), "the last hop's word counts"


def test_nobody_else_does(start_service, postgres):
    server = start_service(DATABASE_URL=postgres.url, TRUSTED_PROXIES="10.0.0.0/8,::1")
    answer = server.request("POST", "/links", {"url": "https://example.com/"}, FORWARDED)
    assert answer.json["short_url"] == f"http://127.0.0.1:{server.port}/{answer.json['code']}"
    assert "strict-transport-security" not in answer.headers


def test_an_invalid_list_of_proxies_stops_the_start():
    environment = {
        "PATH": "/usr/bin:/bin",
        "DATABASE_URL": "postgresql://127.0.0.1:1/x",
        "TRUSTED_PROXIES": "balancer",
        "PORT": str(free_port()),
    }
    command = [str(BIN / "gunicorn"), "-c", "wsgi/gunicorn_conf.py", "wsgi:create_app()"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "TRUSTED_PROXIES" in done.stderr and len(done.stderr.splitlines()) == 1


# The document


def test_the_openapi_document_names_every_endpoint_and_method(service):
    document = service.get("/openapi.json").json
    rules = app.create_app({"DATABASE_URL": "postgresql://127.0.0.1:1/x"}).url_map.iter_rules()
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", r.rule), m.lower())
        for r in rules
        for m in r.methods - {"HEAD", "OPTIONS"}
    }
    told = {(path, method) for path, item in document["paths"].items() for method in item if method != "parameters"}
    assert told == served and document["openapi"].startswith("3.1")
    words = document["components"]["schemas"]["Code"]["not"]["pattern"]
    assert all(re.fullmatch(words, word) and re.fullmatch(words, word.upper()) for word in links.RESERVED_CODES)


@pytest.mark.slow
def test_schemathesis_finds_the_service_as_the_document_says(service, tmp_path):
    if not (BIN / "schemathesis").exists():
        pytest.skip("schemathesis is not installed")
    url = f"http://127.0.0.1:{service.port}/openapi.json"
    # The document's pattern of a URL is the plainest part of what is taken, so what it leaves out may be taken as well.
    options = ["--exclude-checks", "negative_data_rejection", "--max-examples", "4", "--seed", "1", "--no-color"]
    command = [str(BIN / "schemathesis"), "run", url, "-H", f"Authorization: Bearer {TOKEN}", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "No issues found" in done.stdout
