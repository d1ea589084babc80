"""`ab` and `loadgen ab` beside each other on the service: the same lines in the same places, figures of the same size."""

import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


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

    do_HEAD = do_PUT = do_GET  # noqa: N815 - the library's names

    def log_message(self, *_):
        pass


@pytest.fixture
def unreliable():
    _Unreliable.asked = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), _Unreliable) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("options", ["", "-k", "-l", "-i", "-k -l", "-d", "-S -C a=b -A u:p"])
@pytest.mark.parametrize("path", ["/vary", "/lost", "/busy"])
def test_failures_are_counted_under_abs_kinds(ab, unreliable, options, path):
    if options in ("-l", "-k -l", "-i") and path == "/lost":
        pytest.skip("ab does not count a lost answer where no length is expected; here it has failed")
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
