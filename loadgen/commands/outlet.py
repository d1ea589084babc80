"""Keeps a run alive when its terminal, or the program that reads its output, goes away before the run has ended."""

from __future__ import annotations

import errno
import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

_GONE = (errno.EPIPE, errno.EIO)


class _Outlet(io.FileIO):
    """A descriptor for output that forgets what is written once nobody reads it any more."""

    gone = False

    def write(self, data: Any, /) -> int | None:  # type: ignore[override]
        size = memoryview(data).nbytes
        if self.gone:
            return size
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self.gone = True
            return size


@contextmanager
def outliving_the_terminal() -> Iterator[None]:
    """While inside, a closed pipe (`| head -1`), a lost terminal and SIGHUP do not end the program; what it prints is lost."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)
    try:
        yield
    finally:
        for stream, original in zip((sys.stdout, sys.stderr), kept, strict=True):
            with suppress(OSError, ValueError):
                stream.flush()
            _leave(stream, original)
        sys.stdout, sys.stderr = kept
        signal.signal(signal.SIGHUP, before)


def _lasting(stream: TextIO) -> TextIO:
    """The stream, over an outlet; streams without a descriptor of their own, as in tests, stay as they are."""
    try:
        stream.flush()
        outlet = _Outlet(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError, AttributeError):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(outlet),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream is sys.stderr or stream.isatty(),
    )


def _leave(stream: TextIO, original: TextIO) -> None:
    """Forget a lasting stream without closing its descriptor, which the original has as well."""
    if stream is not original:
        with suppress(OSError, ValueError):
            stream.detach()  # type: ignore[attr-defined] # a TextIOWrapper
