"""`loadgen ping`: the parts of one request, what of the answer is shown, expectations, and exit codes."""

import gzip
import json
import re

import pytest
from click.testing import CliRunner

from loadgen.cli import cli
from tests.loadgen.conftest import ok


def ping(*arguments):
    return CliRunner().invoke(cli, ["ping", *(str(a) for a in arguments)])


@pytest.fixture
def target(serve):
    return serve(
        ok(b'{"a": {"b": [1, 2]}}', b"Content-Type: application/json\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n")
    ).url


def test_the_parts_of_a_request_add_up_to_the_whole(target):
    found = json.loads(ping(target, "--format", "json", "-e", "statusCode=200").stdout)
    times = found["times"]
    assert times["tls"] is None
    assert times["dns"] + times["tcp"] + times["first_byte"] + times["download"] <= times["total"] + 0.001
    assert found["answer"]["status"] == 200
    assert found["answer"]["headers"]["set-cookie"] == ["a=b", "c=d"]
    assert found["expectations"] == [{"kind": "statusCode", "ok": True, "expected": "200", "got": 200}]
    assert found["address"] == "127.0.0.1"


def test_the_text_has_the_layout_of_artillerys_ping(target):
    lines = ping(target, "-v", "-e", "contentType=json").stdout.splitlines()
    assert lines[0] == f"Connected to {target} (127.0.0.1)"
    assert "GET / HTTP/1.1" in lines
    assert "set-cookie: a=b,c=d" in lines
    heading = lines.index(" DNS Lookup | TCP Connection | SSL Handshake | Time to First Byte | Content Transfer  ")
    assert re.fullmatch(r"  [\d.]+ms +\|  [\d.]+ms +\|     N/A +\|     [\d.]+ms +\|   [\d.]+ms +\|", lines[heading + 1])
    assert re.search(r"total:[\d.]+ms", "\n".join(lines))
    assert lines[-1] == "*  ok contentType json "


@pytest.mark.parametrize(
    ("expectation", "code"),
    [("statusCode=200", 0), ("{statusCode: [200, 201]}", 0), ("statusCode:201", 1), ("hasProperty=c", 1), ("{jmespath: a.b}", 0)],
)  # fmt: skip
def test_an_expectation_decides_on_the_exit_code(target, expectation, code):
    assert ping(target, "-e", expectation).exit_code == code


def test_a_query_prints_its_result_alone(target):
    assert ping(target, "--jmespath", "a.b").stdout == "[1,2]\n"


def test_a_selector_prints_what_is_inside_the_first_element(serve):
    page = serve(ok(b"<ul><li>one <b>x</b><li>two</ul>", b"Content-Type: text/html\r\n"))
    assert ping(page.url, "--cheerio", "li").stdout.splitlines()[-1] == "one <b>x</b>"
    assert ping(page.url, "-q", "p").stdout.splitlines()[-1] == "null"


def test_a_body_that_is_too_large_to_unpack_is_one_line(serve):
    page = serve(ok(gzip.compress(bytes(70_000_000), 1), b"Content-Encoding: gzip\r\n"))
    done = ping(page.url, "--show-body")
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ") and line.endswith(page.url)


def test_the_request_is_made_of_the_options(serve):
    seen = []

    def answer(connection, request):
        seen.append(request)
        connection.sendall(ok())

    done = ping(
        "post", f"{serve(answer).url}/a", "--json", "{x: 1}", "-H", "a:b", "--qs", "q=1", "--auth", "{user: u, pass: p}"
    )
    assert done.exit_code == 0, done.output
    (request,) = seen
    assert request.startswith(b"POST /a?q=1 HTTP/1.1\r\n")
    for part in (b"\r\na: b\r\n", b"authorization: Basic dTpw", b"content-length: 7"):
        assert part in request


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["http://127.0.0.1:1"], "ECONNREFUSED: http://127.0.0.1:1"),
        (["http://a..b/"], "ENOTFOUND - DNS lookup failed on http://a..b/"),
        (["http://127.0.0.1:1", "-e", "bogus=1"], "--expect: unknown expectation 'bogus'"),
        (["http://127.0.0.1:1", "--json", "5"], "--json: must be an object or NAME=VALUE, not '5'"),
        (["http://127.0.0.1:1", "-H", "{a"], "--headers: not JSON, YAML or NAME=VALUE"),
        (["trace", "http://127.0.0.1:1"], "`trace` is not an HTTP method that can be sent"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_exit_code_1(arguments, said):
    done = ping(*arguments)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_url_without_a_scheme_is_asked_over_tls(target):
    assert ping(target.removeprefix("http://")).exit_code == 1


def test_a_page_says_first_what_was_answered_where_and_whether_it_was_expected(target):
    page = ping(f"{target}/a", "--format", "markdown", "-e", "statusCode=201").stdout
    assert re.match(
        rf"# HTTP 200 after [\d.]+ ms\n\nGET {re.escape(target)}/a, connected to 127\.0\.0\.1\n\n## Expectations", page
    )
    assert "Expectations" not in ping(target, "--format", "markdown").stdout
