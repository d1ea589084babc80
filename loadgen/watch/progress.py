"""Shows a run's progress on stderr: as one line that is redrawn on a terminal, elsewhere as a line every ten seconds."""

from __future__ import annotations

import sys
from typing import TextIO

from loadgen.engine import Progress

_PLAIN_EVERY_S = 10.0


class LiveLine:
    """Shows the progress that it is called with once a second.

    `prefix` stands before the line and may change between runs. If `total_s` is set, the time that is left is shown.
    """

    def __init__(self, stream: TextIO = sys.stderr, *, prefix: str = "", plain: bool = True) -> None:
        self.prefix = prefix
        self.total_s: float | None = None
        self._stream = stream
        self._plain = plain
        self._terminal = stream.isatty()
        self._last = Progress(0.0, 0, 0, 0, 0)
        self._spoke_s = 0.0

    def __call__(self, now: Progress) -> None:
        """Show this progress."""
        # The time went back, so this is another run.
        if now.elapsed_s < self._last.elapsed_s:
            self._last, self._spoke_s = Progress(0.0, 0, 0, 0, 0), 0.0
        text = self._text(now)
        if self._terminal:
            self._stream.write(f"\r\x1b[K{text}")
            self._last = now
        elif self._plain and now.elapsed_s - self._spoke_s >= _PLAIN_EVERY_S:
            self._stream.write(f"{text}\n")
            self._last, self._spoke_s = now, now.elapsed_s
        self._stream.flush()

    def clear(self) -> None:
        """Clear the line, so that others can write there."""
        if self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _text(self, now: Progress) -> str:
        seconds = max(now.elapsed_s - self._last.elapsed_s, 1e-9)
        parts = [f"{now.elapsed_s:.0f} s", f"{(now.responses - self._last.responses) / seconds:.0f} answers/s"]
        parts += [f"{now.active_vus} users", f"{now.errors} errors"]
        if self.total_s is not None:
            parts.append(f"{max(0.0, self.total_s - now.elapsed_s):.0f} s left")
        return f"{self.prefix}{', '.join(parts)}"
