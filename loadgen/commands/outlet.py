"""Keeps a program alive when its terminal, its disk, or the program that reads its output, goes away before it has ended."""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import click

_UNREAD = (errno.EPIPE, errno.EIO)


class _Outlet(io.FileIO):
    """A descriptor for output that forgets what is written once that has failed."""

    gone = False
    reason: str | None = None
    """Why writing failed; None where nobody reads any more, and as long as nothing fails."""

    def write(self, data: Any, /) -> int | None:  # type: ignore[override]
        size = memoryview(data).nbytes
        if self.gone:
            return size
        try:
            # None: another process has made the descriptor one that does not wait.
            while (written := super().write(data)) is None:
                select.select([], [self], [])
        except OSError as error:
            self.gone = True
            if error.errno not in _UNREAD:
                self.reason = error.strerror or str(error)
            return size
        return written


class LastingOutput:
    """What became of stdout during a run."""

    reason: str | None = None
    """Why something printed on stdout was lost; None where nothing was, or only what nobody read any more."""

    def judged(self, code: int, lost: int) -> int:
        """The exit code of a command that would have exited with `code`: `lost`, after a line on stderr, if output was lost."""
        if self.reason is None:
            return code
        click.echo(f"Error: cannot write to standard output: {self.reason}", err=True)
        return code or lost


@contextmanager
def outliving_the_terminal() -> Iterator[LastingOutput]:
    """While inside, a closed pipe (`| head -1`), a full disk, a lost terminal and SIGHUP do not end the program; what it
    prints is lost. Afterwards the value says whether anything was.
    """
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    kept, output = sys.stdout, LastingOutput()
    sys.stdout = lasting(kept)
    try:
        yield output
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        if sys.stdout is not kept:
            # Forget the stream without closing its descriptor, which the original has as well.
            output.reason = sys.stdout.detach().detach().reason  # type: ignore[attr-defined] # of its outlet
        sys.stdout = kept
        signal.signal(signal.SIGHUP, before)


def lasting(stream: TextIO, *, line_buffering: bool = False) -> TextIO:
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
        line_buffering=line_buffering or stream.isatty(),
    )


def open_all() -> None:
    """Open /dev/null in place of each of stdin, stdout and stderr that the program was started without.

    A socket or file would get the descriptor else, and be written to. What stderr is told can be lost, but fails nothing.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the program runs
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = lasting(sys.stderr, line_buffering=True)
