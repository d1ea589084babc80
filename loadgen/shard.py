"""`python -m loadgen.shard PARENT INDEX OF INDEX-HERE OF-HERE`: a generator that carries out one share of a run.

Orders come on stdin, and what is measured goes to stdout, both framed as in `loadgen.crew.framing`. The process never
outlives the one that started it: the kernel kills it together with its parent, it exits at the end of stdin, and an alarm of
the kernel's kills it unless a message on stdin puts the alarm off every few seconds. After the hard end of the run nothing
puts it off any more.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress

import gevent
import gevent.os
import orjson
from gevent.event import AsyncResult

from loadgen.clock import WallOffset, now_ns
from loadgen.crew.baggage import unpack
from loadgen.crew.crew import DEFECT, ParentPipe, end_with, messages
from loadgen.crew.framing import FAILED, INTERRUPT, JOB, READY, START
from loadgen.recorder import Recorder
from loadgen.runner import generator
from loadgen.schedule import Share
from loadgen.script.processor import ProcessorError

_PREPARE_S = 60
_LEASE_S = 20
"""Seconds without a message after which the process is ended."""


class _AgreedWall(WallOffset):
    """Epoch time as the machine that started the run has it. `here` is this machine's own, for its kernel's stamps."""

    def __init__(self) -> None:
        self.here = WallOffset()
        super().__init__()

    def measure(self) -> None:
        """Measure this machine's clock again. The agreed time stays: setting the clock here must not tear the report."""
        self.here.measure()


class _ShardLink(ParentPipe):
    def ready(self) -> None:
        """Say that the script is compiled and the run could begin."""
        self._send(READY, b"")

    def failed(self, reason: str) -> None:
        """Say why this generator cannot go on."""
        self._send(FAILED, reason.encode("utf-8", "replace"))


def main(parent: int, share: Share) -> int:
    """Carry out the share of the run that stdin describes. Returns the exit code."""
    try:
        end_with(parent)
    except BrokenPipeError:
        return 0
    # A Ctrl-C in the terminal is not for this process: orders come on stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.alarm(_PREPARE_S)
    output = os.dup(1)
    # What the script's own functions print goes to stderr, so that it does not get among the messages.
    os.dup2(2, 1)
    gevent.os.make_nonblocking(0)
    wall = _AgreedWall()
    link = _ShardLink(output, Recorder(wall), wall)
    try:
        orders = messages(0)
        kind, packed = next(orders, (b"", b""))
        if kind != JOB:
            return 0
        with generator(unpack(packed), wall, wall.here) as (recorder, work):
            link = _ShardLink(output, recorder, wall)
            link.ready()
            began: AsyncResult = AsyncResult()
            gevent.spawn(_obey, orders, began)
            start = began.get()
            wall.wall_ns = start["wall_ns"]
            link.end(work(share, link, start["started_ns"]))
        return 0
    except BrokenPipeError:
        return 0
    except ProcessorError as error:
        # The functions that the user wrote cannot be loaded on this machine.
        link.failed(str(error))
        return DEFECT
    except Exception as error:  # noqa: BLE001 - told to whoever started the run
        traceback.print_exc()
        with suppress(OSError):
            link.failed(f"{type(error).__name__}: {error}")
        return DEFECT


def _obey(orders: Iterator[tuple[bytes, bytes]], began: AsyncResult) -> None:
    ends_ns = now_ns() + _PREPARE_S * 1_000_000_000
    for kind, content in orders:
        if kind == START:
            start = orjson.loads(content)
            ends_ns = start["ends_ns"]
            began.set(start)
            # Let the run begin first: until then it ignores interrupts.
            gevent.sleep(0)
        elif kind == INTERRUPT:
            os.kill(os.getpid(), signal.SIGINT)
        left_s = (ends_ns - now_ns()) // 1_000_000_000
        signal.alarm(max(1, min(_LEASE_S, left_s)))
    os._exit(0)


if __name__ == "__main__":
    parent_pid, index, of, index_here, of_here = map(int, sys.argv[1:])
    code = main(parent_pid, Share(index, of, (index_here, of_here)))
    sys.stderr.flush()
    os._exit(code)
