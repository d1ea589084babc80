"""A signal before a command has begun its work, or when it shows its report: its exit code is that of shells."""

import os
import signal
import sys
import time
from functools import partial

import psutil
import pytest

from tests.support.server_process import read_until, wait_until

LINES = {signal.SIGINT: (130, "Interrupted\n"), signal.SIGTERM: (143, "Terminated\n")}
URLS = ("http://127.0.0.1:1", "http://127.0.0.1:2")


@pytest.fixture
def start(start_process):
    """start(*arguments, options=()) -> `loadgen` with these arguments as a process of a Python with these options."""

    def run(*arguments, options=()):
        # A shell that starts a command in the background has it ignore SIGINT, and children inherit that.
        heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
        return start_process([sys.executable, *options, "-m", "loadgen", *arguments], preexec_fn=heed)

    return run


@pytest.mark.parametrize("number", LINES)
@pytest.mark.parametrize(
    "before",
    [("run",), ("report",), ("diff",), ("plan",), ("duel", *URLS), ("capacity", "--p99", "100")],
    ids=lambda before: before[0],
)
def test_while_a_command_reads_its_input(start, tmp_path, before, number):
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
    assert writer is not None, process.communicate()
    # A signal between Python's last look at signals and its read is heeded after the read only, which never ends here.
    wait_until(
        lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING, "the command waits for its input"
    )
    process.send_signal(number)
    try:
        out, told = process.communicate(timeout=60)
    finally:
        os.close(writer)
    assert (process.returncode, told) == LINES[number]
    assert out == ""


@pytest.mark.parametrize("number", LINES)
@pytest.mark.parametrize("module", ["click", "loadgen.runner"])
def test_while_a_command_is_imported(start, module, number):
    process = start("run", "no-such-script.yml", options=("-X", "importtime"))
    read_until(process.stderr, module)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    lines = [line for line in told.splitlines(keepends=True) if not line.startswith("import time:")]
    assert (process.returncode, "".join(lines)) == LINES[number]


SIGNALLED_WHILE_SHOWN = """
import signal, sys
from loadgen.closed import Workload
from loadgen.http.route import Origin
from loadgen.runner import run_ab, run_script
from loadgen.script.parse import RunOptions, parse_script
from loadgen.watch.console import Console

def show(run):
    for _ in range(3):
        signal.raise_signal(int(sys.argv[2]))
    print("shown after", run.signal)

text = "config: {target: http://127.0.0.1:1, phases: [{duration: 1, arrivalRate: 2}]}\\nscenarios: [{flow: [{log: x}]}]"
script = parse_script([("s.yml", text)], RunOptions(), lambda _: b"")
if sys.argv[1] == "ab":
    done = run_ab(Workload(Origin("http", "127.0.0.1", 1), "/", 1, 1), lambda _: None, show=show)
else:
    done = run_script(script, Console(lambda _: None), lambda _: None, 1, show, workers=int(sys.argv[1]))
print("ended by", done.signal)
"""


@pytest.mark.parametrize("number", LINES)
@pytest.mark.parametrize("kind", ["1", "2", "ab"])
def test_while_a_report_is_shown_it_is_shown_to_its_end(start_process, kind, number):
    process = start_process([sys.executable, "-c", SIGNALLED_WHILE_SHOWN, kind, str(int(number))])
    out, told = process.communicate(timeout=60)
    assert (out, told) == (f"shown after None\nended by {int(number)}\n", "")
