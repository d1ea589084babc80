"""Shows a run's progress on stderr: as one line that is redrawn on a terminal, elsewhere as a line every ten seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TextIO

from loadgen.engine import Progress, Stage

_PLAIN_EVERY_S = 10.0
_BAR_WIDTH = 20


class LiveLine:
    """Shows the progress that it is called with once a second.

    `prefix` is put before the line and may change between runs.
    """

    def __init__(self, stream: TextIO = sys.stderr, *, prefix: str = "", plain: bool = True) -> None:
        self.prefix = prefix
        self._stream = stream
        self._plain = plain
        self._terminal = stream.isatty()
        self._last = Progress(0.0, 0, 0, 0, 0)

    def __call__(self, now: Progress) -> None:
        """Show this progress."""
        if now.started_ns != self._last.started_ns:
            self._last = Progress(0.0, 0, 0, 0, 0, started_ns=now.started_ns)
        if self._terminal:
            self._stream.write(f"\r\x1b[K{progress_text(now, self._last, self.prefix)}")
            self._last = now
        elif self._plain and now.elapsed_s - self._last.elapsed_s >= _PLAIN_EVERY_S:
            self._stream.write(f"{progress_text(now, self._last, self.prefix)}\n")
            self._last = now
        self._stream.flush()

    def say(self, doing: str) -> None:
        """Show on a terminal what is being done, for work that has no such progress."""
        if self._terminal:
            self._stream.write(f"\r\x1b[K{doing}")
            self._stream.flush()

    def clear(self) -> None:
        """Clear the line, so that others can write there."""
        if self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def beside(self, write: Callable[[str], None]) -> Callable[[str], None]:
        """A function that writes text, by `write`, without mixing it with the line."""

        def written(text: str) -> None:
            self.clear()
            write(text)

        return written


def progress_text(now: Progress, before: Progress, prefix: str = "") -> str:
    """One line such as `warm up: 4/15 s [=====               ] 33/s p95 38 ms 7 users 0 errors`.

    The rate is that of answers between the two instants of one run.
    """
    rate = (now.responses - before.responses) / max(now.elapsed_s - before.elapsed_s, 1e-9)
    parts = [_stage_text(now.stage) if now.stage else f"{now.elapsed_s:.0f} s", f"{rate:,.0f}/s"]
    if now.p95_ms is not None:
        parts.append(f"p95 {now.p95_ms:,.{0 if now.p95_ms >= 10 else 1}f} ms")
    parts += [_counted(now.active_vus, "user"), _counted(now.errors, "error")]
    return f"{prefix}{' '.join(parts)}"


def _stage_text(stage: Stage) -> str:
    if stage.length_s is None:
        return f"{stage.name} {stage.elapsed_s:.0f} s".lstrip()
    name = f"{stage.name}: " if stage.name else ""
    done = min(1.0, stage.elapsed_s / stage.length_s) if stage.length_s else 1.0
    bar = "=" * int(_BAR_WIDTH * done)
    return f"{name}{stage.elapsed_s:.0f}/{stage.length_s:.0f} s [{bar:{_BAR_WIDTH}}]"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
