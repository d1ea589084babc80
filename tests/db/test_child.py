"""A supervised child process: it becomes ready or is ended, and nothing of it is ever left behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from db.child import Child, ChildError
from tests.support.paths import ROOT
from tests.support.server_process import ends_with_its_starter, lives, wait_until

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the death signal is Linux's")

IGNORES_SIGTERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""
HAS_A_CHILD = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
input()
"""


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def python():
    """python(source, **options) -> the Child that runs this code; killed at the latest with the test."""
    started = []

    def start(source, **options):
        started.append(Child([sys.executable, "-c", source], **options))
        return started[-1]

    yield start
    for child in started:
        child.kill()


def test_a_child_that_ends_well_gives_its_exit_code(python):
    with python("raise SystemExit(7)") as child:
        wait_until(lambda: not child.running, "it ends")
        assert child.stop() == 7
        assert child.stop() == 7 and child.kill() == 7


def test_a_child_is_ready_when_its_check_says_so(python, log):
    with python("print('first', flush=True)\nimport time; time.sleep(60)", log=log) as child:
        child.await_ready(lambda: "first" in child.output(), 10)
        assert child.running
        assert child.stop() == -signal.SIGTERM
    assert not lives(child.pid)


def test_the_output_is_that_of_this_child_alone(python, log):
    log.write_text("written by an earlier one\n")
    with python("import sys; print('out'); print('err', file=sys.stderr)", log=log) as child:
        wait_until(lambda: not child.running, "it ends")
        assert sorted(child.output().split()) == ["err", "out"]
    assert log.read_text().startswith("written by an earlier one\n")


def test_a_child_that_ends_at_once_is_an_error_with_its_last_lines(python, log):
    with pytest.raises(ChildError) as error:
        python("print('a\\nb\\nc\\nd'); raise SystemExit(3)", log=log).await_ready(lambda: False, 10)
    assert str(error.value) == "it ended with exit code 3; its log ends with: b | c | d"
    assert (error.value.failure, error.value.output) == ("ended with exit code 3", "a\nb\nc\nd\n")


def test_a_child_that_a_signal_ended_is_an_error_that_names_the_signal(python, log):
    with pytest.raises(ChildError, match=r"^it was ended by SIGKILL; its log is empty$"):
        python("import os; os.kill(os.getpid(), 9)", log=log).await_ready(lambda: False, 10)


def test_a_child_that_is_never_ready_is_an_error_and_ended(python, log):
    child = python("import time; print('trying', flush=True); time.sleep(60)", log=log)
    wait_until(child.output, "it has begun")
    with pytest.raises(ChildError, match=r"^it was not ready within 0.1 s; its log ends with: trying$"):
        child.await_ready(lambda: False, 0.1)
    assert not lives(child.pid)


def test_a_check_that_fails_ends_the_child(python):
    child = python("import time; time.sleep(60)")
    with pytest.raises(ZeroDivisionError):
        child.await_ready(lambda: 1 / 0, 10)
    assert not lives(child.pid)


def test_a_program_that_is_not_there_is_an_error():
    with pytest.raises(FileNotFoundError):
        Child(["/nowhere/program"])


def test_a_child_that_ignores_sigterm_is_killed(python, log):
    child = python(IGNORES_SIGTERM, log=log, patience_s=0.2)
    child.await_ready(lambda: "ready" in child.output(), 10)
    began = time.monotonic()
    assert child.stop() == -signal.SIGKILL
    assert 0.2 <= time.monotonic() - began < 5


def test_signals_are_sent_in_turn(python, log):
    source = IGNORES_SIGTERM.replace("import signal", "import sys, signal") + "\n"
    source = source.replace("print", "signal.signal(signal.SIGINT, lambda *_: sys.exit(5))\nprint")
    child = python(source, log=log, patience_s=0.5, stop_signals=(signal.SIGTERM, signal.SIGINT))
    child.await_ready(lambda: "ready" in child.output(), 10)
    assert child.stop() == 5


@pytest.mark.parametrize("how", [Child.stop, Child.kill])
def test_children_of_the_child_end_with_it(python, log, how):
    child = python(HAS_A_CHILD, log=log, stdin=subprocess.PIPE)
    child.await_ready(lambda: child.output().endswith("\n"), 10)
    grandchild = int(child.output())
    assert lives(grandchild)
    how(child)
    wait_until(lambda: not lives(grandchild), "the grandchild has ended")


def test_pipes_carry_what_is_said_both_ways_and_closing_them_ends_the_child(python):
    source = "import sys\nfor line in sys.stdin: print(line.strip() * 2, flush=True)"
    child = python(source, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, stop_signals=(signal.SIGCONT,))
    child.stdin.write("ab\n")
    child.stdin.flush()
    assert child.stdout.readline() == "abab\n"
    assert child.stop() == 0
    with python("pass") as other, pytest.raises(BrokenPipeError):
        other.stdin.write("")


def test_a_terminal_s_signals_do_not_reach_the_child(python):
    with python("import time; time.sleep(60)") as child:
        assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
        assert os.getsid(child.pid) == child.pid


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_a_child_may_run_as_another_user(log):
    options = {"user": 65534, "group": 65534, "extra_groups": [], "env": {"PATH": "/usr/bin:/bin"}}
    with Child(["id"], log=log, **options) as child:
        wait_until(lambda: not child.running, "it ends")
    assert "uid=65534" in child.output() and "groups=65534" in child.output()


@LINUX
@pytest.mark.parametrize("user", ["", ", user=65534, group=65534, extra_groups=[]"], ids=["same user", "other user"])
def test_a_child_ends_when_its_parent_is_killed(user):
    if user and os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    ends_with_its_starter(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom db.child import Child\n"
        f"child = Child(['/bin/sleep', '60']{user})\nprint(child.pid, flush=True)\ninput()"
    )


@LINUX
def test_a_child_without_a_death_signal_outlives_its_killed_parent(start_process):
    source = (
        "from db.child import Child\nchild = Child(['/bin/sleep', '60'], death_signal=None)\n"
        "print(child.pid, flush=True)\ninput()"
    )
    starter = start_process([sys.executable, "-c", source], stdin=subprocess.PIPE, stderr=None)
    pid = int(starter.stdout.readline())
    starter.kill()
    starter.wait()
    try:
        time.sleep(0.1)
        assert lives(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
