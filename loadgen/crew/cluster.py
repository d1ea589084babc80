"""Connects to a Dask cluster, or starts one here; compares versions and reads the clocks of its machines.

Dask's client has threads of its own. The functions here block the calling thread: call them in a thread pool from
greenlets.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from os import environ
from typing import Any
from urllib.parse import urlsplit

from distributed import Client, LocalCluster, Security
from distributed.comm import connect
from distributed.gc import disable_gc_diagnosis

from db.child import Child
from loadgen.clock import now_ns
from loadgen.crew.crew import CrewError
from loadgen.crew.relay import about, clocks
from loadgen.environment import python_command, version

_PORT = 8786
_CONNECT_S = 10.0
_LOCAL_MAX = 256
_LOCAL_START_S = 60
_LOCAL_END_S = 5.0
_PINGS = 8
_PINGS_IN_ALL = 512
_PINGS_LEAST = 3


@dataclass(frozen=True, slots=True)
class Member:
    """A worker of the cluster."""

    address: str
    host: str


@dataclass(frozen=True, slots=True)
class Clock:
    """Another machine's clocks against this one's. The true offsets lie within `uncertainty_ns` either way."""

    ahead_ns: int
    """How far its CLOCK_MONOTONIC is ahead, which counts from its own boot."""
    wall_ahead_ns: int
    """How far its epoch time is ahead."""
    uncertainty_ns: int

    @classmethod
    def of(cls, readings: Sequence[tuple[int, int, int, int]], wall_ns: int) -> Clock:
        """Compare clocks by readings of (before, its monotonic, its epoch, after), all in ns; before and after are ours.

        The quickest reading counts, as in NTP (RFC 5905). The other clock was read at some instant between before and after,
        so their midpoint is wrong by at most half their difference. `wall_ns` turns our monotonic time into epoch time.
        """
        before, its, its_wall, after = min(readings, key=lambda reading: reading[3] - reading[0])
        middle = (before + after) // 2
        return cls(its - middle, its_wall - (middle + wall_ns), (after - before + 1) // 2)


class Cluster:
    """A cluster that this process is connected to. `members` are its running workers, in the order of their addresses."""

    def __init__(self, client: Any) -> None:
        """Connect. Raises CrewError if there is no worker, or if one runs a different version of the program."""
        self.client = client
        found = client.scheduler_info(n_workers=-1)["workers"]
        self._names = {address: str(info["name"]) for address, info in found.items() if info["status"] == "running"}
        if not self._names:
            raise CrewError("the Dask cluster has no workers")
        self._check_versions()
        told = self._abouts()
        self.members = [Member(address, told[address]["host"]) for address in sorted(self._names)]

    def clocks(self, members: Sequence[Member], wall_ns: int) -> dict[str, Clock]:
        """The clocks of these members, by address; each is read several times."""
        times = max(_PINGS_LEAST, min(_PINGS, _PINGS_IN_ALL // len(members)))
        return {m.address: Clock.of([self._ping(m.address) for _ in range(times)], wall_ns) for m in members}

    def allow_failures(self, number: int | None) -> int | None:
        """Set how often a task may lose its worker before the scheduler gives it up; this applies to all tasks.

        Returns the setting as it was before.
        """

        # Dask sends a function defined inside a function by value, so the scheduler need not have this module.
        def change(number: int | None, dask_scheduler: Any = None) -> int | None:
            before: int | None = dask_scheduler.allowed_failures
            dask_scheduler.allowed_failures = number
            return before

        previous: int | None = self.client.run_on_scheduler(change, number)
        return previous

    def forget(self, topic: str) -> None:
        """Make the scheduler drop the messages that it keeps of a topic."""

        def drop(topic: str, dask_scheduler: Any = None) -> None:
            dask_scheduler._broker._topics.pop(topic, None)  # noqa: SLF001 - `truncate` would leave the topic itself

        self.client.run_on_scheduler(drop, topic)

    def _ping(self, address: str) -> tuple[int, int, int, int]:
        before = now_ns()
        found = self.client.run(clocks, workers=[address])
        after = now_ns()
        monotonic, wall = found[address]
        return before, monotonic, wall, after

    def _check_versions(self) -> None:
        found = self.client.get_versions(packages=["poolbench"])
        ours = _versions(found["client"]) | {"poolbench": version()}
        theirs = {f"worker {a}": _versions(v) for a, v in sorted(found["workers"].items()) if a in self._names}
        scheduler = {k: v for k, v in _versions(found["scheduler"]).items() if k != "poolbench"}
        _demand_same(ours, {"the scheduler": scheduler, **theirs})

    def _abouts(self) -> dict[str, dict[str, str]]:
        found = self.client.run(about, workers=list(self._names), on_error="return")
        for address, told in sorted(found.items()):
            if isinstance(told, BaseException):
                raise CrewError(f"worker {address} cannot run poolbench: {type(told).__name__}: {told}")
        ours = {"the code of poolbench": about()["code"]}
        _demand_same(ours, {f"worker {a}": {"the code of poolbench": told["code"]} for a, told in found.items()})
        return dict(found)


def _versions(found: Mapping[str, Any]) -> dict[str, str | None]:
    """The versions that must be the same on all machines."""
    packages = found["packages"]
    return {
        "poolbench": packages.get("poolbench"),
        "Python": ".".join(packages["python"].split(".")[:2]),
        "dask": packages["dask"],
        "distributed": packages["distributed"],
    }


def _demand_same(ours: Mapping[str, str | None], others: Mapping[str, Mapping[str, str | None]]) -> None:
    different = [
        f"{who} has {what} {has or 'not at all'}, and this machine {ours[what]}"
        for who, versions in others.items()
        for what, has in versions.items()
        if has != ours[what]
    ]
    if different:
        more = f" (and {len(different) - 1} more differences)" if len(different) > 1 else ""
        raise CrewError(f"{different[0]}{more}: a run needs the same on all of them")


@contextmanager
def connected(address: str, warn: Callable[[str], None]) -> Iterator[Cluster]:
    """The cluster at `tcp://HOST:PORT` or `tls://HOST:PORT`, or one of N workers on this machine for `local:N`.

    `address` must have no `address_problem`; `warn` is called with lines that the user should see. Raises CrewError.
    """
    _silence()
    with ExitStack() as opened:
        if address.startswith("local:"):
            yield opened.enter_context(_local(int(address.removeprefix("local:"))))
        else:
            _reach(address, warn)
            asyncio.run(_greet(address))
            yield Cluster(opened.enter_context(_client(address)))


def _silence() -> None:
    """Silence what Dask logs about lost connections: this program says it in a line of its own."""
    warnings.filterwarnings("ignore", module="distributed")
    for name in [*logging.root.manager.loggerDict, "distributed"]:
        if name.startswith("distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def address_problem(address: str) -> str | None:
    """The reason why an address is invalid, in one line; None if it is valid."""
    if address.startswith("local:"):
        count = address.removeprefix("local:")
        if count.isascii() and count.isdigit() and len(count) < 10 and 1 <= int(count) <= _LOCAL_MAX:
            return None
        return f"--dask {address}: the number of workers is 1 to {_LOCAL_MAX}"
    try:
        _host_and_port(address)
    except ValueError:
        return f"--dask {address}: an address is tcp://HOST:PORT, tls://HOST:PORT or local:N"
    return None


def _host_and_port(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    if parts.scheme not in ("tcp", "tls") or not parts.hostname or parts.path or parts.query:
        raise ValueError(address)
    return parts.hostname, parts.port or _PORT


def _reach(address: str, warn: Callable[[str], None]) -> None:
    """Raise CrewError if nothing listens at the address; Dask itself would go on trying for a while."""
    try:
        with socket.create_connection(_host_and_port(address), timeout=_CONNECT_S) as connection:
            peer = connection.getpeername()[0]
    except OSError as error:
        raise CrewError(f"no Dask scheduler answers at {address}: {error.strerror or error}") from None
    if address.startswith("tcp:") and not ip_address(peer.partition("%")[0]).is_loopback:
        warn(f"{address} is neither encrypted nor protected: whoever reaches it can run programs on all its workers")


async def _greet(address: str) -> None:
    """Raise CrewError if the server at the address does not speak Dask's protocol; Dask's client would be slow to give up."""
    try:
        arguments = Security().get_connection_args("client")
        comm = await asyncio.wait_for(connect(address, timeout=_CONNECT_S, **arguments), _CONNECT_S)
        await comm.close()
    except TimeoutError:
        raise CrewError(f"no Dask scheduler answers at {address} in {_CONNECT_S:.0f} s, something else may") from None
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CrewError(f"no Dask scheduler answers at {address}: {reason or type(error).__name__}") from None


@contextmanager
def _client(address: Any) -> Iterator[Any]:
    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False, name="poolbench")
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CrewError(f"no Dask scheduler answers at {address}: {reason or type(error).__name__}") from None
    try:
        yield client
    finally:
        with suppress(Exception):
            client.close(timeout=_LOCAL_END_S)


@contextmanager
def _local(count: int) -> Iterator[Cluster]:
    """A cluster on this machine: a scheduler in this process, and workers in processes of their own that end with it."""
    with ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="poolbench-dask-"))
        scheduler = LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None, silence_logs=logging.CRITICAL)
        opened.enter_context(scheduler)
        # Dask's diagnosis of garbage collection would swallow a Ctrl-C that comes during a collection.
        disable_gc_diagnosis(force=True)
        client = opened.enter_context(_client(scheduler))
        opened.enter_context(_workers(scheduler.scheduler_address, count, folder))
        try:
            client.wait_for_workers(count, timeout=_LOCAL_START_S)
        except TimeoutError:
            raise CrewError(f"{count} workers did not start within {_LOCAL_START_S} s") from None
        yield Cluster(client)


@contextmanager
def _workers(scheduler: str, count: int, folder: str) -> Iterator[None]:
    options = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1"]
    options += ["--memory-limit", "0", "--local-directory", folder, "--death-timeout", "10"]
    command = python_command("distributed.cli.dask_worker", scheduler, *options)
    environment = {**environ, "DASK_LOGGING__DISTRIBUTED": "critical"}
    workers: list[Child] = []
    try:
        for number in range(count):
            named = [*command, "--name", f"local-{number + 1}"]
            workers.append(Child(named, patience_s=_LOCAL_END_S, stdout=subprocess.DEVNULL, env=environment))
        yield
    finally:
        # All are stopped at the same time, since each takes a moment to end.
        with ThreadPoolExecutor(count) as threads:
            list(threads.map(Child.stop, workers))
