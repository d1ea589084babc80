"""`ab` and `loadgen ab` beside each other on the service: the same lines in the same places, figures of the same size."""

import re
import subprocess
import sys

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
