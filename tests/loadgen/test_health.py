"""The generator watches itself, and says so when a figure is its own."""

import gc
import resource

import pytest

from loadgen.clock import WallOffset, now_ns
from loadgen.health import HealthWatch, health, undisturbed
from loadgen.recorder import Recorder
from reports.model import Period

WELL = {
    "wall_s": 10.0, "cpu_s": 2.0, "cpu_share": 0.2, "kernel_stamped": 5, "responses": 5,
    "open_files": 20, "open_files_limit": 1000, "ports_taken": 50, "ports": 28000,
}  # fmt: skip


def test_health_names_the_generators_own_limits():
    recorder = Recorder(WallOffset())
    watch = HealthWatch()
    watch.started_ns -= 2_000_000_000
    watch.cpu_s -= 2.0
    recorder.started(now_ns() - 100_000_000)
    figures, warnings = watch.health(recorder)
    assert figures["cpu_share"] > 0.9
    assert figures["late_starts"] == 1
    assert len(warnings) == 2


def test_a_healthy_generator_is_not_warned_of():
    assert health([WELL], Period(0))[1] == ()


@pytest.mark.parametrize(
    ("figures", "counters", "said"),
    [
        ({"cpu_share": 0.9}, {}, "used 90% of a core"),
        ({"open_files": 950}, {}, "950 files were open of 1000"),
        ({}, {"errors.EMFILE": 3}, "3 connections failed"),
        ({"ports_taken": 27_000}, {}, "27000 of 28000 local ports"),
        ({}, {"errors.EADDRNOTAVAIL": 4}, "4 connections failed"),
    ],
)
def test_what_runs_out_is_named(figures, counters, said):
    _, warnings = health([WELL | figures], Period(0, counters=counters))
    assert len(warnings) == 1
    assert said in warnings[0]


def test_of_several_processes_the_busiest_counts():
    figures, warnings = health([WELL, WELL | {"cpu_share": 0.95}], Period(0))
    assert (figures["workers"], figures["cpu_share"], figures["cpu_s"], figures["responses"]) == (2, 0.95, 4.0, 10)
    assert "95%" in warnings[0]


def test_open_files_are_seen(tmp_path):
    watch = HealthWatch()
    opened = [open(tmp_path / "x", "w") for _ in range(30)]  # noqa: SIM115, PTH123
    watch.sample()
    for file in opened:
        file.close()
    assert watch.open_files >= 33


def test_while_undisturbed_files_are_plenty_and_collections_rare_and_afterwards_as_before():
    limits, thresholds = resource.getrlimit(resource.RLIMIT_NOFILE), gc.get_threshold()
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1] // 2, limits[1]))
    with undisturbed():
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == limits[1]
        assert gc.get_threshold()[0] > thresholds[0]
        assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == thresholds
    assert gc.get_freeze_count() == 0


def test_first_bytes_that_a_later_segment_dates_are_counted_in_a_sentence():
    examined = {"first_bytes_examined": 1000, "first_bytes_of_later_segment": 17}
    alone, _ = health([WELL | examined], Period(0))
    told = "of 1,000 answers examined (one in 16), 17 (1.7%) were read in several segments"
    assert alone["first_byte"].startswith(told)
    together, _ = health([WELL | examined, WELL | examined], Period(0))
    assert together["first_byte"].startswith("of 2,000 answers examined (one in 16), 34 (1.7%)")
    assert "first_byte" not in health([WELL], Period(0))[0]
