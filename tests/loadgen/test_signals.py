"""A signal before a command has begun its work: one line on stderr, and the exit code that shells give it."""

import os
import signal
import subprocess
import sys
import time

import pytest

LINES = {signal.SIGINT: (130, "Interrupted\n"), signal.SIGTERM: (143, "Terminated\n")}
URLS = ("http://127.0.0.1:1", "http://127.0.0.1:2")


def start(*arguments, options=()):
    return subprocess.Popen(
        [sys.executable, *options, "-m", "loadgen", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts a command in the background has it ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )


@pytest.mark.parametrize("number", LINES)
@pytest.mark.parametrize(
    "before",
    [("run",), ("report",), ("diff",), ("plan",), ("duel", *URLS), ("capacity", "--p99", "100")],
    ids=lambda before: before[0],
)
def test_while_a_command_reads_its_input(tmp_path, before, number):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    after = (pipe,) if before == ("diff",) else ()
    process = start(*before, pipe, *after)
    writer = None
    # Opening this end succeeds as soon as the command has opened the other one; it then waits for what never comes.
    while writer is None and process.poll() is None:
        try:
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.01)
    process.send_signal(number)
    out, told = process.communicate(timeout=20)
    os.close(writer)
    assert (process.returncode, told) == LINES[number]
    assert out == ""


@pytest.mark.parametrize("number", LINES)
@pytest.mark.parametrize("module", ["click", "loadgen.runner"])
def test_while_a_command_is_imported(module, number):
    process = start("run", "no-such-script.yml", options=("-X", "importtime"))
    seen = ""
    while module not in seen and process.poll() is None:
        seen = process.stderr.readline()
    process.send_signal(number)
    _, told = process.communicate(timeout=20)
    lines = [line for line in told.splitlines(keepends=True) if not line.startswith("import time:")]
    assert (process.returncode, "".join(lines)) == LINES[number]
