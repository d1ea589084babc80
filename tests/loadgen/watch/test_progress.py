"""The progress line: what it says, that each run starts from nothing, and that other text is not mixed with it."""

import io

import pytest

from loadgen.engine import Progress, Stage, stage_at
from loadgen.schedule import spans
from loadgen.script.model import Phase
from loadgen.watch.progress import LiveLine, progress_text

NOTHING = Progress(0.0, 0, 0, 0, 0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (
            Progress(4.0, 7, 140, 132, 0, Stage("warm up", 4.0, 15.0), 38.2),
            "warm up: 4/15 s [=====               ] 33/s p95 38 ms 7 users 0 errors",
        ),
        (
            Progress(2.0, 1, 9000, 9000, 1, Stage("", 2.0, 2.0), 0.42),
            "2/2 s [====================] 4,500/s p95 0.4 ms 1 user 1 error",
        ),
        (
            Progress(9.0, 3, 90, 90, 0, Stage("waiting for the last users", 1.0, None)),
            "waiting for the last users 1 s 10/s 3 users 0 errors",
        ),
        (Progress(5.0, 3, 50, 50, 0), "5 s 10/s 3 users 0 errors"),
    ],
)
def test_a_line_says_stage_rate_p95_users_and_errors(now, text):
    assert progress_text(now, NOTHING) == text


def test_the_stage_is_the_phase_of_that_time_and_then_the_wait_for_the_last_users():
    phases = Phase(0, "warm up", 5, "5", arrival_rate=1), Phase(1, None, 10, "10", arrival_rate=2)
    planned = spans(phases)
    assert stage_at(planned, 2.0) == Stage("warm up", 2.0, 5.0)
    assert stage_at(planned, 6.5) == Stage("phase 2", 1.5, 10.0)
    assert stage_at(planned, 17.0) == Stage("waiting for the last users", 2.0, None)
    assert stage_at((), 1.0) is None


def test_the_rate_of_a_new_run_does_not_count_from_the_run_before():
    terminal = Terminal()
    live = LiveLine(terminal)
    live(Progress(1.0, 1, 700, 700, 0, started_ns=1))
    live(Progress(1.0, 1, 141, 141, 0, started_ns=2))
    live(Progress(2.0, 1, 151, 151, 0, started_ns=2))
    assert [line.split()[2] for line in terminal.getvalue().split("\r\x1b[K")[1:]] == ["700/s", "141/s", "10/s"]


def test_text_beside_the_line_stands_on_a_line_of_its_own():
    terminal = Terminal()
    live = LiveLine(terminal)
    say = live.beside(terminal.write)
    live(Progress(1.0, 1, 5, 5, 0))
    say("Phase completed\n")
    assert terminal.getvalue().endswith("0 errors\r\x1b[KPhase completed\n")


def test_elsewhere_than_on_a_terminal_there_is_a_line_every_ten_seconds():
    stream = io.StringIO()
    live = LiveLine(stream)
    for second in range(1, 26):
        live(Progress(float(second), 1, second, second, 0, started_ns=1))
    assert stream.getvalue().splitlines() == ["10 s 1/s 1 user 0 errors", "20 s 1/s 1 user 0 errors"]
