"""Which experiments run when, and the rounds of one experiment joined into one result. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import fields, replace
from random import Random
from typing import TypeVar

import numpy as np

from loadgen.lab.evidence import ExperimentResult, Failures
from loadgen.lab.experiments import Experiment, Sizes
from loadgen.lab.turns import in_turns
from reports.formats.apachebench import AbFailures, AbReport, AbSamples
from reports.merge import merge

_Number = TypeVar("_Number", int, float)


def turns(experiments: Iterable[Experiment], sizes: Sizes, rng: Random) -> list[tuple[Experiment, ...]]:
    """The experiments in the order in which they run, those of one turn on the same servers.

    Those that run once keep their order, each on servers of its own. The others share servers with those of the same
    arrangement, and in each round the arrangements take turns in a random order. In a turn, loads of one user come first:
    the connections that a larger load leaves open would be counted as theirs.
    """
    rounds: dict[int, list[Experiment]] = {}
    for experiment in experiments:
        rounds.setdefault(experiment.rounds or sizes.rounds, []).append(experiment)
    found: list[tuple[Experiment, ...]] = [(experiment,) for experiment in rounds.pop(1, ())]
    for count, some in rounds.items():
        order = in_turns(_arrangements(some), count, rng)
        found += [tuple(sorted(in_turns(turn, 1, rng), key=lambda e: e.users != 1)) for turn in order]
    return found


def _arrangements(experiments: Iterable[Experiment]) -> list[list[Experiment]]:
    found: dict[object, list[Experiment]] = {}
    for e in experiments:
        key = (e.strategy, e.servers, tuple(e.settings.items()), e.pgbouncer, e.memory_mb)
        found.setdefault(key, []).append(e)
    return list(found.values())


def together(earlier: ExperimentResult, later: ExperimentResult) -> ExperimentResult:
    """Two rounds of an experiment as one result: all requests, the seconds and CPU of both, and the higher peak."""
    if not later.report.periods:
        return replace(earlier, partial=earlier.partial or later.partial)
    report = merge([earlier.report, later.report])
    samples = ab = None
    if earlier.samples is not None and later.samples is not None:
        samples = _joined(earlier.samples, later.samples)
        ab = AbReport.of(samples)
        if report.extras is not None:
            report = replace(report, extras=replace(report.extras, ab=ab.to_json()))
    return replace(
        earlier,
        report=report,
        ab=ab,
        samples=samples,
        wall_s=earlier.wall_s + later.wall_s,
        peak_backends=max(earlier.peak_backends, later.peak_backends),
        servers_cpu_s=earlier.servers_cpu_s + later.servers_cpu_s,
        database_cpu_s=_sum(earlier.database_cpu_s, later.database_cpu_s),
        pgbouncer_cpu_s=_sum(earlier.pgbouncer_cpu_s, later.pgbouncer_cpu_s),
        failures=Failures(
            dict(Counter(earlier.failures.by_kind) + Counter(later.failures.by_kind)),
            earlier.failures.example or later.failures.example,
        ),
        others_share=_mean_share(earlier, later),
        clicks_recorded=_sum(earlier.clicks_recorded, later.clicks_recorded),
        partial=earlier.partial or later.partial,
    )


def _joined(a: AbSamples, b: AbSamples) -> AbSamples:
    return replace(
        a,
        time_taken_s=a.time_taken_s + b.time_taken_s,
        connect_us=np.concatenate((a.connect_us, b.connect_us)),
        waiting_us=np.concatenate((a.waiting_us, b.waiting_us)),
        total_us=np.concatenate((a.total_us, b.total_us)),
        started_us=None
        if a.started_us is None or b.started_us is None
        else np.concatenate((a.started_us, b.started_us)),
        total_bytes=a.total_bytes + b.total_bytes,
        html_bytes=a.html_bytes + b.html_bytes,
        failures=AbFailures(*(getattr(a.failures, f.name) + getattr(b.failures, f.name) for f in fields(AbFailures))),
        write_errors=a.write_errors + b.write_errors,
        non_2xx=a.non_2xx + b.non_2xx,
        keep_alive=_sum(a.keep_alive, b.keep_alive),
        body_sent_bytes=_sum(a.body_sent_bytes, b.body_sent_bytes),
        answered=a.answered + b.answered,
    )


def _mean_share(a: ExperimentResult, b: ExperimentResult) -> float | None:
    """The share of the CPU that other programs used, over both rounds."""
    if a.others_share is None or b.others_share is None:
        return None
    return (a.others_share * a.wall_s + b.others_share * b.wall_s) / (a.wall_s + b.wall_s)


def _sum(a: _Number | None, b: _Number | None) -> _Number | None:
    return None if a is None or b is None else a + b
