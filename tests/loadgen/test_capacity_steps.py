"""How a step of the search for a service's capacity is watched: which seconds it sees, and when it ends."""

import time
from collections import Counter
from types import SimpleNamespace

import gevent
import pytest

from loadgen import capacity
from loadgen.engine import Progress
from loadgen.runner import read_script
from loadgen.script.parse import RunOptions
from loadgen.sizing.capacity import Step, Target
from reports import names
from reports.model import Period, Report, Second
from reports.sketch import Sketch

SILENT = """
config: {{target: "{target}", http: {{timeout: 2}}, phases: [{{duration: 1, arrivalRate: 10}}]}}
scenarios: [{{flow: [{{get: {{url: /}}}}, {{get: {{url: /}}}}]}}]
"""


class Stopped:
    """An engine that only counts how often it is stopped."""

    interrupted = False
    stops = 0

    def stop(self):
        self.interrupted = True
        self.stops += 1


@pytest.fixture
def watching(monkeypatch):
    """Makes a watch, of that class, whose step began at second 100; `happened` are the seconds that had events."""

    def make(cls, *more, happened=(), turned_away=None):
        monkeypatch.setattr(capacity, "now_ns", lambda: 100_100_000_000)
        engine = Stopped()
        recorder = SimpleNamespace(
            report=lambda: Report.of([Period(0, seconds=happened)]), turned_away=Counter(turned_away)
        )
        return engine, cls(engine, recorder, SimpleNamespace(wall_ns=0), Target(200.0), lambda _: None, *more)

    return make


def tick(watch, active=0, thinking=0):
    watch.tick(Progress(0.0, active, 0, 0, 0, thinking_vus=thinking))


def quick(at, answers=1, errors=0):
    """A second with these answers, of 5 ms each."""
    return Second(at * 1000, answers, answers, errors, Sketch.of([5.0] * answers))


def test_a_step_with_less_than_a_user_each_second_has_all_its_seconds_and_ends(watching):
    missed = Step(0.6, 20, 10, 300.0, 0.0, met=False, decided=True, why="p99")
    happened = [quick(100 + n) for n in range(0, 20, 2)]
    engine, watch = watching(capacity._StepWatch, (missed,), 0.5, 9, 200_000_000_000, happened=happened)
    for second in range(1, 10):
        assert engine.stops == 0
        tick(watch)
        assert watch.step().seconds == second
    assert engine.stops == 1
    assert [s.answers for s in watch._seen()] == [1, 0, 1, 0, 1, 0, 1, 0, 1]


def test_a_service_that_never_recovers_is_waited_for_no_longer_than_allowed(watching):
    engine, watch = watching(capacity._RecoveryWatch, 3)
    for _ in range(3):
        assert engine.stops == 0
        tick(watch, active=7)
    gevent.sleep(2 * capacity._PAUSE_S)
    assert engine.stops == 2


def test_an_answer_of_429_is_an_error(watching):
    happened = [quick(100 + n, answers=10) for n in range(3)]
    refused = {99: 5, 101: 4, 102: 3}
    _, watch = watching(capacity._StepWatch, (), 10.0, 20, 200_000_000_000, happened=happened, turned_away=refused)
    for _ in range(3):
        tick(watch)
    assert [s.errors for s in watch._seen()] == [0, 4, 3]
    assert watch.step().error_share == 7 / 30


def test_users_who_think_are_no_queue(watching):
    """Ten come each second, and think for 20 s."""
    happened = [quick(100 + n, answers=10) for n in range(20)]
    engine, watch = watching(capacity._StepWatch, (), 10.0, 20, 200_000_000_000, happened=happened)
    while not engine.stops:
        tick(watch, active=11 + 10 * len(watch._in_flight), thinking=10 + 10 * len(watch._in_flight))
    step = watch.step()
    assert step.met and step.why == ""
    assert step.thinking_s == step.seconds and step.is_partial


def test_late_users_are_a_share_of_the_users(watching):
    """However many requests each of them makes."""
    happened = [quick(100 + n, answers=300) for n in range(20)]
    engine, watch = watching(capacity._StepWatch, (), 10.0, 20, 200_000_000_000, happened=happened)
    counters = Counter()
    watch._counted = counters.__getitem__
    while not engine.stops:
        tick(watch)
        counters.update({names.VUSERS_CREATED: 10, names.LATE: 1})
    assert watch.step().why == "generator"


@pytest.mark.parametrize(("errors", "turned_away", "stops"), [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_a_quick_rejection_is_no_recovery(watching, errors, turned_away, stops):
    happened = [quick(100, errors=errors)]
    engine, watch = watching(capacity._RecoveryWatch, 30, happened=happened, turned_away={100: turned_away})
    tick(watch)
    assert engine.stops == stops


@pytest.mark.slow
@pytest.mark.usefixtures("ahead_of_others")
def test_users_of_a_step_do_not_fail_in_the_next_one_and_the_time_is_kept(serve, tmp_path, monkeypatch):
    for name, seconds in {"LEAST_STEP_S": 1, "LONGEST_STEP_S": 1, "_ENDING_S": 0, "_DRAIN_S": 0.0}.items():
        monkeypatch.setattr(capacity, name, seconds)
    path = tmp_path / "load.yml"
    path.write_text(SILENT.format(target=serve(lambda *_: time.sleep(6)).url))
    steps = []
    begun = time.monotonic()
    found, run = capacity.find_capacity(
        read_script([str(path)], RunOptions()), Target(200.0), lambda _: None, lambda _: None, steps.append,
        first_rate=10.0, precision=0.03, max_s=4.5, seed=1,
    )  # fmt: skip
    assert time.monotonic() - begun < 5.5
    assert found.rate is None and len(steps) >= 2
    counters = run.report.aggregate.counters
    assert counters["http.requests"] == counters["vusers.created"] >= 15
    # Without their end, users of the first step would fail in the second one, 2 s after their requests.
    assert "errors.ETIMEDOUT" not in counters
