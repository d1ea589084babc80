"""`python -m loadgen.shard PARENT INDEX OF INDEX-HERE OF-HERE`: a generator that carries out one share of a run.

Orders come on stdin, what is measured goes to stdout, both framed as in `loadgen.crew.framing`. It never outlives who started
it: the kernel kills it with its parent, end-of-file on stdin ends it, and an alarm clock of the kernel's kills it unless it
is wound up by a message every few seconds, which it is at the longest until its hard end.
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
"""Without word for so long, it is over."""


class _AgreedWall(WallOffset):
    """Epoch time of the machine that started the run. `here` is this machine's, for its kernel's stamps."""

    def __init__(self) -> None:
        self.here = WallOffset()
        super().__init__()

    def measure(self) -> None:
        """Only this machine's clock is read again: a wall clock that is set here does not tear the report."""
        self.here.measure()


class _ShardLink(ParentPipe):
    def ready(self) -> None:
        """The script is compiled: it could begin."""
        self._send(READY, b"")

    def failed(self, reason: str) -> None:
        """It cannot go on."""
        self._send(FAILED, reason.encode("utf-8", "replace"))


def main(parent: int, share: Share) -> int:
    """The exit code."""
    try:
        end_with(parent)
    except BrokenPipeError:
        return 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal's; orders come on stdin
    signal.alarm(_PREPARE_S)
    output = os.dup(1)
    os.dup2(2, 1)  # whatever the script's own functions print must not get among the messages
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
    except ProcessorError as error:  # the user's own program does not start here
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
            gevent.sleep(0)  # until it has begun, interrupts are ignored
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
