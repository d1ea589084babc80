"""The experiments of the sources A and B (`findings.PUBLICATIONS`) as values, in order, in published sizes or smaller ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SOURCE_REQUESTS = 10_000
"""Requests in each of source B's tests."""

SOURCE_PHASE_S = 30
"""Duration of source A's phases."""

ARRIVAL_RATE = 600
"""New virtual users a second in source A."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each experiment is run. A test of source B ends after `requests` or `ab_s`, whichever comes first."""

    requests: int = SOURCE_REQUESTS
    ab_s: float | None = None
    phase_s: int = SOURCE_PHASE_S
    rounds: int = 1
    """How often an experiment of the sources is run; with more than once, all of them take turns in random order."""


FULL = Sizes()
BRIEF = Sizes(ab_s=0.6, phase_s=1, rounds=3)
BRIEF_BY_NAME = Sizes(ab_s=2.0, phase_s=5, rounds=3)
"""Sizes of the groups that run by name only, whose experiments have numbers of rounds of their own."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One load on one arrangement of servers. Without a `script` it is an ab-like test of `path` by `users`."""

    id: str
    title: str
    strategy: str
    servers: int
    settings: Mapping[str, str] = field(default_factory=dict)
    """DB_POOL_… settings of the service, by name."""
    users: int = 0
    script: str | None = None
    """File name of an Artillery script in `loadgen/lab/scripts`."""
    path: str = "/health"
    """Path that an ab-like test gets."""
    published: str | None = None
    """Id of the published report that this experiment is compared with."""
    only_full: bool = False
    """Whether a brief session leaves this experiment out."""
    pgbouncer: int = 0
    """Server connections of a PgBouncer between the servers and the database; 0: no PgBouncer."""
    rounds: int = 0
    """Number of rounds; with more than one, experiments take turns. 0: as the sizes say."""
    memory_mb: int = 0
    """Limit of the memory of a database of this experiment's own; 0: no limit, and the database of the session."""


_ONE_SHARED_POOL = {"DB_POOL_SIZE": "20", "DB_POOL_RECYCLE": "3600", "DB_POOL_MIN": "5", "DB_POOL_IDLE": "1800"}
_SOURCE_B: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("B.1", "null", "a connection per request", {}),
    ("B.2", "per-request", "a pool per request: 5 connections opened at once", {"DB_POOL_MIN": "5"}),
    ("B.3", "queue", "one shared pool of 20", _ONE_SHARED_POOL),
    ("B.4", "fair", "one shared fair pool of 20", _ONE_SHARED_POOL),
)


def experiments(servers: int = 4) -> tuple[Experiment, ...]:
    """All experiments of both sources. Those of source A use `servers` servers, those of source B one."""
    of_b = [
        Experiment(f"{group}.c{users}", f"{title}, {_people(users)}", strategy, 1, settings, users=users,
                   published=f"{'B.3' if group == 'B.4' else group}.c{users}")
        for group, strategy, title, settings in _SOURCE_B
        for users in (1, 100)
    ]  # fmt: skip
    ten = {"DB_POOL_SIZE": "10"}
    of_a = [
        Experiment("A.pool10", f"{servers} servers with 10 connections each", "queue", servers, ten,
                   script="pool10.yml", published="A.pool10"),
        Experiment("A.pool10.null", f"the same load, {servers} servers, a connection per request", "null", servers,
                   script="pool10.yml", published="A.pool10"),
        Experiment("A.analytics", f"the nested object, {servers} servers with 10 connections each", "queue", servers,
                   ten, script="analytics.yml", published="A.analytics"),
        Experiment("A.nested.c1", f"the nested object, {servers} servers with 10 connections each, 1 user", "queue",
                   servers, ten, users=1, path="/links/seed1/analytics"),
        Experiment("A.plain.c1", f"the link alone, {servers} servers with 10 connections each, 1 user", "queue",
                   servers, ten, users=1, path="/links/seed1"),
        Experiment("A.pool10.fair", f"{servers} servers with 10 connections each, lent fairly", "fair", servers, ten,
                   script="pool10.yml", published="A.pool10", only_full=True),
        Experiment("A.analytics.fair", f"the nested object, {servers} servers with 10 connections each, lent fairly",
                   "fair", servers, ten, script="analytics.yml", published="A.analytics", only_full=True),
    ]  # fmt: skip
    return (*of_b, *of_a)


MEMORY_LIMIT_MB = 512
"""Memory that source A's database had."""


# Rounds of each experiment of group P.
_ROUNDS = 3


def more_experiments(servers: int = 4) -> tuple[Experiment, ...]:
    """Experiments that run only when they are asked for by name.

    Group P: loads with and without PgBouncer, in turns. Group M: source A's nested object from a database under source A's
    memory limit, and in the end under half of it.
    """
    ways = (("null", "null", "a connection per request through PgBouncer", True),
            ("fair", "fair", "a fair pool through PgBouncer", True),
            ("direct", "fair", "a fair pool, direct", False))  # fmt: skip
    of_p = [
        Experiment(f"P.{name}.c{users}", f"{title}, {_people(users)}", strategy, 1,
                   _ONE_SHARED_POOL if strategy == "fair" else {}, users=users, pgbouncer=20 * through, rounds=_ROUNDS)
        for users in (1, 100)
        for name, strategy, title, through in ways
    ]  # fmt: skip
    of_p += [
        Experiment(f"P.A.{name}", f"{servers} servers, {title}", strategy, servers,
                   {"DB_POOL_SIZE": "10"} if strategy == "fair" else {}, script="pool10.yml", pgbouncer=10 * servers * through,
                   rounds=_ROUNDS)
        for name, strategy, title, through in ways
    ]  # fmt: skip
    of_m = [_limited(servers, size, MEMORY_LIMIT_MB, f"M.pool{size}") for size in (5, 10, 20, 40)]
    of_m.append(_limited(servers, 40, MEMORY_LIMIT_MB // 2, "M.pool40.half"))
    return (*of_p, *of_m)


def _limited(servers: int, size: int, memory_mb: int, name: str) -> Experiment:
    """An experiment with limited memory. All connections are opened and every request may wait, so that only memory differs."""
    settings = {"DB_POOL_SIZE": str(size), "DB_POOL_MIN": str(size), "DB_POOL_MAX_WAITING": "1000"}
    title = f"the nested object, {servers} servers with {size} connections each, database in {memory_mb} MB"
    return Experiment(name, title, "fair", servers, settings, script="analytics.yml", memory_mb=memory_mb, rounds=1)


# Usual requests per second on two cores, by strategy, to say how long an experiment may take.
_USUAL_RATES = {"null": 150.0, "per-request": 40.0}
# Time to start and stop the servers, and to fill the database.
_AROUND_S = 2.0


def expected_s(turn: Iterable[Experiment], sizes: Sizes) -> float:
    """About how long experiments that share their servers take, in seconds; shown to the user."""
    return _AROUND_S + sum(_under_load_s(experiment, sizes) for experiment in turn)


def _under_load_s(experiment: Experiment, sizes: Sizes) -> float:
    rate = _USUAL_RATES.get(experiment.strategy, 1000.0)
    if experiment.script is not None:
        planned = ARRIVAL_RATE * sizes.phase_s
        return sizes.phase_s + min(max(0.5, planned / rate - sizes.phase_s), 10.0)
    full_s = sizes.requests / rate
    return full_s if sizes.ab_s is None else min(full_s, max(sizes.ab_s, experiment.users / rate))


def chosen(
    known: Iterable[Experiment], only: Iterable[str] = (), strategies: Iterable[str] = (), *, full: bool = True
) -> tuple[Experiment, ...]:
    """The experiments whose id is, or begins with, one of `only` (`B`, `B.3`, `A.pool10`) and that use one of `strategies`.

    An empty choice means all. Raises ValueError for a name that fits nothing.
    """
    only = tuple(only)
    everything = tuple(e for e in known if full or only or not e.only_full)
    for wanted in only:
        if not any(_named(e, wanted) for e in everything):
            raise ValueError(f"no experiment, group or publication {wanted!r}; loadgen lab --list names all")
    by_id = [e for e in everything if not only or any(_named(e, wanted) for wanted in only)]
    found = tuple(e for e in by_id if not strategies or e.strategy in strategies)
    if not found:
        raise ValueError(f"no experiment uses the strategies {', '.join(strategies)}")
    return found


def _named(experiment: Experiment, wanted: str) -> bool:
    return experiment.id == wanted or experiment.id.startswith(f"{wanted}.")


def _people(users: int) -> str:
    return "1 user" if users == 1 else f"{users} users at once"
