"""C.fairness: ten connections, a query of 5 ms, more users than connections: who waits, and for how long.

QueuePool and the fair pool take turns in random order, so that other work of the machine affects both alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from urllib.parse import quote

from loadgen.closed import Workload
from loadgen.environment import TREE
from loadgen.http.route import Origin
from loadgen.lab.evidence import Fairness
from loadgen.lab.stack import ServerProgram, Servers
from loadgen.lab.turns import in_turns
from loadgen.runner import ClosedResult, Interrupted, Live, run_ab
from reports import names
from reports.formats.apachebench import AbReport
from reports.merge import merge

ID = "C.fairness"
STRATEGIES = ("queue", "fair")
USERS = (20, 100, 400)
CONNECTIONS = 10
_ROUND_S = 3.0


def program() -> ServerProgram:
    """The service of `hold.py`, under the worker that serves this project's service.

    That worker spends little CPU on reading HTTP, so the pool is a larger part of the times measured.
    """
    own_worker = ("--worker-class", "wsgi.worker.Worker")
    configuration = Path(__file__).with_name("app_conf.py")
    return ServerProgram(configuration, "loadgen.lab.hold:create_app()", TREE, options=own_worker)


def with_pool(database_url: str, strategy: str, **parameters: object) -> str:
    """The database's URL with the engine plugin and its pool added."""
    url = database_url.replace("postgresql://", "postgresql+psycopg2://", 1)
    pairs = {"plugin": "poolbench", "pool": strategy, **parameters}
    query = "&".join(f"{name}={quote(str(value))}" for name, value in pairs.items())
    return f"{url}{'&' if '?' in url else '?'}{query}"


def run(database_url: str, folder: Path, rounds: int, live: Live, rng: Random) -> Iterator[Fairness]:
    """Runs the experiment; yields each cell when its rounds are over. Raises Interrupted, StackError."""
    with ExitStack() as running:
        servers = {
            strategy: running.enter_context(
                Servers(
                    program(),
                    1,
                    {"DATABASE_URL": with_pool(database_url, strategy, pool_size=CONNECTIONS, max_overflow=0)},
                    folder / f"{ID}.{strategy}.log",
                )
            )
            for strategy in STRATEGIES
        }
        for users in USERS:
            runs: dict[str, list[ClosedResult]] = {strategy: [] for strategy in STRATEGIES}
            for strategy in in_turns(STRATEGIES, rounds, rng):
                runs[strategy].append(_one(servers[strategy], users, live))
            for strategy, done in runs.items():
                yield _cell(strategy, users, done)


def _one(servers: Servers, users: int, live: Live) -> ClosedResult:
    origin = Origin("http", "127.0.0.1", servers.port)
    done = run_ab(Workload(origin, "/", 10**9, users, _ROUND_S, keep_alive=True, timeout_s=60.0), live)
    if done.signal is not None:
        raise Interrupted(done.signal)
    return done


def _cell(strategy: str, users: int, runs: list[ClosedResult]) -> Fairness:
    merged = merge([run.report for run in runs])
    total = merged.aggregate
    rates = [AbReport.of(run.samples).requests_per_second or 0.0 for run in runs]
    return Fairness(
        strategy,
        users,
        merged,
        sum(rates) / len(rates),
        total.sketches[names.INTENDED],
        total.sketches[f"{names.SERVER}pool"],
        tuple(n for run in runs for n in run.served),
        tuple(run.report for run in runs),
    )
