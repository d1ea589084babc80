"""A Dask scheduler and its workers as processes, which tests may kill; in network namespaces where a test says so."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

from db.child import Child
from tests.support.server_process import descendants, wait_until


class DaskWorker:
    """A process of its own; `shards` are the generators that it has started. `within`: what to put before its command."""

    def __init__(self, scheduler, folder, name, host="127.0.0.1", within=(), **env):
        self._log = folder / f"{name}.log"
        options = ["--no-nanny", "--nthreads", "2", "--name", name, "--no-dashboard", "--host", host]
        command = [
            *within,
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            scheduler,
            "--local-directory",
            str(folder),
        ]
        self._child = Child([*command, *options], log=self._log, env={**os.environ, **env})
        self.process = self._child.process

    def registered(self):
        return "Registered to" in self._log.read_text()

    @property
    def shards(self):
        return [child.pid for child in descendants(self.process.pid)]

    def end(self):
        self._child.kill()


class Dask:
    """A scheduler with workers, all of them processes."""

    def __init__(self, folder, host="127.0.0.1", within=()):
        self._folder = folder
        self._started = 0
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"tcp://{host}:{port}"
        command = [*within, sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--host", host]
        self._scheduler = Child([*command, "--port", str(port)], stderr=subprocess.DEVNULL)
        self.workers = []

    def have(self, count):
        """Make sure that `count` workers live."""
        self.workers = [worker for worker in self.workers if worker.process.poll() is None]
        new = [self.worker() for _ in range(count - len(self.workers))]
        self.workers += new
        wait_until(lambda: all(worker.registered() for worker in new))

    def worker(self, **options):
        """Start one more worker, which may not have registered yet."""
        self._started += 1
        return DaskWorker(self.address, self._folder, f"w{self._started}", **options)

    def kill_scheduler(self):
        self._scheduler.kill()

    def close(self):
        for worker in self.workers:
            worker.end()
        self.kill_scheduler()


@contextmanager
def stopped(pid):
    """Keep a process stopped (SIGSTOP) inside the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
