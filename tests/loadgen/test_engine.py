"""The engine: an open workload's plan is kept whatever happens to the users."""

import time
from contextvars import ContextVar
from random import Random

import gevent
import pytest

from loadgen import engine as module
from loadgen.clock import WallOffset, now_ns
from loadgen.engine import Engine, Listener
from loadgen.recorder import Recorder
from loadgen.schedule import Share
from loadgen.script.model import Phase
from reports import names


class Users:
    """A program whose users sleep for a time each."""

    def __init__(self, sleep_s=0.0):
        self.sleep_s = sleep_s
        self.intended = []
        self.finished = 0

    def start_vu(self, intended_ns):
        self.intended.append(intended_ns)
        gevent.sleep(self.sleep_s)
        self.finished += 1


def phase(index=0, **law):
    law = {"duration_s": 0.2, "duration_text": "0.2", **law}
    return Phase(index=index, name=None, **law)


def run(program, *phases, listener=None, stop_after=None):
    wall = WallOffset()
    recorder = Recorder(wall)
    engine = Engine(program, phases, recorder, wall, Random(1))
    for delay in stop_after or ():
        gevent.spawn_later(delay, engine.stop)
    engine.run(listener or Listener())
    return engine, recorder.report().aggregate


def test_every_planned_arrival_is_started_even_if_none_ends_in_time():
    users = Users(sleep_s=0.3)
    run(users, phase(arrival_rate=100))
    assert len(users.intended) == users.finished == 20


def test_users_that_a_stopped_run_left_behind_can_be_ended():
    users = Users(sleep_s=30)
    engine, _ = run(users, phase(arrival_rate=50), stop_after=(0.1, 0.15))
    assert engine.progress().active_vus == len(users.intended) > 0
    engine.end_users()
    gevent.sleep(0)
    assert engine.progress().active_vus == users.finished == 0


def test_arrivals_keep_their_intended_instants():
    users = Users()
    run(users, phase(arrival_rate=50))
    offsets_ms = [(at - users.intended[0]) / 1e6 for at in users.intended]
    assert offsets_ms == pytest.approx([20 * k for k in range(10)])


def test_the_run_ends_with_the_last_user_not_with_the_phases():
    users = Users(sleep_s=0.5)
    before = now_ns()
    run(users, phase(arrival_count=1, duration_s=0.1))
    assert now_ns() - before >= 500_000_000
    assert users.finished == 1


def test_an_engine_far_behind_its_plan_ends_users_before_it_starts_all_that_are_due():
    active = []

    class Slow(Users):
        def start_vu(self, intended_ns):
            active.append(engine.progress().active_vus)
            time.sleep(0.0005)  # of work, for all: 250 ms for 100 ms of arrivals
            super().start_vu(intended_ns)

    users, wall = Slow(sleep_s=0.001), WallOffset()
    engine = Engine(users, [phase(arrival_count=500, duration_s=0.1)], Recorder(wall), wall, Random(1))
    engine.run(Listener())
    assert users.finished == 500
    assert max(active) < 100


def test_what_a_user_leaves_behind_neither_wakes_nor_reaches_the_next():
    known = ContextVar("known", default=0)

    class Forgetful(Users):
        def start_vu(self, intended_ns):
            super().start_vu(intended_ns)
            assert known.get() == 0
            known.set(intended_ns)
            wake = gevent.getcurrent().switch
            for leftover in (None, True, "x"):
                gevent.get_hub().loop.run_callback(wake, leftover)

    users = Forgetful(sleep_s=0.001)
    engine, total = run(users, phase(arrival_rate=200))
    assert len(users.intended) == users.finished == total.summaries[names.START_LAG].count == 40
    assert engine.progress().active_vus == 0


def test_an_arrival_over_the_limit_is_skipped_and_counted():
    users = Users(sleep_s=1.0)
    _, total = run(users, phase(arrival_rate=100, max_vusers=5))
    assert users.finished == 5
    assert total.counters[names.VUSERS_SKIPPED] == 15


def test_start_lag_is_recorded_for_each_arrival():
    _, total = run(Users(), phase(arrival_rate=100))
    assert total.summaries[names.START_LAG].count == 20
    assert total.summaries[names.START_LAG].min >= 0


def test_a_generator_that_hangs_starts_late_and_says_so():
    class Hog(Users):
        def start_vu(self, intended_ns):
            super().start_vu(intended_ns)
            if len(self.intended) == 1:
                end = now_ns() + 60_000_000
                while now_ns() < end:
                    pass

    _, total = run(Hog(), phase(arrival_rate=100))
    assert total.counters[names.LATE] >= 3
    assert total.summaries[names.START_LAG].max > 30


def test_phases_are_announced_in_order():
    seen = []
    listener = Listener(
        phase_started=lambda p: seen.append(("start", p.index)), phase_completed=lambda p: seen.append(("end", p.index))
    )
    run(Users(), phase(0, arrival_count=2, duration_s=0.05), phase(1, pause=True, duration_s=0.05), listener=listener)
    assert seen == [("start", 0), ("end", 0), ("start", 1), ("end", 1)]


def test_the_first_stop_ends_arrivals_and_lets_users_finish():
    users = Users(sleep_s=0.2)
    engine, _ = run(users, phase(arrival_rate=100, duration_s=10), stop_after=[0.1])
    assert engine.interrupted
    assert 1 <= users.finished == len(users.intended) < 500


def test_the_second_stop_ends_at_once():
    users = Users(sleep_s=5)
    before = now_ns()
    run(users, phase(arrival_rate=100, duration_s=10), stop_after=[0.1, 0.2])
    assert now_ns() - before < 4_000_000_000
    assert users.finished == 0


def test_users_that_do_not_finish_after_a_stop_are_given_up_after_the_grace_period(monkeypatch):
    monkeypatch.setattr(module, "GRACE_S", 0.2)
    before = now_ns()
    run(Users(sleep_s=5), phase(arrival_rate=100, duration_s=10), stop_after=[0.1])
    assert 250_000_000 < now_ns() - before < 4_000_000_000


class Defective(Users):
    """A program of which every other user raises what it should not."""

    def start_vu(self, intended_ns):
        super().start_vu(intended_ns)
        if self.finished % 2:
            raise KeyError(f"defect {self.finished}")


def test_a_defect_ends_its_user_and_not_the_run(capsys):
    users = Defective()
    engine, total = run(users, phase(arrival_rate=50))
    assert users.finished == 10
    assert total.counters["errors.KeyError"] == total.counters["vusers.failed"] == 5
    assert engine.defects() == ("a defect of this program ended 5 virtual users: KeyError: 'defect 1'",)
    shown = capsys.readouterr().err
    assert shown.count("Traceback") == 1
    assert "in start_vu" in shown


def test_progress_is_told_once_a_second():
    seen = []
    run(Users(sleep_s=1.2), phase(arrival_count=3, duration_s=0.1), listener=Listener(tick=seen.append))
    assert [p.active_vus for p in seen] == [3]
    assert 0.9 < seen[0].elapsed_s < 5


def test_shares_of_a_plan_are_every_nth_arrival_of_it():
    phases = (phase(arrival_rate=200, poisson=True),)
    offsets = []
    for share in (Share(), Share(0, 3), Share(1, 3), Share(2, 3)):
        users, wall = Users(), WallOffset()
        start_ns = now_ns() + 20_000_000
        Engine(users, phases, Recorder(wall), wall, Random(1), share).run(Listener(), start_ns)
        offsets.append([at - start_ns for at in users.intended])
    whole, *parts = offsets
    assert parts == [whole[index::3] for index in range(3)]
    assert len(whole) > 10


def test_a_share_has_its_part_of_the_users_at_once():
    users, wall = Users(sleep_s=1.0), WallOffset()
    Engine(users, (phase(arrival_rate=100, max_vusers=5),), Recorder(wall), wall, Random(1), Share(1, 2)).run(
        Listener()
    )
    assert users.finished == 2


def test_a_stop_before_the_start_sends_nothing():
    users, wall = Users(), WallOffset()
    engine = Engine(users, (phase(arrival_rate=100),), Recorder(wall), wall, Random(1))
    engine.stop()
    engine.run(Listener())
    assert not users.intended
