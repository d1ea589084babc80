"""What `loadgen run` writes to stdout: Artillery's console, in Artillery's order, as the run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable

from loadgen.script.model import Phase
from reports.formats import artillery_text
from reports.model import Period, Report

Write = Callable[[str], None]


class Console:
    """Whole lines, newlines included, go to `write`. `quiet` leaves the run id, `log` lines, expectations and checks."""

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
        """First of all."""
        self._write(artillery_text.run_id_line(run_id))

    def line(self, text: str) -> None:
        """Of a `log` step or an expectation."""
        self._write(f"{text}\n")

    def phase_started(self, phase: Phase) -> None:
        """Now."""
        self._loud(
            artillery_text.phase_started(phase.name, phase.index, phase.duration_text, _now_ms(), colour=self._colour)
        )

    def phase_completed(self, phase: Phase) -> None:
        """Now."""
        self._loud(
            artillery_text.phase_completed(phase.name, phase.index, phase.duration_text, _now_ms(), colour=self._colour)
        )

    def period(self, period: Period) -> None:
        """A slice that is over."""
        if period.counters or period.summaries or period.rates:
            self._loud(artillery_text.period_text(period, hidden=self._hidden, colour=self._colour, width=self._width))

    def summary(self, report: Report) -> None:
        """The end: how long it took, counted from the first metric, and the summary report."""
        now_ms = _now_ms()
        first_ms = report.aggregate.first_metric_ms
        self._loud(artillery_text.finished_text(0.0 if first_ms is None else (now_ms - first_ms) / 1000))
        self._loud(
            artillery_text.summary_text(report, now_ms, hidden=self._hidden, colour=self._colour, width=self._width)
        )

    def log_file(self, path: str) -> None:
        """After the summary."""
        self._loud(artillery_text.log_file_line(path))

    def apdex(self, line: str) -> None:
        """The plugin's score."""
        self._write(f"\n{line}\n")

    def checks(self, lines: tuple[str, ...]) -> None:
        """The ensure plugin's."""
        self._write("".join(f"{line}\n" for line in ("", "Checks:", *lines)))

    def _loud(self, text: str) -> None:
        if not self._quiet:
            self._write(text)


def _now_ms() -> float:
    return time.time() * 1000
