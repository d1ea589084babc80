"""Runs in a Dask worker: starts the generator as a process of its own, gives it orders, and passes on what it sends.

The generator (`loadgen.shard`) never runs in the worker's own process, whose event loop and threads keep the worker in touch
with its scheduler. It ends with this task, however the task ends: its stdin is closed, the kernel kills it when its parent
is gone, and it must be told every few seconds to go on. It is told so only while the scheduler answers and still wants the
task.

A message of the run's topic: [shard, number, kind, content], numbered from 0 for each start of a shard. Besides
Dask, only what needs nothing but the standard library is imported here.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from distributed import Event, Variable, get_client, get_worker

from db.child import Child
from loadgen.crew.framing import INTERRUPT, JOB, RENEW, START, message
from loadgen.environment import python_command

STARTED, DATA, ENDED = 0, 1, 2
"""Kinds of messages: the task has begun (with its worker's address), output of the generator, its exit code."""
GO, STOP, END = "go", "stop", "end"
"""Orders of a run: begin, let users finish, end at once. Each is a Dask Event; GO also has a Variable of the same name."""
SAYS = "says"
"""The topic of the messages of a run's shards."""

_LOG = logging.getLogger("distributed.worker")
_SOURCES = ("loadgen/**/*.py", "reports/**/*.py", "db/child.py")
_CHUNK_BYTES = 1 << 18
_RENEW_S = 2.0
_ANSWER_S = 10.0


def name_of(run: str, what: str) -> str:
    """The name of a Dask object that belongs to a run."""
    return f"poolbench-{run}-{what}"


def about() -> dict[str, str]:
    """The name of this machine, and a fingerprint of this program's source."""
    return {"host": socket.gethostname(), "code": _fingerprint()}


def clocks() -> tuple[int, int]:
    """CLOCK_MONOTONIC and the epoch time of this machine, in ns."""
    return time.monotonic_ns(), time.time_ns()


def relay(packed: bytes, run: str, index: int, of: int, beside: tuple[int, int]) -> None:
    """The Dask task: run one shard from its start to its end.

    `packed` is the job, packed by `loadgen.crew.baggage`. `beside` is the shard's number among those on its machine, and how
    many those are.
    """
    worker, client = get_worker(), get_client()
    numbers = itertools.count()

    def tell(kind: int, content: Any) -> None:
        worker.log_event(name_of(run, SAYS), [index, next(numbers), kind, content])

    tell(STARTED, worker.address)
    # Dask runs a lost task again, but by then the run has begun without it.
    if Event(name_of(run, GO), client=client).is_set():
        return
    task = worker.get_current_task()
    child = Child(
        python_command("loadgen.shard", *map(str, (os.getpid(), index, of, *beside))),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        orders = _Orders(child, run, index, client, lambda: _wants(worker, task))
        threading.Thread(target=orders.pass_on, args=(packed,), daemon=True).start()
        while chunk := os.read(child.stdout.fileno(), _CHUNK_BYTES):
            tell(DATA, chunk)
        tell(ENDED, child.process.wait())
    finally:
        child.kill()


class _Orders:
    """Passes orders on to the generator. When the generator or the scheduler is gone, the generator's stdin is closed."""

    def __init__(self, child: Child, run: str, index: int, client: Any, wanted: Callable[[], bool]) -> None:
        self._child, self._run, self._index = child, run, index
        self._client, self._wanted = client, wanted

    def pass_on(self, packed: bytes) -> None:
        """Pass orders on, from the job to the end; this runs in a thread of its own."""
        try:
            self._send(JOB, packed)
            self._await(GO)
            start = Variable(name_of(self._run, GO), client=self._client).get(timeout=_ANSWER_S)
            self._send(START, json.dumps(start[str(self._index)]).encode())
            for order in (STOP, END):
                self._await(order)
                self._send(INTERRUPT)
            while self._child.running:
                self._renew()
                time.sleep(_RENEW_S)
        except Exception as error:  # noqa: BLE001 - the generator or the scheduler is gone
            if self._child.running:
                _LOG.warning("poolbench: shard %d is ended: %s: %s", self._index, type(error).__name__, error)
        finally:
            with suppress(OSError):
                self._child.stdin.close()

    def _await(self, order: str) -> None:
        event = Event(name_of(self._run, order), client=self._client)
        while not event.wait(_RENEW_S):
            self._renew()

    def _renew(self) -> None:
        if not self._wanted():
            raise ConnectionAbortedError("whoever started the run does not want it any more")
        self._send(RENEW)

    def _send(self, kind: bytes, content: bytes = b"") -> None:
        self._child.stdin.write(message(kind, content))
        self._child.stdin.flush()


def _wants(worker: Any, task: Any) -> bool:
    """Whether the scheduler still wants the task's result: not once its client has cancelled it, or is gone."""
    known = worker.state.tasks.get(task)
    return known is not None and known.state == "executing"


def _fingerprint() -> str:
    """A hash of this program's source, which tells changes apart that were made under one version number."""
    digest = hashlib.sha256()
    here = Path(__file__).parents[2]
    for path in sorted(path for pattern in _SOURCES for path in here.glob(pattern)):
        digest.update(f"{path.relative_to(here).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
