"""Runs a script on the workers of a Dask cluster: one shard on each, whose periods come back while it runs.

Dask is made for tasks that may be repeated; load may not be. So a shard is pinned to its worker, and the scheduler is told
to give up a task whose worker died instead of repeating it. Starts are counted, and a second one makes the run invalid. The
messages of a shard are numbered: a gap means that something was lost on the way, and the worker counts as lost. So does a
worker that is silent for a while; its generator ends by itself (`loadgen.shard`).
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from signal import SIGALRM
from typing import Any

import gevent
from distributed import Event, Variable
from gevent.queue import Empty, Queue

from loadgen.clock import WallOffset, now_ns
from loadgen.crew.baggage import pack, unfit
from loadgen.crew.cluster import Clock, Cluster, Member, address_problem, connected
from loadgen.crew.crew import Crew, CrewError, CrewWorker, Job, exit_text
from loadgen.crew.framing import FAILED, READY, parted
from loadgen.crew.relay import DATA, END, GO, SAYS, STARTED, STOP, name_of, relay
from loadgen.schedule import Share, most_shares, spans
from loadgen.script.model import Script

_LOOK_S = 1.0
_READY_LOOKS = 60
_SILENT_LOOKS, _LOST_LOOKS = 4, 10
_START_AFTER_NS, _START_AFTER_EACH_NS = 1_000_000_000, 2_000_000
_LAST_WAIT_S = 5.0
_LAST_WORDS_S, _CLEAN_UP_S = 2.0, 5.0
_HARD_END_AFTER_NS = 3600 * 1_000_000_000
_GONE = -1
"""Kind of a message that comes from Dask and is not numbered: why a shard's task has ended."""


@dataclass(slots=True)
class _Shard(CrewWorker):
    member: Member = field(kw_only=True)
    clock: Clock | None = None
    inbox: Queue = field(default_factory=Queue)
    pending: bytearray = field(default_factory=bytearray)
    ready: bool = False
    starts: int = 0
    heard: int = 0
    """How many messages of the shard have arrived."""
    silent_looks: int = 0

    @property
    def label(self) -> str:
        return f"worker {self.share.index + 1} of {self.share.of} ({self.member.address} on {self.member.host})"


class RemoteCrew(Crew[_Shard]):
    """The workers of a run on a cluster: as many of its members as the plan can be split among.

    `say` takes lines for stderr.
    """

    def __init__(
        self,
        cluster: Cluster,
        say: Callable[[str], None],
        job: Job,
        wall: WallOffset,
        write_line: Callable[[str], None],
    ) -> None:
        """Raises CrewError if the job cannot travel to other machines."""
        super().__init__(most_shares(len(cluster.members), job.script.phases), wall, write_line)
        self._cluster, self._say = cluster, say
        self._packed = pack(job)
        planned = spans(job.script.phases)
        self._length_ns = planned[-1].end_ns if planned else 0
        self._run_id = secrets.token_hex(8)
        members = cluster.members[: self.count]
        hosts = [member.host for member in members]
        self._workers = [
            _Shard(
                Share(index, self.count, (hosts[:index].count(member.host), hosts.count(member.host))), member=member
            )
            for index, member in enumerate(members)
        ]
        self._tasks: list[Any] = []
        self._failures_before: int | None = None
        hub = gevent.get_hub()
        self._threads = hub.threadpool
        self._posted: deque[Sequence[Any]] = deque()
        self._bell = hub.loop.async_()
        self._listening = True

    def places(self) -> list[dict[str, Any]]:
        """Where each worker runs, how its clocks differ from this machine's, and whether it ended properly."""
        return [_place(shard) for shard in self._workers]

    def _launch(self) -> None:
        self._bell.start(self._sort)
        self._apart(self._submit, self._hurried)
        gevent.joinall([gevent.spawn(self._prepare, shard) for shard in self._workers], raise_error=True)
        missing = self.lost()
        if missing:
            raise CrewError(missing[0])
        if self._interrupts:
            self._workers = []
            return
        self._apart(self._begin, self._hurried)

    def _hurried(self) -> bool:
        return self._interrupts > 1

    def _apart(self, task: Callable[[], object], given_up: Callable[[], bool] = lambda: False) -> None:
        """Do a task that blocks in a thread, while greenlets go on. Raises CrewError for whatever it raises."""
        raised: list[Exception] = []

        def caught() -> None:
            try:
                task()
            except Exception as error:  # noqa: BLE001 - Dask raises many kinds, which all become one line
                raised.append(error)

        doing = self._threads.spawn(caught)
        while not doing.ready():
            doing.wait(_LOOK_S)
            if given_up():
                raise CrewError("interrupted before the start")
        for error in raised:
            raise CrewError(f"the Dask cluster failed: {_first_line(error)}") from error

    def _submit(self) -> None:
        client, run = self._cluster.client, self._run_id
        client.subscribe_topic(name_of(run, SAYS), lambda event: self._post(event[1]))
        self._failures_before = self._cluster.allow_failures(0)
        addresses = [shard.member.address for shard in self._workers]
        [packed] = client.scatter([self._packed], workers=addresses, broadcast=True, hash=False)
        for index, address in enumerate(addresses):
            task = client.submit(
                relay,
                packed,
                run,
                index,
                self.count,
                self._workers[index].share.beside,
                key=name_of(run, str(index)),
                workers=[address],
                allow_other_workers=False,
                pure=False,
                retries=0,
            )
            task.add_done_callback(partial(self._done, index))
            self._tasks.append(task)

    def _begin(self) -> None:
        """Choose the instant when the plan begins, and tell each shard when that is on its own clock."""
        client, wall_ns = self._cluster.client, self._wall.wall_ns
        clocks = self._cluster.clocks([shard.member for shard in self._workers], wall_ns)
        started_ns = now_ns() + _START_AFTER_NS + _START_AFTER_EACH_NS * self.count
        starts = {}
        for shard in self._workers:
            shard.clock = clocks[shard.member.address]
            here_ns = started_ns + shard.clock.ahead_ns
            ends_ns = here_ns + self._length_ns + _HARD_END_AFTER_NS
            starts[str(shard.share.index)] = {
                "started_ns": here_ns,
                "wall_ns": wall_ns - shard.clock.ahead_ns,
                "ends_ns": ends_ns,
            }
        self._started_ns = started_ns
        Variable(name_of(self._run_id, GO), client=client).set(starts)
        Event(name_of(self._run_id, GO), client=client).set()

    def _post(self, said: Sequence[Any]) -> None:
        """Take a message of a shard, [shard, number, kind, content]. May be called in any thread."""
        self._posted.append(said)
        if self._listening:
            self._bell.send()

    def _done(self, index: int, task: Any) -> None:
        """Called in a thread of Dask's when a task has ended. One that ended without error has sent its own message."""
        if task.status != "finished":
            self._post([index, 0, _GONE, _fate(task)])

    def _sort(self) -> None:
        """Called in gevent's hub: put each message into the inbox of its shard."""
        while self._posted:
            index, *said = self._posted.popleft()
            if index < len(self._workers) and self._workers[index].running:
                self._workers[index].inbox.put_nowait(said)

    def _prepare(self, shard: _Shard) -> None:
        while shard.running and not shard.ready and not self._interrupts:
            self._receive(shard, _READY_LOOKS)

    def _attend(self, worker: _Shard) -> None:
        while worker.running:
            self._receive(worker, _LOST_LOOKS)

    def _receive(self, shard: _Shard, patience: int) -> None:
        """Handle the next message of a shard.

        Silence is counted in looks, so that time in which this process itself was stopped does not count.
        """
        try:
            number, kind, content = shard.inbox.get(timeout=_LOOK_S)
        except Empty:
            self._miss(shard, patience)
            return
        if shard.silent_looks >= _SILENT_LOOKS and self._started_ns:
            self._say(f"{shard.label} is heard of again")
        shard.silent_looks = 0
        if kind == _GONE:
            self._lose(shard, content)
        elif kind == STARTED and shard.starts:
            self._lose(shard, f"was started a second time, on {content}, and the run is void")
            self.stop()
            self.stop()
        elif number != shard.heard:
            self._lose(shard, f"sent message {number} where {shard.heard} was awaited")
        else:
            shard.heard += 1
            shard.starts += kind == STARTED
            self._understand(shard, kind, content)

    def _understand(self, shard: _Shard, kind: int, content: Any) -> None:
        if kind == DATA:
            shard.pending += content
            for letter, text in parted(shard.pending):
                if letter == READY:
                    shard.ready = True
                elif letter == FAILED:
                    self._lose(shard, f"failed ({text.decode('utf-8', 'replace')})")
                elif shard.running:
                    self._take(shard, letter, text)
        elif kind != STARTED and shard.running:
            self._lose(shard, "was ended by its alarm clock" if content == -SIGALRM else exit_text(content))

    def _miss(self, shard: _Shard, patience: int) -> None:
        shard.silent_looks += 1
        if shard.silent_looks >= patience and not self._started_ns:
            self._lose(
                shard, f"did not get ready in {patience * _LOOK_S:.0f} s, perhaps for other tasks of that worker,"
            )
        elif shard.silent_looks >= patience:
            self._lose(shard, f"was not heard of for {patience * _LOOK_S:.0f} s and counts as lost")
        elif shard.silent_looks == _SILENT_LOOKS and self._started_ns:
            self._say(f"{shard.label} has not been heard of for {_SILENT_LOOKS * _LOOK_S:.0f} s")

    def _lose(self, worker: _Shard, cause: str) -> None:
        super()._lose(worker, cause)
        if worker.lost is not None and self._started_ns:
            self._say(worker.lost)

    def _pass_interrupt(self) -> None:
        if self._interrupts == 1:
            gevent.spawn(self._order, STOP)
        else:
            gevent.spawn(self._order, STOP, END)
            gevent.spawn_later(_LAST_WAIT_S, self._give_up)

    def _order(self, *orders: str) -> None:
        for order in orders:
            event = Event(name_of(self._run_id, order), client=self._cluster.client)
            # If the scheduler is gone, shards end by themselves.
            with suppress(CrewError):
                self._apart(event.set)

    def _give_up(self) -> None:
        for shard in self._workers:
            if shard.running:
                self._lose(shard, "did not end when told to")

    def _end_all(self) -> None:
        """Cancel the tasks, which ends their generators, and clean up what the run left on the cluster."""
        with suppress(CrewError), gevent.Timeout(_CLEAN_UP_S, False):
            self._apart(self._clean_up)
        self._listening = False
        self._bell.close()

    def _clean_up(self) -> None:
        client, run = self._cluster.client, self._run_id
        ended = [task for task, shard in zip(self._tasks, self._workers, strict=False) if shard.result is not None]
        # Such a task has one more message to send, which must not come after the topic was dropped.
        for task in ended:
            task.result(timeout=_LAST_WORDS_S)
        client.cancel(self._tasks, force=True)
        client.unsubscribe_topic(name_of(run, SAYS))
        for order in (GO, STOP, END):
            Event(name_of(run, order), client=client).clear()
        Variable(name_of(run, GO), client=client).delete()
        if self._failures_before is not None:
            self._cluster.allow_failures(self._failures_before)
        self._cluster.forget(name_of(run, SAYS))


def problems(address: str, script: Script) -> list[str]:
    """Why a script cannot run on the cluster at an address, as far as can be said before trying; a line for each reason."""
    wrong = address_problem(address)
    return [*([wrong] if wrong else []), *unfit(script)]


class Crews:
    """Makes the crew of a run of a script; `count` is the number of its workers."""

    def __init__(self, cluster: Cluster, script: Script, say: Callable[[str], None]) -> None:
        self.count = most_shares(len(cluster.members), script.phases)
        self._cluster, self._say = cluster, say
        if self.count < len(cluster.members):
            say(f"{self.count} of {len(cluster.members)} workers take part: `maxVusers` cannot be split further")

    def __call__(self, job: Job, wall: WallOffset, write_line: Callable[[str], None]) -> RemoteCrew:
        """Raises CrewError if the job cannot travel to other machines."""
        return RemoteCrew(self._cluster, self._say, job, wall, write_line)


@contextmanager
def crews(address: str, script: Script, say: Callable[[str], None]) -> Iterator[Crews]:
    """While inside, what makes crews on the cluster at an address that has no `problems`.

    `say` takes lines for stderr. Raises CrewError.
    """
    with connected(address, say) as cluster:
        yield Crews(cluster, script, say)


def _place(shard: _Shard) -> dict[str, Any]:
    found = {"worker": shard.member.address, "host": shard.member.host, "ended": shard.result is not None}
    if shard.clock is None:
        return found
    return found | {
        "clock_ahead_ms": round(shard.clock.wall_ahead_ns / 1e6, 3),
        "clock_uncertainty_ms": round(shard.clock.uncertainty_ns / 1e6, 3),
    }


def _fate(task: Any) -> str:
    """How a task ended that did not end properly, in words."""
    if task.status != "error":
        return "was lost with its scheduler"
    error = task.exception(timeout=1)
    if type(error).__name__ == "KilledWorker":
        return "was lost: its Dask worker is gone"
    return f"failed ({_first_line(error)})"


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
