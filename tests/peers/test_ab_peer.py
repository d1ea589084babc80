"""`ab` and `loadgen ab` beside each other on the service: the same lines in the same places, figures of the same size."""

import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from click.testing import CliRunner

from loadgen.cli import cli
from tests.support.certificates import make

OURS = [sys.executable, "-m", "loadgen", "ab"]


def report_of(command):
    """The report of either program. Ours runs in this process: a process for each of a hundred runs takes a minute."""
    if command[: len(OURS)] == OURS:
        done = CliRunner().invoke(cli, ["ab", *command[len(OURS) :]])
        assert done.exit_code == 0, done.output
    else:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout[done.stdout.index("Server Software:") :]


def layout(text):
    """The report with each figure replaced, and the lines left out that depend on chance."""
    text = re.sub(r"(?m)^(WARNING|ERROR): The median.*\n.*\n", "", text)
    text = re.sub(r"\d+(\.\d+)?", lambda m: "9.9" if "." in m[0] else "9", text)
    return re.sub(r" +9", " 9", text)


@pytest.mark.slow
@pytest.mark.parametrize("options", [["-n", "60", "-c", "6"], ["-n", "60", "-c", "6", "-k"], ["-n", "1"]], ids=" ".join)
@pytest.mark.parametrize("path", ["/health", "/no-such-link"])
def test_the_report_has_the_layout_of_abs(ab, shared_service, options, path):
    url = f"http://127.0.0.1:{shared_service.port}{path}"
    theirs = report_of([ab, "-q", *options, url])
    ours = report_of([*OURS, "-q", *options, url])
    assert layout(ours) == layout(theirs)


COUNTS = (
    r"(?m)^(?:Document Length|Complete requests|Failed requests|Non-2xx responses|Keep-Alive requests|   \(Connect).*"
)


class _Unreliable(BaseHTTPRequestHandler):
    """Answers of five lengths in turn (/vary), every fourth one missing (/lost), every third one a 503 (/busy)."""

    protocol_version = "HTTP/1.1"
    # Head and body in one segment.
    wbufsize = -1
    asked = 0
    requests: ClassVar[list] = []

    def do_GET(self):
        type(self).asked += 1
        n = type(self).asked
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.requests.append((self.requestline, self.headers.items(), body, self.client_address[0]))
        if self.path == "/lost" and n % 4 == 0:
            self.close_connection = True
            return
        body = b"x" * (10 + (n % 5 if self.path == "/vary" else 0))
        keep = self.headers.get("connection", "").lower() == "keep-alive"
        self.send_response(503 if self.path == "/busy" and n % 3 == 0 else 200)
        self.send_header("content-length", str(len(body)))
        if keep:
            self.send_header("connection", "keep-alive")
        self.end_headers()
        self.close_connection = not keep
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_POST = do_PATCH = do_GET  # noqa: N815 - the library's names

    def log_message(self, *_):
        pass


@pytest.fixture
def unreliable():
    _Unreliable.asked = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), _Unreliable) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def tls_port(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Unreliable)
    server.socket = make(tmp_path).server_context("good").wrap_socket(server.socket, server_side=True)
    with server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def slow(*values):
    return [pytest.param(each, marks=pytest.mark.slow) for each in values]


@pytest.mark.parametrize(
    "options", ["-k", *slow("", "-l", "-i", "-k -l", "-i -k", "-r", "-d", "-p {body} -T a/b", "-s 2")]
)
@pytest.mark.parametrize("path", ["/vary", "/lost", "/busy"])
def test_failures_are_counted_under_abs_kinds(ab, unreliable, tmp_path, options, path):
    (tmp_path / "body").write_text("a=1")
    options = options.format(body=tmp_path / "body")
    found = []
    for command in ([ab], OURS):
        _Unreliable.asked = 0
        text = report_of([*command, "-q", "-n", "13", *options.split(), f"{unreliable}{path}"])
        found.append((re.findall(COUNTS, text), "Percentage" in text, "+/-sd" in text))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "options",
    [
        "-k -p {body} -C a=b -A u:p -H X-A:&1 -H Host:&else.where",
        *slow(
            "", "-k", "-i", "-i -k", "-p {body}", "-p {body} -T a/b", "-p {body} -m PATCH", "-p {empty}", "-u {body}",
            "-u {body} -T a/b", "-u {body} -m DELETE", "-m DELETE", "-m OPTIONS -k", "-m get", "-T a/b", "-H X-A:&1",
            "-H X-A:&1 -H X-B:&2", "-H host:&else.where", "-H User-Agent:&me", "-H Accept:&a/b",
            "-H Accept-Encoding:&gzip", "-H Cookie:&z=1 -C a=b", "-C a=b", "-C a=b;c=d", "-A u:p", "-A u", "-P u:p",
            "-A a:b -P u:p", "-A u:p -C a=b -H X:&y", "-B 127.0.0.2", "-b 4096", "-d", "-S", "-r", "-l",
            "-X {proxy}", "-X {proxy} -k", "-X {proxy} -P u:p", "-X {proxy} -p {body}",
        ),
    ],
)  # fmt: skip
def test_the_requests_are_abs(ab, unreliable, tmp_path, options):
    (tmp_path / "body").write_text("a=1")
    (tmp_path / "empty").write_text("")
    given = [
        each.format(body=tmp_path / "body", empty=tmp_path / "empty", proxy=unreliable).replace("&", " ")
        for each in options.split()
    ]
    url = "http://example.test:81/a?b=1" if "-X" in given else f"http://{unreliable}/a?b=1"
    found = []
    for command in ([ab], OURS):
        _Unreliable.requests.clear()
        report_of([*command, "-q", "-n", "2", *given, url])
        shown = [(line, fields, body, peer) for line, fields, body, peer in _Unreliable.requests]
        found.append(re.sub(r"ApacheBench/[\d.]+|poolbench/[\w.+]+", "AGENT", str(shown)))
    assert found[0] == found[1]


@pytest.mark.parametrize("options", ["-v 3 -k", *slow("-v 2", "-v 1", "-v 4 -p {body}", "-v 2 -i", "-v 5 -q")])
def test_v_prints_requests_and_answers_as_ab_does(ab, unreliable, tmp_path, options):
    (tmp_path / "body").write_text("a=1")
    options = options.format(body=tmp_path / "body")
    found = []
    for command in ([ab], OURS):
        _Unreliable.asked = 0
        text = printed([*command, "-n", "3", *options.split(), f"{unreliable}/busy"])[1]
        found.append(re.sub(r"ApacheBench/[\d.]+|poolbench/[\w.+]+|Date: .*", "X", text).replace("\r", ""))
    assert found[0] == found[1]


def test_the_files_of_e_and_g_have_abs_layout(ab, unreliable, tmp_path):
    shapes = []
    for name, command in (("theirs", [ab]), ("ours", OURS)):
        csv, table = tmp_path / f"{name}.csv", tmp_path / f"{name}.tsv"
        report_of([*command, "-q", "-n", "9", "-e", str(csv), "-g", str(table), f"{unreliable}/busy"])
        shapes.append([re.sub(r"[A-Z][a-z]{2}|\d+", "9", each.read_text()).replace("  ", " ") for each in (csv, table)])
    assert shapes[0] == shapes[1]


@pytest.mark.slow
def test_the_counts_are_abs(ab, shared_service):
    command = ["-q", "-n", "40", "-c", "4", "-k", f"http://127.0.0.1:{shared_service.port}/live"]
    labels = "Document Length|Complete requests|Failed requests|Keep-Alive requests|HTML transferred|Concurrency Level"
    theirs, ours = (re.findall(rf"({labels}): +(\d+)", report_of([*each, *command])) for each in ([ab], OURS))
    assert len(theirs) == 6
    assert ours == theirs


def printed(command):
    """Exit code, stdout from ab's line about the host on with figures replaced, and stderr."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, layout(done.stdout[done.stdout.index("Benchmarking") :]), done.stderr


@pytest.mark.parametrize("options", ["-n 150 -l", *slow("-n 7 -l", "-n 160 -l -c 2", "-n 160 -l -q")])
def test_the_heading_and_progress_are_abs(ab, unreliable, options):
    theirs, ours = (printed([*command, *options.split(), f"{unreliable}/vary"]) for command in ([ab], OURS))
    assert ours == theirs


@pytest.mark.parametrize("options", ["", *slow("-f TLS1.2 -Z ECDHE-ECDSA-AES128-GCM-SHA256", "-f TLS1.3", "-I")])
@pytest.mark.parametrize("host", ["localhost", *slow("127.0.0.1")])
def test_the_lines_about_tls_are_abs(ab, tls_port, options, host):
    found = []
    for command in ([ab], OURS):
        done = subprocess.run(
            [*command, "-n", "2", *options.split(), f"https://{host}:{tls_port}/"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        found.append(re.findall(r"(?m)^(?:SSL/TLS Protocol|TLS Server Name):.*", done.stdout))
    assert found[0] == found[1]
    assert found[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("-w", "-w: no HTML tables are printed"),
        ("-x border=1", "-x: no HTML tables are printed"),
        ("-B 192.0.2.1", "-B: cannot send from 192.0.2.1"),
        ("-Z none-such", "no such ciphers: none-such"),
        ("-E no.pem", "cannot read no.pem"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(options, said):
    done = CliRunner().invoke(cli, ["ab", *options.split(), "http://127.0.0.1:1/"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
