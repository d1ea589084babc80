"""Writes to stdout what Artillery's console shows, in Artillery's order, while a run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable

from loadgen.script.model import Phase
from reports.formats import artillery_text
from reports.model import Period, Report
from reports.printable import printable

_KEPT = "\n\t"

Write = Callable[[str], None]


class Console:
    """Writes whole lines, with their newlines, to `write`.

    With `quiet`, only the run id, lines of `log` steps, expectations and checks are written.
    """

    def __init__(
        self,
        write: Write,
        *,
        hidden: tuple[str, ...] = artillery_text.HIDDEN,
        quiet: bool = False,
        colour: bool = False,
        width: int = artillery_text.WIDTH,
    ) -> None:
        self._write = write
        self._quiet = quiet
        self._hidden = hidden
        self._colour = colour
        self._width = width

    def run_id(self, run_id: str) -> None:
        """Write the id of the run; this comes first."""
        self._write(artillery_text.run_id_line(run_id))

    def line(self, text: str) -> None:
        """Write a line of a `log` step or of an expectation."""
        self._write(f"{printable(text, _KEPT)}\n")

    def phase_started(self, phase: Phase) -> None:
        """Write that a phase starts now."""
        self._loud(
            artillery_text.phase_started(phase.name, phase.index, phase.duration_text, _now_ms(), colour=self._colour)
        )

    def phase_completed(self, phase: Phase) -> None:
        """Write that a phase ends now."""
        self._loud(
            artillery_text.phase_completed(phase.name, phase.index, phase.duration_text, _now_ms(), colour=self._colour)
        )

    def period(self, period: Period) -> None:
        """Write the report of a period that is over."""
        if period.counters or period.summaries or period.rates:
            self._loud(artillery_text.period_text(period, hidden=self._hidden, colour=self._colour, width=self._width))

    def summary(self, report: Report) -> None:
        """Write how long the run took, counted from the first metric, and the summary report."""
        now_ms = _now_ms()
        first_ms = report.aggregate.first_metric_ms
        self._loud(artillery_text.finished_text(0.0 if first_ms is None else (now_ms - first_ms) / 1000))
        self._loud(
            artillery_text.summary_text(report, now_ms, hidden=self._hidden, colour=self._colour, width=self._width)
        )

    def log_file(self, path: str) -> None:
        """Write where the JSON report is; this comes after the summary."""
        self._loud(artillery_text.log_file_line(path))

    def apdex(self, line: str) -> None:
        """Write the score of the apdex plugin."""
        self._write(f"\n{line}\n")

    def checks(self, lines: tuple[str, ...]) -> None:
        """Write the results of the ensure plugin's checks."""
        self._write("".join(f"{line}\n" for line in ("", "Checks:", *lines)))

    def _loud(self, text: str) -> None:
        if not self._quiet:
            self._write(text)


def _now_ms() -> float:
    return time.time() * 1000
