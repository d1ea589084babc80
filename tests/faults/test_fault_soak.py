"""Memory, open files and answers over minutes of steady work: `--minutes` says how many."""

import time
from statistics import mean

import psutil
import pytest

from tests.support.fault_evidence import Row, check_writes, seen

CLIENTS = 8
MOST_GROWTH_MB = 4.0


def sample(pids):
    """Memory of its own (MB) and open files, by worker."""
    found = {}
    for pid in pids:
        process = psutil.Process(pid)
        found[pid] = process.memory_full_info().uss / 2**20, process.num_fds()
    return found


def growth(series):
    """From the second quarter (the first is warm-up) to the last."""
    quarter = len(series) // 4
    return mean(series[-quarter:]) - mean(series[quarter : 2 * quarter])


@pytest.mark.timeout(0)
def test_memory_and_open_files_stay_flat(service_on, database, load, record, workers, minutes):
    server, code = service_on(database.url)
    mix = ("create", "follow", "read", "health", "live")
    running = load(port=server.port, code=code, mix=mix, clients=CLIENTS, keep_alive=True, think_s=0.02)
    pids, samples = workers(server), []
    end_s = time.monotonic() + 60 * minutes
    while time.monotonic() < end_s:
        samples.append(sample(pids))
        time.sleep(0.5)
    assert workers(server) == pids, "no worker was replaced"
    outcomes = running.stop()

    assert all(o.good for o in outcomes), seen(outcomes)
    writes = check_writes(outcomes, database)
    memory_mb, files = ({pid: growth([each[pid][n] for each in samples]) for pid in pids} for n in range(2))
    assert max(memory_mb.values()) < MOST_GROWTH_MB, memory_mb
    assert max(files.values()) < 4, files
    rate = len(outcomes) / (60 * minutes)
    record(
        Row(
            order=50,
            fault=f"soak, {minutes:g} min, 2 workers",
            load=f"{CLIENTS} clients, {rate:.0f} requests/s",
            saw=seen(outcomes),
            longest_answer_s=max(o.took_s for o in outcomes),
            recovery=f"memory of a worker {mean(s[0] for s in samples[-1].values()):.0f} MB, "
            f"{max(memory_mb.values()):+.1f} MB from the second quarter to the last",
            **writes.columns(),
        )
    )
