"""`ab` and `loadgen ab` beside each other on the service: the same lines in the same places, figures of the same size."""

import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.certificates import make


def report_of(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout[done.stdout.index("Server Software:") :]


def layout(text):
    """The report with each figure replaced, and the lines left out that depend on chance."""
    text = re.sub(r"(?m)^(WARNING|ERROR): The median.*\n.*\n", "", text)
    text = re.sub(r"\d+(\.\d+)?", lambda m: "9.9" if "." in m[0] else "9", text)
    return re.sub(r" +9", " 9", text)


@pytest.mark.parametrize("options", [["-n", "60", "-c", "6"], ["-n", "60", "-c", "6", "-k"], ["-n", "1"]], ids=" ".join)
@pytest.mark.parametrize("path", ["/health", "/no-such-link"])
def test_the_report_has_the_layout_of_abs(ab, postgres, start_service, options, path):
    server = start_service(DATABASE_URL=postgres.url)
    url = f"http://127.0.0.1:{server.port}{path}"
    theirs = report_of([ab, "-q", *options, url])
    ours = report_of([sys.executable, "-m", "loadgen", "ab", "-q", *options, url])
    assert layout(ours) == layout(theirs)


COUNTS = (
    r"(?m)^(?:Document Length|Complete requests|Failed requests|Non-2xx responses|Keep-Alive requests|   \(Connect).*"
)


class _Unreliable(BaseHTTPRequestHandler):
    """Answers of five lengths in turn (/vary), every fourth one missing (/lost), every third one a 503 (/busy)."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_GET(self):
        type(self).asked += 1
        n = type(self).asked
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


OPTIONS = ("", "-k", "-l", "-i", "-d", "-S -C a=b -A u:p", "-p {body} -T a/b")
MORE_OPTIONS = (
    "-k -l", "-i -k", "-C a=b -C c=d", "-u {body}", "-r", "-v 1", "-P u:p", "-m PATCH", "-b 4096", "-B 127.0.0.2",
    "-f TLS1.2 -Z ALL -I", "-s 2",
)  # fmt: skip


@pytest.mark.parametrize("options", [*OPTIONS, *(pytest.param(each, marks=pytest.mark.slow) for each in MORE_OPTIONS)])
@pytest.mark.parametrize("path", ["/vary", "/lost", "/busy"])
def test_failures_are_counted_under_abs_kinds(ab, unreliable, tmp_path, options, path):
    (tmp_path / "body").write_text("a=1")
    options = options.format(body=tmp_path / "body")
    found = []
    for command in ([ab], [sys.executable, "-m", "loadgen", "ab"]):
        _Unreliable.asked = 0
        text = report_of([*command, "-q", "-n", "13", *options.split(), f"{unreliable}{path}"])
        found.append((re.findall(COUNTS, text), "Percentage" in text, "+/-sd" in text))
    assert found[0] == found[1]


def test_the_files_of_e_and_g_have_abs_layout(ab, unreliable, tmp_path):
    shapes = []
    for name, command in (("theirs", [ab]), ("ours", [sys.executable, "-m", "loadgen", "ab"])):
        csv, table = tmp_path / f"{name}.csv", tmp_path / f"{name}.tsv"
        report_of([*command, "-q", "-n", "9", "-e", str(csv), "-g", str(table), f"{unreliable}/busy"])
        shapes.append([re.sub(r"[A-Z][a-z]{2}|\d+", "9", each.read_text()).replace("  ", " ") for each in (csv, table)])
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("label", ["Document Length", "Complete requests", "Failed requests", "Keep-Alive requests",
                                   "HTML transferred", "Concurrency Level"])  # fmt: skip
def test_the_counts_are_abs(ab, postgres, start_service, label):
    server = start_service(DATABASE_URL=postgres.url)
    url = f"http://127.0.0.1:{server.port}/live"
    figures = [
        re.search(rf"{label}: +(\d+)", report_of([*command, "-q", "-n", "40", "-c", "4", "-k", url]))[1]
        for command in ([ab], [sys.executable, "-m", "loadgen", "ab"])
    ]
    assert figures[0] == figures[1]


def printed(command):
    """Exit code, stdout from ab's line about the host on with figures replaced, and stderr."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, layout(done.stdout[done.stdout.index("Benchmarking") :]), done.stderr


@pytest.mark.parametrize("options", ["-n 7 -l", "-n 160 -l -c 2", "-n 160 -l -q"])
def test_the_heading_and_progress_are_abs(ab, unreliable, options):
    theirs, ours = (
        printed([*command, *options.split(), f"{unreliable}/vary"])
        for command in ([ab], [sys.executable, "-m", "loadgen", "ab"])
    )
    assert ours == theirs


@pytest.mark.parametrize("options", ["", "-f TLS1.2 -Z ECDHE-ECDSA-AES128-GCM-SHA256", "-f TLS1.3", "-I"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_lines_about_tls_are_abs(ab, tls_port, options, host):
    found = []
    for command in ([ab], [sys.executable, "-m", "loadgen", "ab"]):
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
    command = [sys.executable, "-m", "loadgen", "ab", *options.split(), "http://127.0.0.1:1/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
