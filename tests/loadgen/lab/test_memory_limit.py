"""A real limit of memory, by a control group of the kernel."""

import contextlib
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest

from loadgen.lab import memory_limit
from loadgen.lab.database import limited_database
from loadgen.lab.memory_limit import MemoryCounts, MemoryLimit, NoMemoryLimit, find_home
from loadgen.lab.stack import query


def can_limit():
    with contextlib.suppress(NoMemoryLimit), MemoryLimit(64):
        return True
    return False


needs_limit = pytest.mark.skipif(not can_limit(), reason="no limit of memory can be set here")


def groups_of(pid):
    return Path(f"/proc/{pid}/cgroup").read_text()


def run_inside(limit, source):
    with limit.inside():
        process = subprocess.Popen([sys.executable, "-c", source])
    with process:
        try:
            return process.wait(20)
        finally:
            process.kill()


@needs_limit
def test_who_takes_more_than_the_limit_is_killed_and_counted():
    with MemoryLimit(64) as limit:
        assert run_inside(limit, "bytearray(100 << 20)") == -9
        assert limit.counts().oom_kills == 1
        assert limit.peak_mb() == pytest.approx(64, abs=1)


@needs_limit
def test_who_stays_below_it_is_not():
    with MemoryLimit(256) as limit:
        assert run_inside(limit, "bytearray(50 << 20)") == 0
        assert limit.counts() == MemoryCounts(0, 0)
        assert 50 < limit.peak_mb() < 256


@needs_limit
def test_cache_is_given_up_before_anybody_is_killed(tmp_path):
    source = f"f = open({str(tmp_path / 'big')!r}, 'wb')\nfor _ in range(100): f.write(bytes(1 << 20))"
    with MemoryLimit(64) as limit:
        assert run_inside(limit, source) == 0
        assert limit.counts().limit_hits > 0
        assert limit.counts().oom_kills == 0


@needs_limit
def test_the_one_who_starts_the_process_only_visits_and_the_group_goes():
    before = groups_of("self")
    with MemoryLimit(64) as limit:
        with limit.inside():
            assert groups_of("self") != before
        assert groups_of("self") == before
        folder = limit._folder
        assert folder.exists()
    assert not folder.exists()


@needs_limit
def test_a_group_that_a_killed_lab_left_behind_is_removed():
    with subprocess.Popen(["true"]) as ended:
        """A process that has ended."""
    with MemoryLimit(64) as limit:
        left = limit._folder.with_name(f"poolbench-lab-{ended.pid}")
        left.mkdir()
    with MemoryLimit(64):
        assert not left.exists()


@pytest.mark.slow
@needs_limit
def test_a_database_without_memory_loses_a_backend_recovers_and_says_so():
    told = []
    with limited_database(100, 10, told.append) as database:
        database.watch_memory()
        with pytest.raises(psycopg2.OperationalError, match="closed the connection unexpectedly"):
            query(database.url, "SELECT length(string_agg(repeat('x', 1000000), '')) FROM generate_series(1, 300)")
        use = database.memory_use()
        assert query(database.url, "SELECT 1") == [(1,)]
    assert use.oom_kills >= 1
    assert use.limit_hits > 0
    assert use.answers_afterwards
    assert use.peak_mb == pytest.approx(100, abs=2)
    assert use.pss_mb > 0
    assert "control group" in told[0]


def test_where_no_limit_can_be_set_the_database_runs_without_and_that_is_told(monkeypatch):
    def refuse(*_):
        raise NoMemoryLimit("the reason")

    monkeypatch.setattr(memory_limit, "find_home", refuse)
    told = []
    with limited_database(100, 150, told.append) as database:
        use = database.memory_use()
        assert query(database.url, "SHOW max_connections") == [("170",)]
    assert use.limit_mb is use.peak_mb is use.oom_kills is None
    assert "WITHOUT" in told[0] and "the reason" in told[0]


def test_v1_allows_a_group_in_our_own(tmp_path):
    (tmp_path / "memory" / "jobs" / "one").mkdir(parents=True)
    found = find_home("9:cpu:/\n4:memory:/jobs/one\n0::/\n", tmp_path)
    assert (found.version, found.base) == (1, tmp_path / "memory" / "jobs" / "one")


def test_v1_in_a_container_sees_its_own_group_as_the_root(tmp_path):
    (tmp_path / "memory").mkdir()
    assert find_home("4:memory:/docker/4711\n", tmp_path).base == tmp_path / "memory"


def test_v2_allows_one_where_the_controller_is_handed_down(tmp_path):
    own = tmp_path / "user.slice" / "session.scope"
    own.mkdir(parents=True)
    (own / "cgroup.subtree_control").write_text("\n")
    (tmp_path / "user.slice" / "cgroup.subtree_control").write_text("memory pids\n")
    found = find_home("0::/user.slice/session.scope\n", tmp_path)
    assert (found.version, found.base, found.own) == (2, tmp_path / "user.slice", own)


@pytest.mark.parametrize("groups", ["", "0::/\n", "0::/somewhere\n", "3:cpu:/\n"])
def test_without_a_memory_controller_there_is_no_home_for_a_limit(tmp_path, groups):
    with pytest.raises(NoMemoryLimit, match="not handed down"):
        find_home(groups, tmp_path)
