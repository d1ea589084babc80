"""Checks whether the predictions of `loadgen plan` come true, for 30 arrangements, and its advice, for 8. Takes 40 minutes.

    python -m benchmarks.planning [--only 3,a7] [--minutes 30] [--into FILE] [--write]

An arrangement is a kind of worker (gevent, threads, sync) and their number, the CPU time, the statement's time and the pool's
size (`benchmarks/arrangements.py`). Thirty are drawn at random; to develop the model, draw others (`--draw`). Each is measured
calmly once, with many connections and two fifths of the rate at which the arrangement is full. From that report alone `plan`
predicts two more runs. One has as many users as keep everything busy, each asking again when it has its answer: its rate, the
knee's, must come true within 10 %. The other has 70 % of the rate of the knee as it was measured: the mean wait for a connection
(within 10 % or 0.5 ms) and the p99 of the response time (within 15 % or 2 ms) must come true. Nearer to the knee, two runs of
one arrangement differ by more than that.

These two runs are made twice, and the mean of the measured values counts. Where they differ by more than the prediction may be
off, and it is no further away from the nearer one, it "cannot be judged". `late` is the p99 of how far the generator fell behind
its plan: where it is not small, the machine was busy with something else, and the row counts for nothing. The programs that are
measured go before all others (real time), and the generator, which shares the cores with them, before them, if started by root.
The calm run asks for statements that are spread evenly over their distribution, each once. The mean wait of a few seconds
varies by chance more than 10 %, so the simulation gets the instants at which the requests of the run were sent, and the rank of
each one's statement; how long connections are held and what requests cost comes from the calm run. `chance` is what this saves:
half of the 95 % interval of the mean wait of such a run, from 20 simulated ones with arrivals of their own. Of several workers,
the simulation is also given the one that each request came to, which is the kernel's choice; `split unknown` is the mean wait
without that, between what `plan` says and what its doubt says.

Advice ("to change first") is checked by making each of the four changes, at the rate that `plan` was asked about: twice the
workers with as many connections in all, twice the connections, a statement that takes half of the time, half of the pool. What
counts is the share of requests that are answered well within the p99 asked for. The advised change must raise it, and none of the
others may raise it by more than the run itself varies; a smaller pool must not lower it.

`--into` keeps what was measured so far in a file, so that the arrangements can be measured in several parts: those in it are
not measured again, unless they were late. `--minutes` ends a part in time. `--write` puts the tables into docs/planning.md.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from pathlib import Path
from time import monotonic

import numpy as np

from benchmarks.arrangements import (
    APPLICATION,
    LOADED,
    PlannedArrangement,
    Run,
    Statements,
    before_others,
    evenly,
    knee,
    run,
    serving,
    started,
)
from benchmarks.awake import cores_awake
from loadgen.lab.own_app import Arrangement as Arranged
from loadgen.sizing.course import Arrangement
from loadgen.sizing.grounds import grounds
from loadgen.sizing.measured import POOL, MeasuredWorkload, workload
from loadgen.sizing.predict import Question, knee_per_s, predict, requests
from loadgen.sizing.remedy import remedy
from reports import names
from reports.formats import markdown
from reports.model import Report, ReportError

CALM, CALM_REQUESTS, CALM_S = 0.4, 300, 8
"""The calm run: its share of the rate at which the arrangement is full, and its least length."""
BELOW, BELOW_REQUESTS, BELOW_S = 0.7, 500, 8
"""The run below the knee: its share of the knee's rate, and its least length."""
KNEE_S = 3
MANY = 20
WAIT_WITHIN, WAIT_MS, TAIL_WITHIN, TAIL_MS, KNEE_WITHIN = 0.10, 0.5, 0.15, 2.0, 0.10
LATE_MS = 2.0
"""On a quiet machine it is less than 1."""
SEEDS, CHANCE_FROM_MS = 20, 1.0
GUIDE = Path(__file__).parents[1] / "docs" / "planning.md"
MARKS = "<!-- benchmarks/planning.py writes from here -->", "<!-- to here -->"
ADVICE_MARKS = "<!-- benchmarks/planning.py writes the advice from here -->", "<!-- the advice to here -->"
CHANGES = ("more workers", "more connections", "cheaper statement", "smaller pool")
SHARE_DIFFERS, SHARE_UNCLEAR = 0.01, 0.1
"""Shares that differ by less are taken as the same; where two runs without a change differ by more, advice cannot be judged."""
TURNS = 2
ADVICE_S = 6
BESIDE_MS, MOST_CORES, LEAST_PER_S = 2.0, 1.3, 50.0
DRAWN = 2029
"""Of the arrangements in the table; none of them was used to develop the model."""


def drawn(seed: int) -> tuple[PlannedArrangement, ...]:
    """Thirty arrangements drawn at random: 12 of gevent, 10 of threads, 8 of sync workers.

    Drawn again if they would need more of the two cores than a machine can spare beside the database and the generator, or take
    long to measure.
    """
    rng = np.random.default_rng(seed)
    found: list[PlannedArrangement] = []
    for worker, count in (("gevent", 12), ("gthread", 10), ("sync", 8)):
        rows: list[PlannedArrangement] = []
        while len(rows) < count:
            workers = int(rng.integers(1, 5)) if worker == "sync" else int(rng.choice([1, 1, 1, 2]))
            size = 1 if worker == "sync" else int(rng.integers(2, 11))
            row = PlannedArrangement(worker, workers, round(12.0 ** rng.random()), float(rng.integers(5, 61)), size)
            needed_cores = row.full_per_s * (row.cpu_ms + BESIDE_MS) / 1000
            if row.full_per_s >= LEAST_PER_S and needed_cores <= MOST_CORES and row not in rows:
                rows.append(row)
        found += rows
    return tuple(found)


def other(text: str) -> PlannedArrangement:
    """The arrangement of a text: kind of worker, workers, CPU ms, statement ms, size."""
    worker, workers, cpu_ms, statement_ms, size = text.split(",")
    return PlannedArrangement(worker, int(workers), float(cpu_ms), float(statement_ms), int(size))


@dataclass(frozen=True)
class AdvisedArrangement:
    """An arrangement whose p99 is to be within a target, at the rate of its load."""

    arrangement: PlannedArrangement
    load: float
    """Share of the rate at which the arrangement is full, as estimated from its figures."""
    p99_ms: float

    @property
    def rate_per_s(self) -> float:
        """Requests per second that are asked for."""
        return self.load * self.arrangement.full_per_s

    def __str__(self) -> str:
        return f"changes of {self.arrangement}"

    def changed(self, change: str) -> PlannedArrangement:
        """The arrangement after one of the changes; the rate remains."""
        now = self.arrangement
        if change == "more workers":
            return replace(now, workers=2 * now.workers, size=(now.size + 1) // 2)
        if change == "more connections":
            return replace(now, size=2 * now.size)
        if change == "cheaper statement":
            return replace(now, statement_ms=now.statement_ms / 2)
        return replace(now, size=(now.size + 1) // 2) if change == "smaller pool" else now


ADVISED = tuple(
    AdvisedArrangement(PlannedArrangement(worker, workers, cpu_ms, statement_ms, size), load, p99_ms)
    for worker, workers, cpu_ms, statement_ms, size, load, p99_ms in (
        ("gevent", 1, 8, 20, 10, 1.2, 250),
        ("gthread", 1, 15, 20, 8, 1.2, 250),
        ("sync", 2, 3, 10, 1, 1.2, 250),
        ("gevent", 1, 1, 20, 4, 1.2, 250),
        ("gthread", 1, 1, 40, 4, 1.2, 400),
        ("gevent", 1, 1, 40, 10, 0.4, 120),
        ("gthread", 1, 3, 40, 8, 0.4, 120),
        ("gevent", 1, 8, 5, 20, 0.6, 250),
    )
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of an arrangement."""

    arrangement: PlannedArrangement
    calm: Report
    """The run that `plan` predicts from."""
    rate_per_s: float
    """Requests per second below the knee."""
    below: tuple[Run, ...]
    """Runs below the knee, with the same arrivals."""
    knees_per_s: tuple[float, ...]
    """Answers per second with everything busy."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What the four changes did to an arrangement."""

    advised: AdvisedArrangement
    calm: Report
    within: dict[str, list[float]]
    """By change, and "none": share of requests that were answered well within the p99 asked for, in each run."""
    late_ms: float
    """The p99 of how late the requests of the runs were sent: the latest of them."""


def measure(arrangement: PlannedArrangement, folder: Path) -> Measured:
    """Run an arrangement calmly once, and with everything busy and below the knee, each twice."""
    knees, below = [], []
    with started(arrangement, folder) as parts:
        calm = measure_calm(parts, arrangement, folder)
        with serving(parts, arrangement, arrangement.size, folder) as port:
            knees.append(knee(port, arrangement, KNEE_S))
            per_s = BELOW * knees[0]
            seconds = max(BELOW_S, ceil(BELOW_REQUESTS / per_s))
            for _ in range(TURNS):
                asked = Statements(arrangement.statement_ms, LOADED)
                below.append(run(port, arrangement, asked, per_s, seconds, folder))
            knees.append(knee(port, arrangement, KNEE_S))
    return Measured(arrangement, calm, per_s, tuple(below), tuple(knees))


def measure_calm(parts: Arranged, arrangement: PlannedArrangement, folder: Path) -> Report:
    """The report that `plan` gets."""
    per_s = CALM * arrangement.full_per_s
    seconds = max(CALM_S, ceil(CALM_REQUESTS / per_s))
    asked = evenly(arrangement, per_s, seconds)
    with serving(parts, arrangement, MANY if arrangement.slots != 1 else 1, folder) as port:
        return run(port, arrangement, asked, per_s, seconds, folder).report


def measure_changes(advised: AdvisedArrangement, folder: Path) -> Tried:
    """Run an arrangement calmly, and then loaded without and with each change."""
    with started(advised.arrangement, folder) as parts:
        calm = measure_calm(parts, advised.arrangement, folder)
    within: dict[str, list[float]] = {}
    late = lag_ms(calm)
    for change in ("none", *CHANGES, "none"):
        changed = advised.changed(change)
        with started(changed, folder) as parts, serving(parts, changed, changed.size, folder) as port:
            asked = Statements(changed.statement_ms, LOADED)
            done = run(port, changed, asked, advised.rate_per_s, ADVICE_S, folder)
        within.setdefault(change, []).append(float(np.mean(done.took_ms <= advised.p99_ms)))
        late = max(late, lag_ms(done.report))
    return Tried(advised, calm, within, late)


def question(arrangement: PlannedArrangement, base: MeasuredWorkload, rate_per_s: float) -> Question:
    """What `plan` is asked."""
    worker = Arrangement(
        servers=arrangement.workers,
        size=arrangement.size,
        timeout_s=5.0,
        slots=arrangement.slots,
        turn_s=0.005 if arrangement.worker == "gthread" else float("inf"),
        cores=os.cpu_count() or 1,
    )
    return Question(base, worker, (arrangement.size,), rate_per_s, arrival_variation=1.0, requests=10_000)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, as measured in each run and as predicted for its arrivals, and how far the prediction may be off."""

    name: str
    seen: tuple[float, ...]
    said: tuple[float, ...]
    share: float
    least: float = 0.0

    @property
    def verdict(self) -> str:
        """Whether the prediction is right: `met`, `missed` or `cannot be judged`."""
        mean = float(np.mean(self.seen))
        bar = max(self.share * mean, self.least)
        # Run by run, as their requests may have come to other workers.
        off = np.subtract(self.said, self.seen)
        if off.min() > bar or off.max() < -bar:
            return "missed"
        if np.ptp(off) > bar:
            return "cannot be judged" if np.ptp(self.seen) > bar else "missed"
        return "met" if abs(off.mean()) <= bar else "missed"


def chance(asked: Question, rows: int, mean_ms: float) -> float:
    """Half of the 95 % interval of the mean wait of a run of so many requests, as a share of it."""
    means = []
    for seed in range(SEEDS):
        other = replace(asked, seed=seed + 1, requests=rows)
        drawn = replace(requests(other), counts_all=True)
        means.append(next(predict(other, drawn)).wait_mean_ms)
    return 1.96 * float(np.std(means, ddof=1)) / mean_ms


def lag_ms(report: Report) -> float:
    """The p99 of how late the requests of a run were sent."""
    return report.aggregate.sketches[names.START_LAG].quantile(0.99)


def late_ms(measured: Measured | Tried) -> float:
    """The p99 of how late requests were sent, in the latest of the runs."""
    if isinstance(measured, Tried):
        return measured.late_ms
    return max(map(lag_ms, (measured.calm, *(each.report for each in measured.below))))


def compare(arrangement: PlannedArrangement, measured: Measured) -> tuple[Figure, ...]:
    """Predict an arrangement from its calm run, and compare. Raises ReportError if the calm run allows no plan."""
    base = workload(measured.calm)
    grounds(measured.calm, base, arrangement.workers)
    asked = question(arrangement, base, measured.rate_per_s)
    waits_said, tails_said = zip(*(predicted(asked, each) for each in measured.below), strict=True)
    # The users of the knee's run all ask for the same statement.
    alike = requests(asked)
    alike = replace(alike, holds_s=np.full(len(alike.holds_s), alike.holds_s.mean()))
    knee_said = knee_per_s(asked, asked.of_size(arrangement.size), alike)
    sketches = [each.report.aggregate.sketches for each in measured.below]
    waits_ms = tuple(each[POOL].mean for each in sketches)
    tails_ms = tuple(each[names.RESPONSE_TIME].quantile(0.99) for each in sketches)
    return (
        Figure("mean wait", waits_ms, waits_said, WAIT_WITHIN, WAIT_MS),
        Figure("p99", tails_ms, tails_said, TAIL_WITHIN, TAIL_MS),
        Figure("knee", measured.knees_per_s, (knee_said,), KNEE_WITHIN),
    )


def predicted(asked: Question, below: Run) -> tuple[float, float]:
    """Mean wait and p99 in ms of a run below the knee."""
    (said,) = predict(asked, replace(requests(asked, below.arrived_s, below.shares), servers=below.workers))
    return said.wait_mean_ms, said.response_p99_ms


def split_unknown(asked: Question, below: Run) -> str:
    """Mean waits in ms if an idle worker gets the next request, at random, and if always the first; empty for one line of all."""
    if asked.arrangement.servers == 1 or asked.arrangement.slots == 1:
        return ""
    made = requests(asked, below.arrived_s, below.shares)
    both = (replace(asked.arrangement, prefers_first=prefers) for prefers in (False, True))
    waits_ms = [next(predict(replace(asked, arrangement=each), made)).wait_mean_ms for each in both]
    return f"{min(waits_ms):.2f} to {max(waits_ms):.2f}"


def verdict(figures: Sequence[Figure]) -> str:
    """The verdict of a row: what was missed, or else what cannot be judged, or else `met`."""
    for worst in ("missed", "cannot be judged"):
        if found := [each.name for each in figures if each.verdict == worst]:
            return f"{worst}: {', '.join(found)}"
    return "met"


def table(found: Mapping[int, Measured]) -> str:
    """The Markdown of all rows, and how many predictions were right."""
    before = ("number", "arrangement", "requests/s", "late p99, ms", "mean wait, ms, measured", "predicted", "chance")
    headings = (*before, "split unknown", "p99, ms, measured", "predicted", "knee/s, measured", "predicted", "")
    rows, judged = [], []
    for number, measured in sorted(found.items()):
        arrangement = measured.arrangement
        start = (str(number), str(arrangement), f"{measured.rate_per_s:.0f}", f"{late_ms(measured):.1f}")
        try:
            figures = compare(arrangement, measured)
        except ReportError as error:
            rows.append((*start, *[""] * 8, f"not counted: {error}"))
            continue
        is_late = late_ms(measured) > LATE_MS
        if not is_late:
            judged.append(figures)
        cells = [
            (shown(each.seen, digits), shown(each.said, digits))
            for each, digits in zip(figures, (2, 1, 1), strict=True)
        ]
        asked = question(arrangement, workload(measured.calm), measured.rate_per_s)
        mean_ms = float(np.mean(figures[0].seen))
        rows_sent = len(measured.below[0].arrived_s)
        by_chance = f"{chance(asked, rows_sent, mean_ms):.0%}" if mean_ms >= CHANCE_FROM_MS else ""
        by_split = split_unknown(asked, measured.below[0])
        rows.append(
            (*start, *cells[0], by_chance, by_split, *cells[1], *cells[2], "late" if is_late else verdict(figures))
        )
    return f"{markdown.table(headings, rows)}\n\n{tally(judged)} {len(rows) - len(judged)} not counted."


def shown(values: Sequence[float], digits: int) -> str:
    """The values of all runs."""
    return ", ".join(f"{value:.{digits}f}" for value in values)


def tally(judged: Sequence[Sequence[Figure]]) -> str:
    """How many predictions of each figure were right, of those that can be judged."""
    said = []
    for each in zip(*judged, strict=True):
        verdicts = [figure.verdict for figure in each]
        open_ = verdicts.count("cannot be judged")
        right = f"{each[0].name}: {verdicts.count('met')} of {len(verdicts) - open_} met"
        said.append(f"{right}, {open_} cannot be judged" if open_ else right)
    return f"{'; '.join(said)}." if said else "Nothing was judged."


@dataclass(frozen=True, slots=True)
class Advice:
    """What `plan` says to change first, and what each change did."""

    change: str
    tried: Tried

    @property
    def is_right(self) -> bool:
        """Whether the change helps, and no other one helps more than runs differ."""
        means = {change: float(np.mean(shares)) for change, shares in self.tried.within.items()}
        if self.change not in CHANGES:
            return False
        differ = max(SHARE_DIFFERS, abs(self.tried.within["none"][0] - self.tried.within["none"][1]))
        if self.change == "smaller pool":
            return means[self.change] >= means["none"] - differ
        best = max(means[change] for change in CHANGES)
        return means[self.change] > means["none"] + differ and means[self.change] >= best - differ


def advice(tried: Tried) -> Advice:
    """Ask `plan`, from the calm run, what to change first. Raises ReportError if that allows no plan."""
    advised, arrangement = tried.advised, tried.advised.arrangement
    base = workload(tried.calm)
    grounds(tried.calm, base, arrangement.workers)
    asked = question(arrangement, base, advised.rate_per_s)
    sizes = tuple(sorted({(arrangement.size + 1) // 2, arrangement.size}))
    asked = replace(asked, sizes=sizes, p99_ms=advised.p99_ms)
    return Advice(remedy(asked, list(predict(asked)))[0], tried)


def advice_table(found: Mapping[int, Tried]) -> str:
    """The Markdown of what each change did, and how often the advice was right."""
    headings = ("arrangement", "requests/s", "p99 asked for, ms", "plan says", "as it is", *CHANGES, "")
    rows, right, counted = [], 0, 0
    for _, tried in sorted(found.items()):
        advised = tried.advised
        arrangement = advised.arrangement
        start = (str(arrangement), f"{advised.rate_per_s:.0f}", f"{advised.p99_ms:g}")
        try:
            given = advice(tried)
        except ReportError as error:
            rows.append((*start, f"nothing: {error}", *[""] * 6))
            continue
        unclear = np.ptp(tried.within["none"]) > SHARE_UNCLEAR
        unknown = "late" if tried.late_ms > LATE_MS else "cannot be judged" if unclear else ""
        right += given.is_right and not unknown
        counted += not unknown
        shares = (", ".join(f"{share:.1%}" for share in tried.within[each]) for each in ("none", *CHANGES))
        rows.append((*start, given.change, *shares, unknown or ("right" if given.is_right else "wrong")))
    return f"{markdown.table(headings, rows)}\n\n{right} of {counted} right; {len(rows) - counted} not counted."


def main() -> None:
    """Go through the arrangements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", type=int, default=DRAWN, help=f"number that draws the arrangements ({DRAWN})")
    parser.add_argument("--only", help="numbers of arrangements, separated by commas (all), and a1 ... a8 for advice")
    parser.add_argument(
        "--other", action="append", default=[], metavar="gevent,1,2,10,3", help="one of your own, instead"
    )
    parser.add_argument("--minutes", type=float, default=inf, help="begin no arrangement after so many minutes")
    parser.add_argument("--into", type=Path, help="file that keeps what was measured")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/planning.md")
    given = parser.parse_args()
    arrangements = [other(text) for text in given.other] or drawn(given.draw)
    all_of: dict[str, PlannedArrangement | AdvisedArrangement] = {str(i + 1): row for i, row in enumerate(arrangements)}
    if not given.other:
        all_of |= {f"a{i + 1}": row for i, row in enumerate(ADVISED)}
    asked = given.only.split(",") if given.only else list(all_of)
    if unknown := set(asked) - set(all_of):
        parser.error(f"--only: no such arrangement: {', '.join(sorted(unknown))}")
    chosen = {key: all_of[key] for key in asked}
    kept: dict[str, Measured | Tried] = {}
    if given.into is not None and given.into.exists():
        # Not those of another draw.
        kept = {k: found for k, found in pickle.loads(given.into.read_bytes()).items() if is_of(found, all_of.get(k))}
    ends_s = monotonic() + given.minutes * 60
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "planned.py").write_text(APPLICATION)
        for key, row in chosen.items():
            if is_kept(kept.get(key), row) or monotonic() > ends_s:
                continue
            kept[key] = measure(row, folder) if isinstance(row, PlannedArrangement) else measure_changes(row, folder)
            print(f"{key}: {row}, late {late_ms(kept[key]):.1f} ms", file=sys.stderr, flush=True)
            if given.into is not None:
                given.into.write_bytes(pickle.dumps(kept))
    accuracy = table({int(key): each for key, each in kept.items() if isinstance(each, Measured)})
    advised = {int(key[1:]): each for key, each in kept.items() if isinstance(each, Tried)}
    print(accuracy, advice_table(advised), sep="\n\n")
    if given.write:
        text = with_table(GUIDE.read_text(), MARKS, accuracy)
        GUIDE.write_text(with_table(text, ADVICE_MARKS, advice_table(advised)) if advised else text)


def is_kept(found: Measured | Tried | None, row: PlannedArrangement | AdvisedArrangement) -> bool:
    """Whether what was found is of this arrangement, and was measured in time."""
    return found is not None and late_ms(found) <= LATE_MS and is_of(found, row)


def is_of(found: Measured | Tried, row: PlannedArrangement | AdvisedArrangement | None) -> bool:
    """Whether what was found is of this arrangement."""
    return row == (found.arrangement if isinstance(found, Measured) else found.advised)


def with_table(text: str, marks: tuple[str, str], written: str) -> str:
    """The text with a table between two marks."""
    before, mark, after = text.partition(marks[0])
    return f"{before}{mark}\n{written}\n{marks[1]}{after.partition(marks[1])[2]}"


if __name__ == "__main__":
    with cores_awake():
        before_others()
        main()
