"""How long the commands on saved reports take. Prints a Markdown table of medians and bounds; exits 1 where a bound is
exceeded.

    python -m benchmarks.reports

Everything runs in this process except a command's start. The reports are synthetic: lognormal times from one seed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from reports.compare.diff import compare
from reports.formats.artillery_json import to_json
from reports.merge import merge_periods
from reports.model import PERIOD_MS, Extras, Period, Rate, Report, Summary
from reports.sketch import Sketch

START_MS = 1_790_000_000_000


def main() -> None:
    """Print the table; exit 1 where a bound is exceeded."""
    rng = np.random.default_rng(1)
    old, new = (large_report(rng, periods=1000, summaries=20, counters=179) for _ in range(2))
    workers = [period(rng, 0, summaries=20, counters=29) for _ in range(1000)]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("old.json", "new.json")]
        for path, report in zip(paths, (old, new), strict=True):
            path.write_text(to_json(report))
        size = sum(path.stat().st_size for path in paths) / 1e6
        rows = [
            ("diff of 2 x 1,000 periods x 200 metrics (20 summaries), loaded", 1.0, lambda: compare(old, new)),
            (
                f"the same by the command, from its start, from files ({size:.0f} MB)",
                None,
                lambda: command("diff", *map(str, paths)),
            ),
            ("merge of 1,000 workers' periods of 50 metrics (20 summaries)", 2.0, lambda: merge_periods(workers)),
            ("loadgen diff --help", 0.3, lambda: command("diff", "--help")),
        ]
        met = [show(*row) for row in rows]
    sys.exit(not all(met))


def show(what: str, bound_s: float | None, task: Callable[[], object]) -> bool:
    """A row of the table: the median of five runs."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        task()
        times.append(time.perf_counter() - began)
    median = statistics.median(times)
    print(f"{what:<66} {median:7.3f} s   {'' if bound_s is None else f'bound {bound_s:g} s'}")
    return bound_s is None or median < bound_s


def command(*args: str) -> None:
    """Run `loadgen` as a process of its own."""
    subprocess.run([sys.executable, "-m", "loadgen", *args], stdout=subprocess.DEVNULL, check=True)


def large_report(rng: np.random.Generator, periods: int, summaries: int, counters: int) -> Report:
    """A report as the recorder makes it, but larger."""
    return Report.of([period(rng, i, summaries, counters) for i in range(periods)], Extras("0", "open"))


def period(rng: np.random.Generator, index: int, summaries: int, counters: int) -> Period:
    """A period with `summaries` distributions of 500 samples, `counters` counters and a rate."""
    start = START_MS + index * PERIOD_MS
    samples = np.round(rng.lognormal(3, 0.6, (summaries, 500)), 3)
    sketches = {f"http.response_time.{i}": Sketch.of(row) for i, row in enumerate(samples)}
    return Period(
        start_ms=start,
        counters={f"http.codes.{200 + i}": int(count) for i, count in enumerate(rng.poisson(500, counters))},
        rates={"http.request_rate": Rate.of(500, start, start + PERIOD_MS - 20)},
        summaries={name: Summary.of(sketch) for name, sketch in sketches.items()},
        sketches=sketches,
        first_counter_ms=start,
        last_counter_ms=start + PERIOD_MS - 20,
    )


if __name__ == "__main__":
    main()
