"""What a claim is, and how it is judged: by its criterion, in each round, and never on a busy machine. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace

from loadgen.lab.evidence import Evidence
from loadgen.lab.turns import Spread
from reports.blocks import ABSENT, percent

REPRODUCED, PARTLY, NOT = "reproduced", "partly", "not reproduced"
NOT_JUDGED, UNMEASURED = "not judged", "not measured"

_COUNTED = {PARTLY: "partly reproduced"}

BUSY_SHARE = 0.1
"""Share of the machine's CPU that other programs may use during an experiment on speed or failures."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was measured, the verdict, and why in a few words."""

    measured: str
    verdict: str
    why: str
    brief: str = ABSENT
    """What was measured in a few words, to stand beside what was published."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of a source. `criterion` describes in words what `judge` decides by."""

    id: str
    source: str
    text: str
    published: str
    criterion: str
    needs: tuple[str, ...]
    """Experiments without which there is nothing to judge; "memory" and "restart" for those measurements."""
    judge: Callable[[Evidence], Finding]
    about_load: bool = True
    """Whether other programs that use the CPU may change the outcome."""
    by_rounds: bool = True
    """Whether each round is judged; otherwise all requests together are, since one failure is one too many."""
    figure: tuple[str, str, Callable[[Evidence], float | None]] | None = None
    """The figure that decides, to be shown with its spread: its name, its format, and how it is computed."""

    def finding(self, evidence: Evidence) -> Finding:
        """Judges the claim.

        The verdict is "not measured" where an experiment it needs was not run to its end, and "not judged" where other
        programs used more than BUSY_SHARE of the machine's CPU during one of them, or where not all rounds say the same.
        """
        missing = [need for need in self.needs if not has(evidence, need)]
        if missing:
            return Finding("-", UNMEASURED, f"without {', '.join(missing)}")
        rounds = evidence.of_each_round(self.needs)
        found = self._over_rounds(self.judge(evidence), rounds)
        busy = self._busiest(evidence)
        return replace(found, verdict=NOT_JUDGED, why=busy) if busy else found

    def _over_rounds(self, found: Finding, rounds: Sequence[Evidence]) -> Finding:
        """The finding on all rounds together, with the spread of its figure; not judged where rounds disagree."""
        if self.figure and rounds:
            name, style, compute = self.figure
            values = [value for value in map(compute, rounds) if value is not None]
            if values:
                low, middle, high = (style.format(value) for value in astuple(Spread.of(values)))
                found = replace(found, measured=f"{found.measured}; {name} by round: median {middle}, {low} to {high}")
        if not (rounds and self.by_rounds):
            return found
        counted = Counter(self.judge(each).verdict for each in rounds)
        if len(counted) == 1:
            return replace(found, verdict=next(iter(counted)))
        said = ", ".join(f"{verdict} in {number}" for verdict, number in counted.most_common())
        return replace(found, verdict=NOT_JUDGED, why=f"the rounds disagree ({said} of {len(rounds)}); {found.why}")

    def _busiest(self, evidence: Evidence) -> str | None:
        """A sentence on the experiment with which other programs interfered most; None where they used little CPU."""
        runs = {need: run for need in self.needs if self.about_load and (run := evidence.run_of(need))}
        shares = {need: run.others_share or 0.0 for need, run in runs.items()}
        need = max(shares, key=shares.__getitem__, default="")
        if not need or shares[need] <= BUSY_SHARE:
            return None
        return (
            f"the machine was busy: other programs used {percent(shares[need])} of its CPU during {runs[need].title}"
            f" (more than {percent(BUSY_SHARE)} is too much to judge)"
        )


def has(evidence: Evidence, need: str) -> bool:
    """Whether an experiment, or another measurement, was made to its end."""
    if need in ("memory", "restart"):
        return getattr(evidence, need) is not None
    run = evidence.run_of(need)
    return run is not None and not run.partial


def counted(verdicts: Sequence[str]) -> str:
    """Numbers of verdicts in words, such as "5 reproduced, 1 not judged"."""
    known = (REPRODUCED, PARTLY, NOT, NOT_JUDGED, UNMEASURED)
    return ", ".join(f"{verdicts.count(v)} {_COUNTED.get(v, v)}" for v in known if v in verdicts)
