"""The capacity of a user's own application, by strategy and pool size: a search for each, with a fresh database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from loadgen.capacity import find_capacity
from loadgen.lab.own_app import NothingAnsweredError, OwnAppOptions, arranged, judge, own_script, prove, unanswered
from loadgen.runner import Live, ScriptRun
from loadgen.sizing.capacity import Capacity, Step, Target


@dataclass(frozen=True, slots=True)
class Search:
    """How each search is done. `first_rate` None: that of the script's first phase with a rate, else 10."""

    target: Target
    first_rate: float | None
    precision: float
    max_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class AppCapacity:
    """What one strategy holds; `size` is None for the pool that the application itself configures."""

    strategy: str
    size: int | None
    capacity: Capacity


def run(
    options: OwnAppOptions,
    sizes: Sequence[int],
    search: Search,
    say: Callable[[str], None],
    tell: Callable[[Step], None],
    live: Live,
) -> Iterator[tuple[AppCapacity, ScriptRun]]:
    """Search once for each strategy and size. Yields what each search found, and its run; one that a signal ended is the last.

    Raises as `own_app.run` does, and SectionFailed; Interrupted where a signal came between two searches.
    """
    # Read now, so that a mistake in the script is reported before anything is started.
    for warning in own_script(options, "http://127.0.0.1:1").warnings:
        say(f"Warning: {warning}")
    with arranged(options, say) as arrangement:
        for strategy, size in arrangements(options.strategies, sizes):
            named = strategy if size is None else f"{strategy} with {size} connections for each server"
            say(f"{options.application.name}, {named}")
            settings = dict(options.settings) if size is None else {**options.settings, "DB_POOL_SIZE": str(size)}
            log = options.out / "logs" / f"capacity-{strategy}-{size or 'own'}.log"
            with arrangement.served(strategy, settings, log) as served:
                try:
                    prove(served, options, live)
                except NothingAnsweredError as error:
                    application = f"{options.application.name} with {named}"
                    raise unanswered(
                        application,
                        log,
                        arrangement.masked,
                        error.counters,
                        has_setup=bool(options.application.setup),
                    ) from None
                capacity, done = find_capacity(
                    own_script(options, served.servers.url),
                    search.target,
                    live,
                    lambda _: None,
                    tell,
                    first_rate=search.first_rate,
                    precision=search.precision,
                    max_s=search.max_s,
                    seed=search.seed,
                )
                if done.signal is None:
                    judge(served, options, done.report.aggregate.counters)
            yield AppCapacity(strategy, size, capacity), done
            if done.signal is not None:
                break


def arrangements(strategies: Sequence[str], sizes: Sequence[int]) -> Iterator[tuple[str, int | None]]:
    """Each strategy and pool size to search for. The size is None where it is none of ours to choose."""
    for strategy in strategies:
        if strategy in {"own", "null"}:
            yield strategy, None
        else:
            yield from ((strategy, size) for size in sizes)
